"""Make the students' and the teacher's edition of the chapters; their single source is notebooks/, where solutions are folded away.

    python tools/editions.py                  say which student notebooks are out of date
    python tools/editions.py --write          write notebooks/student/: gaps in place of solutions
    python tools/editions.py --student ID     the student edition with ID's own numbers, into build/student-ID/
    python tools/editions.py --teacher        points, hints and teaching notes beside the solutions, into build/teacher/

In a code cell, the lines between `# solution` and `# end solution` are what a student is to write. What stands behind
`# solution:` is printed in the gap. The cell says which exercise it is by its `check("01.2", ...)`.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell

ROOT = Path(__file__).resolve().parent.parent
GAP = re.compile(r"^(?P<indent>[ \t]*)# solution(?::[ ]*(?P<task>.*))?\n(?P<lines>(?:.*\n)*?)[ \t]*# end solution[ \t]*$", re.M)
NUMBER = re.compile(r"""check\(\s*["'](\d\d\.\d+)["']""")
TITLE = re.compile(r'# @title Solution of [\d.]+(?: \(unfold it\))? \{"display-mode": "form"\}\n')
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}  # JupyterLab and VS Code; Colab


def main_note(name: str) -> str:
    return f"""Solutions are folded away below; a click on a cell opens it. To write your own, take the
[student edition](student/{name}) of this chapter, with gaps in their place. `check` judges an answer by what it does,
and `hint("{name[:2]}.1")` helps, a step at a time."""


def student_note(name: str) -> str:
    return f"""Fill the gaps: write your lines where it says `raise NotImplementedError`, and run the cell. `check` judges an answer
by what it does, and `hint("{name[:2]}.1")` helps, a step at a time. The solutions are in the
[main edition](../../notebooks/{name})."""


def solution_title(number: str) -> str:
    return f'# @title Solution of {number} (unfold it) {{"display-mode": "form"}}\n'


def exercise_number(source: str) -> str:
    number = NUMBER.search(source)
    if not number:
        raise SystemExit(f"A cell with a solution has no check(\"NN.k\", ...):\n{source}")
    return number[1]


def stub(source: str) -> str:
    """The cell with a gap in place of each solution."""
    number = exercise_number(source)

    def gap(match: re.Match) -> str:
        task = (match["task"] or "write your lines here").strip()
        message = f"Exercise {number}: {task}. hint(\"{number}\") helps."
        return f"{match['indent']}raise NotImplementedError({message!r})"

    return GAP.sub(gap, TITLE.sub("", source))


def solved(source: str) -> str:
    """The cell as a student would hand it in, solved as in the source."""
    return GAP.sub(lambda match: match["lines"].rstrip("\n"), TITLE.sub("", source))


def expected(cell) -> list:
    """What the solution's outputs showed, as a cell under the gap: a picture if there is one."""
    parts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        if "image/png" in data:
            alt = output.metadata.get("image/png", {}).get("alt", "").replace("]", ")")
            parts.append(f"![{alt}](data:image/png;base64,{data['image/png'].strip()})")
        elif "text/markdown" in data:
            parts.append(data["text/markdown"])
    return [new_markdown_cell("**Expected, once it is right:**\n\n" + "\n\n".join(parts))] if parts else []


def _numbered(cells: list, name: str) -> list:
    """Cells with ids that follow from their place, so that the same source gives the same file."""
    for place, cell in enumerate(cells):
        cell.id = f"{name[:2]}-{place}"
    return cells


def one_folder_deeper(text: str) -> str:
    """Text whose links lead to the same places from a folder inside, or beside, that of the chapters."""
    return text.replace("](../", "](../../")


def student_edition(source, name: str, student: str = ""):
    """The notebook with gaps, without outputs but for pictures of what is expected."""
    notebook, named = copy.deepcopy(source), f"student = {json.dumps(student, ensure_ascii=False)}"  # always in double quotes
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            cell.source = one_folder_deeper(cell.source)
            cell.source = cell.source.replace(main_note(name), student_note(name))
            cell.source = cell.source.replace(f"/blob/main/notebooks/{name}", f"/blob/main/notebooks/student/{name}")
            continue
        if GAP.search(cell.source):
            cell.source = stub(cell.source)
            for mark in FOLDED:
                cell.metadata.pop(mark, None)
            cells += expected(cell)
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = re.sub(r'(?m)^student = "[^"]*"', lambda _: named, cell.source)
        cell.outputs, cell.execution_count = [], None
    notebook.cells = _numbered(cells, name)
    return notebook


def teacher_edition(source, name: str):
    """The source, opened, with what an exercise is worth, its hints, and the chapter's teaching notes."""
    sys.path.insert(0, str(ROOT))
    from dimum_core.course.checks import EXERCISES, given
    from dimum_core.course.grade import read_points

    points, _ = read_points()
    notebook = copy.deepcopy(source)
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type != "code" or not GAP.search(cell.source):
            continue
        for mark in FOLDED:
            cell.metadata.pop(mark, None)
        number = exercise_number(cell.source)
        hints = "\n".join(f"{k}. {text}" for k, text in enumerate(EXERCISES[number].hints, start=1))
        numbers = f"\n\nNumbers of the chapter: {given(number)}." if given(number) else ""
        worth = f"**For the teacher: {number}, {points.get(number, 0):g} points.** Hints:"
        cells.append(new_markdown_cell(f"{worth}\n\n{hints}{numbers}"))
    cells.insert(1, new_markdown_cell(teaching_notes(name[:2])))
    for cell in cells:  # it lies in build/teacher
        if cell.cell_type == "markdown":
            cell.source = one_folder_deeper(cell.source).replace("](student/", "](../../notebooks/student/")
    notebook.cells = _numbered(cells, name)
    return notebook


def teaching_notes(chapter: str, folder: Path = ROOT / "docs" / "teaching") -> str:
    """A chapter's section of docs/teaching/chapters.md."""
    text = (folder / "chapters.md").read_text(encoding="utf-8") if (folder / "chapters.md").exists() else ""
    section = re.search(rf"(?ms)^## {chapter}\b.*?(?=^## |\Z)", text)
    if section is None:
        return "**For the teacher:** there are no notes on this chapter yet."
    return f"**For the teacher**\n\n{section[0].strip()}"


def chapters(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def written(notebook) -> str:
    return nbformat.writes(notebook) + "\n"


def out_of_date(folder: Path) -> list[str]:
    """Student notebooks that are missing, superfluous, or not what the source gives."""
    expected_texts = {path.name: written(student_edition(nbformat.read(path, 4), path.name)) for path in chapters(folder)}
    there = {path.name: path.read_text(encoding="utf-8") for path in chapters(folder / "student")}
    return sorted(name for name in expected_texts.keys() | there.keys() if expected_texts.get(name) != there.get(name))


def write(folder: Path, out: Path, edition, **options) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for path in chapters(out):
        path.unlink()
    for path in chapters(folder):
        (out / path.name).write_text(written(edition(nbformat.read(path, 4), path.name, **options)), encoding="utf-8")


def main(argv: list[str] | None = None, folder: Path = ROOT / "notebooks") -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--write", action="store_true")
    choice.add_argument("--student", metavar="ID")
    choice.add_argument("--teacher", action="store_true")
    args = parser.parse_args(argv)
    if args.student:
        write(folder, ROOT / "build" / f"student-{args.student}", student_edition, student=args.student)
    elif args.teacher:
        write(folder, ROOT / "build" / "teacher", teacher_edition)
    elif args.write:
        write(folder, folder / "student", student_edition)
    stale = out_of_date(folder)
    print("\n".join(f"notebooks/student/{name} is out of date: python tools/editions.py --write" for name in stale)
          or f"{len(chapters(folder))} student notebooks are up to date")
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
