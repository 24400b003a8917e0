"""A student's side, in this process: a right answer is right in any layout, and values cross unchanged."""

from __future__ import annotations

import inspect
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

import dimum_core
from dimum_core.answering.cells import read_cell
from dimum_core.answering.hand import Hand
from dimum_core.course import checks, given, grade

from .. import course_answers

MODULES = {path.stem: path.read_text() for path in sorted(Path(inspect.getfile(course_answers)).parent.glob("ch*.py"))}
NUMBERS = sorted(course_answers.ANSWERS)
QUESTIONS = {number: given(number) for number in NUMBERS} | {"variant": {}}

LAYOUTS = {  # a cell with an answer: {number} stands for the exercise, {plain} for the plain call; `right` is the answer
    "keyword arguments": 'check(number="{number}", answer=right)',
    "keyword arguments in another order": 'check(answer=right, student="", number="{number}")',
    "the module by another name": 'import dimum_core.course as course\ncourse.check("{number}", right)',
    "the module from the package": 'from dimum_core import course as c\nc.check("{number}", right)',
    "the module in full": 'import dimum_core.course\ndimum_core.course.check("{number}", right);',
    "the package by another name": 'import dimum_core as d\nimport dimum_core.course\nd.course.check("{number}", right)',
    "check by another name": 'from dimum_core.course import check as ck, hint\nck("{number}", right)',
    "check from its own module": 'from dimum_core.course.checks import check as judge\njudge("{number}", right)',
    "all names of the course": 'from dimum_core.course import *\n{plain}',
    "check under a name of one's own": 'hand_in = check\nhand_in("{number}", right)',
    "in an assertion": 'assert check("{number}", ...)\nassert {plain}',
    "in a loop": 'for number, answer in [("{number}", right)]:\n    check(number, answer)',
    "in a function": 'def hand_in(number, answer):\n    check(number, answer)\n\n\nhand_in("{number}", right)',
    "in the main part": 'def main():\n    {plain}\n\n\nif __name__ == "__main__":\n    main()',
    "line magics": '%matplotlib inline\n%load_ext autoreload\n{plain}\n%who',
    "timed": '%time {plain}',
    "timed answer": 'answer = %time right\ncheck("{number}", answer)',
    "magics in a block": 'if True:\n    %time answer = right\n    !ls\ncheck("{number}", answer)',
    "exported from a notebook": 'from IPython import get_ipython\nget_ipython().run_line_magic("matplotlib", "inline")\n{plain}',
    "exported cell magic": "get_ipython().run_cell_magic('time', '', '{plain}\\n')",
    "shell lines": '!pip install something\nfiles = !ls\nfor file in files:\n    print(file)\nprint(files[0].upper())\n{plain}',
    "help": 'check?\n?right\n{plain}\nright??',
    "top-level await": 'import asyncio\n\nawait asyncio.sleep(0.001)\n{plain}',
    "an awaited answer": 'async def later():\n    return right\n\n\ncheck("{number}", await later())',
    "type hints": 'from __future__ import annotations\nanswer: Tensor | Callable[..., Missing] = right\ncheck("{number}", answer)',
    "Unicode": '# ᾱ ≤ ½, naïve “quotes”, 数\nᾱ_数 = right\ncheck("{number}", ᾱ_数)',
    "windows lines": 'answer = right\r\n%time 1 + 1\r\n# done\r\ncheck("{number}", answer)\r\n',
    "old Mac lines": 'answer = right\rcheck("{number}", answer)\r',
    "comments and blank lines": '# @title A form {{"display-mode": "form"}}\n#%% part\n\n\n{plain}  # the end',
    "displayed": 'display(right, right)\n{plain}\nright',
    "several assignments": 'first, (answer, *_) = 1, (right, 2, 3)\nif (again := answer) is not ...:\n    check("{number}", again)',
    "an import that may fail": 'try:\n    import nothing_here\nexcept ImportError:\n    answer = right\ncheck("{number}", answer)',
}
OF_A_CELL = {  # layouts of a whole cell, which IPython alone knows
    "a cell that is timed": '%%time\n{plain}',
    "a cell that is timed often": '%%timeit -n 1 -r 1\n{plain}',
    "a captured cell": '%%capture said --no-stderr\n!ls\n{plain}\nsaid.show()',
    "magics in a timed cell": '%%time\n%matplotlib inline\nanswer = %time right\ncheck("{number}", answer)',
    "a magic below a title": '# @title Solution\n%%time\n{plain}',
    "a magic of one's own": '%%unheard_of 3\n{plain}',
    "an indented cell": '    answer = right\n    check("{number}", answer)',
    "prompts": '>>> answer = right\n>>> if True:\n...     check("{number}", answer)',
}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """What a Hand changes in its process is as before, afterwards."""
    for name in ("dimum_core.course", "dimum_core.course.checks", "dimum_core.course.variants", "__main__"):
        monkeypatch.setitem(sys.modules, name, sys.modules[name])
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(dimum_core, "course", dimum_core.course)
    alarm = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, alarm)


def handed_in(cells: list[str], whole: bool, seconds: float = 60.0, reading: float = 600.0) -> Hand:
    hand = Hand(QUESTIONS, "", seconds, reading)
    hand.run([read_cell("\n".join(cells))] if whole else [read_cell(cell) for cell in cells], whole)
    hand.loop.close()
    return hand


def cells_with(layout: str, numbers: list[str] = NUMBERS) -> list[str]:
    """For each exercise a cell that says what is right, and one that hands it in, in the given layout."""
    cells = []
    for number in numbers:
        cells.append(f'right = ANSWERS["{number}"][0]')
        cells.append(layout.format(number=number, plain=f'check("{number}", right)'))
    return cells


@pytest.mark.parametrize("name", sorted(LAYOUTS | OF_A_CELL))
def test_every_right_answer_is_right_in_every_layout(name):
    for whole in [False, True] if name in LAYOUTS else [False]:
        cells = cells_with((LAYOUTS | OF_A_CELL)[name])
        if whole:  # where a future import stands first
            cells = [cell.replace("from __future__ import annotations\n", "") for cell in cells]
        hand = handed_in(["from dimum_core.course import check\nfrom tests.course_answers import ANSWERS", *cells], whole)
        lost = [number for number in NUMBERS if hand.answers.get(number, [None])[-1] is not course_answers.ANSWERS[number][0]]
        assert not lost, hand.errors


@pytest.mark.parametrize("length", [10, 88, 320])
def test_a_formatter_changes_no_mark(length, tmp_path):
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    ruff = Path(sys.executable).with_name("ruff")
    subprocess.run([ruff, "format", "--isolated", "--quiet", f"--line-length={length}", tmp_path], check=True)
    cells = ["from dimum_core.course import check"]
    for name, source in MODULES.items():
        reformatted = (tmp_path / f"{name}.py").read_text()
        assert reformatted != source
        numbers = [number for number in NUMBERS if number.startswith(name[2:])]
        cells += [f"%time 1 + 1\n{reformatted}", *cells_with("{plain}", numbers)]
    hand = handed_in(cells, whole=False)
    verdicts = {number: checks.verdict(number, hand.answers.get(number, [None])[-1], seed=7) for number in NUMBERS}
    assert all(verdict.right for verdict in verdicts.values()), (verdicts, hand.errors)


def test_an_operator_at_the_start_of_a_line_is_none_of_a_shell():
    lines = ["%matplotlib inline", "answer = (", "1000", "% 7", "+ 253", "- (", "1", "!= 1", ")", ")", "check('01.1', answer)"]
    cell = "\n".join(lines)
    assert handed_in([cell], whole=False).answers == handed_in([cell], whole=True).answers == {"01.1": [259]}


def test_all_layouts_in_one_notebook_get_full_marks(tmp_path):
    layouts = [*LAYOUTS.values(), *OF_A_CELL.values()]
    cells = ["from dimum_core.course import check"]
    for name, source in MODULES.items():
        cells.append(source)
        for place, number in enumerate(NUMBERS):
            if number.startswith(name[2:]):
                cells += cells_with(layouts[place % len(layouts)], [number])
    assert len(layouts) <= len(NUMBERS)
    (tmp_path / "ada.ipynb").write_text(nbformat.writes(new_notebook(cells=[new_code_cell(cell) for cell in cells])))
    result = grade.grade_student("ada", [tmp_path / "ada.ipynb"], dict.fromkeys(NUMBERS, 1.0), False, 60.0, 2.0)
    assert [mark for mark in result.marks if not mark.points] == [] and result.note == ""


def test_without_ipython_python_is_read_and_the_rest_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython.core.inputtransformer2", None)
    hand = handed_in(["check('01.1', 259)", "%time\ncheck('01.2', 3)"], whole=False)
    assert hand.answers == {"01.1": [259]} and "pip install ipython" in hand.errors["01.2"]


# Cells that build on each other --------------------------------------------------------------------------------------------

NAMES = st.sampled_from("abc")
STATEMENTS = st.one_of(
    st.builds("{} = {}".format, NAMES, st.integers(0, 9)),
    st.builds("{} = {} + {} % 7".format, NAMES, NAMES, NAMES),
    st.builds("{}, {} = {}, f()".format, NAMES, NAMES, NAMES),
    st.builds("{} += {}".format, NAMES, NAMES),
    st.builds("{}: int = sum([{} for _ in range(2)])".format, NAMES, NAMES),
    st.builds("for {} in range({} % 3): {} += 1".format, NAMES, NAMES, NAMES),
    st.builds("if {} > 4: {} = {}".format, NAMES, NAMES, NAMES),
    st.builds("try: {} = {} // {}\nexcept ZeroDivisionError: {} = 1".format, NAMES, NAMES, NAMES, NAMES),
    st.builds("def f(): return g() + {}".format, NAMES),
    st.builds("g = lambda: {} + sum(values)".format, NAMES),
    st.builds("values.append({})".format, NAMES),
    st.builds("values[0] = {}".format, NAMES),
    st.builds("values = [{}, *values]".format, NAMES),
    st.builds("check('01.1', [{}, f(), list(values)])".format, NAMES),
    st.just("check('01.2', f)"),
)
BEGIN = "a, b, c = 1, 2, 3\nvalues = [0]\ng = lambda: 1\ndef f(): return 2"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(st.lists(st.lists(STATEMENTS, min_size=1, max_size=3).map("\n".join), max_size=8))
def test_what_is_passed_over_changes_no_answer(cells):
    """Against the notebook run from top to end: an unneeded statement is one that nobody misses."""
    cells, answers = [BEGIN, *cells, "check('01.2', g)"], {}
    everything: dict = {"check": lambda number, answer: answers.setdefault(number, []).append(answer)}
    exec("\n".join(cells), everything)
    hand = handed_in(cells, whole=False)
    assert hand.errors == {} and hand.answers.get("01.1") == answers.get("01.1")
    assert [answer() for answer in hand.answers["01.2"]] == [answer() for answer in answers["01.2"]]


def test_nothing_is_run_that_no_answer_needs():
    cells = [
        "import math", "net = 'training'\nmath.inf.hex()", "net.upper()", "root = math.sqrt(4)",
        "def answer():\n    return root * scale", "scale = later = 129.5", "check('01.1', answer)\npicture = 'drawn'\nnet",
        "net = 'more training'",
    ]
    answer, = handed_in(cells, whole=False).answers["01.1"]
    assert answer() == 259 and not {"net", "picture"} & set(answer.__globals__)


def test_what_never_ends_in_a_file_leaves_time_to_hand_in_the_rest():
    started = time.monotonic()
    endless = "while True: pass\n" * 10 + "import asyncio\nawait asyncio.sleep(100)\n" * 5
    code = f"check('01.1', 259)\n{endless}x = [1 for _ in iter(int, 1)]\ncheck('01.2', x)\ncheck('01.4', 3)"
    hand = handed_in([code], True, seconds=0.4, reading=1.0)
    assert time.monotonic() - started < 3 and hand.answers == {"01.1": [259], "01.4": [3]}
    assert "longer than allowed" in hand.errors["01.2"]
