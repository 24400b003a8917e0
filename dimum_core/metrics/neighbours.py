"""The nearest items of a set, and what they say of samples: precision and recall, density and coverage."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import pairwise_distances_chunked

from ..checking import check_whole
from .features import BLOCK, two_sets
from .intervals import MetricError


def nearest_neighbours(queries, reference, k: int = 1, exclude_self: bool = False) -> tuple[np.ndarray, ...]:
    """Euclidean distances and indices of the k nearest reference items of each query; N x k each.

    Nearest first. An exact copy is at a distance of exactly 0.
    exclude_self: queries and reference are the same array, and an item is not its own neighbour.
    """
    queries, reference = two_sets(queries, reference, least=1)
    if exclude_self and len(queries) != len(reference):
        raise MetricError("exclude_self needs the same items as queries and as reference.")
    check_whole("k", k, 0)
    if k < 1 or len(reference) < k + exclude_self:
        raise MetricError(f"There are no {k} neighbours among {len(reference)} reference items.")
    distances, indices = [], []
    for start, block in _distance_blocks(queries, reference):
        rows = np.arange(len(block))
        if exclude_self:
            block[rows, start + rows] = np.inf
        nearest = np.argpartition(block, k - 1, axis=1)[:, :k]
        exact = _exact_distances(queries, reference, (start + rows).repeat(k), nearest.ravel()).reshape(-1, k)
        order = np.argsort(exact, axis=1, kind="stable")
        distances.append(np.take_along_axis(exact, order, axis=1))
        indices.append(np.take_along_axis(nearest, order, axis=1))
    return np.concatenate(distances), np.concatenate(indices)


def _distance_blocks(a: np.ndarray, b: np.ndarray):
    """(first row, distances) of some rows of a at a time to all of b; up to rounding, in 64 MiB.

    They come from a matrix product: many times faster than differences, but what is near 0 is all rounding.
    Centring keeps that small when features are far from the origin.
    """
    centre, start = b.mean(0), 0
    for block in pairwise_distances_chunked(a - centre, b - centre, working_memory=64):
        yield start, block
        start += len(block)


def _exact_distances(a: np.ndarray, b: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Distances of a[rows] to b[columns] by differences: the same both ways, and 0 for a copy."""
    pieces = (slice(i, i + BLOCK) for i in range(0, len(rows), BLOCK))
    squares = [np.square(a[rows[p]] - b[columns[p]]).sum(1) for p in pieces]
    return np.sqrt(np.concatenate(squares or [np.empty(0)]))


def _ball_blocks(a: np.ndarray, b: np.ndarray, radius_a: np.ndarray, radius_b: np.ndarray):
    """For some rows of a at a time, whether (they lie in b's balls, b lies in theirs); two of rows x len(b).

    An item lies on the very edge of the ball that it defines; where rounding could decide, take differences.
    """
    scale = np.square(a - b.mean(0)).sum(1).max() + np.square(b - b.mean(0)).sum(1).max()
    for start, block in _distance_blocks(a, b):
        ours = radius_a[start:start + len(block), None]
        squares, doubtful = np.square(block), np.zeros(block.shape, dtype=bool)
        for radius in (radius_b, ours):
            doubtful |= np.abs(squares - np.square(radius)) <= 1e-12 * scale
        rows, columns = np.nonzero(doubtful)
        block[rows, columns] = _exact_distances(a, b, start + rows, columns)
        yield block <= radius_b, block <= ours


def precision_recall(*, reference, samples, k: int = 5) -> dict[str, float]:
    """How many samples look real, and how much of the real set they cover; by name so as not to be swapped.

    reference, samples: N x D and M x D, more than k items each. A ball reaches to its item's k-th neighbour
    in its own set. precision, recall: Kynkaanniemi et al. 2019, arXiv 1904.06991; density, coverage: Naeem et
    al. 2020, arXiv 2002.09797. All in [0, 1] but density, which may exceed 1.
    """
    check_whole("k", k, 0)
    reference, samples = two_sets(reference, samples, least=k + 1)
    real_radius = nearest_neighbours(reference, reference, k, exclude_self=True)[0][:, -1]
    fake_radius = nearest_neighbours(samples, samples, k, exclude_self=True)[0][:, -1]
    balls_around, (recalled, covered) = [], np.zeros((2, len(reference)), dtype=bool)
    for in_real, in_fake in _ball_blocks(samples, reference, fake_radius, real_radius):
        balls_around.append(in_real.sum(1))
        recalled |= in_fake.any(0)
        covered |= in_real.any(0)
    balls = np.concatenate(balls_around)
    return {
        "precision": float((balls > 0).mean()), "recall": float(recalled.mean()),
        "density": float(balls.mean() / k), "coverage": float(covered.mean()),
    }
