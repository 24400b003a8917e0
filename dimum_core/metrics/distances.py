"""Distances between two sets of features, N x D each, in float64.

A distance means nothing without what it was computed on: the features (a judge's, or Inception's), how many
items, against which reference. `fidelity` computes all of them together and refuses to leave that out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.stats import norm

from ..checking import check_kind, check_whole
from .features import BLOCK, as_features, two_sets
from .intervals import Interval, MetricError, check_confidence
from .neighbours import precision_recall

REQUIRED_PROVENANCE = (
    "reference", "split", "resize", "extractor", "weights", "sampler", "steps", "guidance_scale"
)


# Frechet distance -------------------------------------------------------------------------------------------


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


def _covariance_factor(covariance: np.ndarray) -> np.ndarray:
    """R with R' R = covariance; by Cholesky, or by eigenvalues where the covariance is singular."""
    try:
        return linalg.cholesky(covariance, lower=False)
    except linalg.LinAlgError:
        values, vectors = linalg.eigh(covariance)
        return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T


def frechet_distance(a, b) -> float:
    """|m_a - m_b|^2 + tr S_a + tr S_b - 2 tr (S_a S_b)^(1/2)  (Heusel et al. 2017, arXiv 1706.08500).

    a, b: features, N x D, or FrechetStatistics of the same D. A squared distance, 0 or more but for rounding.
    With S = R' R, the last trace is the sum of the singular values of R_a R_b': square roots of the
    eigenvalues of a symmetric matrix, so that no matrix square root is needed.
    """
    a, b = (x if isinstance(x, FrechetStatistics) else FrechetStatistics.of(x) for x in (a, b))
    if a.mean.shape != b.mean.shape:
        raise MetricError(f"Both sets need the same number of features, not {len(a.mean)} and {len(b.mean)}.")
    traces = np.square(a.factor).sum() + np.square(b.factor).sum()
    return float(np.square(a.mean - b.mean).sum() + traces - 2 * _nuclear_norm(a.factor @ b.factor.T))


def _nuclear_norm(matrix: np.ndarray) -> float:
    """Sum of the singular values, by the eigenvalues of the smaller Gram matrix: twice as fast as an SVD.

    Squaring costs half the digits: singular values below 1e-8 of the largest are lost, but hardly matter.
    """
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    return float(np.sqrt(np.maximum(linalg.eigvalsh(gram), 0)).sum())


def frechet_noise_floor(reference, n: int, repeats: int = 5, seed: int = 0) -> Interval:
    """The distance that a perfect generator would get with n samples: n reference items against the others.

    reference: N x D. The mean of `repeats` random splits; low and high are the smallest and the largest.
    With fewer than 2 n items, n is halved to N / 2, and the floor is then too high, not too low.
    """
    reference = as_features(reference, least=4)
    for name, value in (("n", n), ("repeats", repeats)):
        check_whole(name, value, 0)
    if n < 2 or repeats < 1:
        raise MetricError(f"A noise floor needs at least 2 items and 1 repeat, not {n} and {repeats}.")
    n = min(n, len(reference) // 2)
    generator = np.random.default_rng(seed)
    orders = (generator.permutation(len(reference)) for _ in range(repeats))
    values = [frechet_distance(reference[order[:n]], reference[order[n:]]) for order in orders]
    return Interval(float(np.mean(values)), min(values), max(values), n)


# Kernel distance --------------------------------------------------------------------------------------------


def kernel_distance(a, b, confidence: float = 0.95) -> Interval:
    """Unbiased squared MMD with the kernel (x . y / D + 1)^3, over all pairs (Binkowski et al. 2018).

    a, b: N x D and M x D, at least 3 items each. Zero on average when both come from one distribution, at
    every sample size; hence it may be negative. The interval is the jackknife's: each item left out once,
    exactly, from the row sums of the kernel. On Gaussians it covers in 93 to 99 of 100 draws; more where they
    are nearly equal, when it is up to half as wide again as it need be. n: of the smaller set.
    """
    check_confidence(confidence)
    a, b = two_sets(a, b, least=3)
    n, m = len(a), len(b)
    within_a, within_b = (_kernel_row_sums(x, x, exclude_self=True) for x in (a, b))
    across_a, across_b = _kernel_row_sums(a, b), _kernel_row_sums(b, a)
    sum_a, sum_b, sum_ab = within_a.sum(), within_b.sum(), across_a.sum()
    mean_a, mean_b = sum_a / (n * (n - 1)), sum_b / (m * (m - 1))
    value = float(mean_a + mean_b - 2 * sum_ab / (n * m))
    mean_without_a = (sum_a - 2 * within_a) / ((n - 1) * (n - 2))
    mean_without_b = (sum_b - 2 * within_b) / ((m - 1) * (m - 2))
    without_a = mean_without_a + mean_b - 2 * (sum_ab - across_a) / ((n - 1) * m)
    without_b = mean_a + mean_without_b - 2 * (sum_ab - across_b) / (n * (m - 1))
    variance = (n - 1) * without_a.var() + (m - 1) * without_b.var()
    reach = float(norm.ppf(0.5 + confidence / 2) * np.sqrt(variance))
    return Interval(value, value - reach, value + reach, min(n, m))


def _kernel_row_sums(a: np.ndarray, b: np.ndarray, exclude_self: bool = False) -> np.ndarray:
    """For each row of a, the sum of the kernel over the rows of b (without itself, if a is b)."""
    blocks = (a[i:i + BLOCK] @ b.T for i in range(0, len(a), BLOCK))
    sums = np.concatenate([((block / a.shape[1] + 1) ** 3).sum(1) for block in blocks])
    return sums - (np.square(a).sum(1) / a.shape[1] + 1) ** 3 if exclude_self else sums


# All together -----------------------------------------------------------------------------------------------


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
        """One Interval for each metric; those without an interval of their own have NaN for its ends."""
        nan = float("nan")
        rows = {"kernel distance": self.kernel, "Frechet distance": Interval(self.frechet, nan, nan, self.n)}
        rows["Frechet noise floor"] = self.frechet_floor
        shares = ("precision", "recall", "density", "coverage")
        return rows | {name: Interval(getattr(self, name), nan, nan, self.n) for name in shares}


def fidelity(samples, reference, provenance: dict) -> Fidelity:
    """Every distance between the features of samples (N x D) and of a reference (M x D).

    provenance: must say REQUIRED_PROVENANCE; n of both sets is added.
    """
    check_kind("provenance", provenance, dict, "a mapping")
    missing = [key for key in REQUIRED_PROVENANCE if key not in provenance]
    if missing:
        raise MetricError(f"A fidelity must say what it was computed on: {', '.join(missing)} is missing.")
    samples, reference = two_sets(samples, reference)
    return Fidelity(
        frechet_distance(samples, reference), frechet_noise_floor(reference, len(samples)),
        kernel_distance(samples, reference), **precision_recall(reference=reference, samples=samples),
        n=len(samples), n_reference=len(reference), provenance=dict(provenance),
    )
