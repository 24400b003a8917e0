"""Methods in a user's own file."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import sys
from pathlib import Path

from ..checking import check_kind
from ..errors import DimumError
from .base import METHODS, Method

PREFIX = "plugin_"


def load_plugin(path: str | os.PathLike) -> None:
    """Run a user's own Python file, which registers methods; DimumError if it cannot be run or registers none."""
    check_kind("path", path, (str, os.PathLike), "a Python file, such as 'mine.py'")
    path = Path(path)
    if not path.is_file():
        raise DimumError(f"There is no file {path} to take a method from.")
    spec = importlib.util.spec_from_file_location(module_name(path), path)
    if spec is None:
        raise DimumError(f"{path} is not a Python file: its name should end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name(path)] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except DimumError as error:  # a method that is none: it says itself what to do
        raise DimumError(f"{path}: {error}") from error
    except Exception as error:
        raise DimumError(f"{path} could not be run: {type(error).__name__}: {str(error).rstrip('.')}.") from error
    if not any(method.__module__ == module_name(path) for method in METHODS.values()):
        raise DimumError(f"{path} registers no method: put @register(NAME) above its class.")


def module_name(path: Path) -> str:
    """Of a user's file: one called random.py is not to stand in the place of Python's own."""
    return f"{PREFIX}{path.stem}"


def own_code(method: Method) -> dict[str, str]:
    """A hash of the user's file that a method, or the one under it, came from, comments aside; empty for the package's methods.

    A training that was begun by another version of the file is not resumed: its result would be of neither.
    """
    kinds = [type(each) for each in (method, getattr(method, "under", None)) if each is not None]
    files = [Path(sys.modules[kind.__module__].__file__) for kind in kinds if kind.__module__.startswith(PREFIX)]
    text = "".join(ast.dump(ast.parse(file.read_bytes())) for file in files)
    return {"code": hashlib.blake2b(text.encode(), digest_size=16).hexdigest()} if files else {}
