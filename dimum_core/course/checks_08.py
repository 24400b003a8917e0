"""Chapter 08: ranks, a test and its correction, how many pairs a claim needs, the attacker's choice, and a board that flatters."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from ..metrics import average_ranks, holm, least_p, sign_flip_test
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
    given = ([0.04, 0.01, 0.03, 0.02], [0.5, 0.001], [0.9, 0.6, 0.8])
    return [*((np.array(each),) for each in given), *((rng.uniform(0, 0.2, 6),) for _ in range(2))]


def _stepped(p: np.ndarray, monotone=True, largest_first=False, back=True, capped=True) -> np.ndarray:
    order = np.argsort(p)
    factors = np.arange(1, len(p) + 1) if largest_first else np.arange(len(p), 0, -1)
    stepped = p[order] * factors
    stepped = np.minimum(1 if capped else np.inf, np.maximum.accumulate(stepped) if monotone else stepped)
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
        "A p-value cannot be above 1.": lambda p: _stepped(p, capped=False),
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


def _flipped(differences, *, sides=abs, strict=False, seen=np.mean):
    """The share of all patterns of signs that are as far from 0 as what was seen."""
    patterns = np.array(list(product((1, -1), repeat=len(differences)))) * np.asarray(differences)
    values, found = np.array([sides(seen(row)) for row in patterns]), sides(seen(np.asarray(differences)))
    return float(np.mean(values > found + 1e-12 if strict else values >= found - 1e-12))


@exercise(
    "08.4",
    "How many patterns of signs are there for n differences? The one that was seen is among them.",
    "itertools.product((1, -1), repeat=n) gives them all. As far from 0 means on either side.",
    "The share of patterns with abs(mean) at least abs(the mean that was seen), less 1e-12 for rounding.",
)
def _sign_flip(function, seed=0):
    rng = np.random.default_rng(seed)
    cases = [(rng.normal(0.3, 0.4, n),) for n in (4, 6, 7)] + [(-rng.uniform(0.1, 1, 5),)]
    cases += [(np.array([0.2, 0.1, 0.4, 0.3, 0.2]),), (np.array([0.9, -0.2, -0.15, 0.1, 0.05]),)]

    def reference(differences):
        return sign_flip_test(differences, np.zeros(len(differences)))

    return compare(function, reference, cases, {
        "Only patterns on the side of what was seen count; as far from 0 on the other side counts, too.":
            lambda d: _flipped(d, sides=lambda mean: mean * np.sign(np.mean(d))),
        "What was seen is one of the patterns and counts: the share cannot be 0.": lambda d: _flipped(d, strict=True),
        "That is Student's t-test, which takes the differences to be normal.": lambda d: float(ttest_1samp(d, 0).pvalue),
        "Those are patterns nearer to 0 than what was seen.": lambda d: 1 - _flipped(d),
        "You compare the median; the test is about the mean.": lambda d: _flipped(d, seen=np.median),
        "That is the number of patterns, not their share.": lambda d: _flipped(d) * 2 ** len(d),
    }, tolerance=1e-6)


def _left_out(areas):
    """For each run the rate that was best on all other runs, and the area that it had on this one."""
    runs = range(areas.shape[1])
    return float(np.mean([areas[np.delete(areas, run, axis=1).mean(1).argmax(), run] for run in runs]))


@exercise(
    "08.5",
    "Choose as often as there are runs: each time, this run has no say.",
    "np.delete(areas, run, axis=1).mean(axis=1).argmax() is the rate that was best on the other runs.",
    "The mean over runs of the area at the rate chosen for each.",
)
def _leave_one_out(function, seed=0):
    rng = np.random.default_rng(seed)
    cases = [(0.5 + 0.2 * rng.normal(size=(rates, runs)),) for rates, runs in ((5, 4), (3, 6), (6, 3))]
    cases.append((np.array([[1.0, 0.0, 0.1], [0.3, 0.35, 0.3]]),))  # one lucky run decides, unless it has no say
    return compare(function, _left_out, cases, {
        "That is the best rate of every run, chosen and reported on the same run: its luck counts as strength.":
            lambda a: float(a.max(0).mean()),
        "That is one rate, chosen on all runs, the reported one included.": lambda a: float(a.mean(1).max()),
        "That is the mean over all rates: nobody attacks like that.": lambda a: float(a.mean()),
        "The attacker wants much to come back: the largest area, not the smallest.": lambda a: _left_out(-a) * -1,
        "That is what the choice gave on the runs that it was made on; report this run's.": lambda a: float(np.mean(
            [np.delete(a, run, axis=1).mean(1).max() for run in range(a.shape[1])])),
    }, tolerance=1e-6)


def _board(names, areas, ua, ra, *, of=np.mean, forgot=True, whole=True, at_least=np.greater_equal):
    kept = [k for k in range(len(names)) if (at_least(ua[k], 0.8) or not forgot) and (at_least(ra[k], 0.9) or not whole)]
    return [names[k] for k in sorted(kept, key=lambda k: float(of(areas[k])))]


def _contests(seed: int):
    rng = np.random.default_rng(seed)
    names, ua, ra = ["a", "b", "c", "d", "e", "f"], [0.9, 0.8, 0.79, 0.99, 0.9, 0.85], [0.97, 0.9, 1.0, 0.89, 0.95, 0.98]
    cases = []
    for _ in range(3):
        means = rng.permutation(6) / 10 + 0.2
        spread = np.array([[-0.15, 0.1, 0.05]]) * np.array([[0], [1], [0.5], [0], [0.1], [1.4]])[rng.permutation(6)]
        cases.append((names, means[:, None] + spread, ua, ra))
    luck = np.array([[0.40, 0.41, 0.39], [0.1, 0.7, 0.7], [0.0, 0.1, 0.2], [0.01, 0.02, 0.0], [0.3, 0.3, 0.33], [0.2, 0.9, 0.9]])
    return [*cases, (names, luck, ua, ra)]


@exercise(
    "08.6",
    "Which run of each method is compared here? And what area has a method that can draw nothing any more?",
    "Compare means over runs. Leave out methods with UA below 0.8 (nothing to bring back) or RA below 0.9 (nothing left to draw).",
)
def _honest_board(function, seed=0):
    return compare(function, _board, _contests(seed), {
        "All faults are still there.": lambda *c: _board(*c, of=np.min, forgot=False, whole=False),
        "Every method is still shown by its best run.": lambda *c: _board(*c, of=np.min),
        "A method that has not forgotten is ranked: it has nothing to give back, so leave it out.":
            lambda *c: _board(*c, forgot=False),
        "A method that has ruined the other classes is ranked: it can draw nothing, so leave it out.":
            lambda *c: _board(*c, whole=False),
        "The order is reversed: least comes back from the best.": lambda *c: _board(*c)[::-1],
        "The middle run of each is compared, not the mean.": lambda *c: _board(*c, of=np.median),
        "Only what lies below 0.8 or 0.9 is left out: a method with just that stays.": lambda *c: _board(*c, at_least=np.greater),
    }, read=lambda order: [str(name) for name in order])
