"""Grading on the same checks as in the notebooks: the student's code runs in a process of its own, the judging happens here.

    grade(Path("submissions"), Path("marks"))     marks.csv, and a page for each student

A submission is a notebook (.ipynb), a Python file (.py), or answers alone (.json: exercise number -> value), named after the
student; or a folder of that name with several of them. Functions that were handed in are called across a pipe with random inputs
whose seeds are drawn anew here, and only their results come back, as JSON.
"""

from __future__ import annotations

import math
import secrets
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import yaml

from ..answering import wire
from ..checking import check_kind, check_number
from ..errors import DimumError, brief
from ..files import check_writable
from . import checks
from .hand_ins import UNREADABLE, HandIn, read, submissions
from .marks import Mark, Result, book
from .students import SECRET, far_function, needed_to_run, readable_paths, student_process
from .variants import variant

POINTS = Path(__file__).with_name("points.yaml")
REPEATS = 3  # hidden seeds for each answer
RESTARTS = 10  # processes for one student, after an answer that ended the one before
START = 120.0  # seconds that a process may take until it has read the hand-in, beyond the limit of an answer
READING = 0.75  # part of START that the hand-in may run for: the rest is for imports


def read_points(path: Path = POINTS) -> tuple[dict[str, float], bool]:
    """Exercise -> points, and whether each student has numbers of their own. DimumError for a file that cannot be used."""
    try:
        plan = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DimumError(f"The points cannot be read from {path}: {reason}.") from error
    if not isinstance(plan, dict) or set(plan) - {"points", "others", "variants"} or not isinstance(plan.get("points") or {}, dict):
        raise DimumError(f"{path} should be a mapping of `points` (exercise: number), and optionally `others` and `variants`.")
    listed = {str(number): value for number, value in (plan.get("points") or {}).items()}
    others = plan.get("others", 0)
    for number in listed:
        checks.find(number)
    for number, value in [*listed.items(), ("others", others)]:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise DimumError(f"{path}: points must be numbers and not negative, but those of {number} are {brief(value)}.")
    check_kind(f"variants in {path}", plan.get("variants", False), bool, "true or false")
    points = {number: float(listed.get(number, others)) for number in sorted(checks.EXERCISES)}
    return {number: value for number, value in points.items() if value}, plan.get("variants", False)


def grade_student(
    student: str, files: list[Path], points: dict, variants: bool, seconds: float, memory: float, secret: Iterable[Path] = ()
) -> Result:
    """Judge one student's files; whatever they do, the marks are computed here. secret: what they may not read, beside SECRET."""
    return grade_hand_in(student, read(files), points, variants, seconds, memory, secret)


def grade_hand_in(
    student: str, hand_in: HandIn, points: dict, variants: bool, seconds: float, memory: float, secret: Iterable[Path]
) -> Result:
    """As `grade_student`, for files that have been read."""
    own = student if variants else ""
    hidden = [*SECRET, *(str(path.absolute()) for path in secret if not needed_to_run(path))]
    verdicts, note = {}, ""
    if hand_in.pieces:
        try:
            questions = {number: checks.given(number, own) for number in points} | {"variant": asdict(variant(own))}
            verdicts, note = judge_all({
                "pieces": hand_in.pieces, "student": own, "memory": int(memory * 1e9), "questions": wire.encode(questions),
                "secret": hidden, "readable": readable_paths(hidden), "seconds": seconds, "reading": max(START * READING, seconds),
            }, points, own)
        except UNREADABLE as error:
            note = f"the hand-in cannot be judged: {type(error).__name__}: {error}"
    note = "; ".join(filter(None, (hand_in.note, note)))
    missing = checks.Outcome(False, "not answered.")
    marks = [(number, out_of, verdicts.get(number, missing)) for number, out_of in points.items()]
    return Result(student, [Mark(n, out_of if v.right is True else 0.0, out_of, str(v.said)) for n, out_of, v in marks], note)


def judge_all(order: dict, points: dict, student: str) -> tuple[dict[str, checks.Outcome], str]:
    """A verdict on each answer. An answer that ends its process costs only itself: the rest gets another process."""
    verdicts: dict[str, checks.Outcome] = {}
    note = ""
    for _ in range(RESTARTS):
        try:
            with student_process(order, START + order["seconds"]) as line:
                reply = line.receive()
                answers, errors = dict(reply["answers"]), dict(reply["errors"])
                verdicts |= {n: checks.Outcome(False, str(e)[:300]) for n, e in errors.items() if n not in verdicts | answers}
                for number in sorted(answers.keys() & points.keys() - verdicts.keys()):
                    line.deadline = time.monotonic() + order["seconds"]
                    verdicts[number] = judge_last(number, answers[number], line, student)
                    if line.broken:
                        note = f"exercise {number}: {line.broken}"
                        break
                if not line.broken or not answers.keys() & points.keys() - verdicts.keys():
                    return verdicts, note
        except (wire.WireError, KeyError, ValueError, TypeError) as error:
            return verdicts, f"the hand-in could not be run: {error}"
    late = checks.Outcome(False, f"not judged: {RESTARTS} answers before it had ended their process.")
    return dict.fromkeys(answers.keys() & points.keys(), late) | verdicts, note


def judge_last(number: str, answers: list, line: wire.Line, student: str) -> checks.Outcome:
    """The verdict on the last real answer. A gap, as in a copy that nobody filled in, is none."""
    verdict = checks.Outcome(None, "not answered.")
    for answer in reversed(answers):
        verdict = judge(number, answer, line, student)
        if verdict.right is not None or line.broken:
            break
    return verdict


def judge(number: str, answer, line: wire.Line, student: str) -> checks.Outcome:
    """The verdict on one answer over several hidden seeds: the first that is not right, if there is one."""
    try:
        value = wire.decode(answer, lambda place: far_function(line, place))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return checks.Outcome(False, f"the answer cannot be read: {error}")
    if isinstance(value, float) and math.isnan(value):  # no comparison says that it is far from the right number
        return checks.Outcome(False, "NaN, which is not a number, is no answer.")
    for _ in range(REPEATS):
        verdict = checks.verdict(number, value, student, seed=secrets.randbits(31))
        if verdict.right is not True:
            break
    return verdict


def grade(folder: Path, out: Path, points: Path = POINTS, seconds: float = 20.0, memory: float = 2.0) -> list[Result]:
    """Grade every submission; writes marks.csv and a page for each student into `out`, each student's as soon as it is judged.

    seconds: for each cell and each answer. memory: GB beyond what Python and torch need. DimumError without submissions.
    """
    if sys.platform == "win32":
        raise DimumError("Grading needs Linux or macOS, where students' code can be fenced in: on Windows, run it in WSL.")
    check_number("seconds", seconds, 0, above=True)
    check_number("memory", memory, 0, 1e6, above=True)
    worth, variants = read_points(points)
    # all is read before the first student's code runs: it must not be able to change what another one handed in
    hand_ins = {student: read(files) for student, files in submissions(folder).items()}
    if out.resolve() == folder.resolve():
        raise DimumError(f"The marks need a folder of their own, not {folder}: there they would be taken for hand-ins.")
    check_writable(out)
    if out.resolve().parent == folder.resolve():
        hand_ins.pop(out.resolve().name, None)  # the marks of an earlier run
    results = []
    with book(out, list(worth)) as enter:
        for student, hand_in in hand_ins.items():
            results.append(grade_hand_in(student, hand_in, worth, variants, seconds, memory, secret=(folder, out, points)))
            enter(results[-1])
    return results
