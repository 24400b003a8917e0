"""Intervals: how far a figure may be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy import stats

from ..errors import DimumError, brief


class MetricError(DimumError, ValueError):
    """Numbers that a metric cannot be computed from."""


@dataclass(frozen=True)
class Interval:
    """A figure, the ends of its confidence interval, and the number of items it rests on."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.n}"

    @property
    def percent(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}], n = {self.n}"


def check_confidence(confidence: float) -> None:
    if not isinstance(confidence, Real) or not 0 < confidence < 1:
        raise MetricError(f"A confidence lies between 0 and 1, such as 0.95, not {brief(confidence)}.")


def as_numbers(values, what: str) -> np.ndarray:
    """An array of float64, of any shape, or MetricError for what holds no real numbers."""
    try:
        if np.iscomplexobj(values):
            raise TypeError("complex numbers")
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # words, ragged, or a tensor on a GPU or with a gradient
        raise MetricError(f"{what} must be real numbers, on the CPU and without gradients, not {brief(values)}.") from error


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927): right for few items and for proportions near 0 and 1.

    successes, n: whole numbers, 0 <= successes <= n, or MetricError. The figure and its ends lie in [0, 1].
    """
    check_confidence(confidence)
    numbers = isinstance(successes, Real) and isinstance(n, Real)
    if not numbers or not (n >= 1 and 0 <= successes <= n and successes % 1 == n % 1 == 0):  # also refuses NaN
        raise MetricError(
            f"A proportion needs whole numbers, 0 <= successes <= n and n >= 1, not {brief(successes)} of {brief(n)}."
        )
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return Interval(float(successes / n), float(interval.low), float(interval.high), int(n))


def difference_of_proportions(
    successes_1: int, n_1: int, successes_2: int, n_2: int, confidence: float = 0.95
) -> Interval:
    """successes_1 / n_1 - successes_2 / n_2, in [-1, 1], of independent samples, by Newcombe's method 10 (1998): two Wilson
    intervals put together. n is the smaller of the two."""
    first, second = wilson_interval(successes_1, n_1, confidence), wilson_interval(successes_2, n_2, confidence)
    value = first.value - second.value
    low = value - np.hypot(first.value - first.low, second.high - second.value)
    high = value + np.hypot(first.high - first.value, second.value - second.low)
    return Interval(value, float(low), float(high), min(n_1, n_2))


def t_interval(values, confidence: float = 0.95) -> Interval:
    """Mean over independent repetitions (seeds) with Student's interval; values: two or more numbers."""
    check_confidence(confidence)
    values = as_numbers(values, "The values of an interval over seeds")
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise MetricError(f"An interval over seeds needs at least two finite values, not {brief(values.tolist())}.")
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return Interval(mean, mean - reach, mean + reach, len(values))
