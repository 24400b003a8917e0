"""No wrong mark for whoever attacks the grader, and nobody else suffers."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from dimum_core.course import grade, students

from .handing_in import ENDLESS, RIGHT_GUESS, marks

ATTACKS = {  # a file goes on after what is refused: a right answer here must need what the attack is to get
    "tampers with the checks in its process": """
        import sys
        import dimum_core.course as course
        course.check = lambda *arguments: True
        course.verdict = lambda *arguments, **others: True
        sys.modules["__main__"].checked = lambda *arguments: []
        def guess(*arguments): return 1
        check("01.2", guess)
    """,
    "prints a result": """
        print('{"right": true, "01.2": 2}'); print("Exercise 01.2: right.")
        check("01.2", lambda *arguments: print("right.") or True)
    """,
    "writes into the grader's pipe": """
        import os
        for fd in range(3, 32):
            try:
                os.write(fd, b'\\x00\\x00\\x00\\x20{"answers": {"01.2": {"right": 1}}}')
            except OSError:
                pass
        check("01.2", lambda *arguments: True)
    """,
    "equals everything": """
        class Same(float):
            __eq__ = __lt__ = __le__ = __gt__ = lambda *others: True
        check("01.2", lambda *arguments: Same(3))
    """,
    "imports the solution": """
        import dimum_core.course.checks_01 as solution
        check("01.2", solution._predicted_original)
    """,
    "reads the solution": f"""
        text = open({str(Path(grade.__file__).with_name("checks_01.py"))!r}).read()
        check("01.2", lambda x_t, eps, abar: text and (x_t - (1 - abar).sqrt() * eps) / abar.sqrt())
    """,
    "imports the tests' answers": f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.course_answers import ANSWERS
        check("01.2", ANSWERS["01.2"][0])
    """,
    "leaves with success when called": """
        import os
        check("01.2", lambda *arguments: os._exit(0))
    """,
    "never ends when called": """
        def guess(*arguments):
            while True: pass
        check("01.2", guess)
    """,
    "takes all memory": """
        def guess(*arguments):
            return len([bytearray(10**8) for _ in range(10**4)])
        check("01.2", guess)
    """,
    "starts other programs": """
        import subprocess
        done = subprocess.run(["touch", "here"])
        check("01.2", lambda x_t, eps, abar: done and (x_t - (1 - abar).sqrt() * eps) / abar.sqrt())
    """,
    "imports the course by its package": """
        from dimum_core import course
        check("01.2", course.checks.checks_01._predicted_original)
    """,
    "imports what imports the course": """
        import dimum_core.cli
        from dimum_core.course.checks_01 import _predicted_original
        check("01.2", _predicted_original)
    """,
    "starts a program below the events": """
        import _posixsubprocess
        check("01.2", lambda x_t, eps, abar: _posixsubprocess and (x_t - (1 - abar).sqrt() * eps) / abar.sqrt())
    """,
    "empties a file by opening it to read": """
        import os
        place = os.open("../victim", os.O_RDONLY | os.O_CREAT | os.O_TRUNC)
        check("01.2", lambda x_t, eps, abar: place and (x_t - (1 - abar).sqrt() * eps) / abar.sqrt())
    """,
    "opens a folder to reach beyond": """
        import os
        place = os.open("/", os.O_RDONLY)
        check("01.2", lambda x_t, eps, abar: place and (x_t - (1 - abar).sqrt() * eps) / abar.sqrt())
    """,
    "kills who grades": """
        import os, signal
        done = [signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)]
        check("01.2", lambda x_t, eps, abar: done and (x_t - (1 - abar).sqrt() * eps) / abar.sqrt())
    """,
    "returns too much": """
        import torch
        check("01.2", lambda *arguments: torch.zeros(10**7))
    """,
}


@pytest.mark.parametrize("how", sorted(ATTACKS))
def test_an_attack_gains_nothing(tmp_path, how):
    parent = students.running_parent()
    found = marks(tmp_path, ATTACKS[how], {"01.2": 2.0}, seconds=2.0)
    assert found["01.2"].points == 0.0, found
    assert students.running_parent() is parent
    assert [path.name for path in tmp_path.iterdir()] == ["ada.py"]


def test_an_answer_that_cannot_be_stopped_is_killed_in_time(tmp_path, monkeypatch):
    """Whatever it catches: the grader does not wait for it to end by itself."""
    monkeypatch.setattr(grade, "START", 1.0)
    students.running_parent()
    started = time.monotonic()
    found = marks(tmp_path, f"check('01.2', 1)\n{ENDLESS}", {"01.2": 2.0}, seconds=0.5)
    assert found["01.2"].points == 0.0 and "longer than allowed" in found["note"]
    assert 1.5 < time.monotonic() - started < 20


def test_an_attack_costs_only_the_answer_that_makes_it(tmp_path):
    found = marks(tmp_path, f"""
        import os
        check("01.1", 259)
        check("01.2", lambda *arguments: os._exit(0))
        {RIGHT_GUESS.splitlines()[0]}
        {RIGHT_GUESS.splitlines()[1]}
        check("02.2", 2.5)
    """, {"01.1": 1.0, "01.2": 1.0, "02.2": 1.0})
    assert [found[number].points for number in ("01.1", "01.2", "02.2")] == [1.0, 0.0, 1.0]
    assert "01.2" in found["note"] and "ended early" in found["note"]


def test_nobody_reads_what_others_handed_in_and_nobody_stops_the_class(tmp_path):
    folder = tmp_path / "submissions"
    folder.mkdir()
    (folder / "ada.py").write_text(f"{RIGHT_GUESS}\ncheck('01.2', guess)\n")
    (folder / "bob.py").write_text(f"text = open({str(folder / 'ada.py')!r}).read()\nexec(text)\n")
    (folder / "eve.json").write_text('{"01.2": {"function": Infinity}}')
    (folder / "lea.py").write_text("def guess(*_): raise ValueError('\\ud800')\ncheck('01.2', guess)\n")
    (tmp_path / "points.yaml").write_text('points: {"01.2": 2}')
    found = {r.student: r.points for r in grade.grade(folder, tmp_path / "marks", tmp_path / "points.yaml", seconds=4.0)}
    assert found == {"ada": 2.0, "bob": 0.0, "eve": 0.0, "lea": 0.0}
    assert "ValueError: \\ud800" in (tmp_path / "marks" / "lea.html").read_text()


def test_all_is_read_before_the_first_students_code_runs(tmp_path, monkeypatch):
    folder = tmp_path / "submissions"
    folder.mkdir()
    (folder / "ada.json").write_text('{"01.1": 1}')
    (folder / "zed.json").write_text('{"01.1": 259}')
    start = grade.student_process

    def start_and_spoil(*order):  # as code of the first student would that got round the fence
        (folder / "zed.json").write_text('{"01.1": 2}')
        return start(*order)

    monkeypatch.setattr(grade, "student_process", start_and_spoil)
    (tmp_path / "points.yaml").write_text('points: {"01.1": 1}')
    found = grade.grade(folder, tmp_path / "marks", tmp_path / "points.yaml", seconds=8.0)
    assert {result.student: result.points for result in found} == {"ada": 0.0, "zed": 1.0}


LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1) if sys.platform == "linux" else 0  # its version


@pytest.mark.skipif(LANDLOCK < 6, reason="the kernel has no Landlock that knows TCP and signals")
def test_native_code_reaches_neither_the_network_nor_other_processes(tmp_path):
    code = f"""if True:
        import os, signal, socket
        from dimum_core.answering.fence import landlock
        server = socket.create_server(("127.0.0.1", 0))
        landlock({str(tmp_path)!r}, ["/"])  # alone, without the hook: as native code sees it
        for attempt in (lambda: socket.create_connection(server.getsockname()), lambda: socket.create_server(("127.0.0.1", 0)),
                        lambda: os.kill(os.getppid(), 0), lambda: open({str(tmp_path / "new")!r}, "w").close()):
            try:
                print(attempt())
            except OSError as error:
                print(type(error).__name__)
    """
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["PermissionError"] * 3 + ["None"]


@pytest.mark.skipif(LANDLOCK < 1, reason="the kernel has no Landlock")
def test_native_code_is_fenced_where_the_kernel_can(tmp_path):
    folder = tmp_path / "submissions"
    folder.mkdir()
    other, beside, new = folder / "zed.txt", tmp_path / "beside", tmp_path / "new.safetensors"
    other.write_bytes(b"259.....")
    beside.write_bytes(b"unharmed")
    (folder / "ada.py").write_text(textwrap.dedent(f"""
        import torch
        import safetensors.torch
        def tried(how):
            try:
                return how()
            except PermissionError as error:
                return str(error)
            except Exception as error:
                return type(error).__name__
        def attempt(path, shared):
            return lambda: torch.from_file(path, shared=shared, size=8, dtype=torch.uint8).fill_(1).sum().item()
        torch.save(torch.ones(3), "own")
        safetensors.torch.save_file({{"a": torch.ones(3)}}, "own.safetensors")
        own = [torch.load("own").sum().item(), safetensors.torch.load_file("own.safetensors")["a"].sum().item()]
        done = [tried(attempt({str(other)!r}, False)), tried(attempt({str(beside)!r}, True)),
                tried(lambda: safetensors.torch.save_file({{"a": torch.ones(3)}}, {str(new)!r}))]
        check("01.1", 259 if own == [3.0, 3.0] and all(isinstance(each, str) for each in done) else str((own, done)))
    """))
    (tmp_path / "points.yaml").write_text('points: {"01.1": 1}')
    found, _ = grade.grade(folder, tmp_path / "marks", tmp_path / "points.yaml", seconds=8.0)
    assert (other.read_bytes(), beside.read_bytes(), new.exists()) == (b"259.....", b"unharmed", False)
    assert found.points == 1.0, found


def test_answers_in_other_styles_are_as_right_as_in_the_notebook(tmp_path):
    """Networks called by keyword; what numpy, pandas and Python return; helpers whose names mean something else further down."""
    found = marks(tmp_path, """
        import numpy as np, pandas as pd, torch

        def similarity(a, b):
            return float(a @ b / (a.norm() * b.norm()))
        check("02.4", np.float64(0.1))

        def ranks(table):
            return pd.DataFrame(table).rank(axis=1).mean()
        check("08.1", ranks)

        def guide(denoise, x_t, t, labels, null_label, s):
            told = torch.cat([torch.full_like(labels, null_label), labels])
            null, cond = denoise(torch.cat([x_t, x_t]), t=torch.cat([t, t]), labels=told).chunk(2)
            return null + s * (cond - null)
        check("02.1", guide)

        z = 1.96
        def interval(hits, n):
            middle = (hits / n + z**2 / (2 * n)) / (1 + z**2 / n)
            half = z / (1 + z**2 / n) * np.sqrt(hits / n * (1 - hits / n) / n + z**2 / (4 * n**2))
            return middle + half * np.array([-1, 1])
        check("03.4", interval)
        x, y, z = 1, 2, 300

        from sklearn.neighbors import NearestNeighbors  # which looks for its libraries when it is first used
        def precision(samples, real, k):
            radius = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, -1]
            return float((np.linalg.norm(samples[:, None] - real[None], axis=2) <= radius).any(1).mean())
        check("03.6", precision)
    """, dict.fromkeys(("02.1", "02.4", "03.4", "03.6", "08.1"), 1.0))
    assert all(found[number].points == 1.0 for number in ("02.1", "02.4", "03.4", "03.6", "08.1")), found


def test_a_network_called_wrongly_costs_its_answer_and_no_process(tmp_path):
    found = marks(tmp_path, """
        import torch
        wrong = lambda denoise, x_t, t, labels, null_label, s: denoise(x_t, t)
        for number in ("01.5", "01.7", "02.1", "02.5", "02.6"):
            check(number, wrong)
        check("02.2", 2.5)
    """, {"01.5": 1.0, "02.1": 1.0, "02.2": 1.0, "02.5": 1.0, "02.6": 1.0})
    assert found["02.2"].points == 1.0 and found["note"] == ""
    assert "called wrongly: TypeError" in found["02.1"].said and found["02.1"].points == 0.0


def test_after_too_many_deaths_the_rest_is_called_not_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(grade, "RESTARTS", 1)
    found = marks(tmp_path, """
        import os
        check("01.2", lambda *arguments: os._exit(0))
        check("02.2", 2.5)
    """, {"01.2": 1.0, "02.2": 1.0, "02.4": 1.0})
    assert found["02.2"].said.startswith("not judged: 1 answers before it") and found["02.4"].said == "not answered."
