"""The judge: learns, is calibrated, rejects, and its parts against formulas and scikit-learn."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dimum_core.data import Dataset, from_uint8
from dimum_core.errors import CheckpointError, DataError, SettingError, UnknownName
from dimum_core.judges import load_judge, training
from dimum_core.judges.classifier import NONE_OF_THESE, Judge, class_gaussians, fit_temperature, whiten
from dimum_core.judges.outliers import blends, fit_outliers, outliers, side_by_side
from dimum_core.judges.presets import JUDGE_PRESETS, get_judge_preset
from dimum_core.judges.training import (
    ClassificationObjective,
    calibrate,
    cut_out,
    measure_judge,
    new_judge,
    shift_randomly,
    train_judge,
    with_reconstructions,
)
from dimum_core.models.cards import read_card
from dimum_core.models.checkpoints import load_pipeline, save_checkpoint
from dimum_core.training import train

TINY = replace(JUDGE_PRESETS["digits-judge"], widths=(8, 16, 16))


@pytest.fixture(scope="module")
def patterns():
    """Three patterns with noise, as a train and a test split."""
    def split(count, seed):
        generator = torch.Generator().manual_seed(seed)
        row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
        shapes = torch.stack([column < 4, row < 4, (row // 2 + column // 2) % 2 == 0])[:, None]
        labels = torch.arange(count) % 3
        pixels = 60 + 120 * shapes[labels] + torch.randint(60, (count, 1, 8, 8), generator=generator)
        return from_uint8("patterns", pixels.byte().numpy(), labels.numpy(), ("left", "top", "checks"))

    return Dataset(split(300, 0), split(150, 1))


@pytest.fixture(scope="module")
def judge(patterns):
    judge = new_judge(TINY, patterns.class_names, 1, seed=0)
    objective = ClassificationObjective(patterns.train, 64, crop=0, flip=False, label_smoothing=0.0)
    train(judge, objective, replace(TINY.training, steps=60), progress=False)
    calibrate(judge, patterns.train, patterns.test.select(torch.arange(75)))
    return judge


def test_the_judge_learns_and_rejects_what_it_has_not_seen(judge, patterns):
    verdict = judge.judge(patterns.test.images[75:])
    assert (verdict.labels == patterns.test.labels[75:]).float().mean() > 0.9
    noise = torch.randn(100, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    other = judge.judge(noise)
    assert (other.labels == NONE_OF_THESE).float().mean() > 0.9
    assert set(other.forced_labels.tolist()) <= {0, 1, 2}


def test_a_whitened_judge_decorrelates_patches_and_begins_as_an_identity(patterns):
    preset = replace(TINY, whitened=True)
    judge = new_judge(preset, patterns.class_names, 1, seed=0)
    images = patterns.train.images + 0.05 * torch.randn(patterns.train.images.shape, generator=torch.Generator().manual_seed(0))
    whiten(judge, images)
    seen = judge.stem(images).movedim(1, 0).flatten(1)
    torch.testing.assert_close(seen[:4].cov(), torch.eye(4), atol=0.15, rtol=0)  # not quite: small variances are not blown up
    torch.testing.assert_close(seen[4:], -seen[:4])
    first = judge.stages[0][0]
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(first(x)[:, :8], x)  # its first channels hand on what comes in
    stem = judge.stem.weight.clone()
    objective = ClassificationObjective(patterns.train, 64, crop=0, flip=False, label_smoothing=0.2)
    config = replace(TINY.training, steps=40, warmup_steps=10, learning_rate=0.1, grad_clip=0.0, optimizer="nesterov")
    train(judge, objective, config, progress=False)
    calibrate(judge, patterns.train, patterns.test.select(torch.arange(75)))
    assert torch.equal(judge.stem.weight, stem) and bool((judge.stages[0][2].weight == 1).all())
    assert (judge.judge(patterns.test.images[75:]).forced_labels == patterns.test.labels[75:]).float().mean() > 0.9


def test_a_verdict_is_consistent_and_does_not_depend_on_the_batch(judge, patterns):
    whole, parts = judge.judge(patterns.test.images), judge.judge(patterns.test.images, batch_size=7)
    torch.testing.assert_close(whole.probabilities.sum(1), torch.ones(150))
    torch.testing.assert_close(whole.probabilities, parts.probabilities, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(whole.distance, parts.distance, atol=1e-2, rtol=1e-3)
    rejected = whole.distance > judge.config.threshold
    assert torch.equal(whole.labels < 0, rejected) and torch.equal(whole.labels[~rejected], whole.forced_labels[~rejected])


def test_mirroring_makes_the_judge_symmetric(patterns):
    judge = new_judge(replace(TINY, flip=True), patterns.class_names, 1, seed=0).eval()
    images = patterns.test.images[:10]
    torch.testing.assert_close(judge.judge(images).probabilities, judge.judge(images.flip(-1)).probabilities)


def test_the_distance_is_that_of_scikit_learn():
    from sklearn.covariance import LedoitWolf

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 2
    traces = torch.randn(200, 24, generator=generator) @ torch.randn(24, 24, generator=generator) + 3 * labels[:, None]
    means, whitening = class_gaussians(traces, labels, 2)
    estimate = LedoitWolf(assume_centered=True).fit((traces - means[labels]).double().numpy())
    expected = np.stack([estimate.mahalanobis((traces - mean).double().numpy()) for mean in means]).min(0)
    judge = Judge(8, 1, ("a", "b"), (8, 8, 8), (1, 2, 2))
    judge.class_means.copy_(means)
    judge.whitening.copy_(whitening)
    np.testing.assert_allclose(judge.distance(traces).numpy(), expected, rtol=5e-3)


def test_the_temperature_undoes_a_known_overconfidence():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)  # calibrated by construction
    assert fit_temperature(3 * logits, labels) == pytest.approx(3, rel=0.05)
    grid = np.linspace(2, 4, 201)
    best = grid[np.argmin([float(F.cross_entropy(3 * logits / t, labels)) for t in grid])]
    assert fit_temperature(3 * logits, labels) == pytest.approx(best, abs=0.011)


def test_shifts_are_those_of_a_roll_inside_and_drawn_for_each_image():
    images = torch.rand(200, 2, 9, 9)
    shifted = shift_randomly(images, 1, torch.Generator().manual_seed(0))
    inner = slice(2, -2)
    offsets = set()
    for image, result in zip(images, shifted, strict=True):
        matches = [
            (dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
            if torch.equal(result[:, inner, inner], image.roll((dy, dx), (1, 2))[:, inner, inner])
        ]
        assert len(matches) == 1
        offsets.add(matches[0])
    assert len(offsets) == 9
    assert shift_randomly(images, 0, torch.Generator()) is images


def test_one_square_of_each_image_is_blanked_anywhere_inside_it():
    images = 1 + torch.rand(300, 2, 7, 7)
    blanked = cut_out(images, 3, torch.Generator().manual_seed(0))
    corners = set()
    for image, result in zip(images, blanked, strict=True):
        top, left = (result[0] == 0).nonzero().amin(0).tolist()
        image[:, top : top + 3, left : left + 3] = 0
        assert torch.equal(image, result)
        corners.add((top, left))
    assert len(corners) == 25  # every place that there is
    assert cut_out(images, 0, torch.Generator()) is images


def test_outliers_are_what_they_say(patterns):
    images, labels = patterns.test.images, patterns.test.labels
    made = outliers(images, labels)
    assert made["shuffled tiles"].flatten(1).sort(1).values.equal(images.flatten(1).sort(1).values)
    assert not made["shuffled tiles"].equal(images)
    assert all(kind.abs().max() <= 1 for kind in made.values())
    assert made["white noise"].std() == pytest.approx(0.5, abs=0.05)


def test_the_measures_of_a_judge_are_complete(judge, patterns):
    quality = measure_judge(judge, patterns.test)
    assert quality["rejected: white noise"].startswith("100") and float(quality["accuracy"].split()[0]) > 0.9
    assert quality["expected_calibration_error"] < 0.2


def test_saving_and_loading_keeps_verdicts_and_thresholds(judge, patterns, tmp_path):
    card = {"title": "t", "summary": "s", "kind": "judge"}
    save_checkpoint(judge, tmp_path, card, "float16")
    again = load_judge(tmp_path)
    assert (again.config.temperature, again.config.threshold) == (judge.config.temperature, judge.config.threshold)
    a, b = judge.judge(patterns.test.images), again.judge(patterns.test.images)
    torch.testing.assert_close(a.probabilities, b.probabilities, atol=0.02, rtol=0)
    assert (a.labels == b.labels).float().mean() > 0.95


def test_a_judge_of_ones_own_data_is_trained_saved_and_loaded(patterns, tmp_path):
    preset = replace(TINY, name="mine", calibration_every=5)
    judge, _ = train_judge(preset, tmp_path, data=patterns, steps=60)
    again, card = load_judge(tmp_path), read_card(tmp_path)
    assert judge.class_names == again.class_names == ("left", "top", "checks") and card["data"]["digest"] == patterns.train.digest
    assert float(card["quality"]["accuracy"].split()[0]) > 0.9
    with pytest.raises(UnknownName, match="no setting of a training 'stepz'. Did you mean 'steps'"):
        train_judge(preset, data=patterns, stepz=60)
    with pytest.raises(SettingError, match="its test split measures the judge"):
        train_judge(preset, data=patterns.train)
    with pytest.raises(DataError, match=r"calibrated on image 0, 6, \.\.\., all of left"):
        training.judge_sets(patterns, 6)
    with pytest.raises(DataError, match="no images of top to fit a judge on"):
        train_judge(preset, data=patterns.without("top"))


def test_a_judge_of_one_class_or_of_few_pictures_is_measured_by_what_can_be_made_of_them(patterns, tmp_path):
    """Nothing is blended of one class, and that was found out after the training."""
    one = Dataset(*(part.only(part.class_names[0]) for part in (patterns.train, patterns.test)))
    one = Dataset(*(replace(part, class_names=part.class_names[:1]) for part in (one.train, one.test)))
    train_judge(TINY, tmp_path, data=one, steps=1)
    quality = read_card(tmp_path)["quality"]
    assert "rejected: white noise" in quality and "rejected: mixtures of two classes" not in quality
    with pytest.raises(DataError, match="no held-out images, by which a judge is measured"):
        train_judge(TINY, data=Dataset(one.train, one.test.select([])), steps=1)


def test_outliers_are_made_of_images_of_any_side(patterns):
    images, labels = F.pad(patterns.test.images, (0, 2, 0, 2), value=0.5), patterns.test.labels  # 10 x 10: 4 does not divide it
    tiles = outliers(images, labels)["shuffled tiles"]
    assert tiles.flatten(1).sort(1).values.equal(images.flatten(1).sort(1).values) and not tiles.equal(images)


def test_wrong_images_are_refused_in_a_sentence(judge):
    with pytest.raises(DataError, match=r"looks at float images of shape N x \(1, 8, 8\), not \(2, 3, 8, 8\)"):
        judge.judge(torch.zeros(2, 3, 8, 8))
    with pytest.raises(DataError, match="finite"):
        judge.judge(torch.full((2, 1, 8, 8), float("nan")))
    with pytest.raises(DataError, match="at least one image"):
        judge.judge(torch.zeros(0, 1, 8, 8))
    with pytest.raises(UnknownName, match="Did you mean 'digits-judge'"):
        get_judge_preset("digit-judge")


def test_a_judge_is_not_a_pipeline(judge, tmp_path):
    save_checkpoint(judge, tmp_path, {"title": "t", "summary": "s"}, "float32")
    with pytest.raises(CheckpointError, match="not a diffusers pipeline"):
        load_pipeline(tmp_path)


def test_what_is_strange_is_told_by_scikit_learns_regression_and_rejected(patterns, monkeypatch):
    """The folded weights give the log-odds of scikit-learn's own pipeline; blends are told from real images of another split."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    monkeypatch.setattr(training, "FEWEST_KNOWN", 75)
    judge, _ = train_judge(replace(TINY, name="mine", calibration_every=4, knows_outliers=True), data=patterns, steps=60)
    real = patterns.train.select(torch.arange(0, 300, 4)).select(torch.arange(75) % 2 == 0)
    generator = torch.Generator().manual_seed(1)
    strange = [blends(real.images, real.labels, generator) for _ in range(2)]
    strange = torch.cat([*strange, *outliers(real.images, real.labels, 1).values()])
    with torch.inference_mode():
        known, unknown, new = (
            judge.evidence(*judge.seen(images)).double().numpy() for images in (real.images, strange, patterns.test.images)
        )
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced"))
    scaler = reference.named_steps["standardscaler"].fit(known)
    reference.named_steps["logisticregression"].fit(
        scaler.transform(np.concatenate([known, unknown])), [0] * len(known) + [1] * len(unknown)
    )
    expected = reference.named_steps["logisticregression"].decision_function(scaler.transform(new))
    verdict = judge.judge(patterns.test.images)
    np.testing.assert_allclose(verdict.distance.numpy(), expected, rtol=0.02, atol=0.02)
    monkeypatch.undo()
    few, _ = train_judge(replace(TINY, name="few", calibration_every=4, knows_outliers=True), data=patterns, steps=1)
    assert not few.config.knows_outliers  # 75 images are too few: it keeps the Mahalanobis distance
    mixed = judge.judge(blends(patterns.test.images, patterns.test.labels, torch.Generator().manual_seed(9)))
    assert (mixed.labels < 0).float().mean() > 0.8 and (verdict.labels < 0).float().mean() < 0.15


def test_no_class_is_lost_where_some_images_are_enough(judge, patterns, monkeypatch):
    """Every third image is of the first class."""
    monkeypatch.setattr(training, "ENOUGH", 100)
    calibrate(again := copy.deepcopy(judge), patterns.train, patterns.test.select(torch.arange(75)))
    with torch.inference_mode():
        seen = again.seen(patterns.train.images)[1]
    torch.testing.assert_close(again.class_means, torch.stack([seen[::3].mean(0), seen[1], seen[2]]), rtol=1e-3, atol=1e-3)
    assert np.isfinite(again.config.threshold)


def test_what_is_strange_is_told_where_the_judge_is(patterns, monkeypatch):
    """Features come back to the CPU, and a judge that was trained on a GPU is still there."""
    class Reached(Exception):
        pass

    def evidence(*parts):
        places.extend(part.device.type for part in parts)
        raise Reached

    judge, places = Judge(8, 1, patterns.train.class_names, (4, 4), (2, 2), knows_outliers=True).to("meta"), []
    monkeypatch.setattr(judge, "seen", lambda images: (torch.zeros(len(images), 4), torch.zeros(len(images), 8)))
    monkeypatch.setattr(judge, "evidence", evidence)
    with pytest.raises(Reached):
        fit_outliers(judge, patterns.train)
    assert places == ["meta", "meta"]


def test_blends_and_halves_are_of_two_classes():
    images, labels = torch.arange(40.0)[:, None, None, None].expand(40, 1, 4, 4), torch.arange(40) % 2
    mixed = blends(images, labels, torch.Generator().manual_seed(0), (0.5, 0.5))
    assert len(mixed) and (2 * mixed[:, 0, 0, 0] % 2 == 1).all()  # an even and an odd number
    halves = side_by_side(images, labels)
    assert len(halves) and ((halves[:, 0, 0, 0] - halves[:, 0, 0, 3]) % 2 == 1).all()
    assert halves[..., :2].eq(halves[..., :1]).all() and halves[..., 2:].eq(halves[..., 3:]).all()


def test_a_residual_judge_is_another_architecture_with_features_that_are_means(patterns):
    judge, _ = train_judge(replace(TINY, name="second", residual=True), data=patterns, steps=60)
    assert (judge.judge(patterns.test.images).forced_labels == patterns.test.labels).float().mean() > 0.9
    last = judge.stage_outputs(patterns.test.images[:4])[-1]
    torch.testing.assert_close(judge.look(patterns.test.images[:4])[0], last.mean((2, 3)))
    block = judge.stages[0][1]
    block.norms[1].weight.data.zero_()
    block.norms[1].bias.data.zero_()
    x = judge.stages[0][0](F.gelu(judge.stem(patterns.test.images[:4])))
    torch.testing.assert_close(block(x), F.gelu(x))  # without its change, a block passes on what it gets


def test_reconstructions_are_fitted_on_beside_the_images(monkeypatch, patterns):
    images = patterns.train.select([0, 1])
    monkeypatch.setattr(training, "load_autoencoder", lambda name: None)
    monkeypatch.setattr(training, "reconstructed", lambda codec, images: images / 2)
    both = with_reconstructions(images, "cifar10-autoencoder")
    assert torch.equal(both.images, torch.cat([images.images, images.images / 2])) and both.labels.tolist() == [0, 1, 0, 1]
