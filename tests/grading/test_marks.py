"""Full marks for right answers, none for empty ones; what is wrong with an answer costs that answer alone."""

from __future__ import annotations

import csv
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from dimum_core.cli import main
from dimum_core.course import given, grade
from dimum_core.course.checks import EXERCISES

from .handing_in import RIGHT_GUESS, TWO, everything, marks


def test_reference_answers_get_full_marks_and_an_empty_hand_in_none(tmp_path, capsys):
    folder = tmp_path / "hand-ins"
    (folder / "grace").mkdir(parents=True)
    (folder / "grace" / "answers.py").write_text(everything())
    (folder / "empty.py").write_text("")
    numbers = json.dumps({"01.1": 259, "02.2": 2.5, "07.3": ["noise", "generated"], "00.1": "weights"})
    (folder / "numbers.json").write_text(numbers)
    (folder / "notes.txt").write_text("not a hand-in")
    assert main(["grade", str(folder), "--out", str(tmp_path / "marks")]) == 0
    worth, _ = grade.read_points()
    rows = {row["student"]: row for row in csv.DictReader((tmp_path / "marks" / "marks.csv").open(encoding="utf-8-sig"))}
    assert set(rows) == {"grace", "empty", "numbers", "notes"} and set(worth) == set(EXERCISES)
    lacking = [number for number in worth if float(rows["grace"][number]) != worth[number]]
    assert not lacking, (lacking, rows["grace"]["note"])
    assert float(rows["grace"]["points"]) == sum(worth.values()) == float(rows["grace"]["out of"])
    assert float(rows["empty"]["points"]) == 0 and float(rows["numbers"]["points"]) == 3
    assert f"grace: {sum(worth.values()):g} of" in capsys.readouterr().out
    moodle, canvas = (list(csv.reader((tmp_path / "marks" / f"{name}.csv").open())) for name in ("moodle", "canvas"))
    assert moodle[0] == ["ID number", "marks"] and ["numbers", "3"] in moodle and len(moodle) == 5
    assert canvas[0] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", "marks"] and len(canvas) == 6
    assert canvas[1][0].strip() == "Points Possible" and canvas[1][-1] == f"{sum(worth.values()):g}"
    assert ["numbers", "", "numbers", "numbers", "", "3"] in canvas
    page = (tmp_path / "marks" / "numbers.html").read_text()
    assert "cannot have known it" in page and "not answered" in page and "http" not in page


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


def test_a_number_that_is_none_costs_only_its_own_answer(tmp_path):
    text = '{"01.2": 1e999, "02.2": 3, "01.1": 259, "03.1": [NaN], "06.1": {"a": -Infinity}}'
    found = marks(tmp_path, text, dict.fromkeys(("01.1", "01.2", "02.2", "03.1", "06.1"), 1.0), suffix=".json")
    assert {key: found[key].points for key in found if key != "note"} == {"01.1": 1, "01.2": 0, "02.2": 0, "03.1": 0, "06.1": 0}
    assert not any("not answered" in found[key].said for key in ("01.2", "02.2", "03.1", "06.1")), found


def test_nan_is_never_a_right_answer(tmp_path):
    text = json.dumps(dict.fromkeys(EXERCISES, float("nan")))
    found = marks(tmp_path, text, dict.fromkeys(EXERCISES, 1.0), suffix=".json")
    assert all(found[number].points == 0 and "NaN" in found[number].said for number in EXERCISES) and found["note"] == ""


@pytest.mark.parametrize("answer", [
    "torch.zeros(10**7)", "torch.zeros(10**8)", "[0.5] * 10**6", "10**5000", "Strange()",
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
            check("00.2", lambda a, u, r: (r - u) / (a - u))
            check("02.1", absent.value)
        main()
        check("03.1", await something())
        answer = 30.72
        check("07.2", answer)
    """, dict.fromkeys(("00.2", "01.1", "01.2", "02.1", "02.2", "03.1", "07.2"), 1.0))
    right = [number for number in found if number != "note" and found[number].points]
    assert right == ["00.2", "01.2", "07.2"], found
    assert "ZeroDivisionError" in found["01.1"].said  # the cause, not that `helper` is missing
    assert "a_package_that_is_not_there" in found["02.1"].said
    assert found["02.2"].said == "not answered." and "NameError" in found["03.1"].said


@pytest.mark.parametrize("code", [
    "check('01.1', 259)\ncheck('01.2', lambda x: x\n", "def f(x: return x\nanswers = {'01.1': 259, '01.2': f}\n",
    "answers = {}\nanswers['01.1'] = 259\nanswers['01.2'] = 1 2\n",
])
def test_a_file_that_is_no_python_says_so_of_each_answer(tmp_path, code):
    found = marks(tmp_path, code)
    assert all("SyntaxError" in found[number].said for number in TWO), found


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
