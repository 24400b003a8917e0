import math

import numpy as np
from scipy.stats import binomtest


def width(n: int) -> float:
    interval = binomtest(round(0.9 * n), n).proportion_ci(0.95, "wilson")
    return interval.high - interval.low


def scipys_interval(hits, n):
    interval = binomtest(hits, n).proportion_ci(0.95, "wilson")
    return interval.low, interval.high


def textbook(hits, n, z=1.96):
    p = hits / n
    return p - z * math.sqrt(p * (1 - p) / n), p + z * math.sqrt(p * (1 - p) / n)


def narrow(hits, n):
    p, z = hits / n, 1
    centre, half = (p + z * z / (2 * n)) / (1 + z * z / n), math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


def uncentred(hits, n):
    low, high = scipys_interval(hits, n)
    return hits / n - (high - low) / 2, hits / n + (high - low) / 2


ANSWERS = {
    "03.1": (next(n for n in range(100, 2000) if width(n) <= 0.04), [
        (100, "too wide"), (216, "not half of it"), (3460, "four times the samples"), (2000, "narrower"), (0, "at least 1"),
    ]),
    "03.2": (lambda a, b: (np.mean(a) - np.mean(b)) ** 2 + (np.std(a, ddof=1) - np.std(b, ddof=1)) ** 2, [
        (lambda a, b: (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2, "biased"),
        (lambda a, b: (a.mean() - b.mean()) ** 2 + (a.var(ddof=1) - b.var(ddof=1)) ** 2, "not variances"),
        (lambda a, b: abs(a.mean() - b.mean()) + (a.std(ddof=1) - b.std(ddof=1)) ** 2, "squared"),
        (lambda a, b: (a.mean() - b.mean()) ** 2, "spread is missing"),
        (lambda a, b: math.sqrt((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2), "not rooted"),
    ]),
    "03.3": ("coverage", [("precision", "look real"), ("density", "dense"),
                          ("accuracy", "not in the chart"), ("fid", "not among")]),
    "03.4": (scipys_interval, [
        (textbook, "textbook"), (narrow, "z = 1.96"), (uncentred, "towards 1/2"),
        (lambda hits, n: scipys_interval(hits, n)[::-1], "exchanged"),
    ]),
}
