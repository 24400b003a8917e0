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
_CODE: dict[str, str] = {}  # of each module that is loaded, as it was then: the file may be another by now


def load_plugin(path: str | os.PathLike) -> None:
    """Run a user's own Python file, which registers methods; DimumError if it cannot be run or registers none. What an earlier
    version of it had registered is forgotten."""
    check_kind("path", path, (str, os.PathLike), "a Python file, such as 'mine.py'")
    path = Path(path)
    if not path.is_file():
        raise DimumError(f"There is no file {path} to take a method from.")
    name = module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise DimumError(f"{path} is not a Python file: its name should end in .py.")
    for former in [each for each, method in METHODS.items() if method.__module__ == name]:
        del METHODS[former]
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        _CODE[name] = ast.dump(ast.parse(path.read_bytes(), str(path)))
        spec.loader.exec_module(module)
    except DimumError as error:  # a method that is none: it says itself what to do
        raise DimumError(f"{path}: {error}") from error
    except Exception as error:
        raise DimumError(f"{path} could not be run: {type(error).__name__}: {str(error).rstrip('.')}.") from error
    if not any(method.__module__ == name for method in METHODS.values()):
        raise DimumError(f"{path} registers no method: put @register(NAME) above its class.")


def module_name(path: Path) -> str:
    """Of a user's file: one called random.py is not to stand in the place of Python's own, nor in that of another's random.py."""
    place = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=4).hexdigest()
    return f"{PREFIX}{path.stem}_{place}"


def own_code(method: Method) -> dict[str, str]:
    """A hash of the users' files that a method, and those under it, came from, comments aside; empty for the package's methods.

    A training that was begun by another version of a file is not resumed: its result would be of neither.
    """
    text, each = "", method
    while each is not None:
        text, each = text + _CODE.get(type(each).__module__, ""), getattr(each, "under", None)
    return {"code": hashlib.blake2b(text.encode(), digest_size=16).hexdigest()} if text else {}
