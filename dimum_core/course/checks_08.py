"""Chapter 08: ranks, corrected p-values, and how many pairs a claim needs."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ..metrics import average_ranks, holm, least_p
from .checks import exercise
from .comparing import compare, compare_value


def _tables(seed: int) -> list[tuple]:
    rng = np.random.default_rng(seed)
    fixed = np.array([[0.1, 0.1, 0.9], [0.0, 0.3, 0.3], [0.2, 0.1, 0.4]])
    return [(fixed,), *((rng.integers(0, 4, (5, 4)) / 4,) for _ in range(2))]


def _ranked(table: np.ndarray, method: str, **settings) -> np.ndarray:
    return pd.DataFrame(table).rank(axis=1, method=method, **settings).mean().to_numpy()


@exercise(
    "08.1",
    "A row is one pair of target and seed: rank within it, then average each column.",
    "Two methods that tie on places 1 and 2 both get 1.5.",
    "scipy.stats.rankdata(row) does the middle part.",
)
def _mean_ranks(function, seed=0):
    return compare(function, lambda table: average_ranks(pd.DataFrame(table)).to_numpy(), _tables(seed), {
        "Ties are broken by their order in the row; they should share the average of their places.": lambda t: _ranked(t, "first"),
        "Ties all get the best of their places; they should share the average.": lambda t: _ranked(t, "min"),
        "Rank 1 is the smallest area: here, less is better.": lambda t: _ranked(t, "average", ascending=False),
        "You ranked within columns; compare methods within a row.":
            lambda t: pd.DataFrame(t).rank(axis=0, method="average").mean().to_numpy(),
        "You ranked the means. Average the ranks instead.": lambda t: pd.Series(t.mean(axis=0)).rank().to_numpy(),
    }, tolerance=1e-6)


def _p_values(seed: int) -> list[tuple]:
    rng = np.random.default_rng(seed)
    return [(np.array([0.04, 0.01, 0.03, 0.02]),), (np.array([0.5, 0.001]),), *((rng.uniform(0, 0.2, 6),) for _ in range(2))]


def _stepped(p: np.ndarray, monotone: bool = True, largest_first: bool = False, back: bool = True) -> np.ndarray:
    order = np.argsort(p)
    factors = np.arange(1, len(p) + 1) if largest_first else np.arange(len(p), 0, -1)
    stepped = p[order] * factors
    stepped = np.minimum(1, np.maximum.accumulate(stepped) if monotone else stepped)
    if not back:
        return stepped
    result = np.empty_like(p)
    result[order] = stepped
    return result


@exercise(
    "08.2",
    "Sort them. With m of them, the smallest is multiplied by m, the next by m - 1, and so on.",
    "No adjusted value may be below an earlier one (np.maximum.accumulate), nor above 1.",
    "Put them back in the order in which they came: result[order] = adjusted.",
)
def _holm(function, seed=0):
    return compare(function, holm, _p_values(seed), {
        "That is Bonferroni's correction: every one is multiplied by m. Holm's is kinder to all but the smallest.":
            lambda p: np.minimum(1, p * len(p)),
        "An adjusted value is below an earlier one; carry the larger one on.": lambda p: _stepped(p, monotone=False),
        "The factors run the wrong way: the smallest is multiplied by m.": lambda p: _stepped(p, largest_first=True),
        "They are sorted; give them back in the order in which they came.": lambda p: _stepped(p, back=False),
        "Nothing is corrected.": lambda p: p,
    }, tolerance=1e-6)


def _least_pairs(comparisons: int, level: float = 0.05) -> int:
    pairs = 1
    while least_p(pairs) * comparisons > level:
        pairs += 1
    return pairs


@exercise(
    "08.3",
    "If every pair says the same, only 2 of the 2^n patterns of signs are as extreme: p = 2 / 2^n.",
    "How many comparisons are there among k methods? k (k - 1) / 2; the smallest p is multiplied by that.",
    "Find the least n with comparisons * 2 / 2^n <= 0.05.",
    numbers={"methods": [10, 6, 8, 12, 15, 17]},
)
def _pairs_for_a_claim(value, numbers):
    k = numbers["methods"]
    comparisons = k * (k - 1) // 2
    return compare_value(value, _least_pairs(comparisons), {
        "That is enough for one comparison only; there are k (k - 1) / 2.": _least_pairs(1),
        "That is enough for k comparisons; each method meets each other one.": _least_pairs(k),
        "Two patterns of signs are as extreme, all plus and all minus: p = 2 / 2^n.": _least_pairs(comparisons) - 1,
        "Each pair of methods is compared once, not twice.": _least_pairs(k * (k - 1)),
    }, tolerance=1e-9)
