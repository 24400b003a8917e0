"""The parent of the students' processes: `python -m dimum_core.answering FD`, started by dimum_core.course.students.

It imports the libraries once, and then, as often as it is asked, forks a process that has them at once. Each gets a folder and two
pipes of its own; what was handed in never passes through here, so that one student's process inherits nothing of another's.
`multiprocessing` has a fork server too, but its processes import the main module of whoever grades, and so perhaps the solutions.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import socket
import sys

LIBRARIES = ("torch", "numpy", "pandas", "scipy.stats", "sklearn.neighbors", "matplotlib.pyplot", "tqdm.auto", "diffusers",
             "IPython.core.inputtransformer2", "dimum_core.answering.serve")


def main(control: socket.socket) -> None:
    """One student after another: a folder's name and the ends of two pipes come in, and a byte when the process is to end."""
    sys.path.pop(0)  # the folder it was started in, where answers write
    if sys.platform == "linux":  # on macOS, what their libraries start in the background does not survive a fork
        preload()
    control.sendall(b"ready")
    while True:
        folder, pipes, *_ = socket.recv_fds(control, 4096, 2)
        if not folder:  # the grader has gone
            return
        parent, child = os.getpid(), os.fork()
        if child == 0:
            control.close()
            become_student(parent, os.fsdecode(folder), *pipes)
        for pipe in pipes:
            os.close(pipe)
        control.recv(1)
        end(child)
        with contextlib.suppress(OSError):  # a grader that has gone will not read it
            control.sendall(b"ended")


def preload() -> None:
    for name in LIBRARIES:
        with contextlib.suppress(ImportError):  # it is missing, and may not be needed
            importlib.import_module(name)
    with contextlib.suppress(ImportError):  # on its first call it reads what the fence hides: which libraries are loaded
        from sklearn.neighbors import NearestNeighbors

        NearestNeighbors(n_neighbors=1, algorithm="brute").fit([[0.0]]).kneighbors([[0.0]])
    package = importlib.import_module("dimum_core")
    for name in package.__all__:
        getattr(package, name)


def become_student(parent: int, folder: str, reads: int, writes: int) -> None:
    """Never returns: what comes after an error is not for a student's process."""
    try:
        os.setsid()
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # it ends with its parent, whatever ends that
        if os.getppid() != parent:  # which has ended already
            return
        os.chdir(folder)
        from .serve import serve
        from .wire import Line

        serve(Line(reads, writes))
    finally:
        os._exit(1)


def end(child: int) -> None:
    """Kill a process and all that it started, and wait for it; until then its number belongs to nobody else."""
    for kill in (os.killpg, os.kill):  # it may not lead a group yet
        with contextlib.suppress(OSError):
            kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
