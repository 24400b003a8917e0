"""A results folder: one folder a finished cell, written aside and renamed, so that what is there is whole."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from ..errors import FileError
from ..files import check_writable, locked, write_atomically

RESULT = "result.json"


def cell_folder(out: Path, cell: str) -> Path:
    return Path(out) / "cells" / cell


def is_done(out: Path, cell: str) -> bool:
    return (cell_folder(out, cell) / RESULT).is_file()


def write_cell(out: Path, cell: str, result: dict) -> None:
    """Publish a finished cell. If another run was first, its cell stays."""
    aside = Path(out) / "cells" / f".{cell}.{uuid.uuid4().hex[:12]}"
    try:
        write_atomically(aside / RESULT, json.dumps(result, indent=1, sort_keys=True).encode())
        os.rename(aside, cell_folder(out, cell))
    except (OSError, FileError):
        shutil.rmtree(aside, ignore_errors=True)
        if not is_done(out, cell):
            raise


def record_failure(out: Path, cell: str, config: dict, traceback: str) -> None:
    """Raises FileError if not even this can be written: the disk is full, and no other cell would come out."""
    text = json.dumps(config, indent=1, sort_keys=True) + "\n\n" + traceback
    content = text.encode(errors="backslashreplace")  # a path in a traceback may hold bytes that are no text
    write_atomically(Path(out) / "failures" / f"{cell}.txt", content)


def forget_failure(out: Path, cell: str) -> None:
    (Path(out) / "failures" / f"{cell}.txt").unlink(missing_ok=True)


def failures(out: Path) -> list[Path]:
    """Tracebacks of cells that failed, the newest first: whoever looks wants that of the run at hand, not one of last week."""
    written = {}
    for path in (Path(out) / "failures").glob("*.txt"):
        with contextlib.suppress(FileNotFoundError):  # another run on this folder has just mended it
            written[path] = path.stat().st_mtime_ns
    return sorted(written, key=lambda path: (-written[path], path.name))


def prepare(out: Path) -> None:
    """Make sure, before hours of work, that the folder can be written to."""
    check_writable(out)
    (Path(out) / "cells").mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def claim(out: Path, cell: str, wait: bool = False) -> Iterator[bool]:
    """Hold a model for this process, so that another run on the same folder takes the next one; false if another holds it."""
    folder = Path(out) / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / cell, wait) as free:
        yield free
