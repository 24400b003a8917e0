"""Methods in a user's own file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from ..errors import DimumError
from .base import METHODS


def load_plugin(path: Path) -> None:
    """Run a user's own Python file, which registers methods; DimumError if it cannot be run or registers none."""
    if not path.is_file():
        raise DimumError(f"There is no file {path} to take a method from.")
    spec = importlib.util.spec_from_file_location(module_name(path), path)
    if spec is None:
        raise DimumError(f"{path} is not a Python file: its name should end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name(path)] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DimumError(f"{path} could not be run: {type(error).__name__}: {error}.") from error
    if not any(method.__module__ == module_name(path) for method in METHODS.values()):
        raise DimumError(f"{path} registers no method: put @register(NAME) above its class.")


def module_name(path: Path) -> str:
    """Of a user's file: one called random.py is not to stand in the place of Python's own."""
    return f"plugin_{path.stem}"
