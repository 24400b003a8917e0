"""Intervals: how far a figure may be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real

import numpy as np
from scipy import stats

from ..checking import check_kind
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

    def ties_with(self, other: Interval) -> bool:
        """Whether the two intervals overlap: a difference inside them is called a tie."""
        return self.low <= other.high and other.low <= self.high


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


def difference_interval(first: Interval, second: Interval) -> Interval:
    """Interval of the difference first - second of two independent proportions, from their Wilson intervals.

    Newcombe 1998, method 10. n of the result is the smaller one.
    """
    for name, interval in (("first", first), ("second", second)):
        check_kind(name, interval, Interval, "an interval, such as wilson_interval(8, 10)")
    value = first.value - second.value
    below = np.hypot(first.value - first.low, second.high - second.value)
    above = np.hypot(first.high - first.value, second.value - second.low)
    return Interval(value, value - float(below), value + float(above), min(first.n, second.n))


def difference_of_proportions(
    successes_1: int, n_1: int, successes_2: int, n_2: int, confidence: float = 0.95
) -> Interval:
    """`difference_interval` from the counts: successes_1 / n_1 - successes_2 / n_2, in [-1, 1]."""
    first = wilson_interval(successes_1, n_1, confidence)
    return difference_interval(first, wilson_interval(successes_2, n_2, confidence))


def t_interval(values, confidence: float = 0.95) -> Interval:
    """Mean over independent repetitions (seeds) with Student's interval; values: two or more numbers."""
    check_confidence(confidence)
    values = as_numbers(values, "The values of an interval over seeds")
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise MetricError(f"An interval over seeds needs at least two finite values, not {brief(values.tolist())}.")
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return Interval(mean, mean - reach, mean + reach, len(values))


def bootstrap_interval(
    statistic: Callable[..., float], *arrays, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap of statistic(*arrays) over independent items (Efron 1979).

    arrays: one or more of N or N x D, which hold the same N items and are resampled together along axis 0.
    Not for distances between sets: a resample repeats items, a repeated item is its own nearest neighbour,
    and a kernel sum "over different items" then holds equal ones, which biases it upwards. `kernel_distance`
    has an interval of its own. MetricError if the arrays differ in length, N < 2, or a resample has no finite
    value.
    """
    check_confidence(confidence)
    arrays = [np.asarray(array) for array in arrays]
    lengths = {len(array) if array.ndim else 0 for array in arrays}
    if len(lengths) != 1 or min(lengths) < 2:
        raise MetricError(f"A bootstrap needs arrays of as many items, two or more, not {sorted(lengths)}.")
    if any(array.dtype.kind not in "biuf" for array in arrays):
        raise MetricError("A bootstrap needs arrays of real numbers.")
    n, generator = lengths.pop(), np.random.default_rng(seed)
    draws = (generator.integers(n, size=n) for _ in range(resamples))
    drawn = np.array([statistic(*(array[draw] for array in arrays)) for draw in draws], dtype=np.float64)
    if not len(drawn) or not np.isfinite(drawn).all():
        raise MetricError("The statistic has no finite value on some resamples: it needs more items.")
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(statistic(*arrays)), float(low), float(high), n)
