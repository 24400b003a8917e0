"""A method by its name, or one given whole, with settings that fit it."""

from __future__ import annotations

import ast
import math
from dataclasses import fields
from typing import Any

from ..checking import check_kind, check_number, check_whole, is_dataclass
from ..errors import SettingError, TrainingError, UnknownName, brief
from .base import METHODS, Method, complete, does_something


def get_method(method: str | Method, **hyperparameters) -> Method:
    """A method by name with its published hyper-parameters, or as given."""
    method = _by_name(method, hyperparameters) if isinstance(method, str) else _given_whole(method, hyperparameters)
    if method.t_min >= method.t_max:
        raise SettingError(f"t_min of {method.name} must be below its t_max, but they are {method.t_min} and {method.t_max}.")
    return method


def named(text: str) -> Method:
    """A method with settings, in one line: "dimum alternative=mixed"."""
    name, *settings = text.split() or [text]
    return get_method(name, **dict(map(setting, settings)))


def setting(text: str) -> tuple[str, Any]:
    """name=value as a pair; numbers become numbers, but for the name of an anchor: a class may be called 3, and not be number 3."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise SettingError(f"A setting of a method is NAME=VALUE, such as weight=2.0, not {text!r}.")
    try:
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value
    return name, value if name == "anchor" and isinstance(read, int) else read


def _by_name(method: str, hyperparameters: dict) -> Method:
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    _check_settings(METHODS[method], hyperparameters)
    try:
        return METHODS[method](**hyperparameters)
    except TypeError as error:
        known = ", ".join(f.name for f in sorted(fields(METHODS[method]), key=lambda f: f.kw_only))
        wrong = ", ".join(hyperparameters)
        raise TrainingError(f"{method} has the hyper-parameters {known}, but was given {wrong}.") from error


def _given_whole(method: object, hyperparameters: dict) -> Method:
    whole = is_dataclass(type(method))
    if whole:
        complete(type(method))
    if not whole or not does_something(type(method)):
        raise SettingError(f"method must be the name of a method, or a frozen dataclass with a `loss`, not {brief(method)}.")
    if hyperparameters:
        names = ", ".join(hyperparameters)
        raise SettingError(f"{names}: a method that is given whole has its hyper-parameters already; is a name misspelt?")
    _check_settings(method, vars(method))
    return method


def _check_settings(method: Method | type[Method], settings: dict) -> None:
    """Refuse a hyper-parameter that is of another kind than its default, or outside its range."""
    for each in fields(method):
        if each.name not in settings:
            continue
        value, said = settings[each.name], f"{each.name} of {method.name}"
        if isinstance(each.default, (bool, str)):
            check_kind(said, value, type(each.default), "a word" if isinstance(each.default, str) else "True or False")
        elif isinstance(each.default, int):
            most = each.metadata.get("high", math.inf)
            check_whole(said, value, each.metadata.get("low", 1), None if most == math.inf else most)
        elif isinstance(each.default, float):
            check_number(said, value, each.metadata.get("low", -math.inf), each.metadata.get("high", math.inf))
