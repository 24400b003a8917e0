"""Intervals: how far a figure may be trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ..errors import DimumError


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


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927): right for few items and for proportions near 0 and 1."""
    if n < 1 or not 0 <= successes <= n:
        raise MetricError(f"A proportion needs 0 <= successes <= n and n >= 1, not {successes} of {n}.")
    interval = stats.binomtest(int(successes), int(n)).proportion_ci(confidence, method="wilson")
    return Interval(successes / n, float(interval.low), float(interval.high), int(n))


def difference_interval(first: Interval, second: Interval) -> Interval:
    """Interval of the difference of two independent proportions, from their Wilson intervals (Newcombe 1998, method 10)."""
    value = first.value - second.value
    below = np.hypot(first.value - first.low, second.high - second.value)
    above = np.hypot(first.high - first.value, second.value - second.low)
    return Interval(value, value - float(below), value + float(above), min(first.n, second.n))


def t_interval(values, confidence: float = 0.95) -> Interval:
    """Mean over independent repetitions (seeds) with Student's interval; values: at least two numbers."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise MetricError(f"An interval over seeds needs at least two finite values, not {values.tolist()}.")
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return Interval(mean, mean - reach, mean + reach, len(values))


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], values, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap of a statistic of independent items; values: N or N x D, resampled along the first axis.

    Not for distances between sets: a resample repeats items, and a repeated item is its own nearest neighbour.
    """
    values = np.asarray(values)
    if len(values) < 2:
        raise MetricError("A bootstrap needs at least two items.")
    generator = np.random.default_rng(seed)
    drawn = [statistic(values[generator.integers(len(values), size=len(values))]) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(statistic(values)), float(low), float(high), len(values))
