"""Metrics on plain arrays: accuracies with intervals, calibration, and distances between sets of features."""

from .accuracy import accuracy, auroc, confusion_matrix, expected_calibration_error, per_class_accuracy
from .fidelity import (
    REQUIRED_PROVENANCE,
    Fidelity,
    FrechetStatistics,
    fidelity,
    frechet_distance,
    frechet_noise_floor,
    kernel_distance,
    nearest_neighbours,
    precision_recall,
)
from .intervals import (
    Interval,
    MetricError,
    bootstrap_interval,
    difference_interval,
    difference_of_proportions,
    t_interval,
    wilson_interval,
)
from .recovery import StepsToRecovery, area_under_recovery, best_attacks, recovery_ratio, steps_to_recovery, worst_case

__all__ = [
    "REQUIRED_PROVENANCE",
    "Fidelity",
    "FrechetStatistics",
    "Interval",
    "MetricError",
    "StepsToRecovery",
    "accuracy",
    "area_under_recovery",
    "auroc",
    "best_attacks",
    "bootstrap_interval",
    "confusion_matrix",
    "difference_interval",
    "difference_of_proportions",
    "expected_calibration_error",
    "fidelity",
    "frechet_distance",
    "frechet_noise_floor",
    "kernel_distance",
    "nearest_neighbours",
    "per_class_accuracy",
    "precision_recall",
    "recovery_ratio",
    "steps_to_recovery",
    "t_interval",
    "wilson_interval",
    "worst_case",
]
