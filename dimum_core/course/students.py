"""Students' processes, seen from the grader: each is fresh, fenced in, and gone when it has been judged."""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ..answering import wire
from ..errors import DimumError

ROOT = Path(__file__).resolve().parents[2]
SECRET = ["/proc", str(Path(__file__).parent), *(str(ROOT / name) for name in ("notebooks", "tests", "build", "docs", ".git"))]
STARTING = 300.0  # seconds that importing the libraries may take


class Parent:
    """The process that forks the students'; it knows nothing of what is graded. See dimum_core.answering.__main__."""

    program = ("-m", "dimum_core.answering")

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        self.home = Path(self.folder.name) / "home"  # leads to the folder of the student whose turn it is
        self._lead_home_to(Path(self.folder.name))
        environment = {
            "PATH": os.environ.get("PATH", ""), "HOME": str(self.home), "TMPDIR": str(self.home), "MPLCONFIGDIR": str(self.home),
            "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg",
            "HF_HUB_OFFLINE": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's: nothing else runs while it forks
        }
        self.control, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *self.program, str(theirs.fileno())], pass_fds=[theirs.fileno()],
                cwd=self.folder.name, env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
        atexit.register(self.close)
        self.control.settimeout(STARTING)
        if self._reply() != b"ready":
            self.close()
            raise DimumError("The process for students' code did not start: `python -c 'import torch, diffusers'` may say why.")

    def _reply(self) -> bytes:
        try:
            return self.control.recv(16)
        except OSError:
            return b""

    def _lead_home_to(self, folder: Path) -> None:
        link = self.home.with_name("next")
        link.symlink_to(folder)
        link.replace(self.home)

    def start(self, folder: str, reads: int, writes: int) -> None:
        """A student's process, in this folder, with these ends of two pipes."""
        self._lead_home_to(Path(folder))
        socket.send_fds(self.control, [os.fsencode(folder)], [reads, writes])

    def end(self) -> None:
        """Kill the student's process, with all that it started; it is gone when this returns."""
        with contextlib.suppress(OSError):  # the parent itself has gone
            self.control.sendall(b".")
        self._reply()

    def close(self) -> None:
        self.control.close()
        self.process.wait()
        self.folder.cleanup()


_parent: Parent | None = None


def running_parent() -> Parent:
    global _parent
    if _parent is None or _parent.process.poll() is not None:
        _parent = Parent()
    return _parent


@contextlib.contextmanager
def student_process(order: dict, starting: float) -> Iterator[wire.Line]:
    """A fresh process that has been given the submission, to be read within `starting` seconds; killed when done."""
    parent = running_parent()
    to_student, from_student = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        try:
            parent.start(folder, to_student[0], from_student[1])
            os.close(to_student[0])
            os.close(from_student[1])
            line = wire.Line(from_student[0], to_student[1], time.monotonic() + starting)
            line.send(order)
            yield line
        finally:
            parent.end()
            os.close(to_student[1])
            os.close(from_student[0])


def readable_paths(secret: list[str]) -> list[str]:
    """The largest folders and files that together hold everything but the secret ones: Linux wants to be told what is allowed."""
    hidden = {Path(path).resolve() for path in secret}
    above = {parent for path in hidden for parent in path.parents}
    try:
        children = [child for folder in above if not hidden & {folder, *folder.parents} for child in os.scandir(folder)]
    except OSError:  # of a folder that cannot be listed, not all would be found
        return ["/"]
    return [child.path for child in children if not child.is_symlink() and Path(child.path) not in above | hidden]


def needed_to_run(path: Path) -> bool:
    """Whether Python or this package lies in a folder that should be secret."""
    needed = (sys.prefix, sys.base_prefix, Path(__file__).parents[1])
    return any(Path(part).resolve().is_relative_to(path.resolve()) for part in needed)


def far_function(line: wire.Line, place: int):
    """A function of the student's process, called from here. What it calls back is run here."""

    def call(*arguments):
        own: list = []
        line.send({"call": place, "arguments": wire.encode(list(arguments), own)})
        while True:
            answer = line.receive()
            if "callback" not in answer:
                break
            try:
                arguments, named = wire.decode(answer["arguments"]), wire.decode(answer["named"])
                reply = {"result": wire.encode(own[int(answer["callback"])](*arguments, **named))}
            except Exception as error:  # it is raised where the call was made
                reply = {"wrong": f"{type(error).__name__}: {error}"[:300]}
            line.send(reply)
        if "raised" in answer:
            raise RuntimeError(str(answer["raised"]))
        return wire.decode(answer["result"])

    call.values_only = True  # a gradient stays in its process
    return call
