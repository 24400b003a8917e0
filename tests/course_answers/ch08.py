import numpy as np
from scipy.stats import rankdata, ttest_1samp, wilcoxon


def mean_ranks(table):
    return np.mean([rankdata(row) for row in table], axis=0)


def adjusted(p, most=1.0):
    result, highest = [None] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, p[index] * (len(p) - place))
        result[index] = min(most, highest)
    return result


def flips(differences, far=lambda mean, seen: abs(mean) >= abs(seen) - 1e-12):
    """By the bits of a number in place of a product of signs."""
    n, seen, count = len(differences), sum(differences) / len(differences), 0
    for pattern in range(2**n):
        mean = sum(d if pattern >> k & 1 else -d for k, d in enumerate(differences)) / n
        count += far(mean, seen)
    return count / 2**n


def careful(areas):
    total = areas.sum(axis=1)
    best = [max(range(len(areas)), key=lambda rate, run=run: total[rate] - areas[rate, run]) for run in range(areas.shape[1])]
    return sum(areas[rate, run] for run, rate in enumerate(best)) / areas.shape[1]


def board(names, areas, ua, ra, value=lambda runs: sum(runs) / len(runs), least=(0.8, 0.9)):
    rows = [(value(list(runs)), name) for name, runs, u, r in zip(names, areas, ua, ra, strict=True)
            if u >= least[0] and r >= least[1]]
    return [name for _, name in sorted(rows)]


ANSWERS = {
    "08.1": (mean_ranks, [
        (lambda t: np.mean([rankdata(row, method="ordinal") for row in t], axis=0), "order in the row"),
        (lambda t: np.mean([rankdata(row, method="min") for row in t], axis=0), "best of their places"),
        (lambda t: np.mean([rankdata(-row) for row in t], axis=0), "less is better"),
        (lambda t: np.mean(np.apply_along_axis(rankdata, 0, t), axis=0), "within columns"),
        (lambda t: rankdata(t.mean(axis=0)), "ranked the means"),
    ]),
    "08.2": (adjusted, [
        (lambda p: np.clip(p * len(p), 0, 1), "Bonferroni"),
        (lambda p: [min(1.0, x * (len(p) - sorted(p).index(x))) for x in p], "below an earlier one"),
        (lambda p: sorted(adjusted(p)), "in the order in which they came"),
        (lambda p: adjusted(p, most=float(len(p))), "cannot be above 1"),
        (lambda p: p, "Nothing is corrected"),
    ]),
    "08.3": (11, [(6, "one comparison only"), (9, "for k comparisons"), (10, "all plus and all minus"), (12, "once, not twice")]),
    "08.4": (flips, [
        (lambda d: flips(d, lambda mean, seen: mean * seen > 0 and abs(mean) >= abs(seen) - 1e-12), "on the side of what was seen"),
        (lambda d: flips(d, lambda mean, seen: abs(mean) > abs(seen) + 1e-12), "cannot be 0"),
        (lambda d: ttest_1samp(d, 0).pvalue, "Student's t-test"),
        (lambda d: 1 - flips(d), "nearer to 0"),
        (lambda d: flips(d) * 2 ** len(d), "not their share"),
        (lambda d: wilcoxon(d).pvalue, "was expected"),
    ]),
    "08.5": (careful, [
        (lambda a: a.max(axis=0).mean(), "chosen and reported on the same run"),
        (lambda a: a.mean(axis=1).max(), "the reported one included"),
        (lambda a: a.mean(), "mean over all rates"),
        (lambda a: -careful(-a), "not the smallest"),
        (lambda a: careful(a.T), "was expected"),
    ]),
    "08.6": (board, [
        (lambda *c: board(*c, value=min, least=(0, 0)), "All faults"),
        (lambda *c: board(*c, value=min), "by its best run"),
        (lambda *c: board(*c, least=(0, 0.9)), "has not forgotten"),
        (lambda *c: board(*c, least=(0.8, 0)), "has ruined"),
        (lambda *c: list(reversed(board(*c))), "reversed"),
        (lambda *c: board(*c, least=(0.5, 0.9)), "has not forgotten"),
        (lambda *c: board(*c, least=(0.8, 0.7)), "has ruined"),
        (lambda *c: board(*c, least=(0.801, 0.901)), "just that stays"),
    ]),
}
