"""Metrics on plain arrays: accuracies with intervals, calibration, and distances between sets of features."""

from .classification import accuracy, auroc, confusion_matrix, expected_calibration_error, per_class_accuracy
from .comparison import (
    MARGIN,
    average_ranks,
    holm,
    least_difference,
    least_p,
    letter_groups,
    paired_difference,
    pairs_needed,
    pairwise_comparisons,
    power,
    sign_flip_interval,
    sign_flip_test,
)
from .copying import copied_items
from .distances import (
    REQUIRED_PROVENANCE,
    Fidelity,
    FrechetStatistics,
    fidelity,
    frechet_distance,
    frechet_noise_floor,
    kernel_distance,
)
from .intervals import (
    Interval,
    MetricError,
    difference_of_proportions,
    t_interval,
    wilson_interval,
)
from .neighbours import nearest_neighbours, precision_recall
from .recovery import StepsToRecovery, area_under_recovery, best_attacks, recovery_ratio, steps_to_recovery

__all__ = [
    "MARGIN",
    "REQUIRED_PROVENANCE",
    "Fidelity",
    "FrechetStatistics",
    "Interval",
    "MetricError",
    "StepsToRecovery",
    "accuracy",
    "area_under_recovery",
    "auroc",
    "average_ranks",
    "best_attacks",
    "confusion_matrix",
    "copied_items",
    "difference_of_proportions",
    "expected_calibration_error",
    "fidelity",
    "frechet_distance",
    "frechet_noise_floor",
    "holm",
    "kernel_distance",
    "least_difference",
    "least_p",
    "letter_groups",
    "nearest_neighbours",
    "paired_difference",
    "pairs_needed",
    "pairwise_comparisons",
    "per_class_accuracy",
    "power",
    "precision_recall",
    "recovery_ratio",
    "sign_flip_interval",
    "sign_flip_test",
    "steps_to_recovery",
    "t_interval",
    "wilson_interval",
]
