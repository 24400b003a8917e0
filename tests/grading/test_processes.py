"""Students' processes: fresh, apart from each other, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from dimum_core.course import grade, students
from dimum_core.errors import DimumError

from .handing_in import ENDLESS, marks

ORDER = {
    "pieces": [], "student": "", "memory": 10**9, "questions": {"dict": [["01.1", {"dict": []}]]}, "secret": [], "readable": ["/"],
    "seconds": 5.0, "reading": 5.0,
}


def test_one_students_process_knows_nothing_of_anothers_and_of_the_grader(tmp_path, monkeypatch):
    """What a student leaves in modules, in the environment and in the folder is not there for the next; no pipe but its own two."""
    monkeypatch.setenv("SECRET_OF_THE_GRADER", "hunter2")
    leaves = """
        import os, tempfile, torch, dimum_core
        torch.left = dimum_core.left = 1
        os.environ["LEFT"] = "1"
        for folder in (".", os.path.expanduser("~"), tempfile.gettempdir()):
            open(os.path.join(folder, "left"), "w").write("1")
        check("01.1", 259)
    """
    asks = """
        import os, sys, tempfile, torch, dimum_core
        def opened(number):
            try:
                return os.fstat(number) and True
            except OSError:
                return False
        left = [hasattr(torch, "left"), hasattr(dimum_core, "left"), "LEFT" in os.environ, "SECRET_OF_THE_GRADER" in os.environ,
                *(os.path.exists(os.path.join(folder, "left")) for folder in (".", os.path.expanduser("~"), tempfile.gettempdir())),
                any(name.startswith("dimum_core.course.checks_") for name in sys.modules), os.getpgid(0) != os.getpid()]
        open("own", "w").write("1")
        own = os.path.exists(os.path.expanduser("~/own"))
        pipes = [number for number in range(3, 200) if opened(number) and os.fstat(number).st_mode & 0o170000 == 0o010000]
        check("01.1", 259 if own and not any(left) and len(pipes) == 2 else str((own, left, pipes)))
    """
    assert marks(tmp_path, leaves, {"01.1": 1.0})["01.1"].points == 1
    found = marks(tmp_path, asks, {"01.1": 1.0})
    assert found["01.1"].points == 1, found


def test_students_processes_come_from_one_parent_that_has_one_thread():
    parent = students.running_parent()
    assert len(list(Path(f"/proc/{parent.process.pid}/task").glob("*"))) in (0, 1)  # 0: on macOS there is no such folder
    for _ in range(2):
        with students.student_process(ORDER, 5.0) as line:
            assert line.receive()["answers"] == {}
    assert students.running_parent() is parent


def test_a_parent_that_has_gone_is_replaced(monkeypatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setattr(students, "_parent", SimpleNamespace(process=gone))
    monkeypatch.setattr(students, "Parent", lambda: "another")
    assert students.running_parent() == students._parent == "another"


def test_grading_stops_where_no_process_can_start(tmp_path, monkeypatch):
    monkeypatch.setattr(students, "_parent", None)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "ada.py").write_text("check('01.1', 259)")
    with pytest.raises(DimumError, match="did not start"):
        grade.grade(tmp_path / "in", tmp_path / "marks")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", ["the grader's", "the parent's"])
def test_no_process_outlives_the_grader_or_the_parent(end, monkeypatch):
    as_on_macos = """if True:
        import socket, sys, dimum_core.answering.__main__ as parent
        parent.preload = lambda: None
        parent.main(socket.socket(fileno=int(sys.argv[1])))
    """
    monkeypatch.setattr(students.Parent, "program", ("-c", as_on_macos))
    monkeypatch.setattr(students, "_parent", None)
    parent = students.running_parent()
    children = Path(f"/proc/{parent.process.pid}/task/{parent.process.pid}/children")
    with students.student_process(ORDER | {"pieces": [[[f"check('01.1', 1)\n{ENDLESS}"], True]]}, 60.0):
        wait_for(children.read_text)
        student = int(children.read_text())
        assert running(student)
        if end == "the grader's":
            parent.control.close()  # as the system does, however it ends
        else:
            parent.process.kill()
        try:
            wait_for(lambda: parent.process.poll() is not None and not running(student))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(student, signal.SIGKILL)


def wait_for(happened, seconds: float = 60.0) -> None:
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.01)


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
