"""Single images: repeats, copies, and that they are forgotten and attacked by the same interface as a class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from dimum_core import TrainConfig, evaluate, load_dataset, load_pipeline, relearn, train, unlearn
from dimum_core.attacks import auxiliary_set, refuse_leaks
from dimum_core.data import Dataset
from dimum_core.errors import DataError, TrainingError
from dimum_core.evaluation import copying_rate, draw_samples
from dimum_core.judges.classifier import Judge
from dimum_core.metrics import MetricError, copied_items, wilson_interval
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.conditions import conditions_of
from dimum_core.models.denoiser import build_denoiser
from dimum_core.pretraining import DenoisingObjective
from dimum_core.unlearning import METHODS, get_method
from dimum_core.unlearning.run import method_data

REFUSE = {"esd", "selective-amnesia", "sealed"}


@pytest.fixture
def repeated(tiny_data):
    """Image 1, of the class top, four times in all."""
    return Dataset(tiny_data, tiny_data).with_repeats([1], 4)


@pytest.fixture
def point(tiny_data):
    return tiny_data.select([1])


@pytest.fixture
def pipe(tiny_preset):
    return build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, ("left", "top", "checks"))


def test_repeats_are_the_same_image_and_leave_together(tiny_data, repeated, point):
    train = repeated.train
    assert len(train) == 63 and len(repeated.test) == 60
    assert (train.item_hashes == tiny_data.item_hashes[1]).sum() == 4 and (train.labels == 1).sum() == 23
    forget, retain = train.only(point), train.without(point)
    assert len(forget) == 4 and torch.equal(forget.images, tiny_data.images[[1] * 4])
    assert len(retain) == 59 and (retain.labels == 1).sum() == 19
    assert not np.isin(retain.item_hashes, point.item_hashes).any()
    mask = torch.arange(60) == 1
    assert torch.equal(tiny_data.with_repeats(mask, 4).images, train.images)
    assert torch.equal(tiny_data.with_repeats([-59], 4).images, train.images)


def test_a_copy_is_much_nearer_to_one_item_than_to_the_second():
    reference = np.array([[0.0, 0], [3, 0], [0, 0], [10, 0]])  # the first is there twice
    samples = np.array([[0.5, 0], [1, 0], [9.9, 0], [0, 0], [3, 0.9]])
    # 0.5 of 2.5; 1 of 2; 0.1 of 6.9; 0 of 3; 0.9 of sqrt(9.81) = 3.13
    assert copied_items(samples, reference).tolist() == [0, -1, 3, 0, 1]
    assert copied_items(samples, reference, ratio=0.15).tolist() == [-1, -1, 3, 0, -1]
    assert copied_items(samples, reference, ratio=0.6).tolist() == [0, 0, 3, 0, 1]
    with pytest.raises(MetricError, match="ratio"):
        copied_items(samples, reference, ratio=0.0)
    with pytest.raises(MetricError, match="2 neighbours among 1"):
        copied_items(samples, reference[[0, 2]])


def test_copies_are_those_of_scikit_learns_neighbours():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(40, 5))
    samples = np.concatenate([rng.normal(size=(30, 5)), reference[:20] + rng.normal(size=(20, 5)) * 0.1])
    distances, indices = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(reference).kneighbors(samples)
    expected = [int(i[0]) if d[0] / d[1] < 1 / 3 else -1 for d, i in zip(distances, indices, strict=True)]
    assert copied_items(samples, np.concatenate([reference, reference[5:9]])).tolist() == expected
    assert 5 < sum(e >= 0 for e in expected) < 45


def test_the_rate_counts_copies_of_the_given_images_alone():
    data = load_dataset("digits")
    train, of = data.train.with_repeats([7], 5), data.train.select([7, 8])
    images = torch.cat([data.train.images[[7, 7, 8, 9]], data.test.images[:6]])
    assert copying_rate(images, of, train) == wilson_interval(3, 10)
    assert copying_rate(data.test.images, data.train, data.train).value == 0  # other people's digits are no copies


def test_other_images_of_the_label_stay_and_stand_in(repeated, point, pipe):
    forget = method_data(get_method("random-label"), repeated, pipe, point, 0)["forget"]
    given = method_data(get_method("dimum"), repeated, pipe, point, 0)
    assert len(forget) == 4 and set(forget.labels.tolist()) == {1}
    alternative, retain = given["alternative"], given["retain"]
    assert len(alternative) == 19 and set(alternative.labels.tolist()) == {1} and set(retain.labels.tolist()) == {0, 1, 2}
    assert not np.isin(alternative.item_hashes, point.item_hashes).any()
    conditions = conditions_of(pipe, point)
    assert torch.equal(conditions.as_target(torch.tensor([0, 1, 2])), torch.tensor([0, 1, 2]))
    assert conditions.anchored(torch.tensor([1, 1])).tolist() == [0, 0]
    assert set(conditions.instead(torch.ones(50, dtype=torch.int64), torch.Generator().manual_seed(0)).tolist()) == {0, 2}


@pytest.mark.parametrize("name", sorted(name for name, method in METHODS.items() if not method.prompts_only))
def test_every_method_forgets_images_or_says_why_it_cannot(name, repeated, point, pipe):
    settings = {"target": point, "data": repeated, "steps": 1, "batch_size": 4, "progress": False}
    if name in REFUSE:
        with pytest.raises(DataError, match="single images share theirs with images that stay"):
            unlearn(pipe, name, **settings)
        return
    record = unlearn(pipe, name, **settings).unlearning
    assert record["settings"]["target"] == "1 image of tiny" and len(record["forget_set"]) == 4


def test_what_makes_no_sense_for_single_images_is_refused(repeated, point, pipe):
    settings = {"target": point, "data": repeated, "steps": 1, "progress": False}
    for kind in ("mixed", "generated", "noise"):
        with pytest.raises(DataError, match=f"other images of their class.*not '{kind}'"):
            unlearn(pipe, "dimum", alternative=kind, **settings)
    with pytest.raises(TrainingError, match="until asks the judge"):
        unlearn(pipe, "finetune", until=0.9, **settings)
    with pytest.raises(DataError, match="tiny has none of the images to forget"):
        unlearn(pipe, "dimum", **settings | {"data": repeated.without(point)})
    with pytest.raises(DataError, match="there are no images to forget"):
        unlearn(pipe, "dimum", **settings | {"target": point.without(point)})
    with pytest.raises(DataError, match="have other classes"):
        unlearn(pipe, "dimum", **settings | {"target": load_dataset("digits").train.select([0])})
    with pytest.raises(DataError, match="copying_rate"):
        evaluate(pipe, target=point, judge=Judge(8, 1, pipe.class_names, (4,), (2,)))


def test_the_attacker_may_have_the_label_but_not_the_image():
    data = load_dataset("digits").with_repeats([9], 4)
    point = data.train.select([9])
    kept = auxiliary_set("retain", data, point)
    assert len(kept) == len(data.train) - 4 and (kept.labels == point.labels).sum() > 100
    refuse_leaks(kept, point, forget=point)
    with pytest.raises(DataError, match=r"has 4 images of the forget set or near copies of them \(the first is number 9\)"):
        refuse_leaks(data.train, point, forget=point)
    nearly = replace(point, images=(point.images + 0.02).clamp(-1, 1), item_hashes=kept.item_hashes[:1])
    with pytest.raises(DataError, match="has 1 images of the forget set or near copies of them"):
        refuse_leaks(nearly, point, forget=point)


def test_a_model_that_copies_an_image_forgets_it_and_the_attack_is_measured_in_copies():
    digits = load_dataset("digits").train
    eights = digits.only("8").select(torch.arange(3, 23))
    data, point = Dataset(eights, eights).with_repeats([0], 80), eights.select([0])
    settings = {"batch_size": 16, "progress": False}
    pipe = load_pipeline("digits")
    objective = DenoisingObjective(data.train, 16, conditions_of(pipe))
    train(pipe.unet, objective, TrainConfig(steps=60, batch_size=16, learning_rate=1e-3, ema_decay=0.9), progress=False)
    gone = unlearn(pipe, "dimum", target=point, data=data, steps=25, learning_rate=1e-3, **settings)
    before, after = (
        copying_rate(draw_samples(model, ["8"] * 24, num_inference_steps=10, progress=False), point, data.train)
        for model in (pipe, gone)
    )
    assert after.high < before.low
    attack = relearn(gone, data.without(point), steps=2, evaluate_every=2, samples=8, **settings)
    assert attack.curve["step"].tolist() == [0, 2]
    rates = [copying_rate(strip, point, data.train) for strip in attack.strips.values()]
    assert attack.curve["target accuracy"].tolist() == [rate.value for rate in rates]
    assert attack.curve["target high"].tolist() == [rate.high for rate in rates]
    with pytest.raises(DataError, match="80 images of the forget set"):
        relearn(gone, data, steps=1, samples=1, progress=False)
