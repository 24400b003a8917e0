"""Chapter 03: intervals, distances, what a metric notices, and a distance that is never negative."""

from __future__ import annotations

import numpy as np

from ..metrics import frechet_distance, precision_recall, wilson_interval
from .checks import exercise
from .comparing import choose, compare


def _width(share: float, count: int) -> float:
    interval = wilson_interval(round(share * count), count)
    return interval.high - interval.low


@exercise(
    "03.1",
    "Compute the width of the interval for a few n, and see which way it goes.",
    "Try sample sizes with wilson_interval(round(p * n), n) until the interval is at most `width` wide.",
    "The width falls as 1 / sqrt(n): about 4 p (1 - p) (1.96 / width)^2 samples.",
    numbers={"p": [0.9, 0.7, 0.75, 0.8, 0.85, 0.95], "width": [0.04, 0.05, 0.06, 0.08]},
)
def _samples_needed(n, numbers):
    n, p, width = int(n), numbers["p"], numbers["width"]
    if n < 1:
        return "A number of samples is at least 1."
    about = 4 * p * (1 - p) * (1.96 / width) ** 2
    needed = next(k for k in range(int(0.97 * about), 20_000) if _width(p, k) <= width)

    def near(right: float) -> bool:
        return abs(n - right) <= max(8, 0.07 * right)

    if near(needed):
        return True
    if near(needed / 4):
        return f"With {n} samples the interval is {_width(p, n):.3f} wide: the width is the whole interval, not half of it."
    if near(4 * needed):
        return f"With {n} samples the interval is {_width(p, n):.3f} wide: half of what was asked for, with four times the samples."
    way = "too wide" if n < needed else "narrower than it need be"
    return f"With {n} samples the interval is {_width(p, n):.3f} wide, {way}."


@exercise(
    "03.2",
    "In one dimension the formula has two terms: one of the means, one of the standard deviations.",
    "(m_a - m_b)^2 + (s_a - s_b)^2, with std(ddof=1); the distance is left squared.",
)
def _frechet_1d(function, seed=0):
    rng = np.random.default_rng(seed)
    cases = [(rng.normal(size=20), rng.normal(1.0, 2.0, size=30)), (rng.normal(3, 1, 25), rng.normal(size=10))]

    def distance(a, b, mean=lambda d: d**2, ddof=1):
        return mean(a.mean() - b.mean()) + (a.std(ddof=ddof) - b.std(ddof=ddof)) ** 2

    return compare(function, distance, cases, {
        "The variances are the biased ones: divide by n - 1 (ddof=1).": lambda a, b: distance(a, b, ddof=0),
        "Standard deviations are compared, not variances.":
            lambda a, b: (a.mean() - b.mean()) ** 2 + (a.var(ddof=1) - b.var(ddof=1)) ** 2,
        "The difference of the means is squared.": lambda a, b: distance(a, b, mean=abs),
        "The spread is missing: two sets with one mean may differ.": lambda a, b: (a.mean() - b.mean()) ** 2,
        "The means are missing.": lambda a, b: (a.std(ddof=1) - b.std(ddof=1)) ** 2,
        "This distance is not rooted: leave the square.": lambda a, b: distance(a, b) ** 0.5,
    }, tolerance=1e-6)


@exercise(
    "03.3",
    "Two of the four go through the samples, and two go through the photographs.",
    "What becomes of the photographs of cats, and which metrics look at them one by one?",
)
def _blind_to_a_missing_class(name):
    return choose(name, {"precision", "density"}, {
        "recall": "Recall notices: the photographs of cats, a tenth of all, now lie in hardly any sample's ball.",
        "coverage": "Coverage notices: hardly any ball of a photograph of a cat holds a sample now.",
        "accuracy": "Accuracy is not in the chart, and it notices: what is asked for as a cat shows something else.",
    })


def _wilson(hits, n, z=1.96):
    p = hits / n
    middle, half = (p + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return middle - half, middle + half


def _textbook(hits, n, root=True):
    p = hits / n
    half = 1.96 * ((p * (1 - p) / n) ** 0.5 if root else p * (1 - p) / n)
    return p - half, p + half


def _without_correction(hits, n):
    """Wilson's half-width about p itself."""
    low, high = _wilson(hits, n)
    return hits / n - (high - low) / 2, hits / n + (high - low) / 2


@exercise(
    "03.4",
    "Square, sort by powers of p, solve. The middle of the two ends is not hits / n: it lies a little nearer to 1/2.",
    "middle = (p + z^2 / 2n) / (1 + z^2 / n); half = z / (1 + z^2 / n) * sqrt(p (1 - p) / n + z^2 / 4n^2); z = 1.96.",
)
def _interval(function, seed=0):
    rng = np.random.default_rng(seed)
    cases = [(0, 10), (10, 10), (7, 20)] + [(int(rng.integers(1, n)), int(n)) for n in rng.integers(15, 400, 4)]
    return compare(function, _wilson, cases, {
        "That is the textbook's p ± 1.96 sqrt(p (1 - p) / n), which has no width at 0 of 10.": _textbook,
        "The square root is missing.": lambda hits, n: _textbook(hits, n, root=False),
        "The middle should move towards 1/2.": _without_correction,
        "That is one standard deviation; a 95 % interval takes z = 1.96.": lambda hits, n: _wilson(hits, n, z=1.0),
        "Low and high are exchanged.": lambda hits, n: _wilson(hits, n)[::-1],
    }, tolerance=1e-3)


def _clouds(seed: int):
    rng = np.random.default_rng(seed)
    mix = rng.normal(size=(3, 3))
    first = rng.normal(size=(20, 3)), rng.normal(0.5, 1.5, (30, 3)) @ mix
    return [first, (rng.normal(2, 1, (15, 3)) @ mix, rng.normal(size=(25, 3)))]


def _frechet(a, b, cross="root", means=True, ddof=1):
    """By the eigenvalues of S_a S_b, as exercise 03.5 asks for it, right or with one mistake."""
    s_a, s_b = np.cov(a.T, ddof=ddof), np.cov(b.T, ddof=ddof)
    eigenvalues = np.linalg.eigvals(s_a @ s_b).real.clip(0)
    root = np.sqrt(eigenvalues).sum()
    term = {"root": 2 * root, "once": root, "unrooted": 2 * eigenvalues.sum(), "none": 0}
    return means * np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s_a + s_b) - term[cross]


@exercise(
    "03.5",
    "The trace of a matrix's root is the sum of the roots of its eigenvalues.",
    "np.cov(a.T) has ddof=1 already; np.linalg.eigvals(S_a @ S_b) may have tiny imaginary parts: take .real, and clip at 0.",
)
def _frechet_by_eigenvalues(function, seed=0):
    return compare(function, frechet_distance, _clouds(seed), {
        "The roots of the eigenvalues are missing.": lambda a, b: _frechet(a, b, cross="unrooted"),
        "The factor 2 is missing: the distance of a set to itself would not be 0.": lambda a, b: _frechet(a, b, cross="once"),
        "The root is missing: only the traces are there.": lambda a, b: _frechet(a, b, cross="none"),
        "The means are missing.": lambda a, b: _frechet(a, b, means=False),
        "The covariances are the biased ones: divide by n - 1.": lambda a, b: _frechet(a, b, ddof=0),
        "This distance is not rooted: leave the square.": lambda a, b: _frechet(a, b) ** 0.5,
    }, tolerance=1e-4)


def _precision(samples, real, k, itself=True, within=np.less_equal):
    between = np.linalg.norm(real[:, None] - real, axis=-1)
    radius = np.sort(between, axis=1)[:, k if itself else k - 1]
    return float(within(np.linalg.norm(samples[:, None] - real, axis=-1), radius).any(1).mean())


@exercise(
    "03.6",
    "First the radius of each photograph's ball: the distance to its k-th nearest other photograph.",
    "In a sorted row of distances from a photograph to all photographs, the first is 0: itself. So the k-th other is row[k].",
    "A sample counts if it lies in at least one ball: (distances <= radius).any(1).",
)
def _share_in_balls(function, seed=0):
    cases = [(samples, real, k) for samples, real in _clouds(seed) for k in (3, 5)]
    line = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
    cases.append((np.array([[5.0, 0.0], [9.0, 0.0]]), line, 1))  # the first lies on an edge

    def precision(samples, real, k):
        return precision_recall(samples=samples, reference=real, k=k)["precision"]

    return compare(function, precision, cases, {
        "Each photograph counts as its own neighbour, so the balls are too small: leave it out.":
            lambda s, r, k: _precision(s, r, k, False),
        "That is recall: the balls should be those of the photographs.": lambda s, r, k: _precision(r, s, k),
        "A sample on the edge of a ball lies in it: <=, not <.": lambda s, r, k: _precision(s, r, k, within=np.less),
        "That is the share of samples outside; those inside count.": lambda s, r, k: 1 - _precision(s, r, k),
        "That is the number of samples, not their share.": lambda s, r, k: _precision(s, r, k) * len(s),
    }, tolerance=1e-6)


def _kernel(a, b, unbiased=True, scaled=True):
    d, n, m = a.shape[1] if scaled else 1, len(a), len(b)
    aa, bb, ab = ((x @ y.T / d + 1) ** 3 for x, y in ((a, a), (b, b), (a, b)))
    if not unbiased:
        return aa.mean() + bb.mean() - 2 * ab.mean()
    return (aa.sum() - np.trace(aa)) / (n * (n - 1)) + (bb.sum() - np.trace(bb)) / (m * (m - 1)) - 2 * ab.mean()


@exercise(
    "03.7",
    "What is the similarity of a vector to itself, compared with that to another one? And how does a sum over features grow?",
    "Leave out the diagonal and divide by n (n - 1); divide the inner products by the number of features.",
)
def _mended_kernel(function, seed=0):
    return compare(function, _kernel, _clouds(seed), {
        "Both faults are still there.": lambda a, b: _kernel(a, b, unbiased=False, scaled=False),
        "Pairs of a vector with itself are still counted: that is why it was never below 0.":
            lambda a, b: _kernel(a, b, unbiased=False),
        "The inner product still grows with the number of features: divide by it.": lambda a, b: _kernel(a, b, scaled=False),
        "The diagonal is left out, but the sum is still divided by n squared.": lambda a, b: sum(
            ((k := (x @ x.T / a.shape[1] + 1) ** 3).sum() - np.trace(k)) / len(x) ** 2 for x in (a, b)
        ) - 2 * ((a @ b.T / a.shape[1] + 1) ** 3).mean(),
    }, tolerance=1e-6)
