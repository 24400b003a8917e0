"""How right the judge was: accuracy, confusion, calibration, and how well two kinds of images are told apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn import metrics as sklearn_metrics

from ..checking import check_kind, check_whole
from .intervals import Interval, MetricError, as_numbers, wilson_interval


def accuracy(predicted, labels) -> Interval:
    """Share of items whose prediction is the label, in [0, 1], with its Wilson interval.

    predicted, labels: int, N each. A prediction of -1 (none of these) is wrong; a label is never negative.
    """
    predicted, labels = _pair(predicted, labels)
    return wilson_interval(int((predicted == labels).sum()), len(labels))


def confusion_matrix(predicted, labels, class_names: Sequence[str] | int) -> pd.DataFrame:
    """Counts: a row for each true class, a column for each prediction; the last one is none of these (-1).

    predicted, labels: int, N each, in [-1, classes) and [0, classes); class_names: or how many there are.
    """
    check_kind("class_names", class_names, (int, list, tuple, range), "a list of names, or how many there are")
    names = list(range(class_names) if isinstance(class_names, int) else class_names)
    predicted, labels = _pair(predicted, labels, len(names))
    counts = sklearn_metrics.confusion_matrix(labels, predicted, labels=[*range(len(names)), -1])
    return pd.DataFrame(counts[:-1], index=names, columns=[*names, "none of these"])


def per_class_accuracy(predicted, labels, class_names: Sequence[str] | int) -> pd.DataFrame:
    """Accuracy among the items of each true class: value, low, high (Wilson, 95 %) and n; a row for each.

    Arguments as in `confusion_matrix`. A class without items has NaN and n = 0.
    """
    table = confusion_matrix(predicted, labels, class_names)
    right, n = np.diagonal(table.to_numpy()), table.to_numpy().sum(1)
    nothing = Interval(np.nan, np.nan, np.nan, 0)
    intervals = [wilson_interval(r, m) if m else nothing for r, m in zip(right, n, strict=True)]
    return pd.DataFrame(intervals, index=table.index)


def expected_calibration_error(probabilities, labels, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins of confidence (Guo et al. 2017, eq. 3).

    probabilities: N x classes, in [0, 1]; labels: int, N. In [0, 1]; 0 is perfectly calibrated.
    """
    check_whole("bins", bins, 0)
    probabilities = as_numbers(probabilities, "Probabilities")
    if probabilities.ndim != 2 or not probabilities.size:
        raise MetricError(f"Calibration needs probabilities of shape N x classes, not {probabilities.shape}.")
    # The slack is for float32, whose softmax may sum to a little more than 1.
    if not (probabilities.min() >= 0 and probabilities.max() <= 1 + 1e-5):  # also refuses NaN
        raise MetricError("Calibration needs probabilities in [0, 1]: apply a softmax to logits first.")
    if bins < 1:
        raise MetricError(f"Calibration needs at least one bin, not {bins}.")
    predicted, labels = _pair(probabilities.argmax(1), labels, probabilities.shape[1])
    confidence, right = probabilities.max(1), predicted == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    in_bins = [which == b for b in np.unique(which)]
    return float(sum(abs(right[b].mean() - confidence[b].mean()) * b.mean() for b in in_bins))


def auroc(inside, outside) -> float:
    """Probability that an item from outside has the larger score than one from inside; ties count one half.

    inside, outside: finite scores, any number of each. In [0, 1]; 0.5: not told apart.
    """
    inside, outside = (as_numbers(scores, "Scores").ravel() for scores in (inside, outside))
    if not len(inside) or not len(outside):
        raise MetricError("An AUROC needs scores of both kinds.")
    scores = np.concatenate([inside, outside])
    if not np.isfinite(scores).all():
        raise MetricError("An AUROC needs finite scores.")
    return float(sklearn_metrics.roc_auc_score(np.repeat([0, 1], [len(inside), len(outside)]), scores))


def _pair(predicted, labels, classes: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Both as int arrays of one length; predictions in [-1, classes), labels in [0, classes)."""
    try:
        predicted, labels = np.asarray(predicted), np.asarray(labels)
    except (TypeError, ValueError, RuntimeError) as error:  # ragged, or a tensor on a GPU or with a gradient
        raise MetricError("Predictions and labels must be lists of integers, on the CPU and without gradients.") from error
    if predicted.shape != labels.shape or predicted.ndim != 1 or not len(labels):
        raise MetricError(
            f"Predictions and labels must have one length of at least 1, not {predicted.shape} and {labels.shape}."
        )
    if not (np.issubdtype(predicted.dtype, np.integer) and np.issubdtype(labels.dtype, np.integer)):
        raise MetricError(f"Predictions and labels must be integers, not {predicted.dtype}, {labels.dtype}.")
    last = np.inf if classes is None else classes - 1
    if labels.min() < 0 or predicted.min() < -1 or max(labels.max(), predicted.max()) > last:
        bound = "or more" if classes is None else f"to {last}"
        raise MetricError(f"Labels must be 0 {bound}; only predictions may be -1, which is none of these.")
    return predicted, labels
