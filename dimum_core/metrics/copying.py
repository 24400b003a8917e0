"""Copies: samples that lie much nearer to one training image than to any other."""

from __future__ import annotations

import numpy as np

from .intervals import MetricError
from .neighbours import nearest_neighbours


def copied_items(samples, reference, ratio: float = 1 / 3) -> np.ndarray:
    """For each sample the index of the reference item that it copies, or -1 if it copies none; N.

    A sample copies its nearest item if the distance to it is less than `ratio` times that to the second nearest, a third as in Gu
    et al. 2023 (arXiv 2310.02664, after Yoon et al. 2023). Carlini et al. 2023 (arXiv 2301.13188) compare with half the mean
    distance to the 50 nearest; where those span several classes, as with 8 x 8 digits, held-out originals pass that test too.
    An item that is there several times counts once, and is known by its first index: otherwise it would be its own second.
    samples, reference: N x D and M x D, two different items at least, or MetricError.
    """
    if not 0 < ratio <= 1:
        raise MetricError(f"The ratio of two distances that tells a copy lies above 0 and at most at 1, not at {ratio}.")
    distinct, first = np.unique(np.asarray(reference), axis=0, return_index=True)
    distances, indices = nearest_neighbours(samples, distinct, 2)
    return np.where(distances[:, 0] < ratio * distances[:, 1], first[indices[:, 0]], -1)
