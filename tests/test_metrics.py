"""Every metric against scipy, scikit-learn, torchmetrics, a closed form, or a sum over a tiny array."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from dimum_core.metrics import (
    REQUIRED_PROVENANCE,
    FrechetStatistics,
    Interval,
    MetricError,
    accuracy,
    auroc,
    bootstrap_interval,
    confusion_matrix,
    difference_interval,
    expected_calibration_error,
    fidelity,
    frechet_distance,
    frechet_noise_floor,
    kernel_distance,
    nearest_neighbours,
    precision_recall,
    t_interval,
    wilson_interval,
)
from dimum_core.metrics.inception import as_uint8, inception_features


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# Intervals and accuracy ---------------------------------------------------------------------------------------------


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
    difference = difference_interval(wilson_interval(56, 70), wilson_interval(48, 80))
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_t_interval_is_scipys():
    values = [0.1, 0.4, 0.35, 0.8]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (t_interval(values).low, t_interval(values).high) == pytest.approx(expected)


def test_bootstrap_of_a_mean_is_near_the_normal_one(rng):
    values = rng.normal(size=400)
    interval, error = bootstrap_interval(np.mean, values, resamples=4000), values.std() / 20
    assert (interval.low, interval.high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.01)


def test_ties():
    assert Interval(0.5, 0.4, 0.6, 9).ties_with(Interval(0.65, 0.6, 0.7, 9))
    assert not Interval(0.5, 0.4, 0.6, 9).ties_with(Interval(0.65, 0.61, 0.7, 9))


def test_accuracy_and_confusion_by_hand():
    labels, predicted = torch.tensor([0, 0, 1, 1, 2]), torch.tensor([0, -1, 1, 2, 2])
    assert (accuracy(predicted, labels).value, accuracy(predicted, labels).n) == (0.6, 5)
    table = confusion_matrix(predicted, labels, ("a", "b", "c"))
    assert table.to_numpy().tolist() == [[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 0]]
    assert list(table.columns) == ["a", "b", "c", "none of these"]


def test_calibration_error_by_hand():
    """Bin (0.6, 0.7]: two items at 0.65, one right, gap 0.15; bin of 0.95: one right, gap 0.05; weights 2/3 and 1/3."""
    probabilities = [[0.65, 0.35], [0.65, 0.35], [0.05, 0.95]]
    assert expected_calibration_error(probabilities, [0, 1, 1]) == pytest.approx(0.15 * 2 / 3 + 0.05 / 3)


def test_calibration_error_is_that_of_torchmetrics(rng):
    from torchmetrics.functional.classification import multiclass_calibration_error

    probabilities, labels = torch.from_numpy(rng.dirichlet([1, 1, 1], 500)), torch.from_numpy(rng.integers(3, size=500))
    expected = multiclass_calibration_error(probabilities, labels, num_classes=3, n_bins=15)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(float(expected), abs=1e-6)


def test_auroc_counts_the_pairs(rng):
    inside, outside = rng.normal(size=30), rng.normal(0.5, size=40)
    assert auroc(inside, outside) == pytest.approx((outside[:, None] > inside).mean())


# Frechet distance ---------------------------------------------------------------------------------------------------


def reference_frechet(a, b):
    """The definition, with a general matrix square root."""
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = np.real(linalg.sqrtm(covariances[0] @ covariances[1]))
    return np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * np.trace(root)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 8), (30, 200, 8), (400, 400, 40)])
def test_frechet_is_its_definition(rng, n, m, d):
    a, b = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), rng.normal(0.3, size=(m, d))
    assert frechet_distance(a, b) == pytest.approx(reference_frechet(a, b), rel=1e-6)


def test_frechet_with_fewer_items_than_features_is_that_of_the_full_covariances(rng):
    a, b = rng.normal(size=(12, 30)), 2 * rng.normal(size=(15, 30))
    ca, cb = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(ca)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cb @ root), 0)).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(ca) + np.trace(cb) - 2 * trace
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_gaussians_tends_to_the_closed_form(rng):
    """Diagonal Gaussians: |m|^2 + sum (s_a - s_b)^2."""
    s_a, s_b, m = np.array([1.0, 2.0, 0.5]), np.array([0.5, 2.5, 0.5]), np.array([0.0, 1.0, -1.0])
    a, b = rng.normal(size=(200_000, 3)) * s_a, rng.normal(size=(200_000, 3)) * s_b + m
    assert frechet_distance(a, b) == pytest.approx(np.sum(m**2) + np.sum((s_a - s_b) ** 2), rel=0.02)


def test_frechet_of_a_set_with_itself_is_nothing_and_it_does_not_care_for_rotation(rng):
    a, b = rng.normal(size=(100, 6)), rng.normal(1, 2, size=(90, 6))
    rotation = stats.ortho_group.rvs(6, random_state=0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a @ rotation, b @ rotation) == pytest.approx(frechet_distance(a, b))
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_frechet_copes_with_a_feature_that_never_varies(rng):
    a, b = rng.normal(size=(100, 4)), rng.normal(1, size=(90, 4))
    a[:, 2] = b[:, 2] = 0.5
    keep = [0, 1, 3]
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(a[:, keep], b[:, keep]), rel=1e-6)


def test_stored_statistics_give_the_same_distance_and_damage_is_told(rng, tmp_path):
    a, b = rng.normal(size=(50, 5)), rng.normal(size=(60, 5))
    FrechetStatistics.of(b).save(tmp_path / "b.npz")
    assert frechet_distance(a, FrechetStatistics.load(tmp_path / "b.npz")) == frechet_distance(a, b)
    whole = (tmp_path / "b.npz").read_bytes()
    for damaged in (b"nothing", whole[: len(whole) // 2]):
        (tmp_path / "b.npz").write_bytes(damaged)
        with pytest.raises(MetricError, match=r"b.npz holds no reference statistics"):
            FrechetStatistics.load(tmp_path / "b.npz")


def test_the_noise_floor_is_what_a_perfect_generator_gets(rng):
    reference = rng.normal(size=(1000, 10))
    floor = frechet_noise_floor(reference, 100)
    perfect = np.mean([frechet_distance(rng.normal(size=(100, 10)), reference) for _ in range(20)])
    assert floor.value == pytest.approx(perfect, rel=0.25) and floor.low < floor.value < floor.high
    assert frechet_noise_floor(reference, 400).value < floor.value / 2


# Kernel distance ----------------------------------------------------------------------------------------------------


def reference_kernel_distance(a, b):
    k = lambda x, y: (np.dot(x, y) / len(x) + 1) ** 3  # noqa: E731
    n, m = len(a), len(b)
    aa = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    bb = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return aa + bb - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_is_the_sum_over_all_pairs(rng):
    a, b = rng.normal(size=(9, 4)), rng.normal(1, size=(7, 4))
    assert kernel_distance(a, b).value == pytest.approx(reference_kernel_distance(a, b))


def test_kernel_distance_is_that_of_torchmetrics(rng):
    from torchmetrics.image.kid import poly_mmd

    a, b = rng.normal(size=(40, 4)), rng.normal(1, size=(40, 4))
    assert kernel_distance(a, b).value == pytest.approx(float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b))))


def test_the_jackknife_leaves_each_item_out_once(rng):
    a, b = rng.normal(size=(6, 3)), rng.normal(1, size=(5, 3))
    without_a = [reference_kernel_distance(np.delete(a, i, 0), b) for i in range(6)]
    without_b = [reference_kernel_distance(a, np.delete(b, i, 0)) for i in range(5)]
    error = np.sqrt(5 * np.var(without_a) + 4 * np.var(without_b))
    interval = kernel_distance(a, b)
    assert (interval.high - interval.value) / stats.norm.ppf(0.975) == pytest.approx(error)


def test_kernel_distance_has_no_bias_and_its_interval_covers(rng):
    values = [kernel_distance(rng.normal(size=(30, 5)), rng.normal(size=(40, 5))).value for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 20
    truth = kernel_distance(rng.normal(size=(6000, 5)), rng.normal(0.5, size=(6000, 5))).value
    covered = [i.low <= truth <= i.high for i in
               (kernel_distance(rng.normal(size=(100, 5)), rng.normal(0.5, size=(100, 5))) for _ in range(300))]
    assert 0.9 < np.mean(covered) < 0.99


# Neighbours ---------------------------------------------------------------------------------------------------------


def reference_precision_recall(real, fake, k):
    distance = lambda x, y: np.sqrt(((x[:, None] - y) ** 2).sum(-1))  # noqa: E731
    radius = lambda x: np.sort(distance(x, x), axis=1)[:, k]  # noqa: E731
    inside_real = distance(fake, real) <= radius(real)
    inside_fake = distance(real, fake) <= radius(fake)
    return {
        "precision": inside_real.any(1).mean(), "recall": inside_fake.any(1).mean(),
        "density": inside_real.sum() / (k * len(fake)), "coverage": inside_real.any(0).mean(),
    }


def test_precision_and_recall_are_their_definitions(rng):
    real, fake = rng.normal(size=(60, 3)), rng.normal(0.7, 0.8, size=(45, 3))
    assert precision_recall(reference=real, samples=fake) == pytest.approx(reference_precision_recall(real, fake, 5))


def test_blocks_do_not_change_the_result(rng):
    real, fake = rng.normal(size=(3000, 4)), rng.normal(0.5, size=(2500, 4))  # more than one block of 64 MiB
    assert precision_recall(reference=real, samples=fake, k=3) == pytest.approx(reference_precision_recall(real, fake, 3))


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


# All together, and what is refused ------------------------------------------------------------------------------------


def test_a_fidelity_must_say_what_it_was_computed_on(rng):
    a, b = rng.normal(size=(50, 4)), rng.normal(size=(60, 4))
    provenance = dict.fromkeys(REQUIRED_PROVENANCE, "x")
    assert fidelity(a, b, provenance).kernel == kernel_distance(a, b)
    with pytest.raises(MetricError, match="sampler is missing"):
        fidelity(a, b, {k: v for k, v in provenance.items() if k != "sampler"})


@pytest.mark.parametrize("call", [
    lambda a: frechet_distance(a, a[:, :2]),
    lambda a: frechet_distance(a[:1], a),
    lambda a: kernel_distance(a, np.full_like(a, np.nan)),
    lambda a: precision_recall(reference=a, samples=a[:4]),
    lambda a: nearest_neighbours(a, a[:1], 2),
    lambda a: wilson_interval(3, 2),
    lambda a: wilson_interval(0, 0),
    lambda a: t_interval([1.0]),
    lambda a: accuracy([1, 2], [1]),
    lambda a: auroc([], [1.0]),
])
def test_what_cannot_be_computed_is_refused_in_a_sentence(rng, call):
    with pytest.raises(MetricError) as raised:
        call(rng.normal(size=(10, 3)))
    assert str(raised.value).endswith(".") and "\n" not in str(raised.value)


def test_inception_sees_one_fixed_scale():
    """No stretch of contrast by image: a dull image stays dull."""
    images = torch.tensor([-1.0, 0.0, 1.0, -0.1]).view(1, 1, 2, 2)
    assert as_uint8(images).shape == (1, 3, 2, 2)
    assert as_uint8(images)[0, 1].flatten().tolist() == [0, 128, 255, 115]


def test_inception_says_how_to_install_it():
    try:
        import torch_fidelity  # noqa: F401
    except ImportError:
        with pytest.raises(MetricError, match=r"pip install 'dimum\[inception\]'"):
            inception_features(torch.zeros(2, 3, 8, 8))
