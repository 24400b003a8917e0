"""Distances between two sets of features, N x D each, in float64.

A distance means nothing without what it was computed on: the features (a judge's, or Inception's), how many items, against
which reference. `fidelity` computes all of them together and refuses to leave that out.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import linalg
from scipy.stats import norm
from sklearn.metrics import pairwise_distances_chunked

from .intervals import Interval, MetricError

REQUIRED_PROVENANCE = ("reference", "split", "resize", "extractor", "weights", "sampler", "steps", "guidance_scale")
BLOCK = 1024  # rows at a time: memory is bounded by BLOCK x N numbers


def as_features(values, least: int = 2) -> np.ndarray:
    """N x D in float64, or MetricError."""
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or len(values) < least:
        raise MetricError(f"Features must be N x D with N of at least {least}, not of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise MetricError("Features must be finite: look for NaN in the images or in the extractor.")
    return values


def _two_sets(a, b, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    a, b = as_features(a, least), as_features(b, least)
    if a.shape[1] != b.shape[1]:
        raise MetricError(f"Both sets need features of one kind, not {a.shape[1]} and {b.shape[1]} numbers an item.")
    return a, b


# Frechet distance ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrechetStatistics:
    """What a Frechet distance needs of a set: its mean (D) and a factor R (r x D) with covariance R' R.

    The factor is the centred data while there are fewer items than features, and a Cholesky factor otherwise.
    """

    mean: np.ndarray
    factor: np.ndarray
    n: int

    @classmethod
    def of(cls, features) -> FrechetStatistics:
        features = as_features(features)
        mean = features.mean(0)
        centred = (features - mean) / np.sqrt(len(features) - 1)
        if len(centred) > centred.shape[1]:
            centred = _covariance_factor(centred.T @ centred)
        return cls(mean, centred, len(features))

    def save(self, path: Path) -> None:
        np.savez(path, mean=self.mean, factor=self.factor, n=self.n)

    @classmethod
    def load(cls, path: Path) -> FrechetStatistics:
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(stored["mean"], stored["factor"], int(stored["n"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise MetricError(f"{path} holds no reference statistics ({error}): delete it, and they are made again.") from error


def _covariance_factor(covariance: np.ndarray) -> np.ndarray:
    """R with R' R = covariance; by Cholesky, or by eigenvalues where the covariance is singular."""
    try:
        return linalg.cholesky(covariance, lower=False)
    except linalg.LinAlgError:
        values, vectors = linalg.eigh(covariance)
        return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def frechet_distance(a, b) -> float:
    """|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)  (Heusel et al. 2017, arXiv 1706.08500).

    a, b: features, N x D, or FrechetStatistics. With S = R' R, the last trace is the sum of the singular values of
    R_a R_b'. They are the square roots of the eigenvalues of a symmetric matrix, so no matrix square root is needed.
    """
    a, b = (x if isinstance(x, FrechetStatistics) else FrechetStatistics.of(x) for x in (a, b))
    if a.mean.shape != b.mean.shape:
        raise MetricError(f"Both sets need features of one kind, not {len(a.mean)} and {len(b.mean)} numbers an item.")
    traces = np.square(a.factor).sum() + np.square(b.factor).sum()
    return float(np.square(a.mean - b.mean).sum() + traces - 2 * _nuclear_norm(a.factor @ b.factor.T))


def _nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values, by the eigenvalues of the smaller Gram matrix: several times faster than an SVD.

    Squaring costs half the digits of the singular values, so those below 1e-8 of the largest are lost; they add nothing.
    """
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(np.maximum(linalg.eigvalsh(gram), 0)).sum())


def frechet_noise_floor(reference, n: int, repeats: int = 5, seed: int = 0) -> Interval:
    """The distance that a perfect generator would get with n samples: n reference items against the others, mean and range.

    reference: N x D. With fewer than 2 n items, n is halved to N / 2, and the floor is then too high, not too low.
    """
    reference = as_features(reference, least=4)
    n = min(n, len(reference) // 2)
    generator = np.random.default_rng(seed)
    values = []
    for _ in range(repeats):
        order = generator.permutation(len(reference))
        values.append(frechet_distance(reference[order[:n]], reference[order[n:]]))
    return Interval(float(np.mean(values)), min(values), max(values), n)


# Kernel distance ----------------------------------------------------------------------------------------------------


def kernel_distance(a, b, confidence: float = 0.95) -> Interval:
    """Unbiased squared MMD with the kernel (x . y / D + 1)^3, over all pairs (Binkowski et al. 2018, arXiv 1801.01401).

    a, b: N x D and M x D. Zero on average when both come from one distribution, at every sample size; hence it may be
    negative. The interval is the jackknife's: each item left out once, exactly, from the row sums of the kernel.
    """
    a, b = _two_sets(a, b, least=3)
    n, m = len(a), len(b)
    within_a, within_b = _kernel_row_sums(a, a, exclude_self=True), _kernel_row_sums(b, b, exclude_self=True)
    across_a, across_b = _kernel_row_sums(a, b), _kernel_row_sums(b, a)
    sum_a, sum_b, sum_ab = within_a.sum(), within_b.sum(), across_a.sum()
    value = sum_a / (n * (n - 1)) + sum_b / (m * (m - 1)) - 2 * sum_ab / (n * m)
    without_a = (sum_a - 2 * within_a) / ((n - 1) * (n - 2)) + sum_b / (m * (m - 1)) - 2 * (sum_ab - across_a) / ((n - 1) * m)
    without_b = sum_a / (n * (n - 1)) + (sum_b - 2 * within_b) / ((m - 1) * (m - 2)) - 2 * (sum_ab - across_b) / (n * (m - 1))
    variance = (n - 1) * without_a.var() + (m - 1) * without_b.var()
    reach = float(norm.ppf(0.5 + confidence / 2) * np.sqrt(variance))
    return Interval(float(value), float(value) - reach, float(value) + reach, min(n, m))


def _kernel_row_sums(a: np.ndarray, b: np.ndarray, exclude_self: bool = False) -> np.ndarray:
    """For each row of a, the sum of the kernel over the rows of b (without itself, if a is b)."""
    sums = np.concatenate([((a[i:i + BLOCK] @ b.T / a.shape[1] + 1) ** 3).sum(1) for i in range(0, len(a), BLOCK)])
    return sums - (np.square(a).sum(1) / a.shape[1] + 1) ** 3 if exclude_self else sums


# Neighbours ---------------------------------------------------------------------------------------------------------


def nearest_neighbours(queries, reference, k: int = 1, exclude_self: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances and indices of the k nearest reference items of each query, nearest first; N x k each.

    exclude_self: queries and reference are the same array, and an item is not its own neighbour.
    """
    queries, reference = _two_sets(queries, reference, least=1)
    if len(reference) < k + exclude_self:
        raise MetricError(f"{k} neighbours need more than {len(reference)} reference items.")

    def reduce(block: np.ndarray, start: int):
        if exclude_self:
            block[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        nearest = np.argpartition(block, k - 1, axis=1)[:, :k]
        distance = np.take_along_axis(block, nearest, axis=1)
        order = np.argsort(distance, axis=1)
        return np.take_along_axis(distance, order, axis=1), np.take_along_axis(nearest, order, axis=1)

    parts = list(pairwise_distances_chunked(queries, reference, reduce_func=reduce, working_memory=64))
    return tuple(np.concatenate([part[i] for part in parts]) for i in range(2))


def precision_recall(*, reference, samples, k: int = 5) -> dict[str, float]:
    """How many samples look real, and how much of the real set they cover; N x D and M x D, by name so as not to be swapped.

    precision, recall: Kynkaanniemi et al. 2019, arXiv 1904.06991; density, coverage: Naeem et al. 2020, arXiv 2002.09797.
    Each item's ball reaches to its k-th neighbour in its own set.
    """
    reference, samples = _two_sets(reference, samples, least=k + 1)
    real_radius = nearest_neighbours(reference, reference, k, exclude_self=True)[0][:, -1]
    fake_radius = nearest_neighbours(samples, samples, k, exclude_self=True)[0][:, -1]

    inside_balls, start = [], 0
    recalled, nearest_sample = np.zeros(len(reference), dtype=bool), np.full(len(reference), np.inf)
    for block in pairwise_distances_chunked(samples, reference, working_memory=64):  # some samples, all reference items
        inside_balls.append((block <= real_radius).sum(1))
        recalled |= (block <= fake_radius[start:start + len(block), None]).any(0)
        nearest_sample = np.minimum(nearest_sample, block.min(0))
        start += len(block)
    inside = np.concatenate(inside_balls)
    return {
        "precision": float((inside > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(inside.mean() / k),
        "coverage": float((nearest_sample <= real_radius).mean()),
    }


# All together -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fidelity:
    """How close samples are to a reference set, on named features, with all that the numbers depend on."""

    frechet: float
    frechet_floor: Interval
    kernel: Interval
    precision: float
    recall: float
    density: float
    coverage: float
    n: int
    n_reference: int
    provenance: dict

    def intervals(self) -> dict[str, Interval]:
        """One Interval a metric; those without an interval of their own have NaN for its ends."""
        nan = float("nan")
        rows = {"kernel distance": self.kernel, "Frechet distance": Interval(self.frechet, nan, nan, self.n)}
        rows["Frechet noise floor"] = self.frechet_floor
        return rows | {
            name: Interval(getattr(self, name), nan, nan, self.n) for name in ("precision", "recall", "density", "coverage")
        }


def fidelity(samples, reference, provenance: dict) -> Fidelity:
    """Every distance between the features of samples (N x D) and of a reference (M x D).

    provenance: must say REQUIRED_PROVENANCE; n of both sets is added.
    """
    missing = [key for key in REQUIRED_PROVENANCE if key not in provenance]
    if missing:
        raise MetricError(f"A fidelity must say what it was computed on: {', '.join(missing)} is missing from its provenance.")
    samples, reference = _two_sets(samples, reference)
    return Fidelity(
        frechet_distance(samples, reference), frechet_noise_floor(reference, len(samples)),
        kernel_distance(samples, reference), **precision_recall(reference=reference, samples=samples),
        n=len(samples), n_reference=len(reference), provenance=dict(provenance),
    )
