"""Sets of features, N x D each, in float64: what distances and neighbours are computed from."""

from __future__ import annotations

import numpy as np

from .intervals import MetricError, as_numbers

BLOCK = 1024  # rows at a time: memory is bounded by BLOCK x N numbers


def as_features(values, least: int = 2) -> np.ndarray:
    """N x D in float64, or MetricError."""
    values = as_numbers(values, "Features")
    if values.ndim != 2 or len(values) < least or not values.shape[1]:
        raise MetricError(f"Features must be N x D with N of at least {least}, not of shape {values.shape}.")
    if not np.isfinite(values).all():
        raise MetricError("Features must be finite: look for NaN in the images or in the extractor.")
    return values


def two_sets(a, b, least: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in float64, with the same number of features, or MetricError."""
    a, b = as_features(a, least), as_features(b, least)
    if a.shape[1] != b.shape[1]:
        raise MetricError(f"Both sets need the same number of features, not {a.shape[1]} and {b.shape[1]}.")
    return a, b
