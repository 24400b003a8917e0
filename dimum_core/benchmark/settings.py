"""What each setting of a plan may hold; every check adds its sentences to a list of all that is wrong with the plan."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from ..attacks import AUXILIARY
from ..attacks.base import label_of
from ..errors import DimumError, SettingError
from ..training import OPTIMIZER_STATE, TrainConfig
from ..unlearning import METHODS, Method, get_method
from .plan import CHECKPOINT, CONTROLS, Plan, settings_of

LISTS = ("seeds", "controls", "attack_rates", "optimizers", "auxiliaries", "plugins")  # settings that are dimensions of the grid
AUXILIARIES = (*AUXILIARY, "synthetic by itself", "few-shot")
Check = tuple[Callable[[Any], bool], str]


def is_number(value, kind=(int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)  # to Python, True is 1


def is_whole(value, least: int = 1) -> bool:
    return is_number(value, int) and value >= least


def are_steps(value) -> bool:
    """Whole numbers from 1 on, each larger than the one before."""
    return isinstance(value, (list, tuple)) and all(map(is_whole, value)) and bool(value) and list(value) == sorted(set(value))


def is_rate(value) -> bool:
    return is_number(value) and 0 < value < 1


def is_optimizer(value) -> bool:
    return isinstance(value, str) and value in OPTIMIZER_STATE


def is_auxiliary(name) -> bool:
    share = re.fullmatch(r"(\w+) (\d+(?:\.\d+)?) %", str(name))
    if share:
        return share[1] in AUXILIARY and 0 < float(share[2]) <= 100
    return str(name) in AUXILIARIES[:-1] or re.fullmatch(r"few-shot [1-9]\d*", str(name)) is not None


CHECKS: dict[str, Check] = {  # of each entry of a list, and of each setting that is none: (whether it is right, what it should be)
    "seeds": (partial(is_whole, least=0), "whole numbers of at least 0"),
    **dict.fromkeys(("attack_steps", "batch_size", "samples", "check_every"), (is_whole, "one whole number of at least 1")),
    "points": (lambda value: is_whole(value, 2) or are_steps(value), "one whole number of at least 2, or a list of steps in order"),
    "learning_rate": (is_rate, "one number between 0 and 1"),
    "attack_rates": (is_rate, "numbers between 0 and 1"),
    "optimizers": (is_optimizer, " or ".join(OPTIMIZER_STATE)),
    "controls": (lambda value: value in CONTROLS, " or ".join(CONTROLS)),
    "auxiliaries": (is_auxiliary, f"{', '.join(AUXILIARIES)}, with a share such as 'retain 10 %', or 'few-shot 8'"),
}


def as_list(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def number_hint(value) -> str:
    """How to write a number that YAML takes for a word, such as 1e-4: it needs a point, and a sign before the exponent."""
    parts = re.fullmatch(r"([-+]?\d+)(\.\d*)?e([-+]?)(\d+)", value, re.IGNORECASE) if isinstance(value, str) else None
    if not parts or float(value) % 1 == 0:  # a whole number is written without an exponent
        return ""
    return f" (in YAML that is a word: write {parts[1]}{parts[2] or '.0'}e{parts[3] or '+'}{parts[4]})"


def unknown_setting(name, value) -> str:
    if name == "evaluations":
        points = value + 1 if is_number(value, int) else "one more"
        return f"`evaluations: {value}` is called `points: {points}` now, with the point before the attack counted, too"
    return f"unknown setting {name!r}"


def check_values(values: dict, wrong: list[str]) -> None:
    """values: what the plan sets, with tuples for LISTS; defaults are right."""
    for name, (is_right, meaning) in CHECKS.items():
        if name not in values:
            continue
        entries = values[name] if name in LISTS else [values[name]]
        wrong += [f"{name} should hold {meaning}, not {entry!r}{number_hint(entry)}" for entry in entries if not is_right(entry)]
    for optimizer in filter(is_optimizer, values.get("optimizers", ())):
        try:
            TrainConfig(optimizer=optimizer)
        except SettingError as error:  # a package that it needs is not installed
            wrong.append(sentence(error))
    steps, points = values.get("attack_steps", Plan.attack_steps), values.get("points", Plan.points)
    if is_whole(steps) and are_steps(points) and points[-1] > steps:
        wrong.append(f"a curve of {steps} attack_steps has no point after {points[-1]}")
    if is_whole(steps) and is_whole(points, 2) and steps % (points - 1):
        wrong.append(f"{points} points of a curve, at equal distances, take a multiple of {points - 1} attack_steps, not {steps}")


def check_labels(values: dict, wrong: list[str]) -> None:
    """Two entries of the same name would be taken for one, and a method named like a control for that control."""
    names = {key: values[key] for key in LISTS if key in values}
    names |= {key: [entry["label"] for entry in values[key]] for key in ("methods", "budgets")}
    for key, entries in names.items():
        remedy = " (tell them apart by `label`)" if key == "methods" else ""
        for entry, count in sorted(Counter(map(str, entries)).items()):
            if count > 1:
                wrong.append(f"{key} holds {entry!r} twice{remedy}")
    wrong += [f"a method cannot be called {label!r}: that is a control" for label in names["methods"] if label in CONTROLS]


def check_snapshots(values: dict, wrong: list[str]) -> None:
    """An edit is made at once, so that there is nothing to keep along the way."""
    edits = [entry["label"] for entry in values["methods"] if METHODS.get(entry["method"], Method).edit is not Method.edit]
    if edits and any("snapshots" in budget for budget in values["budgets"]):
        wrong.append(f"{' and '.join(edits)} edits the weights at once and has no snapshots: put it into a plan without them")


def check_method(entry, wrong: list[str]) -> dict | None:
    """An entry of `methods` as a mapping with its label, or None if it is wrong."""
    entry = {"method": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not ({"method", CHECKPOINT} & set(entry)):
        wrong.append(f"a method is a name, or a mapping with `method` or `checkpoint`, not {entry!r}")
        return None
    if CHECKPOINT in entry:
        if set(entry) != {CHECKPOINT, "label"}:
            wrong.append(f"a method by its checkpoint has `checkpoint` and `label`, and no more, not {entry!r}")
            return None
        return {"method": CHECKPOINT, "label": str(entry["label"]), CHECKPOINT: str(entry[CHECKPOINT])}
    settings = settings_of(entry)
    try:
        get_method(str(entry["method"]), **settings)
    except DimumError as error:
        wrong.append(sentence(error) + "".join(map(number_hint, settings.values())))
        return None
    label = entry.get("label") or label_of(entry["method"], settings)
    return {"method": entry["method"], "label": str(label), **settings}


def check_budget(entry, wrong: list[str]) -> dict | None:
    """An entry of `budgets` as a mapping with its label, or None if it is wrong."""
    entry = {"steps": entry} if is_number(entry, int) else entry
    steps = entry.get("steps") if isinstance(entry, dict) else None
    if not is_whole(steps):
        wrong.append(f"a budget is a number of steps, or a mapping with `steps` of at least 1, not {entry!r}")
        return None
    until, snapshots = entry.get("until"), entry.get("snapshots")
    right = until is None or (is_number(until) and 0 < until <= 1)
    if set(entry) - {"steps", "until", "snapshots", "label"} or not right:
        wrong.append(
            f"a budget has `steps`, `until` (above 0, at most 1) or `snapshots`, and `label`, not {entry!r}{number_hint(until)}"
        )
        return None
    if snapshots is not None and (until is not None or not are_steps(snapshots) or snapshots[-1] > steps):
        wrong.append(f"snapshots of a budget are a list of its steps in order, without `until`, not {entry!r}")
        return None
    label = entry.get("label") or (f"{steps} steps" if until is None else f"until {until:g}")
    return {"steps": steps, "until": until, "label": str(label)} | ({"snapshots": tuple(snapshots)} if snapshots else {})


def sentence(error: DimumError) -> str:
    """An error's message as one of several."""
    return str(error).rstrip(".")
