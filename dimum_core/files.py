"""Files written whole or not at all, folders that can be written to, and the one lock between processes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from .checking import check_kind
from .errors import FileError

ASIDE = ".saving-"  # begins the name of a folder in which a checkpoint is put together
LEFT_BY_PROGRAMS = ("__MACOSX", "Thumbs.db", "desktop.ini")  # by archives of macOS and by Windows, in folders of people
REPLACING = ".replacing-"  # and of that folder while its parts are moved into place: what is there then is no whole checkpoint


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: a kill or a full disk leaves the former content. Raises FileError."""
    try:
        _write_atomically(path, content)
    except (OSError, ValueError) as error:  # a ValueError: what can be no name of a file
        raise unwritten(path, error) from error


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise


def unwritten(path: Path, error: Exception) -> FileError:
    """What to say about a file or a folder that could not be written."""
    reason = getattr(error, "strerror", None) or error
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, None)
    advice = "free some space or choose another folder" if full else "choose another folder, or change who may write there"
    return FileError(f"{path} could not be written ({reason}): {advice}.")


def check_writable(folder: Path) -> None:
    """Find out before the work, not after it, that a folder cannot be written to."""
    check_kind("out", folder, (str, os.PathLike), "a folder")
    probe = Path(folder) / f".writable-{uuid.uuid4().hex}"  # several runs on several machines may ask at once
    try:
        _write_atomically(probe, b"")
    except (OSError, ValueError) as error:
        raise unwritten(folder, error) from error
    probe.unlink(missing_ok=True)


def clear_debris(folder: Path, name: str) -> None:
    """Remove what a process left behind that was killed while it wrote the file `name` or saved a checkpoint.

    It can be as large as those.
    """
    for left in folder.glob(f".{name}.*.tmp"):
        left.unlink(missing_ok=True)
    for left in folder.glob(f"{ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the file `path` for this process; yields false if another holds it and this one does not wait.

    The lock is the kernel's: it goes with the process that held it, and none is left behind by a kill.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
