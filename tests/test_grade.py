"""Grading: full marks for right answers, none for empty ones, and no wrong mark for whoever attacks the grader."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import inspect
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from dimum_core.cli import main
from dimum_core.course import given, grade, students
from dimum_core.course.checks import EXERCISES
from dimum_core.errors import DimumError

from . import course_answers

RIGHT_GUESS = "def guess(x_t, eps, abar):\n    return (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()\n"
TWO = {"01.1": 1.0, "01.2": 2.0}


def marks(tmp_path, code: str, points=None, variants=False, suffix=".py", seconds=8.0, name="ada") -> dict[str, grade.Mark]:
    file = tmp_path / f"{name}{suffix}"
    file.write_text(textwrap.dedent(code))
    result = grade.grade_student(name, [file], points or TWO, variants, seconds, 1.0)
    return {mark.number: mark for mark in result.marks} | {"note": result.note}


def everything() -> str:
    """A file with the reference answer of every exercise, from their sources."""
    source = "import math\nimport numpy as np\nimport torch\nfrom dimum_core.course import check\n"
    modules = sorted(Path(inspect.getfile(course_answers)).parent.glob("ch*.py"))
    for module in modules:
        source += f"\n{module.read_text()}\nfor _number, (_right, _) in ANSWERS.items():\n    check(_number, _right)\n"
    return source


def test_reference_answers_get_full_marks_and_an_empty_hand_in_none(tmp_path, capsys):
    folder = tmp_path / "hand-ins"
    (folder / "grace").mkdir(parents=True)
    (folder / "grace" / "answers.py").write_text(everything())
    (folder / "empty.py").write_text("")
    numbers = json.dumps({"01.1": 259, "02.2": 2.5, "07.3": ["noise", "generated"], "00.1": "labels"})
    (folder / "numbers.json").write_text(numbers)
    (folder / "notes.txt").write_text("not a hand-in")
    assert main(["grade", str(folder), "--out", str(tmp_path / "marks")]) == 0
    worth, _ = grade.read_points()
    rows = {row["student"]: row for row in csv.DictReader((tmp_path / "marks" / "marks.csv").open())}
    assert set(rows) == {"grace", "empty", "numbers", "notes"} and set(worth) == set(EXERCISES)
    lacking = [number for number in worth if float(rows["grace"][number]) != worth[number]]
    assert not lacking, (lacking, rows["grace"]["note"])
    assert float(rows["grace"]["points"]) == sum(worth.values()) == float(rows["grace"]["out of"])
    assert float(rows["empty"]["points"]) == 0 and float(rows["numbers"]["points"]) == 3
    assert f"grace: {sum(worth.values()):g} of" in capsys.readouterr().out
    page = (tmp_path / "marks" / "numbers.html").read_text()
    assert "name other classes" in page and "not answered" in page and "http" not in page


def test_a_notebook_is_graded_without_running_its_training(tmp_path):
    cells = [
        "!pip install something", "import torch\nraise RuntimeError('a long training')", "scale = 1.0",
        "def helper(abar):\n    return abar.sqrt()", "student = ''",
        "def guess(x_t, eps, abar):\n    return scale * (x_t - helper(1 - abar) * eps) / helper(abar)\n\ncheck('01.2', guess)\n"
        "show(1)",
        "raise NotImplementedError('Exercise 01.1: your turn')\ncheck('01.1', answer)",
    ]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    found = marks(tmp_path, nbformat.writes(notebook), suffix=".ipynb")
    assert found["01.2"].points == 2.0 and found["01.1"].points == 0.0
    assert "not answered" in found["01.1"].said and found["note"] == ""


def test_wrong_answers_are_told_why(tmp_path):
    found = marks(tmp_path, """
        check("01.1", 260)
        check("01.2", lambda x_t, eps, abar: (x_t - (1 - abar) * eps) / abar)
    """)
    assert "off by one step" in found["01.1"].said and "square roots are missing" in found["01.2"].said


def test_an_earlier_attempt_that_raised_does_not_outvote_a_later_answer(tmp_path):
    (tmp_path / "1.py").write_text('check("01.1", 1 / 0)\ncheck("01.2", 1 / 0)\n')
    (tmp_path / "2.py").write_text('check("01.1", 259)\ncheck("01.2", 0.5)\n')
    cells = ['check("01.1", 1 / 0)', 'check("01.1", 259)\ncheck("01.2", 0.5)']
    (tmp_path / "ada.ipynb").write_text(nbformat.writes(new_notebook(cells=[new_code_cell(cell) for cell in cells])))
    for files in (["1.py", "2.py"], ["2.py", "1.py"], ["ada.ipynb"]):
        first, second = grade.grade_student("ada", [tmp_path / name for name in files], TWO, False, 8.0, 1.0).marks
        assert first.points == 1.0 and second.points == 0.0 and "A function was expected" in second.said, files


def test_an_empty_copy_does_not_outvote_an_answer_before_it(tmp_path):
    gaps = 'def guess(x_t, eps, abar):\n    raise NotImplementedError("Exercise 01.2: the guess")\n\ncheck("01.2", guess)'
    (tmp_path / "1.py").write_text(RIGHT_GUESS + 'check("01.2", guess)\ncheck("01.1", 259)')
    cells = [new_code_cell(gaps), new_code_cell('check("01.1", ...)')]
    (tmp_path / "2.ipynb").write_text(nbformat.writes(new_notebook(cells=cells)))
    for files in (["1.py", "2.ipynb"], ["2.ipynb", "1.py"]):
        found = grade.grade_student("ada", [tmp_path / name for name in files], TWO, False, 8.0, 1.0)
        assert all(mark.points for mark in found.marks), files
    (tmp_path / "3.py").write_text('check("01.2", 0.5)\ncheck("01.1", 260)')  # a later wrong answer counts
    marks = grade.grade_student("ada", [tmp_path / f"{n}" for n in ("1.py", "2.ipynb", "3.py")], TWO, False, 8.0, 1.0).marks
    assert not any(mark.points for mark in marks)


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_a_number_that_is_none_costs_only_its_own_answer(tmp_path, number):
    text = f'{{"01.2": {number}, "02.2": 3, "01.1": 259, "03.1": [{number}], "06.1": {{"a": {number}}}}}'
    found = marks(tmp_path, text, dict.fromkeys(("01.1", "01.2", "02.2", "03.1", "06.1"), 1.0), suffix=".json")
    assert {key: found[key].points for key in found if key != "note"} == {"01.1": 1, "01.2": 0, "02.2": 0, "03.1": 0, "06.1": 0}
    assert not any("not answered" in found[key].said for key in ("01.2", "02.2", "03.1", "06.1")), found


def test_nan_is_never_a_right_answer(tmp_path):
    text = json.dumps(dict.fromkeys(EXERCISES, float("nan")))
    found = marks(tmp_path, text, dict.fromkeys(EXERCISES, 1.0), suffix=".json")
    assert all(found[number].points == 0 and "NaN" in found[number].said for number in EXERCISES) and found["note"] == ""


@pytest.mark.parametrize("answer", [
    "torch.zeros(10**7)", "torch.zeros(10**8)", "[0.5] * 10**7", "10**5000", "Strange()",
])
def test_an_answer_that_is_too_large_or_strange_costs_only_itself(tmp_path, answer):
    found = marks(tmp_path, f"""
        import torch
        class Strange(list):
            def __iter__(self): raise RuntimeError("no list")
        check("01.1", 259)
        check("01.2", {answer})
    """)
    assert found["01.1"].points == 1 and found["01.2"].points == 0 and found["note"] == ""
    assert "not answered" not in found["01.2"].said


def test_of_many_answers_the_last_ones_are_judged(tmp_path):
    found = marks(tmp_path, """
        for answer in [260] * 200_000 + [259, ..., ...]:
            check("01.1", answer)
        for number in range(200_000):
            check(str(number), "x" * 100)
    """, seconds=20.0)
    assert found["01.1"].points == 1 and found["note"] == ""


def test_what_raises_in_a_file_costs_only_its_own_exercise(tmp_path):
    found = marks(tmp_path, """
        import a_package_that_is_not_there as absent
        get_ipython().run_line_magic("matplotlib", "inline")
        answer = 1
        raise NotImplementedError('Exercise 02.2: answer = the scale. hint("02.2") helps.')
        check("02.2", answer)
        print(undefined)
        helper = 1 / 0
        check("01.1", helper + 1)
        check("01.2", lambda x_t, eps, abar: (x_t - (1 - abar).sqrt() * eps) / abar.sqrt())
        def main():
            check("01.4", lambda x, eps, abar: abar.sqrt() * x + (1 - abar).sqrt() * eps)
            check("02.1", absent.value)
        main()
        check("03.1", await something())
        answer = 30.72
        check("07.2", answer)
    """, dict.fromkeys(("01.1", "01.2", "01.4", "02.1", "02.2", "03.1", "07.2"), 1.0))
    right = [number for number in found if number != "note" and found[number].points]
    assert right == ["01.2", "01.4", "07.2"], found
    assert "ZeroDivisionError" in found["01.1"].said  # the cause, not that `helper` is missing
    assert "a_package_that_is_not_there" in found["02.1"].said
    assert found["02.2"].said == "not answered." and "NameError" in found["03.1"].said


@pytest.mark.parametrize("code", [
    "x = 259\nx = 1 / 0\ncheck('01.1', x)", "x = 259\nx += 1 / 0\ncheck('01.1', x)", "x = 1 / 0\ncheck('01.1', x)\nx = 259",
    "x = 1\nfor x in (259, 1):\n    1 / (x - 259)\ncheck('01.1', x)", "def x(a=1 / 0): pass\ncheck('01.1', x)\nx = 259",
    "x = 259\nx = await later()\ncheck('01.1', x)", "x = 1\nimport sys\nsys.exit()\ncheck('01.1', 259)",
    "x = 259\nraise NotImplementedError('Exercise 01.1: x = the step')\ncheck('01.1', x)",
])
def test_no_older_or_later_value_stands_in_for_one_that_failed(tmp_path, code):
    assert marks(tmp_path, code)["01.1"].points == 0.0


def test_each_student_is_asked_for_their_own_numbers(tmp_path):
    code = 'check("02.2", 1 + given("02.2", student)["w"], student)\ncheck("07.2", 30.72, student)'
    found = marks(tmp_path, code, {"02.2": 1.0, "07.2": 1.0}, variants=True)
    assert found["02.2"].points == 1 and found["07.2"].points == 0  # the second is the chapter's answer, found on the web
    assert given("02.2", "ada") != given("02.2") and given("07.2", "ada") != given("07.2")


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
        check("01.2", solution._noising)
    """,
    "reads the solution": f"""
        text = open({str(Path(grade.__file__).with_name("checks_01.py"))!r}).read()
        check("01.2", lambda x_t, eps, abar: text and (x_t - (1 - abar).sqrt() * eps) / abar.sqrt())
    """,
    "imports the tests' answers": f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent.parent)!r})
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
        check("01.2", course.checks.checks_01._noising)
    """,
    "imports what imports the course": """
        import dimum_core.cli
        from dimum_core.course.checks_01 import _noising
        check("01.2", _noising)
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


ENDLESS = "while True:\n    try:\n        while True: sum(range(1000))\n    except BaseException: pass\n"


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
        check("01.4", lambda x, eps, abar: abar.sqrt() * x + (1 - abar).sqrt() * eps)
    """, {"01.1": 1.0, "01.2": 1.0, "01.4": 1.0})
    assert [found[number].points for number in ("01.1", "01.2", "01.4")] == [1.0, 0.0, 1.0]
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


def test_a_file_that_cannot_be_read_costs_only_itself(tmp_path):
    folder = tmp_path / "submissions"
    for name, text in {
        "ada/answers.PY": "check('01.1', 259)", "ada/.vscode/settings.json": "// a comment", "ada/__MACOSX/._a.json": "\0",
        "bob/a.json": '\ufeff{"01.1": 259}', "bob/half.json": '{"01.1": ', "eve/answers.txt": "259", "lea.ipynb": "no notebook",
        ".git/x.py": "", "kim.zip": "PK", "zoe.html": "<p>259", "bob.pdf": "%PDF", "Thumbs.db": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "zed").mkdir()
    (tmp_path / "points.yaml").write_text('points: {"01.1": 1}')
    for _ in range(2):  # the second time, the marks of the first are in the folder
        results = grade.grade(folder, folder / "marks", tmp_path / "points.yaml", seconds=8.0)
        found = {result.student: (result.points, result.note) for result in results}
        assert list(found) == ["ada", "bob", "eve", "kim", "lea", "zed", "zoe"] and found["ada"] == (1.0, "")
    assert found["bob"][0] == 1.0 and found["bob"][1].startswith("half.json cannot be read: JSONDecodeError: ")
    assert found["bob"][1].endswith("not graded, since only .ipynb, .py, .json can be: bob.pdf")
    for student, file in {"eve": "answers.txt", "kim": "kim.zip", "zoe": "zoe.html"}.items():
        assert found[student] == (0.0, f"not graded, since only .ipynb, .py, .json can be: {file}")
    assert found["zed"] == (0.0, "there is no file that ends in .ipynb, .py, .json")
    assert found["lea"][0] == 0.0 and "lea.ipynb cannot be read" in found["lea"][1]
    assert "half.json cannot be read" in (folder / "marks" / "bob.html").read_text()


HOSTILE = ["=1+1", "+1", "-1", "@SUM(A1)", "x;=1+1", "x,=1+1", '"=1+1', 'x;"=1+1', "＝1+1", "<b>bold", "{{rows}}", "two\nlines",
           "\x1b[31mred", "l" * 250, "\udce9", "o'brien", "Åsa", "de la Cruz, Ana"]


def test_names_stay_text_in_the_table_on_the_page_and_on_the_terminal(tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in HOSTILE:
        (folder / f"{name}.py").write_bytes(b"")
        (folder / f"{name}").mkdir()
        (folder / name / "=2+2;=3.txt").write_bytes(b"")
    (tmp_path / "points.yaml").write_text("points: {}\nothers: 0")
    out = tmp_path / "marks"
    assert main(["grade", str(folder), "--out", str(out), "--points", str(tmp_path / "points.yaml")]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == len(HOSTILE) and "\x1b" not in shown and "\\udce9" in shown
    for separator in ",;\t":  # a spreadsheet may cut the lines at another one than we
        with (out / "marks.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file, delimiter=separator))
        assert len(rows) == len(HOSTILE) + 1
        assert not [cell for row in rows for cell in row if cell.lstrip('"').startswith(tuple("=+-@＝"))]
        assert separator != "," or {"o'brien", "Åsa", "de la Cruz, Ana", "<b>bold"} <= {row[0] for row in rows}
    pages = {path.name: path.read_text(encoding="utf-8") for path in out.glob("*.html")}
    assert len(pages) == len(HOSTILE) and all(page.count("<tr>") == 1 and "<b>" not in page for page in pages.values())
    assert "<h1>{{rows}}: 0 of 0 points</h1>" in pages["{{rows}}.html"]


def test_marks_are_not_written_among_the_hand_ins(tmp_path):
    (tmp_path / "ada.py").write_text("")
    with pytest.raises(DimumError, match="a folder of their own"):
        grade.grade(tmp_path, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["ada.py"]


def test_marks_that_are_made_survive_the_end_of_the_grader(tmp_path, monkeypatch):
    folder = tmp_path / "submissions"
    folder.mkdir()
    for student in ("ada", "bob"):
        (folder / f"{student}.json").write_text('{"01.1": 259}')
    judged = iter([({"01.1": grade.checks.Verdict(True, "right.")}, "")])
    monkeypatch.setattr(grade, "judge_all", lambda *order: next(judged))  # and no second one
    (tmp_path / "points.yaml").write_text('points: {"01.1": 1}')
    with pytest.raises(StopIteration):
        grade.grade(folder, tmp_path / "marks", tmp_path / "points.yaml")
    assert (tmp_path / "marks" / "marks.csv").read_text().splitlines() == ["student,points,out of,01.1,note", "ada,1,1,1,"]
    assert "right." in (tmp_path / "marks" / "ada.html").read_text()


def test_grading_says_that_it_does_not_run_on_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(DimumError, match="on Windows, run it in WSL"):
        grade.grade(tmp_path, tmp_path / "marks")
    assert not (tmp_path / "marks").exists()


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


def test_points_and_folders_that_cannot_be_used_are_named(tmp_path):
    (tmp_path / "points.yaml").write_text('points: {"01.1": -1}')
    with pytest.raises(DimumError, match="not negative"):
        grade.read_points(tmp_path / "points.yaml")
    (tmp_path / "points.yaml").write_text('points: {"77.7": 1}')
    with pytest.raises(DimumError, match="77.7"):
        grade.read_points(tmp_path / "points.yaml")
    with pytest.raises(DimumError, match="no submissions"):
        grade.submissions(tmp_path)
    assert main(["grade", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 1




# Processes -----------------------------------------------------------------------------------------------------------------


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
