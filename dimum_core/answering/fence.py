"""A fence around a student's process, against accidents and simple attacks; not a jail.

Limits of memory and time, no new processes, no network, no file outside its own folder written, none of the course's own, of other
students or of the marks read. The hook sees only what Python itself does; for files and programs, Linux's Landlock binds native
code too, where the kernel has it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
import sys
from collections.abc import Callable
from pathlib import Path

FORBIDDEN = ("os.fork", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.kill", "os.chown", "os.link", "os.symlink",
             "subprocess.", "socket.", "ctypes.", "gc.", "signal.", "pty.", "sys._current", "sys.settrace", "sys.setprofile")
SIGNALS_WITHOUT_EVENTS = ("pidfd_open", "pidfd_send_signal")
IN_OWN_FOLDER = ("os.remove", "os.rename", "os.rmdir", "os.chmod", "os.truncate", "os.mkdir", "shutil.")


class NoCourse:
    """Finds nothing of the course, whoever imports it: its modules hold the solutions."""

    @staticmethod
    def find_spec(name: str, *_):
        if name.startswith("dimum_core.course"):
            raise ImportError(f"{name} is not for answers")


def limit(memory: int) -> None:
    """From here on: `memory` bytes more than now, and no large files; cannot be undone within this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0]) if Path("/proc/self/statm").exists() else 0
    if pages:  # elsewhere than on Linux the address space cannot be limited so
        most = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_000_000, 16_000_000))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def fence(secret_folders: list[str], readable_paths: list[str]) -> None:
    """From here on: no event of FORBIDDEN, and no file that is not for answers; cannot be undone within this process."""
    here = os.path.realpath(os.getcwd()) + os.sep
    landlock(here, readable_paths)
    sys.modules["_posixsubprocess"] = None  # starts a process without an event; what subprocess holds of it goes, too
    if "subprocess" in sys.modules:
        vars(sys.modules["subprocess"]).update(_fork_exec=None, _posixsubprocess=None)
    for module in ("os", "posix", "signal", "_signal"):
        for name in SIGNALS_WITHOUT_EVENTS:
            vars(sys.modules[module]).pop(name, None)
    sys.addaudithook(guard(here, tuple(os.path.realpath(folder) + os.sep for folder in secret_folders)))


def guard(here: str, secret: tuple[str, ...]) -> Callable:
    """The hook that refuses events. All it needs is its own: an answer could change what it would look up in a module."""
    changing = os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_CREAT

    def hook(event, arguments, forbidden=FORBIDDEN, own=IN_OWN_FOLDER, real=os.path.realpath, is_folder=os.path.isdir):
        if event.startswith(forbidden) or (event == "object.__setattr__" and arguments[1] == "__code__") or (
            event == "import" and arguments[0] == "_posixsubprocess"
        ):
            raise PermissionError(f"an answer may not do this ({event})")
        if event == "open" and not isinstance(arguments[0], int):
            path, flags = real(os.fsdecode(arguments[0])), arguments[2] or 0
            if (path + os.sep).startswith(secret) and not path.startswith(here):
                raise PermissionError("an answer may not read the course's own files, nor those of others")
            if is_folder(path):  # what is opened relative to a folder would be judged by the wrong path
                raise PermissionError("an answer may not open a folder")
            if flags & changing and not path.startswith((here, "/dev/null")):
                raise PermissionError("an answer may write only in its own folder")
        if event.startswith(own):
            paths = [argument for argument in arguments if isinstance(argument, (str, bytes, os.PathLike))]
            if not all(real(os.fsdecode(path)).startswith(here) for path in paths):
                raise PermissionError("an answer may change only its own folder")

    return hook


def landlock(here: str, readable_paths: list[str]) -> None:
    """Have Linux deny native code, too, what the hook denies; nothing happens on kernels without Landlock.

    Files and programs from version 1 on, connections by TCP from 4, signals to other processes from 6.
    """
    system = ctypes.CDLL(None).syscall
    version = system(444, None, 0, 1) if sys.platform == "linux" else 0
    if version < 1:
        return
    execute, write, read, list_folder, truncate = (1 << bit for bit in (0, 1, 2, 3, 14))
    handled = ((1 << min(12 + version, 15)) - 1) & ~list_folder  # versions 1 to 3 know 13 to 15 rights; imports list folders
    network, scopes, size = 3 * (version >= 4), 3 * (version >= 6), 8 + 8 * (version >= 4) + 8 * (version >= 6)
    rules = system(444, struct.pack("=QQQ", handled, network, scopes), size, 0)
    paths = ["/proc/self", *(f"/proc/{name}" for name in ("cpuinfo", "meminfo", "sys")), *readable_paths]  # /proc: for C libraries
    for path, rights in [(here, ~execute), ("/dev/null", write | truncate), *((path, read) for path in paths)]:
        with contextlib.suppress(OSError):  # it has gone by now
            place = os.open(path, os.O_PATH)
            system(445, rules, 1, struct.pack("=Qi", rights & handled, place), 0)
            os.close(place)
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # no new privileges, which the kernel asks for first
    system(446, rules, 0)
