"""Distances of distributions, against scipy, torchmetrics, a closed form, or a sum over all pairs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from dimum_core.metrics import (
    MetricError,
    frechet_distance,
    frechet_noise_floor,
    inception,
    kernel_distance,
)
from dimum_core.metrics.inception import as_uint8, inception_features


def test_frechet_is_its_definition_and_that_of_torchmetrics(rng):
    from torchmetrics.image.fid import _compute_fid

    for n, m, d in [(200, 150, 8), (30, 200, 8), (400, 400, 40)]:
        a, b = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)), rng.normal(0.3, size=(m, d))
        covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        root = np.real(linalg.sqrtm(covariances[0] @ covariances[1]))
        expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(sum(covariances) - 2 * root)
        assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
        moments = (torch.from_numpy(x) for x in (a.mean(0), covariances[0], b.mean(0), covariances[1]))
        assert frechet_distance(a, b) == pytest.approx(float(_compute_fid(*moments)), rel=1e-6)


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


def test_frechet_does_not_care_for_rotation_or_features_that_add_nothing(rng):
    a, b = rng.normal(size=(100, 6)), rng.normal(1, 2, size=(90, 6))
    rotation, basis = stats.ortho_group.rvs(6, random_state=0), stats.ortho_group.rvs(8, random_state=1)[:6]
    expected = pytest.approx(frechet_distance(a, b), rel=1e-6)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(b, a) == expected
    assert frechet_distance(a @ rotation, b @ rotation) == expected
    assert frechet_distance(a @ basis, b @ basis) == expected  # singular: of rank 6 in 8 dimensions
    assert frechet_distance(*(np.insert(x, 2, 0.5, axis=1) for x in (a, b))) == expected


@pytest.mark.parametrize("items", [200, 30])
def test_frechet_keeps_its_digits_when_variances_differ_by_a_millionfold(rng, items):
    """As those of real features do; against singular values, which need no squaring."""
    scales = np.logspace(0, -3, 60)
    a, b = rng.normal(size=(items, 60)) * scales, rng.normal(size=(items, 60)) * scales[::-1]
    x, y = ((features - features.mean(0)) / np.sqrt(items - 1) for features in (a, b))
    trace = linalg.svdvals(x @ y.T).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.sum(x**2) + np.sum(y**2) - 2 * trace
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_the_noise_floor_is_what_a_perfect_generator_gets(rng):
    reference = rng.normal(size=(1000, 10))
    floor = frechet_noise_floor(reference, 100)
    perfect = np.mean([frechet_distance(rng.normal(size=(100, 10)), reference) for _ in range(20)])
    assert floor.value == pytest.approx(perfect, rel=0.25) and floor.low < floor.value < floor.high
    assert frechet_noise_floor(reference, 400).value < floor.value / 2


def reference_kernel_distance(a, b):
    k = lambda x, y: (np.dot(x, y) / len(x) + 1) ** 3  # noqa: E731
    n, m = len(a), len(b)
    aa = sum(k(a[i], a[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    bb = sum(k(b[i], b[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return aa + bb - 2 * sum(k(x, y) for x in a for y in b) / (n * m)


def test_kernel_distance_is_the_sum_over_all_pairs_and_that_of_torchmetrics(rng):
    from torchmetrics.image.kid import poly_mmd

    a, b = rng.normal(size=(9, 4)), rng.normal(1, size=(7, 4))
    assert kernel_distance(a, b).value == pytest.approx(reference_kernel_distance(a, b))
    theirs = float(poly_mmd(torch.from_numpy(a[:7]), torch.from_numpy(b)))
    assert kernel_distance(a[:7], b).value == pytest.approx(theirs)


def test_the_jackknife_leaves_each_item_out_once(rng):
    a, b = rng.normal(size=(6, 3)), rng.normal(1, size=(5, 3))
    without_a = [reference_kernel_distance(np.delete(a, i, 0), b) for i in range(6)]
    without_b = [reference_kernel_distance(a, np.delete(b, i, 0)) for i in range(5)]
    error = np.sqrt(5 * np.var(without_a) + 4 * np.var(without_b))
    interval = kernel_distance(a, b)
    assert (interval.high - interval.value) / stats.norm.ppf(0.975) == pytest.approx(error)


@pytest.mark.parametrize("shift", [0, 0.5])
def test_kernel_distance_has_no_bias_and_its_interval_covers(rng, shift):
    """Equal distributions, where the jackknife errs towards caution, and unequal ones."""
    many, draws = (rng.normal(size=(2500, 5)), rng.normal(shift, size=(2500, 5))), 200
    truth = kernel_distance(*many).value if shift else 0
    drawn = [kernel_distance(rng.normal(size=(60, 5)), rng.normal(shift, size=(90, 5))) for _ in range(draws)]
    values, covered = [i.value for i in drawn], np.mean([i.low <= truth <= i.high for i in drawn])
    # The truth is an estimate, too, where it is not 0.
    assert abs(np.mean(values) - truth) < 3 * np.std(values) / draws**0.5 + 0.04 * truth
    assert 0.9 < covered <= 1 and np.mean([i.high - i.value for i in drawn]) < 2 * 1.96 * np.std(values)


def test_inception_sees_one_fixed_scale_and_the_bytes_that_were():
    """No stretch of contrast by image: a dull image stays dull."""
    images = torch.tensor([-1.0, 0.0, 1.0, -0.1]).view(1, 1, 2, 2)
    assert as_uint8(images)[0, 1].flatten().tolist() == [0, 128, 255, 115]
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(as_uint8(pixels.float().div_(127.5).sub_(1)), pixels.expand(-1, 3, -1, -1))


def test_inception_features_are_the_networks_of_bytes(rng, monkeypatch):
    """With four pixels in the place of the network, whose weights are not here."""
    images = torch.from_numpy(rng.uniform(-1, 1, size=(10, 1, 4, 4))).float()
    network = torch.nn.Module()
    network.forward = lambda batch: (batch.float().flatten(1)[:, :4],)
    monkeypatch.setattr(inception, "_extractor", lambda: network)
    assert np.array_equal(inception_features(images, batch_size=4), as_uint8(images)[:, 0, 0].numpy())


def test_inception_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(MetricError, match=r"pip install -e '\.\[inception\]'"):
        inception_features(torch.zeros(2, 3, 8, 8))
