"""What a check is made of: does an answer behave like the reference, and if not, like which known mistake?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch

from ..errors import brief
from .checks import Unanswered


def judged_samples(generator: torch.Generator, count: int, classes: int, right: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What a judge sees, and what was asked for: int64, `count` each. A share `right` is seen as asked, the rest at random."""
    asked = torch.randint(classes, (count,), generator=generator)
    sure = torch.rand(count, generator=generator) < right
    return torch.where(sure, asked, torch.randint(-1, classes, (count,), generator=generator)), asked


def compare(
    function, reference: Callable, cases: Iterable[tuple], mistakes: Mapping[str, Callable] | None = None, tolerance: float = 1e-5,
    read: Callable = lambda value: value,
) -> bool | str:
    """True if a learner's function equals the reference on every case; else what was expected, what came, and the likely mistake.

    cases: tuples of arguments. mistakes: what a message says -> a function that makes just this mistake. read: what the learner's
    function returns, as the reference has it: a set of tensors as a sorted list of numbers, say. A gap, or nothing, is not read.
    """
    if not callable(function):
        return f"A function was expected, not {in_words(function)}."
    cases = list(cases)
    expected = [reference(*copy.deepcopy(case)) for case in cases]
    results = [value if (value := function(*copy.deepcopy(case))) is ... or value is None else read(value) for case in cases]
    if any(value is ... for value in results):
        raise Unanswered
    wrong = [k for k in range(len(cases)) if not same(results[k], expected[k], tolerance)]
    if not wrong:
        return True
    k = wrong[0]
    arguments = ", ".join(map(in_words, cases[k]))
    wanted, given = told_apart(expected[k], results[k], tolerance)
    difference = f"For the arguments {arguments}, {wanted} was expected, not {given}."
    for phrase, mistaken in (mistakes or {}).items():
        if all(same(results[i], mistaken(*copy.deepcopy(cases[i])), tolerance) for i in range(len(cases))):
            return f"{difference} {phrase}"
    if results[k] is None and expected[k] is not None:
        return f"{difference} Does your function return its result?"
    return difference


def compare_value(answer, expected: float, mistakes: Mapping[str, float] | None = None, tolerance: float = 1e-6) -> bool | str:
    """True if a number is the expected one; else the likely mistake, if it is a known one. The number itself is not given away."""
    number = float(answer)
    if abs(number - expected) <= tolerance:
        return True
    for phrase, mistaken in (mistakes or {}).items():
        if abs(number - mistaken) <= max(min(tolerance, abs(mistaken) / 100), 1e-9):
            return f"{number:g} is not it. {phrase}"
    return f"{number:g} is too {'large' if number > expected else 'small'}."


def choose(answer, right: set[str], others: Mapping[str, str]) -> bool | str:
    """True if one of the right words was chosen. others: each other word -> why it is not that."""
    word = str(answer).strip().lower()
    if word in right:
        return True
    return others.get(word, f"{brief(word, 40)} is not among the choices: {', '.join(sorted(right | set(others)))}.")


def same(a, b, tolerance: float = 1e-5) -> bool:
    """Equal up to rounding; tensors, arrays and numbers alike, shapes included."""
    if a is None or b is None or isinstance(a, str) or isinstance(b, str):
        return a is b or (isinstance(a, str) and isinstance(b, str) and a == b)  # one of numpy's is a string, too
    if isinstance(b, (tuple, list)):
        a = list(a) if isinstance(a, (np.ndarray, torch.Tensor)) and a.ndim else a
        return isinstance(a, (tuple, list)) and len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    a, b = _array(a), _array(b)
    return a is not None and a.shape == b.shape and bool(np.allclose(a, b, rtol=tolerance, atol=tolerance))


def in_words(value) -> str:
    """A value in a few words: numbers in full, arrays by shape and first entries."""
    if callable(value) and not isinstance(value, torch.Tensor):
        return "the function"
    if isinstance(value, (tuple, list)):
        shown = ", ".join(map(in_words, value[:4])) + (", ..." if len(value) > 4 else "")
        return f"({shown})" if isinstance(value, tuple) else f"[{shown}]"
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = _array(value)
        if array is None or array.ndim == 0:
            return f"{value}" if array is None else f"{float(array):.4g}"
        first = ", ".join(f"{x:.3g}" for x in array.ravel()[:3])
        return f"an array of shape {tuple(array.shape)} ({first}{', ...' if array.size > 3 else ''})"
    return f"{value:.4g}" if isinstance(value, float) else repr(value)


def told_apart(expected, result, tolerance: float) -> tuple[str, str]:
    """Two values in words that differ: of arrays whose first entries look alike, an entry that does not agree."""
    said = in_words(expected), in_words(result)
    if said[0] != said[1]:
        return said
    if isinstance(expected, (tuple, list)):
        if len(expected) != len(result):
            return f"{said[0]} of {len(expected)} items", f"{said[1]} of {len(result)}"
        return next(told_apart(*pair, tolerance) for pair in zip(expected, result, strict=True) if not same(*pair, tolerance))
    one, other = _array(expected), _array(result)
    if one is None or other is None or not one.ndim:
        return said
    place = tuple(map(int, np.argwhere(~np.isclose(other, one, rtol=tolerance, atol=tolerance))[0]))
    return f"{said[0]} with {one[place]:.9g} at {list(place)}", f"with {other[place]:.9g} there"


def _array(value) -> np.ndarray | None:
    try:
        value = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        if np.iscomplexobj(value):  # numpy would drop the imaginary part, and what crosses to the grader is real
            return None
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
