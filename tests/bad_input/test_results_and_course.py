"""Calls of the report and the course."""

from __future__ import annotations

import pytest

from dimum_core import widgets
from dimum_core.benchmark import read_results, report, write_results
from dimum_core.benchmark.page import write_report
from dimum_core.course import check, grade, hint
from dimum_core.course import given as numbers_of
from dimum_core.frames import Frames
from tests.bad_input.refusing import INF, NAN, refused

RESULTS = {
    "results: none": (lambda w: read_results(None), "source must be"),
    "results: not there": (lambda w: read_results(w.folder / "nowhere"), "no finished cells"),
    "results: rows of nothing": (lambda w: report(None), "rows must be a table"),
    "results: no rows": (lambda w: report(w.rows.head(0)), "has no rows"),
    "results: a page of no rows": (lambda w: write_report(w.rows.head(0), w.out, "title"), "has no rows"),
    "results: another suffix": (lambda w: write_results(w.rows, w.out / "x.txt"), "ends in .parquet or .csv"),
    **{f"results: without {name}": (lambda w, name=name: report(w.rows.drop(columns=name)),
    f"lacks the columns {name}") for name in (
        "label", "target", "seed", "step", "attack_rate", "target accuracy", "retained accuracy", "unlearning_steps")},
    **{f"results: words for {name}": (lambda w, name=name: report(w.rows.assign(**{name: "x"})), f"column {name}") for name in (
        "step", "seed", "attack_rate", "target accuracy", "retained accuracy", "unlearning_steps")},
    "results: an accuracy of 2": (lambda w: report(w.rows.assign(**{"target accuracy": 2.0})), "accuracies in [0, 1]"),
    "results: accuracies of nan": (lambda w: report(w.rows.assign(**{"target accuracy": NAN})), "accuracies in [0, 1]"),
}
COURSE = {
    "check: no such exercise": (lambda w: check("99.9", 1), "no exercise '99.9'"),
    "check: a number for a number": (lambda w: check(1.2, 1), "no exercise 1.2"),
    "check: no exercise": (lambda w: check(["01.1"], 1), "no exercise ['01.1']"),
    "check: no student": (lambda w: check("01.1", 1, None), "student must be a name"),
    "hint: nothing": (lambda w: hint(None), "no exercise None"),
    "given: a student by number": (lambda w: numbers_of("01.1", 5), "student must be a name"),
    "frames: a step too many": (lambda w: frames().frame(step=99), "no frame of Steps (99,)"),
    "frames: a misspelt choice": (lambda w: frames().frame(stepp=1), "Did you mean 'step'"),
    "frames: results outside": (lambda w: widgets.recovery_explorer("../../nothing.parquet"), "There is no file"),
    "grade: no folder": (lambda w: grade.grade(w.folder / "no", w.out), "There is no folder"),
    "grade: a file": (lambda w: grade.grade(w.folder / "file", w.out), "There is no folder"),
    **{f"grade: {name} {value!r}": (lambda w, name=name, value=value: grade.grade(w.canvas, w.out, **{name: value}),
    f"{name} must be")
       for name, value in (("seconds", 0), ("seconds", NAN), ("seconds", "x"), ("memory", -1), ("memory", INF))},
}
CASES = {**RESULTS, **COURSE}


def frames():
    return Frames("Steps", {"step": (0, 1)}, {(0,): b"", (1,): b""}, {(0,): "", (1,): ""})


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_is_refused_in_one_sentence(w, case):
    refused(w, *CASES[case])


def test_frames_without_a_picture_for_each_choice_are_refused():
    for choices, pictures in (({}, {}), ({"a": (1,)}, {(2,): b""}), ({"a": ()}, {})):
        with pytest.raises(ValueError, match="pictures and texts"):
            Frames("t", choices, pictures, dict.fromkeys(pictures, ""))
