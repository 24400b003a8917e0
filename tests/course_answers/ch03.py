import math

import numpy as np
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist
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


def frechet(a, b, times=2.0, ddof=1):
    cov_a, cov_b = np.cov(a, rowvar=False, ddof=ddof), np.cov(b, rowvar=False, ddof=ddof)
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - times * sqrtm(cov_a @ cov_b).real)


def precision(samples, real, k, skip=1, strict=False):
    radius = np.partition(cdist(real, real), k - 1 + skip, axis=1)[:, k - 1 + skip]
    return float(np.mean([(row < radius if strict else row <= radius).any() for row in cdist(samples, real)]))


def kernel(a, b, scale=True, diagonal=False, divide="pairs"):
    def mean_within(x):
        values = [((x[i] @ x[j]) / (x.shape[1] if scale else 1) + 1) ** 3 for i in range(len(x)) for j in range(len(x))
                  if diagonal or i != j]
        return sum(values) / (len(x) ** 2 if divide == "square" else len(values))
    across = np.mean([((p @ q) / (len(p) if scale else 1) + 1) ** 3 for p in a for q in b])
    return mean_within(a) + mean_within(b) - 2 * across

ANSWERS = {
    "03.1": (next(n for n in range(100, 2000) if width(n) <= 0.04), [
        (100, "too wide"), (790, "too wide"), (216, "not half of it"), (3460, "four times the samples"), (940, "narrower"),
        (2000, "narrower"), (0, "at least 1"),
    ]),
    "03.2": (lambda a, b: (np.mean(a) - np.mean(b)) ** 2 + (np.std(a, ddof=1) - np.std(b, ddof=1)) ** 2, [
        (lambda a, b: (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2, "biased"),
        (lambda a, b: (a.mean() - b.mean()) ** 2 + (a.var(ddof=1) - b.var(ddof=1)) ** 2, "not variances"),
        (lambda a, b: abs(a.mean() - b.mean()) + (a.std(ddof=1) - b.std(ddof=1)) ** 2, "squared"),
        (lambda a, b: (a.mean() - b.mean()) ** 2, "spread is missing"),
        (lambda a, b: math.sqrt((a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2), "not rooted"),
    ]),
    "03.3": ("density", [("recall", "Recall notices"), ("coverage", "Coverage notices"),
                         ("accuracy", "not in the chart"), ("fid", "not among")]),
    "03.4": (scipys_interval, [
        (textbook, "textbook"), (narrow, "z = 1.96"), (uncentred, "towards 1/2"),
        (lambda hits, n: scipys_interval(hits, n)[::-1], "exchanged"),
    ]),
    "03.5": (frechet, [
        (lambda a, b: frechet(a, b, times=1.0), "factor 2"),
        (lambda a, b: frechet(a, b, times=0.0), "root is missing"),
        (lambda a, b: frechet(a, b, ddof=0), "biased"),
        (lambda a, b: frechet(a - a.mean(0), b - b.mean(0)), "means are missing"),
        (lambda a, b: math.sqrt(frechet(a, b)), "leave the square"),
    ]),
    "03.6": (precision, [
        (lambda s, r, k: precision(s, r, k, skip=0), "its own neighbour"),
        (lambda s, r, k: precision(r, s, k), "That is recall"),
        (lambda s, r, k: precision(s, r, k, strict=True), "on the edge"),
        (lambda s, r, k: 1 - precision(s, r, k), "outside"),
        (lambda s, r, k: precision(s, r, k) * len(s), "not their share"),
    ]),
    "03.7": (kernel, [
        (lambda a, b: kernel(a, b, scale=False, diagonal=True), "Both faults"),
        (lambda a, b: kernel(a, b, diagonal=True), "with itself"),
        (lambda a, b: kernel(a, b, scale=False), "number of features"),
        (lambda a, b: kernel(a, b, divide="square"), "n squared"),
    ]),
}
