"""Comparing methods on the same (target, seed) pairs: paired differences, exact tests, ranks, and how many pairs it takes."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy import optimize, stats

from ..checking import check_kind, check_number, check_whole
from .intervals import Interval, MetricError, as_numbers, check_confidence, t_interval

EXACT_UP_TO = 16  # pairs: 65,536 patterns of signs
DRAWN = 9_999  # patterns of signs, for more pairs
MARGIN = 0.1  # of area under recovery: what differs by less, whole interval included, is equivalent for a reader's purposes


def paired_difference(first, second, confidence: float = 0.95) -> Interval:
    """Mean of first - second over pairs, with Student's interval of the mean of the differences (1908).

    first, second: n >= 2 finite numbers each, in the same order of (target, seed) pairs: what a pair has in common, an easy target
    or a lucky seed, cancels. (A bootstrap over pairs is too short when they are few: for six it covers about 87 %.)
    """
    return t_interval(_paired(first, second), confidence)


def sign_flip_test(first, second) -> float:
    """Two-sided p-value of "first and second are exchangeable within every pair" (Fisher 1935), by the mean difference.

    Exact, over all 2^n signs, up to 16 pairs; beyond, over 9,999 drawn ones with a fixed seed, the observed one counted in. The
    least that n pairs can give is 2 / 2^n: see `least_p`.
    """
    difference = _paired(first, second)
    sums = np.abs((1 - 2 * _flipped(len(difference))) @ difference)
    as_extreme = int((sums >= abs(difference.sum()) - 1e-9 * np.abs(difference).sum()).sum())  # equal but for rounding is equal
    return as_extreme / len(sums) if len(difference) <= EXACT_UP_TO else (as_extreme + 1) / (DRAWN + 1)


def sign_flip_interval(first, second, confidence: float = 0.95) -> Interval:
    """Mean of first - second over pairs, with all values that `sign_flip_test` does not reject for it (Hartigan 1969).

    Its ends are the k-th smallest and the k-th largest mean of a subset of the differences, k = (1 - confidence) / 2 of all
    subsets. Only symmetry is assumed, so it also holds where areas are near 0 or near 1 and nothing lies between. Too few
    pairs (below six, at 95 %) bound nothing: the ends are infinite. Exact up to 16 pairs, by drawn subsets beyond.
    """
    check_confidence(confidence)
    difference = _paired(first, second)
    subsets = _flipped(len(difference))
    subsets = subsets[subsets.any(axis=1)]
    means = np.sort(subsets @ difference / subsets.sum(axis=1))
    k = math.floor((1 - confidence) / 2 * (len(means) + 1) + 1e-9)
    low, high = (means[k - 1], means[-k]) if k else (-math.inf, math.inf)
    return Interval(float(difference.mean()), float(low), float(high), len(difference))


@lru_cache(maxsize=2)
def _flipped(pairs: int) -> np.ndarray:
    """Which pairs change their sign: a row of zeros and ones for each pattern, all of them or 9,999 drawn with a fixed seed."""
    if pairs <= EXACT_UP_TO:
        return np.arange(2**pairs)[:, None] >> np.arange(pairs) & 1
    return np.random.default_rng(0).integers(2, size=(DRAWN, pairs))


def least_p(pairs: int) -> float:
    """The smallest two-sided p-value that `sign_flip_test` gives for so many pairs; where signs are drawn, one in all of them."""
    return min(1.0, 2.0 ** (1 - pairs)) if pairs <= EXACT_UP_TO else 1 / (DRAWN + 1)


def holm(p_values) -> np.ndarray:
    """Adjusted p-values (Holm 1979). With those up to alpha called significant, the family errs with probability alpha at most.

    The k-th smallest of m is multiplied by m - k + 1, made monotone, and cut at 1. p_values: m numbers in [0, 1].
    """
    p = as_numbers(p_values, "p-values")
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise MetricError("Holm's correction needs a list of p-values in [0, 1].")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def average_ranks(table: pd.DataFrame) -> pd.Series:
    """Mean rank of each column, 1 for the smallest value of a row; equal values share the average of their ranks.

    table: a row for each (target, seed) pair, a column for each method, no gaps. As in Demsar 2006, section 3.2.2.
    """
    _complete(table)
    return table.rank(axis=1, method="average").mean()


def pairwise_comparisons(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """All pairs of columns: difference first - second with its interval, p, p corrected by Holm over all of them, and a verdict.

    table: as for `average_ranks`. p and interval: of `sign_flip_test` and `sign_flip_interval`. verdict: "distinguishable" (after
    Holm, at 1 - confidence), else "equivalent" (the whole interval lies within MARGIN of 0), else "open".
    """
    _complete(table)
    rows = []
    for first, second in itertools.combinations(table.columns, 2):
        difference = sign_flip_interval(table[first], table[second], confidence)
        rows.append({
            "first": first, "second": second, "difference": difference.value, "low": difference.low, "high": difference.high,
            "pairs": difference.n, "p": sign_flip_test(table[first], table[second]),
        })
    columns = ["first", "second", "difference", "low", "high", "pairs", "p"]
    return judged(pd.DataFrame(rows, columns=columns), confidence)


def judged(found: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """A family of comparisons, with p corrected by Holm over its rows, and their verdicts, as `pairwise_comparisons` has them."""
    corrected = holm(found["p"])
    equivalent = (found["low"] >= -MARGIN) & (found["high"] <= MARGIN)
    verdict = np.where(corrected <= 1 - confidence, "distinguishable", np.where(equivalent, "equivalent", "open"))
    return found.assign(**{"p (Holm)": corrected, "verdict": verdict})


def letter_groups(names, different: set[frozenset]) -> dict[str, str]:
    """Letters such that two names share one exactly if they are not `different` (insert and absorb, Piepho 2004).

    names: best first, so that "a" holds the best. different: pairs, as frozensets of two names.
    """
    columns = [frozenset(names)]
    for pair in sorted(different, key=sorted):
        split = []
        for column in columns:
            split += [column - {name} for name in pair] if pair <= column else [column]
        columns = [c for i, c in enumerate(split) if not any(c < d or (c == d and j < i) for j, d in enumerate(split))]
    place = {name: i for i, name in enumerate(names)}
    columns.sort(key=lambda column: sorted(place[name] for name in column))
    letters = [_letter(i) for i in range(len(columns))]
    return {name: "".join(letter for letter, column in zip(letters, columns, strict=True) if name in column) for name in names}


def power(difference: float, deviation: float, pairs: int, confidence: float = 0.95) -> float:
    """Probability that a two-sided paired t-test of `pairs` pairs finds a true mean difference (noncentral t).

    deviation: standard deviation of the differences within pairs, above 0.
    """
    check_confidence(confidence)
    check_number("difference", difference)
    check_number("deviation", deviation)
    check_whole("pairs", pairs, 0)
    if pairs < 2 or not deviation > 0:
        raise MetricError(f"Power needs two pairs and a deviation above 0, not {pairs} and {deviation}.")
    freedom, shift = pairs - 1, abs(difference) / deviation * math.sqrt(pairs)
    critical = stats.t.ppf(0.5 + confidence / 2, freedom)
    wrong_side = np.nan_to_num(stats.nct.cdf(-critical, freedom, shift))  # scipy has NaN for some that are as good as 0
    return float(stats.nct.sf(critical, freedom, shift) + wrong_side)


def pairs_needed(difference: float, deviation: float, desired: float = 0.8, confidence: float = 0.95) -> int:
    """The fewest pairs with which a true difference is found with probability `desired` (at most 100,000, or MetricError)."""
    check_confidence(desired)
    least, most = 2, 100_000
    if difference == 0 or power(difference, deviation, most, confidence) < desired:
        raise MetricError(f"A difference of {difference:g} at a deviation of {deviation:g} takes more than {most:,} pairs.")
    while least < most:
        middle = (least + most) // 2
        least, most = (least, middle) if power(difference, deviation, middle, confidence) >= desired else (middle + 1, most)
    return least


def least_difference(deviation: float, pairs: int, desired: float = 0.8, confidence: float = 0.95) -> float:
    """The smallest true difference that so many pairs find with probability `desired`."""
    check_confidence(desired)
    check_number("deviation", deviation, 0, above=True)
    if desired <= 1 - confidence:
        raise MetricError(f"desired must be above {1 - confidence:g}, which a test reaches by chance alone, not {desired:g}.")
    most = 100 * deviation
    if power(most, deviation, pairs, confidence) < desired:
        raise MetricError(f"{pairs} pairs find not even a difference of 100 deviations with probability {desired:g}: take more.")
    return float(optimize.brentq(lambda d: power(d, deviation, pairs, confidence) - desired, 0, most))


def _paired(first, second) -> np.ndarray:
    first, second = (as_numbers(values, "The values of a paired comparison") for values in (first, second))
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2 or not np.isfinite(first - second).all():
        raise MetricError("A paired comparison needs two lists of one length, of two or more finite numbers each.")
    return first - second


def _complete(table: pd.DataFrame) -> None:
    check_kind("table", table, pd.DataFrame, "a table: a row for each pair, a column for each method")
    if not all(map(pd.api.types.is_numeric_dtype, table.dtypes)):
        raise MetricError("Methods are compared by numbers: the table has columns of something else.")
    if table.isna().any(axis=None) or not len(table):
        raise MetricError("Methods are compared on the same pairs: the table has gaps, or no rows.")


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else f"({index + 1})"
