"""How an answer is judged: by what it does on inputs it has not seen, with a message that says what was expected.

    check("01.2", guess)     says whether an answer is right; the first failure comes with a nudge
    hint("01.2")             the next of two or three hints, never the solution
    given("02.2", student)   the numbers of a question, each student's own; without a student, those of the chapter

A chapter's exercises are in checks_NN.py. An exercise is a function of the answer (and, if it asks for them by name, of the `seed`
of its random inputs and of the question's `numbers`) that returns True, False, or a sentence on what is wrong.
"""

from __future__ import annotations

import hashlib
import inspect
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..checking import check_kind
from ..errors import UnknownName


@dataclass(frozen=True)
class Exercise:
    number: str
    judge: Callable[..., bool | str]
    hints: tuple[str, ...]
    numbers: Mapping[str, tuple]  # name -> values; the first is printed in the chapter


@dataclass(frozen=True)
class Outcome:
    """right is None where nothing was answered; said: one or two sentences for the learner."""

    right: bool | None
    said: str


class Unanswered(Exception):
    """The answer is still a gap."""


EXERCISES: dict[str, Exercise] = {}
_failures: Counter = Counter()
_hints_shown: Counter = Counter()


def exercise(number: str, *hints: str, numbers: Mapping[str, list] | None = None):
    """Register a check. hints: from a nudge to nearly the answer. numbers: what a question draws for each student."""

    def register(judge: Callable[..., bool | str]):
        EXERCISES[number] = Exercise(number, judge, hints, {name: tuple(values) for name, values in (numbers or {}).items()})
        return judge

    return register


def find(number: str) -> Exercise:
    if not isinstance(number, str) or number not in EXERCISES:
        raise UnknownName("exercise", number, sorted(EXERCISES))
    return EXERCISES[number]


def given(number: str, student: str = "") -> dict:
    """The numbers of a question, by name: those of the chapter, or a student's own, which follow from the id alone."""
    rng = np.random.default_rng(identity(student, number))
    return {
        name: values[0] if not student else values[1 + int(rng.integers(len(values) - 1))]
        for name, values in find(number).numbers.items()
    }


def identity(student: str, purpose: str) -> int:
    """A number that follows from a student's id and what it is for; the same on every machine."""
    check_kind("student", student, str, "a name or an id in quotation marks")
    same = unicodedata.normalize("NFC", student.strip().casefold())  # macOS takes letters and their accents apart in file names
    return int.from_bytes(hashlib.sha256(f"{purpose}\0{same}".encode()).digest()[:8], "big")


def verdict(number: str, answer, student: str = "", seed: int = 0) -> Outcome:
    """Judge an answer and say nothing. seed: of the random inputs that a function is tried on."""
    if answer is None or answer is ...:
        return Outcome(None, "not answered yet.")
    judge, known = find(number).judge, {"seed": seed, "numbers": given(number, student)}
    asks_for = inspect.signature(judge).parameters
    try:
        outcome = judge(answer, **{name: value for name, value in known.items() if name in asks_for})
    except Unanswered:
        return Outcome(None, "not answered yet.")
    except NotImplementedError:
        raise  # a gap of the student edition says itself which exercise it is
    except Exception as error:  # a wrong answer may fail in any way; the learner is told which
        return Outcome(False, f"Your answer raised {type(error).__name__}: {error}.")
    return Outcome(outcome is True, "right." if outcome is True else outcome or "")


def check(number: str, answer, student: str = "") -> bool | None:
    """Say whether an answer is right. `...` or None means not answered yet, so that a fresh notebook runs through."""
    __tracebackhide__ = True
    hints = find(number).hints
    try:
        judged = verdict(number, answer, student)
    except NotImplementedError as gap:  # without the frames between, whose source would show the reference
        raise NotImplementedError(str(gap)) from None
    if judged.right is not False:
        print(f"Exercise {number}: {judged.said}")
        return judged.right
    nudge = hints[:1] if not _failures[number] or not judged.said else ()
    further = (f'hint("{number}") says more.',) if len(hints) > 1 else ()
    print(" ".join([f"Exercise {number}: not yet.", *filter(None, [judged.said]), *nudge, *further]))
    _failures[number] += 1
    return False


def hint(number: str) -> None:
    """Print the next hint; after the last one, say where the solution is folded away."""
    hints, shown = find(number).hints, _hints_shown[number]
    if shown < len(hints):
        print(f"Hint {shown + 1} of {len(hints)} for exercise {number}: {hints[shown]}")
    else:
        print(f"Exercise {number} has no further hint. Its solution is folded away in the chapter's main edition.")
    _hints_shown[number] += 1
