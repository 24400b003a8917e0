import numpy as np
from scipy.stats import rankdata


def mean_ranks(table):
    return np.mean([rankdata(row) for row in table], axis=0)


def adjusted(p):
    result, highest = [None] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, p[index] * (len(p) - place))
        result[index] = min(1.0, highest)
    return result


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
        (lambda p: p, "Nothing is corrected"),
    ]),
    "08.3": (11, [(6, "one comparison only"), (9, "for k comparisons"), (10, "all plus and all minus"), (12, "once, not twice")]),
}
