"""Grading on the same checks as in the notebooks: the student's code runs in a process of its own, the judging happens here.

    grade(Path("submissions"), Path("marks"))     marks.csv, and a page for each student

A submission is a notebook (.ipynb), a Python file (.py), or answers alone (.json: exercise number -> value), named after the
student; or a folder of that name with several of them. Functions that were handed in are called across a pipe with random inputs
whose seeds are drawn anew here, and only their results come back, as JSON.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import yaml

from ..checking import check_kind, check_number
from ..errors import DimumError, brief
from ..files import check_writable
from . import checks, wire
from .hand_ins import UNREADABLE, HandIn, read, submissions
from .marks import Mark, Result, book
from .variants import variant

ROOT = Path(__file__).resolve().parents[2]
POINTS = Path(__file__).with_name("points.yaml")
SECRET = ["/proc", str(Path(__file__).parent), *(str(ROOT / name) for name in ("notebooks", "tests", "build", "docs", ".git"))]
REPEATS = 3  # hidden seeds for each answer
RESTARTS = 3  # processes for one student, after an answer that ended the one before
START = 120.0  # seconds that starting a process and reading the hand-in may take beyond the limit of the answers
READING = 0.75  # part of START that the hand-in may run for: the rest is for the start


def read_points(path: Path = POINTS) -> tuple[dict[str, float], bool]:
    """Exercise -> points, and whether each student has numbers of his own. DimumError for a file that cannot be used."""
    try:
        plan = yaml.safe_load(path.read_text())
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
            raise DimumError(f"{path}: points are numbers, not negative, and those of {number} are {brief(value)}.")
    check_kind(f"variants in {path}", plan.get("variants", False), bool, "true or false")
    points = {number: float(listed.get(number, others)) for number in sorted(checks.EXERCISES)}
    return {number: value for number, value in points.items() if value}, plan.get("variants", False)


@contextmanager
def student_process(order: dict) -> Iterator[wire.Line]:
    """A fresh process that has been given the submission; killed when done."""
    to_student, from_student = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory() as home:
        environment = {
            "PATH": os.environ.get("PATH", ""), "HOME": home, "TMPDIR": home, "MPLCONFIGDIR": home, "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1",
        }
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("answering.py")), str(to_student[0]), str(from_student[1])],
            pass_fds=(to_student[0], from_student[1]), cwd=home, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        try:
            os.close(to_student[0])
            os.close(from_student[1])
            line = wire.Line(from_student[0], to_student[1], time.monotonic() + START + order["seconds"])
            line.send(order)
            yield line
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it leads a session of its own
            process.wait()
            os.close(to_student[1])
            os.close(from_student[0])


def far_function(line: wire.Line, place: int):
    """A function of the student's process, called from here. What it calls back is run here."""

    def call(*arguments):
        own: list = []
        line.send({"call": place, "arguments": wire.encode(list(arguments), own)})
        while True:
            answer = line.receive()
            if "callback" not in answer:
                break
            try:
                result = wire.encode(own[int(answer["callback"])](*wire.decode(answer["arguments"])))
            except Exception as error:
                line.break_off(f"it called a function of the exercise wrongly: {type(error).__name__}: {error}")
            line.send({"result": result})
        if "raised" in answer:
            raise RuntimeError(str(answer["raised"]))
        return wire.decode(answer["result"])

    return call


def grade_student(
    student: str, files: list[Path], points: dict, variants: bool, seconds: float, memory: float, secret: Iterable[Path] = ()
) -> Result:
    """Judge one student's files; whatever they do, the marks are computed here. secret: what they may not read, beside SECRET."""
    return grade_hand_in(student, read(files), points, variants, seconds, memory, secret)


def grade_hand_in(
    student: str, hand_in: HandIn, points: dict, variants: bool, seconds: float, memory: float, secret: Iterable[Path]
) -> Result:
    """As grade_student, of files that have been read."""
    own = student if variants else ""
    hidden = [*SECRET, *(str(path.absolute()) for path in secret if not _needed_to_run(path))]
    found, note = {}, ""
    if hand_in.pieces:
        try:
            given = {number: checks.given(number, own) for number in points} | {"variant": asdict(variant(own))}
            found, note = judge_all({
                "pieces": hand_in.pieces, "student": own, "memory": int(memory * 1e9), "given": wire.encode(given),
                "secret": hidden, "readable": readable_paths(hidden), "seconds": seconds, "reading": START * READING,
            }, points, own)
        except UNREADABLE as error:
            note = f"the hand-in cannot be judged: {type(error).__name__}: {error}"
    note = "; ".join(filter(None, (hand_in.note, note)))
    missing = checks.Verdict(False, "not answered.")
    marks = [(number, out_of, found.get(number, missing)) for number, out_of in points.items()]
    return Result(student, [Mark(n, out_of if v.right is True else 0.0, out_of, str(v.said)) for n, out_of, v in marks], note)


def readable_paths(secret: list[str]) -> list[str]:
    """The largest folders and files that together are all but the secret ones: Linux wants to be told what is allowed."""
    hidden = {Path(path).resolve() for path in secret}
    above = {parent for path in hidden for parent in path.parents}
    try:
        children = [child for folder in above if not hidden & {folder, *folder.parents} for child in os.scandir(folder)]
    except OSError:  # of a folder that cannot be listed, not all would be found
        return ["/"]
    return [child.path for child in children if not child.is_symlink() and Path(child.path) not in above | hidden]


def _needed_to_run(path: Path) -> bool:
    """Whether Python or this package lies in a folder that should be secret."""
    needed = (sys.prefix, sys.base_prefix, Path(__file__).parents[1])
    return any(Path(part).resolve().is_relative_to(path.resolve()) for part in needed)


def judge_all(order: dict, points: dict, student: str) -> tuple[dict[str, checks.Verdict], str]:
    """A verdict on each answer. An answer that ends its process costs only itself: the rest gets another process."""
    found: dict[str, checks.Verdict] = {}
    note = ""
    for _ in range(RESTARTS):
        try:
            with student_process(order) as line:
                handed = line.receive()
                answers, errors = dict(handed["answers"]), dict(handed["errors"])
                found |= {n: checks.Verdict(False, str(e)[:300]) for n, e in errors.items() if n not in found | answers}
                for number, given in sorted(answers.items()):
                    if number in points and number not in found:
                        line.deadline = time.monotonic() + order["seconds"]
                        found[number] = judge_last(number, given, line, student)
                        if line.broken:
                            note = f"exercise {number}: {line.broken}"
                            break
                if not line.broken or not set(answers) & set(points) - set(found):
                    return found, note
        except (wire.WireError, KeyError, ValueError, TypeError) as error:
            return found, f"the hand-in could not be run: {error}"
    return found, note


def judge_last(number: str, given: list, line: wire.Line, student: str) -> checks.Verdict:
    """The verdict on the last answer that is one: a gap, as in a copy that nobody filled in, stands for nothing."""
    found = checks.Verdict(None, "not answered.")
    for answer in reversed(given):
        found = judge(number, answer, line, student)
        if found.right is not None or line.broken:
            break
    return found


def judge(number: str, answer, line: wire.Line, student: str) -> checks.Verdict:
    """The verdict on one answer over several hidden seeds: the first that is not right, if there is one."""
    try:
        value = wire.decode(answer, lambda place: far_function(line, place))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        return checks.Verdict(False, f"the answer cannot be read: {error}")
    if isinstance(value, float) and math.isnan(value):  # no comparison says that it is far from the right number
        return checks.Verdict(False, "NaN, which is not a number, is no answer.")
    for _ in range(REPEATS):
        found = checks.verdict(number, value, student, seed=secrets.randbits(31))
        if found.right is not True:
            break
    return found


def grade(folder: Path, out: Path, points: Path = POINTS, seconds: float = 20.0, memory: float = 2.0) -> list[Result]:
    """Grade every submission; writes marks.csv and a page for each student into `out`, each student's as soon as it is judged.

    seconds: for each cell and each answer. memory: GB beyond what Python and torch need. DimumError without submissions.
    """
    if sys.platform == "win32":
        raise DimumError("Grading needs Linux or macOS, where students' code can be fenced in: on Windows, run it in WSL.")
    check_number("seconds", seconds, 0, above=True)
    check_number("memory", memory, 0, above=True)
    worth, variants = read_points(points)
    # all is read before the first student's code runs: it must not be able to change what another one handed in
    hand_ins = {student: read(files) for student, files in submissions(folder).items()}
    if out.resolve() == folder.resolve():
        raise DimumError(f"The marks need a folder of their own, not {folder}: there they would be taken for hand-ins.")
    check_writable(out)
    if out.resolve().parent == folder.resolve():
        hand_ins.pop(out.name, None)  # the marks of an earlier run
    results = []
    with book(out, list(worth)) as enter:
        for student, hand_in in hand_ins.items():
            results.append(grade_hand_in(student, hand_in, worth, variants, seconds, memory, secret=(folder, out, points)))
            enter(results[-1])
    return results
