"""One source, several editions: gaps and nothing else differ, a fresh copy stops at its first gap, and solutions are right."""

from __future__ import annotations

import ast
import copy
import itertools
import re

import nbformat
import pytest
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from dimum_core.answering.cells import KEPT, needed_steps, read_cell
from dimum_core.course import grade
from dimum_core.course.checks import EXERCISES

from .test_course_tools import ROOT, load

editions = load("editions")
NAME = "01_first.ipynb"
CELL = editions.solution_title("01.2") + '''def guess(x_t, eps, abar):
    # solution: return the guess
    noise = (1 - abar).sqrt() * eps
    return (x_t - noise) / abar.sqrt()
    # end solution


check("01.2", guess)'''
CHAPTERS = [path for path in editions.chapters(ROOT / "notebooks")
            if any(editions.GAP.search(cell.source) for cell in nbformat.read(path, 4).cells)]


@pytest.fixture
def source():
    solution = new_code_cell(CELL, metadata=copy.deepcopy(editions.FOLDED), execution_count=3)
    solution.outputs = [
        new_output("stream", text="Exercise 01.2: right.\n"),
        new_output("display_data", {"image/png": "iVBORw0="}, metadata={"image/png": {"alt": "A guess."}}),
    ]
    first = f"# First\n\n[More](../docs/more.md)\n\n[x](https://colab.research.google.com/github/a/b/blob/main/notebooks/{NAME})"
    return new_notebook(cells=[
        new_markdown_cell(first), new_code_cell('student = ""  # your id', metadata={"tags": ["parameters"]}),
        new_code_cell("import torch\nfrom dimum_core.course import check", execution_count=1),
        new_markdown_cell(f"## Exercises\n\n{editions.main_note(NAME)}\n\n**01.2** Write it."), solution,
        new_code_cell("print('the end')"),
    ])


def test_a_stub_is_its_solution_but_for_the_gap():
    stub = editions.stub(CELL).split("\n")
    gap = "    raise NotImplementedError('Exercise 01.2: return the guess. hint(\"01.2\") helps.')"
    assert stub[:2] == ["def guess(x_t, eps, abar):", gap]
    assert stub[2:] == ["", "", 'check("01.2", guess)']
    assert "solution" not in editions.stub(CELL) and "@title" not in editions.stub(CELL)
    assert editions.solved(CELL).split("\n")[1:3] == CELL.split("\n")[3:5]


def test_two_gaps_in_one_cell_are_two_gaps():
    cell = "# solution\na = 1\n# end solution\nb = 2\n# solution\nc = 3\n# end solution\ncheck('01.1', c)"
    assert editions.stub(cell).count("raise NotImplementedError") == 2 and "b = 2" in editions.stub(cell)
    assert editions.solved(cell) == "a = 1\nb = 2\nc = 3\ncheck('01.1', c)"
    with pytest.raises(SystemExit, match="no check"):
        editions.stub("# solution\na = 1\n# end solution")


def test_the_student_edition_has_gaps_pictures_and_its_own_links(source):
    made = editions.student_edition(source, NAME, student="ada")
    code = [cell for cell in made.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert "/notebooks/student/01_first.ipynb" in made.cells[0].source
    assert 'student = "ada"' in made.cells[1].source
    text = "\n".join(cell.source for cell in made.cells)
    assert "](../../docs/more.md)" in text
    assert "](../../notebooks/01_first.ipynb)" in text and "folded" not in text and "noise = (1 - abar)" not in text
    assert "![A guess.](data:image/png;base64,iVBORw0=)" in made.cells[5].source
    assert made.cells[4].metadata == {} and source.cells[4].metadata != {}
    assert editions.written(made) == editions.written(editions.student_edition(source, NAME, student="ada"))


@pytest.mark.parametrize("student", ["ada", "o'brien", 'say "ada"', "Åsa", "a\\b"])
def test_any_id_of_a_student_is_filled_in(source, student):
    names = {}
    exec(editions.student_edition(source, NAME, student=student).cells[1].source, names)
    assert names["student"] == student


def test_the_teachers_edition_has_points_and_hints(source):
    made = editions.teacher_edition(source, NAME)
    assert "# First" in made.cells[0].source and made.cells[1].source.startswith("**For the teacher")
    note = next(cell.source for cell in made.cells if "For the teacher: 01.2, 1 points" in cell.source)
    assert all(hint in note for hint in EXERCISES["01.2"].hints)
    text = " ".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
    assert "](../../docs/more.md)" in text and "](../docs" not in text  # it lies in build/teacher


@pytest.fixture
def kernel(tmp_path):
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path))
    yield manager
    manager.shutdown_kernel(now=True)


def run(notebook, kernel):
    NotebookClient(notebook, timeout=300, km=kernel).execute()


def test_a_fresh_student_edition_stops_at_its_first_gap_and_a_solved_one_does_not(source, kernel):
    made = editions.student_edition(source, NAME)
    with pytest.raises(CellExecutionError) as stopped:
        run(made, kernel)
    assert (stopped.value.ename, stopped.value.evalue) == (
        "NotImplementedError", 'Exercise 01.2: return the guess. hint("01.2") helps.'
    )
    shown = re.sub(r"\x1b\[[\d;]*m", "", str(stopped.value))
    assert "return the guess" in shown and "(1 - abar)" not in shown  # the traceback shows no reference
    assert made.cells[-1].execution_count is None  # nothing after the gap was run
    source.cells[4].source = editions.solved(CELL)
    run(source, kernel)
    assert source.cells[4].outputs[0].text == "Exercise 01.2: right.\n" and source.cells[-1].outputs[0].text == "the end\n"


def test_an_edition_that_was_changed_by_hand_is_noticed(source, tmp_path, capsys):
    nbformat.write(source, tmp_path / NAME)
    assert editions.main([], tmp_path) == 1 and f"{NAME} is out of date" in capsys.readouterr().out
    assert editions.main(["--write"], tmp_path) == 0
    path = tmp_path / "student" / NAME
    path.write_text(path.read_text().replace("Write it", "Write this"))
    assert editions.main([], tmp_path) == 1


def test_the_stored_student_editions_are_up_to_date():
    assert editions.out_of_date(ROOT / "notebooks") == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name[:2])
def test_a_chapters_editions_differ_in_gaps_only(path):
    source = nbformat.read(path, 4)
    student = nbformat.read(path.parent / "student" / path.name, 4)
    ours = [cell.source for cell in source.cells if cell.cell_type == "code"]
    theirs = [cell.source for cell in student.cells if cell.cell_type == "code"]
    assert len(ours) == len(theirs)
    gaps = 0
    for mine, other in zip(ours, theirs, strict=True):
        if editions.GAP.search(mine):
            gaps += 1
            assert other == editions.stub(mine) and "raise NotImplementedError" in other and "# solution" not in other
        else:
            assert other == mine
    exercises = {number for number in EXERCISES if number.startswith(path.name[:2])}
    assert exercises == {editions.exercise_number(cell) for cell in ours if editions.GAP.search(cell)} and gaps == len(exercises)


def test_solved_chapters_are_graded_to_full_marks_and_fresh_ones_to_zero(tmp_path):
    for folder, where in (("solved", ROOT / "notebooks"), ("fresh", ROOT / "notebooks" / "student")):
        (tmp_path / "in" / folder).mkdir(parents=True)
        for path in CHAPTERS:
            (tmp_path / "in" / folder / path.name).write_text((where / path.name).read_text())
    fresh, solved = grade.grade(tmp_path / "in", tmp_path / "out", seconds=300)  # slow machines too
    there = {path.name[:2] for path in CHAPTERS}
    lacking = [mark for mark in solved.marks if mark.number[:2] in there and mark.points < mark.out_of]
    assert not lacking, (lacking, solved.note)
    assert fresh.points == 0 and not fresh.note


def test_a_hand_in_with_gaps_asks_for_no_training():
    """Where an exercise is left open, the way to its answer must not be a name that an earlier cell gave to something slow."""
    slow = {"unlearn", "relearn", "train_base", "train", "draw_samples", "evaluate"}
    for path in CHAPTERS:
        sources = (cell.source for cell in nbformat.read(path.parent / "student" / path.name, 4).cells if cell.cell_type == "code")
        for step in itertools.chain(*needed_steps(list(map(read_cell, sources)), {"check"})):
            if not isinstance(step.statement, KEPT):
                named = {node.id for node in ast.walk(step.statement) if isinstance(node, ast.Name)}
                assert not slow & named, (path.name, ast.unparse(step.statement))
