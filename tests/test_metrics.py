"""Intervals, accuracies and neighbours, against scipy, scikit-learn, torchmetrics, or a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import pairwise_distances_chunked

from dimum_core.metrics import (
    REQUIRED_PROVENANCE,
    MetricError,
    accuracy,
    auroc,
    confusion_matrix,
    difference_of_proportions,
    distances,
    expected_calibration_error,
    fidelity,
    frechet_distance,
    frechet_noise_floor,
    kernel_distance,
    nearest_neighbours,
    neighbours,
    per_class_accuracy,
    precision_recall,
    t_interval,
    wilson_interval,
)
from dimum_core.metrics.inception import as_uint8


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (461, 500)])
def test_wilson_is_its_closed_form(k, n):
    z, p = stats.norm.ppf(0.975), k / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    interval = wilson_interval(k, n)
    assert (interval.value, interval.n) == (p, n)
    assert (interval.low, interval.high) == pytest.approx((centre - reach, centre + reach), abs=1e-12)


def test_newcombes_example():
    """Newcombe 1998, table II: 56/70 against 48/80 by method 10 gives 0.0524 to 0.3339."""
    difference = difference_of_proportions(56, 70, 48, 80)
    assert difference.value == pytest.approx(0.2) and difference.n == 70
    assert (difference.low, difference.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    turned = difference_of_proportions(48, 80, 56, 70)
    assert (turned.low, turned.high) == pytest.approx((-difference.high, -difference.low))


def test_t_interval_is_scipys():
    values = [0.1, 0.4, 0.35, 0.8]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (t_interval(values).low, t_interval(values).high) == pytest.approx(expected)


def test_intervals_are_printed():
    assert str(wilson_interval(461, 500)) == "0.922 [0.895, 0.942], n = 500"
    assert wilson_interval(461, 500).percent == "92.2% [89.5%, 94.2%], n = 500"


def test_accuracy_and_confusion_by_hand():
    labels, predicted = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, -1, 1, 2, 2])
    assert (accuracy(predicted, labels).value, accuracy(predicted, labels).n) == (0.6, 5)
    table = confusion_matrix(predicted, labels, ("a", "b", "c"))
    assert table.to_numpy().tolist() == [[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 0]]
    assert list(table.columns) == ["a", "b", "c", "none of these"]
    assert confusion_matrix(predicted, labels, 3).to_numpy().tolist() == table.to_numpy().tolist()
    classes = per_class_accuracy(predicted, labels, ("a", "b", "c", "never"))
    assert classes["value"][:3].tolist() == [0.5, 0.5, 1] and classes["n"].tolist() == [2, 2, 1, 0]
    assert classes.loc["a", "low"] == wilson_interval(1, 2).low and np.isnan(classes.loc["never", "value"])


def test_calibration_error_by_hand_and_that_of_torchmetrics(rng):
    """By hand: two items at 0.65, one right, gap 0.15; one item at 0.95, right, gap 0.05."""
    from torchmetrics.functional.classification import multiclass_calibration_error

    by_hand = expected_calibration_error([[0.65, 0.35], [0.65, 0.35], [0.05, 0.95]], [0, 1, 1])
    assert by_hand == pytest.approx(0.15 * 2 / 3 + 0.05 / 3)
    probabilities, labels = rng.dirichlet([1, 1, 1], 500), rng.integers(3, size=500)
    tensors = torch.from_numpy(probabilities), torch.from_numpy(labels)
    expected = float(multiclass_calibration_error(*tensors, num_classes=3, n_bins=15))
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_auroc_counts_the_pairs(rng):
    inside, outside = rng.normal(size=30), rng.normal(0.5, size=40)
    assert auroc(inside, outside) == pytest.approx((outside[:, None] > inside).mean())


def reference_precision_recall(real, fake, k):
    distance = lambda x, y: np.sqrt(((x[:, None] - y) ** 2).sum(-1))  # noqa: E731
    radius = lambda x: np.sort(distance(x, x), axis=1)[:, k]  # noqa: E731
    inside_real = distance(fake, real) <= radius(real)
    inside_fake = distance(real, fake) <= radius(fake)
    return {
        "precision": inside_real.any(1).mean(), "recall": inside_fake.any(1).mean(),
        "density": inside_real.sum() / (k * len(fake)), "coverage": inside_real.any(0).mean(),
    }


def test_precision_and_recall_are_their_definitions_and_exchange_when_swapped(rng):
    real, fake = rng.normal(size=(60, 3)), rng.normal(0.7, 0.8, size=(45, 3))
    scores = precision_recall(reference=real, samples=fake)
    swapped = precision_recall(reference=fake, samples=real)
    assert scores == pytest.approx(reference_precision_recall(real, fake, 5))
    assert (scores["precision"], scores["recall"]) == (swapped["recall"], swapped["precision"])


def test_blocks_do_not_change_the_result(rng, monkeypatch):
    real, fake = rng.normal(size=(400, 4)), rng.normal(0.5, size=(300, 4))
    scores, distance = precision_recall(reference=real, samples=fake, k=3), kernel_distance(real, fake)
    small = lambda *arrays, working_memory: pairwise_distances_chunked(*arrays, working_memory=0.05)  # noqa: E731
    monkeypatch.setattr(neighbours, "pairwise_distances_chunked", small)
    for module in (distances, neighbours):
        monkeypatch.setattr(module, "BLOCK", 7)
    assert precision_recall(reference=real, samples=fake, k=3) == scores
    assert scores == pytest.approx(reference_precision_recall(real, fake, 3))
    again = kernel_distance(real, fake)
    assert (again.value, again.low) == pytest.approx((distance.value, distance.low))


@pytest.mark.parametrize("shift", [0, 1e4])
def test_a_copy_is_at_no_distance_and_an_item_on_the_edge_of_a_ball_is_in_it(rng, shift):
    """A set against itself: each ball holds its item and k neighbours, the last of them on its edge."""
    a = rng.normal(size=(700, 64)) + shift
    scores = precision_recall(reference=a, samples=a[::-1])
    assert scores == pytest.approx({"precision": 1, "recall": 1, "density": 6 / 5, "coverage": 1}, abs=1e-12)
    distance, index = nearest_neighbours(a[::-1], a)
    assert (distance == 0).all() and (index[:, 0] == np.arange(700)[::-1]).all()


def test_collapse_costs_recall_and_noise_costs_precision(rng):
    real = rng.normal(size=(300, 4))
    collapsed = precision_recall(reference=real, samples=0.05 * rng.normal(size=(300, 4)))
    noisy = precision_recall(reference=real, samples=5 * rng.normal(size=(300, 4)))
    assert collapsed["precision"] > 0.95 and collapsed["recall"] < 0.05 and collapsed["coverage"] < 0.1
    assert noisy["precision"] < 0.3 and noisy["recall"] > 0.8


def test_nearest_neighbours_are_scikit_learns(rng):
    from sklearn.neighbors import NearestNeighbors

    reference, queries = rng.normal(size=(80, 5)), rng.normal(size=(20, 5))
    expected = NearestNeighbors(n_neighbors=3).fit(reference).kneighbors(queries)
    for ours, theirs in zip(nearest_neighbours(queries, reference, 3), expected, strict=True):
        np.testing.assert_allclose(ours, theirs)
    distance, index = nearest_neighbours(reference, reference, 1, exclude_self=True)
    assert (index[:, 0] != np.arange(80)).all() and (distance > 0).all()


def test_a_fidelity_must_say_what_it_was_computed_on(rng):
    a, b = rng.normal(size=(50, 4)), rng.normal(size=(60, 4))
    provenance = dict.fromkeys(REQUIRED_PROVENANCE, "x")
    assert fidelity(a, b, provenance).kernel == kernel_distance(a, b)
    with pytest.raises(MetricError, match="sampler is missing"):
        fidelity(a, b, {k: v for k, v in provenance.items() if k != "sampler"})


@pytest.mark.parametrize("call", [
    lambda a: frechet_distance(a, a[:, :2]),
    lambda a: frechet_distance(a[:1], a),
    lambda a: frechet_distance(a[:, 0], a),
    lambda a: frechet_distance(a[:, :0], a[:, :0]),
    lambda a: frechet_distance([[1.0], [1.0, 2.0]], a),
    lambda a: frechet_noise_floor(a, 1),
    lambda a: frechet_distance(torch.ones(4, 3, requires_grad=True), a),
    lambda a: precision_recall(reference=a, samples=a[:4]),
    lambda a: precision_recall(reference=a, samples=a, k=0),
    lambda a: nearest_neighbours(a, a[:1], 2),
    lambda a: nearest_neighbours(a, a[:5], exclude_self=True),
    lambda a: kernel_distance(a, np.nan * a),
    lambda a: kernel_distance(a[:2], a),
    lambda a: kernel_distance(a, a, 95),
    lambda a: wilson_interval(3, 2),
    lambda a: wilson_interval(0, 0),
    lambda a: wilson_interval(3.5, 10),
    lambda a: wilson_interval(np.nan, 10),
    lambda a: wilson_interval(3, 10, 95),
    lambda a: t_interval([1.0]),
    lambda a: accuracy([1, 2], [1]),
    lambda a: accuracy([-1], [-1]),
    lambda a: accuracy([0.2], [0]),
    lambda a: confusion_matrix([-2, 0], [0, 1], 2),
    lambda a: confusion_matrix([2], [0], 2),
    lambda a: expected_calibration_error([[np.nan, 1.0]], [0]),
    lambda a: expected_calibration_error([[-3.0, 7.0]], [0]),
    lambda a: auroc([], [1.0]),
    lambda a: auroc([np.nan], [1.0]),
    lambda a: as_uint8(torch.full((1, 3, 4, 4), 2.0)),
    lambda a: as_uint8(torch.full((1, 3, 4, 4), torch.nan)),
    lambda a: as_uint8(torch.zeros(1, 2, 4, 4)),
    lambda a: as_uint8(torch.zeros(3, 4, 4)),
    lambda a: as_uint8(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)),
])
def test_what_cannot_be_computed_is_refused_in_a_sentence(rng, call):
    with pytest.raises(MetricError) as raised:
        call(rng.normal(size=(10, 3)))
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)
