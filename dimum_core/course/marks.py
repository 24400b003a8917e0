"""Marks, and how they are written: a row in marks.csv, and a page for each student. What a student wrote stays text in both."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import html
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

CANVAS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")  # the columns that its import asks for, before the marks
LONGEST = 255 - len(".html")  # bytes of a page's name that file systems take
AS_TEXT = {"encoding": "utf-8", "errors": "backslashreplace"}  # what a student's code says may be no text
FOR_EXCEL = {"encoding": "utf-8-sig"}  # without the mark it takes a file for one of the system's code page


@dataclass(frozen=True)
class Mark:
    number: str
    points: float
    out_of: float
    said: str


@dataclass
class Result:
    student: str
    marks: list[Mark] = field(default_factory=list)
    note: str = ""

    @property
    def points(self) -> float:
        return sum(mark.points for mark in self.marks)

    @property
    def out_of(self) -> float:
        return sum(mark.out_of for mark in self.marks)


@contextmanager
def book(out: Path, numbers: list[str]) -> Iterator:
    """Opens marks.csv in `out`, with a column for each exercise; yields a function that enters a result and writes its page.

    Beside it stand moodle.csv and canvas.csv, the sums alone, for the import of marks into those platforms.
    """
    with contextlib.ExitStack() as files:
        marks, moodle, canvas = (
            files.enter_context((out / name).open("w", newline="", **AS_TEXT | mark))
            for name, mark in (("marks.csv", FOR_EXCEL), ("moodle.csv", {}), ("canvas.csv", {}))
        )

        def write(file, *row) -> None:
            csv.writer(file).writerow(row)
            file.flush()  # a run that is killed keeps what it had

        def enter(result: Result) -> None:
            (out / page_name(result.student)).write_text(page(result), **AS_TEXT)
            student = no_formula(result.student)
            points = [f"{points:g}" for points in (result.points, result.out_of, *(mark.points for mark in result.marks))]
            if canvas.tell() == 0:
                write(canvas, *CANVAS, out.resolve().name)
                write(canvas, "    Points Possible", *[""] * (len(CANVAS) - 1), f"{result.out_of:g}")
            write(marks, student, *points, no_formula(result.note))
            write(moodle, student, points[0])
            write(canvas, student, "", student, student, "", points[0])

        write(marks, "student", "points", "out of", *numbers, "note")
        write(moodle, "ID number", out.resolve().name)
        yield enter


def no_formula(text: str) -> str:
    """A text that spreadsheets show and do not compute, even cut at semicolons: an apostrophe stands before =, +, -, @."""
    return re.sub(r"""(^|[,;])(?=["']*[=+\-@＝＋－＠])""", r"\1'", one_line(text))


def one_line(text: str) -> str:
    """A text without control characters, which might steer a terminal or break a line, and without what is not Unicode."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cs") else c for c in text
    )


def page_name(student: str) -> str:
    """The file of a student's page; names that leave no room for its suffix are cut."""
    name = os.fsencode(student)
    if len(name) <= LONGEST:
        return f"{student}.html"
    return f"{name[:LONGEST - 17].decode(errors='ignore')}-{hashlib.sha256(name).hexdigest()[:16]}.html"


def page(result: Result) -> str:
    """What a student gets to see: the marks, and what was said of each answer."""
    rows = "\n".join(
        f"<tr><td>{mark.number}</td><td>{mark.points:g} of {mark.out_of:g}</td><td>{html.escape(mark.said)}</td></tr>"
        for mark in result.marks
    )
    parts = {
        "student": html.escape(one_line(result.student)), "points": f"{result.points:g}", "out_of": f"{result.out_of:g}",
        "rows": rows, "note": f"<p><strong>Note:</strong> {html.escape(result.note)}.</p>" if result.note else "",
    }
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    return re.sub(r"{{(\w+)}}", lambda gap: parts[gap[1]], template)  # in one go: what is filled in is not looked at again
