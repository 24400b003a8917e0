"""What the tests of grading hand in, and how they read the marks."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path

from dimum_core.course import grade

from .. import course_answers

RIGHT_GUESS = "def guess(x_t, eps, abar):\n    return (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()\n"
TWO = {"01.1": 1.0, "01.2": 2.0}
ENDLESS = "while True:\n    try:\n        while True: sum(range(1000))\n    except BaseException: pass\n"


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
