"""Calls of metrics."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from dimum_core import metrics
from tests.bad_input.refusing import NAN, refused


def wrong_features(call):
    return [(f"{call.__name__}: {name}", lambda w, bad=bad: call(w.features, bad), said) for name, bad, said in (
        ("nothing", None, "Features must be N x D"), ("words", "x", "Features must be real numbers"), ("empty", [], "N x D"),
        ("one item", [1.0, 2.0, 3.0], "N x D"), ("nan", np.full((8, 3), NAN), "finite"),
        ("other width", np.zeros((8, 4)), "the same number of features"),
        ("ragged", [[1.0], [1.0, 2.0]], "Features must be real numbers"),
        ("a gradient", torch.zeros(8, 3, requires_grad=True), "gradients"),
        ("complex", np.zeros((8, 3)) + 1j, "Features must be"),
    )]


CASES = {
    **{name: case for metric in (metrics.frechet_distance, metrics.kernel_distance) for name, *case in wrong_features(metric)},
    **{f"{call.__name__}: {given!r}": (lambda w, call=call, given=given: call(*given), said) for call, given, said in (
        (metrics.wilson_interval, ("x", 5), "not 'x' of 5"), (metrics.wilson_interval, (1, None), "1 of None"),
        (metrics.wilson_interval, ([1], [2]), "not [1] of [2]"), (metrics.wilson_interval, (1, 5, "x"), "A confidence lies"),
        (metrics.wilson_interval, (1, 5, 95), "not 95"), (metrics.t_interval, ("ab",), "must be real numbers"),
        (metrics.t_interval, ([1, 2j],), "must be real numbers"), (metrics.t_interval, ([[1, 2]],), "two finite values"),
        (metrics.accuracy, ([[1], [1, 2]], [1, 2]), "lists of integers"), (metrics.accuracy, (None, None), "must have one length"),
        (metrics.accuracy, (torch.ones(1, requires_grad=True), [1]), "without gradients"),
        (metrics.confusion_matrix, ([0], [0], None), "class_names must be"), (metrics.auroc, (["a"], [1]), "Scores must be"),
        (metrics.expected_calibration_error, ("x", [0]), "Probabilities must be"),
        (metrics.expected_calibration_error, ([[0.5, 0.5]], [0], "x"), "bins must be"),
        (metrics.auroc, (None, [1]), "finite scores"),
        (metrics.area_under_recovery, ("x", "y"), "must be real numbers"),
        (metrics.area_under_recovery, ([0, 1], [0, NAN]), "[0, 1]"),
        (metrics.steps_to_recovery, ([0, 1], [0, 1], NAN), "level must be"),
        (metrics.steps_to_recovery, ([0, 1], [0, 1], 2), "not 2"),
        (metrics.recovery_ratio, (NAN, 0, 1), "unlearned must be"), (metrics.recovery_ratio, ("x", 0, 1), "not 'x'"),
        (metrics.paired_difference, ("ab", "cd"), "must be real numbers"),
        (metrics.holm, (["a"],), "p-values must be"), (metrics.average_ranks, (None,), "table must be"),
        (metrics.average_ranks, ([[1, 2]],), "table must be"), (metrics.average_ranks, (pd.DataFrame(),), "gaps, or no rows"),
        (metrics.pairwise_comparisons, (pd.DataFrame({"a": ["x"], "b": ["y"]}),), "compared by numbers"),
        (metrics.power, (NAN, 1, 5), "difference must be"), (metrics.pairs_needed, (NAN, 1), "difference must be"),
        (metrics.least_difference, (1, 5, 2), "not 2"), (metrics.least_difference, (1, 5, 0.05), "must be above 0.05"),
        (metrics.least_difference, (0.1, 2, 0.8, 0.999), "2 pairs find not even a difference of 100 deviations"),
        (metrics.pairs_needed, (1, 1, NAN), "not nan"), (metrics.least_difference, (NAN, 5), "deviation must be"),
    )},
    "neighbours: 0": (lambda w: metrics.nearest_neighbours(w.features, w.features, 0), "no 0 neighbours"),
    "neighbours: 9 of 8": (lambda w: metrics.nearest_neighbours(w.features, w.features, 9), "no 9 neighbours among 8"),
    "neighbours: a half": (lambda w: metrics.nearest_neighbours(w.features, w.features, 1.5), "k must be"),
    "neighbourhoods in words": (lambda w: metrics.precision_recall(reference=w.features, samples=w.features, k="x"), "k must be"),
    "a floor in words": (lambda w: metrics.frechet_noise_floor(w.features, "x"), "n must be"),
    "a fidelity of nothing known": (lambda w: metrics.fidelity(w.features, w.features, None), "provenance must be"),
    "a defence that is no column": (
        lambda w: metrics.best_attacks(w.runs, ["m"], ["rate"], "v"), "lacks the columns m; it has rate, seed",
    ),
    "no table of runs": (lambda w: metrics.best_attacks([], ["rate"], ["v"], "v"), "table must be"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_is_refused_in_one_sentence(w, case):
    refused(w, *CASES[case])
