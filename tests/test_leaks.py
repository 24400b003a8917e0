"""Leaks are planted wherever what was to be forgotten, or was held out, could slip in; each must be refused in a sentence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dimum_core import evaluate, load_dataset, relearn, unlearn
from dimum_core.attacks import auxiliary_set, leaks, refuse_leaks
from dimum_core.attacks.finetuning import concatenate
from dimum_core.data import DATASETS, Dataset, ImageSet
from dimum_core.errors import DataError
from dimum_core.evaluation import reference_set
from dimum_core.judges import load_judge
from dimum_core.judges.presets import JUDGE_PRESETS
from dimum_core.judges.training import judge_sets
from dimum_core.metrics import nearest_neighbours
from dimum_core.pretraining import train_base
from dimum_core.unlearning import METHODS

SMALL = {"steps": 1, "batch_size": 8, "progress": False, "precision": "fp32"}


def renamed(images: ImageSet, label: int, count: int = 3) -> ImageSet:
    """Some of the images under another label."""
    some = images.select(torch.arange(count))
    return replace(some, labels=torch.full_like(some.labels, label))


# The auxiliary set ------------------------------------------------------------------------------------------------------


def variants(threes: ImageSet, other: ImageSet) -> dict[str, ImageSet]:
    """Threes as an attacker might have them: as they are, by another name, compressed again, or as files of unknown origin."""
    by_another_name = renamed(threes, 8)
    nudged = (by_another_name.images + 0.01).clamp(-1, 1)
    return {
        "as they are": threes.select(torch.arange(3)),
        "under another label": by_another_name,
        "nearly the same": replace(by_another_name, images=nudged, item_hashes=other.item_hashes[:3]),
        "in a different order": by_another_name.select([2, 0, 1]),
        "many times": by_another_name.with_repeats([0, 1], 5),
    }


KINDS = ("as they are", "under another label", "nearly the same", "in a different order", "many times")


@pytest.mark.parametrize("kind", KINDS)
def test_the_target_in_the_auxiliary_set(digits, pipe, kind):
    retained = digits.train.without("3")
    leak = variants(digits.train.only("3"), retained)[kind]
    hidden = "images of the forget set or near copies of them, under another label"
    said = "images of the target class 3" if kind == "as they are" else hidden
    for auxiliary in (concatenate(retained, leak), Dataset(concatenate(retained, leak), digits.test)):
        with pytest.raises(DataError, match=f"The auxiliary set has {len(leak)} {said}"):
            relearn(pipe, auxiliary, target="3", forget=digits.train.only("3"), **SMALL)
    refuse_leaks(retained, 3, digits.train.only("3"))  # without the leak nothing is refused


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_target_in_the_auxiliary_set_of_a_model_that_knows_what_it_forgot(digits, pipe, kind):
    gone = unlearn(pipe, "finetune", target="3", data=digits, **SMALL)
    retained = digits.train.without("3")
    with pytest.raises(DataError, match="images of the forget set or near copies of them"):
        relearn(gone, concatenate(retained, variants(digits.train.only("3"), retained)[kind]), **SMALL)


@pytest.mark.parametrize("side", [5, 8, 15, 28, 33, 64])
def test_near_copies_are_those_of_a_full_comparison_though_few_are_compared_in_full(side, monkeypatch):
    """Copies from identical to just too far away, of noise, of pictures that are smooth and of such that are alike."""
    generator, names = torch.Generator().manual_seed(side), ("a", "b")
    noise = torch.rand(40, 3, side, side, generator=generator)
    smooth = torch.nn.functional.interpolate(torch.rand(40, 3, 4, 4, generator=generator), size=side, mode="bilinear")
    forget = torch.cat([noise, smooth, 0.5 + 0.02 * noise]) * 2 - 1
    shift = torch.linspace(0, 1.2 * leaks.NEAR, len(forget))[:, None, None, None]
    sign = torch.randint(2, forget.shape, generator=generator) * 2 - 1  # a copy whose means hardly move, and one that moves evenly
    other = torch.rand(300, 3, side, side, generator=generator) * 2 - 1
    ours = torch.cat([other, (forget + shift * sign).clamp(-1, 1), (forget - shift).clamp(-1, 1)])
    sets = [
        ImageSet("x", images, torch.zeros(len(images), dtype=torch.int64), names, np.zeros(len(images), "V8"))
        for images in (ours, forget)
    ]
    full, _ = nearest_neighbours(*(some.images.flatten(1).numpy() for some in sets))
    compared = []
    monkeypatch.setattr(leaks, "nearest_neighbours", lambda a, b: compared.append(len(a)) or nearest_neighbours(a, b))
    wanted = full[:, 0] < leaks.NEAR * (3 * side * side) ** 0.5
    assert (leaks._near_copies(*sets) == wanted).all() and 150 < wanted.sum() < 240
    assert compared[0] <= 240
    assert not leaks._near_copies(sets[0].select(torch.arange(300)), sets[1].select(torch.arange(80))).any() and len(compared) == 1


def test_a_leak_that_comes_with_the_data_set_is_in_the_auxiliary_set_too(digits, pipe):
    dirty = Dataset(concatenate(digits.train, renamed(digits.train.only("3"), 8)), digits.test)
    for share in (1.0, 0.9):
        auxiliary = auxiliary_set("retain", dirty, "3", share=share)
        with pytest.raises(DataError, match="images of the forget set or near copies of them"):
            relearn(pipe, auxiliary, target="3", forget=digits.train.only("3"), **SMALL)


def test_single_images_in_the_auxiliary_set(digits, pipe):
    points = digits.train.only("8").select([0, 5])
    with pytest.raises(DataError, match="has 2 images of the forget set or near copies of them"):
        relearn(pipe, digits.train, target=points, **SMALL)
    with pytest.raises(DataError, match="has 1 images of the forget set"):
        relearn(pipe, concatenate(digits.train.without(points), points.select([1])), target=points, **SMALL)


# The retained set -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_target_in_the_retained_set(digits, pipe, method):
    """Retained threes by the name of eight would be learned all the while; every method refuses them, whatever it asks for."""
    dirty = Dataset(concatenate(digits.train, renamed(digits.train.only("3"), 8)), digits.test)
    with pytest.raises(DataError, match=r"digits: 3 retained images are images to forget under another label \(the first is"):
        unlearn(pipe, method, target="3", data=dirty, **SMALL)


def test_copies_of_single_images_are_not_retained(digits):
    """Repeats of an image are known by their pixels, so that all go with it, whatever their label."""
    points = digits.train.only("8").select([0])
    repeated = concatenate(digits.train.with_repeats([int((digits.train.labels == 8).nonzero()[0])], 4), renamed(points, 5, 1))
    assert len(repeated) == len(digits.train) + 4 and len(repeated.without(points)) == len(digits.train) - 1


# The judge --------------------------------------------------------------------------------------------------------------


def test_the_target_in_the_judges_training_set_under_another_label(digits):
    dirty = Dataset(concatenate(digits.train, renamed(digits.train.only("3"), 8)), digits.test)
    with pytest.raises(DataError, match="digits: 3 training images have two labels"):
        judge_sets(dirty, 5)


def test_images_that_measure_the_judge_in_its_training_set(digits):
    dirty = Dataset(concatenate(digits.train, digits.test.only("3")), digits.test)
    with pytest.raises(DataError, match="digits: 36 images to train the judge on are test images too"):
        judge_sets(dirty, 5)
    with pytest.raises(DataError, match="to calibrate the judge on are among those that it is fitted on"):
        judge_sets(Dataset(digits.train.with_repeats([0, 5], 2), digits.test), 5)  # 0 and 5 calibrate, their repeats are fitted


def but_in_a_release(names, quick: str) -> list:
    """What is shipped does not change from day to day: one of it is looked at always, the rest before a release."""
    return [pytest.param(name, marks=() if name == quick else pytest.mark.release) for name in sorted(names)]


@pytest.mark.parametrize("preset", but_in_a_release(
    (name for name, preset in JUDGE_PRESETS.items() if preset.dataset != "cifar10"), quick="digits-judge",
))
def test_the_shipped_judges_had_none(preset):
    preset = JUDGE_PRESETS[preset]
    data = load_dataset(preset.dataset, preset.image_size)
    fitting, calibration = judge_sets(data if preset.word is None else data.relabelled(preset.word), preset.calibration_every)
    assert len(fitting) + len(calibration) == len(data.train)


# The reference of a metric, and the training set ------------------------------------------------------------------------


def test_the_target_in_the_reference_set(digits, pipe):
    dirty = Dataset(digits.train, concatenate(digits.test, renamed(digits.test.only("3"), 8)))
    with pytest.raises(DataError, match="digits: 3 reference images show the target under another label"):
        evaluate(pipe, target="3", data=dirty, per_class=1, progress=False)
    of_training = Dataset(digits.train, concatenate(digits.test, renamed(digits.train.only("3"), 8)))
    with pytest.raises(DataError, match="digits: 3 test images are training images too"):
        evaluate(pipe, target="3", data=of_training, per_class=1, progress=False)


def test_test_images_in_the_training_set(digits, pipe):
    dirty = Dataset(concatenate(digits.train, digits.test.select([7, 8])), digits.test)
    with pytest.raises(DataError, match=r"digits: 2 test images are training images too \(the first is number 7\)"):
        evaluate(pipe, data=dirty, per_class=1, progress=False)


@pytest.mark.parametrize("how", ["trained", "unlearned", "attacked"])
def test_test_images_that_a_model_was_trained_on(digits, pipe, how, tiny_preset):
    """The data set is clean here, but the model saw more: it remembers what it was trained on as long as it is in memory."""
    dirty = concatenate(digits.train.without("3"), digits.test.without("3").select([4]))
    if how == "trained":
        model, _ = train_base(tiny_preset, data=dirty, steps=1, progress=False)
    elif how == "unlearned":
        whole = Dataset(concatenate(digits.train, digits.test.without("3").select([4])), digits.test)
        model = unlearn(pipe, "finetune", target="3", data=whole, **SMALL)
    else:
        model = relearn(pipe, dirty, target="3", samples=1, evaluate_every=1, **SMALL).pipeline
    with pytest.raises(DataError, match="digits: 1 reference images are among those that this model was trained on"):
        evaluate(model, target="3", data=digits, per_class=1, progress=False)


@pytest.mark.parametrize("name", but_in_a_release(set(DATASETS) - {"cifar10"}, quick="digits"))
def test_the_shipped_sets_have_no_leak(name):
    data, judge = load_dataset(name), load_judge("digits-judge")
    if data.class_names == judge.class_names:
        assert len(reference_set(data, judge, None)) == len(data.test)
    assert not set(data.train.item_hashes.tolist()) & set(data.test.item_hashes.tolist())
