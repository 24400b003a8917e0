"""What the judge got: accuracy, confusion, calibration, and how well two kinds of images are told apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from .intervals import Interval, MetricError, wilson_interval


def accuracy(predicted, labels) -> Interval:
    """Share of items whose prediction is the label, with its Wilson interval; int, N each. -1 (none of these) is wrong."""
    predicted, labels = _pair(predicted, labels)
    return wilson_interval(int((predicted == labels).sum()), len(labels))


def confusion_matrix(predicted, labels, class_names) -> pd.DataFrame:
    """Counts, a row for each true class and a column for each prediction; the last column is none of these (-1)."""
    predicted, labels = _pair(predicted, labels)
    classes = len(class_names)
    if labels.min() < 0 or labels.max() >= classes or predicted.max() >= classes:
        raise MetricError(f"Labels must lie in [0, {classes - 1}]; only predictions may be -1.")
    counts = sklearn_metrics.confusion_matrix(labels, predicted, labels=[*range(classes), -1])
    return pd.DataFrame(counts[:classes], index=list(class_names), columns=[*class_names, "none of these"])


def expected_calibration_error(probabilities, labels, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence (Guo et al. 2017, eq. 3).

    probabilities: N x classes; labels: int, N. 0 is perfectly calibrated.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2:
        raise MetricError(f"Calibration needs probabilities of shape N x classes, not {probabilities.shape}.")
    predicted, labels = _pair(probabilities.argmax(1), labels)
    confidence, right = probabilities.max(1), predicted == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [abs(right[which == b].mean() - confidence[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
    return float(sum(gaps))


def auroc(inside, outside) -> float:
    """Probability that an item from outside has the larger score than one from inside (0.5: not told apart)."""
    inside, outside = (np.asarray(scores, dtype=np.float64).ravel() for scores in (inside, outside))
    if not len(inside) or not len(outside):
        raise MetricError("An AUROC needs scores of both kinds.")
    truth = np.repeat([0, 1], [len(inside), len(outside)])
    return float(sklearn_metrics.roc_auc_score(truth, np.concatenate([inside, outside])))


def _pair(predicted, labels) -> tuple[np.ndarray, np.ndarray]:
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    if predicted.shape != labels.shape or predicted.ndim != 1 or not len(labels):
        raise MetricError(f"Predictions and labels must be as many, and at least one, not {predicted.shape} and {labels.shape}.")
    return predicted, labels
