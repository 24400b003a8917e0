"""The auxiliary ladder and the controls beside DiMRA."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.attacks import (
    AUXILIARY,
    add_weight_noise,
    auxiliary_set,
    few_shot,
    prune,
    relearn_embedding,
    relearning,
    swap_embedding,
)
from dimum_core.data import Dataset, step_generator
from dimum_core.errors import CheckpointError, DataError, SettingError, UnknownName
from dimum_core.evaluation import evaluate, guidance_sweep, nearest_images, unconditional_share
from dimum_core.judges import find_judge
from dimum_core.models.diffusion import SCHEDULER_CONFIG, denoising_loss
from dimum_core.models.sampling import ClassConditionalPipeline
from dimum_core.pretraining import train_base
from dimum_core.unlearning import alternatives
from dimum_core.unlearning.alternatives import build_alternative

SETTINGS = {"samples": 4, "batch_size": 16, "progress": False, "num_inference_steps": 5, "precision": "fp32"}


@pytest.fixture(scope="module")
def digits():
    return load_pipeline("digits"), load_dataset("digits")


@pytest.mark.parametrize("kind", AUXILIARY)
def test_no_rung_of_the_ladder_holds_the_target(kind, digits):
    pipe, data = digits
    made = auxiliary_set(kind, data, "3", pipe=pipe, count=18)
    assert len(made) and 3 not in made.labels.tolist() and len(made.labels.unique()) == 9
    target_items = {h.tobytes() for h in data.train.only("3").item_hashes}
    assert not target_items & {h.tobytes() for h in made.item_hashes}
    assert made.digest == auxiliary_set(kind, data, "3", pipe=pipe, count=18).digest
    assert relearn(pipe, made, target="3", forget=data.train.only("3"), steps=1, **SETTINGS).curve["step"].tolist() == [0, 1]


def test_what_an_attacker_draws_is_not_what_was_memorised(digits):
    """On the same seed a defender's generated images and an attacker's synthetic ones were the same, bit for bit."""
    pipe, data = digits
    memorised = build_alternative("generated", 9, data.train.without("3"), pipe, "3", 0)
    drawn = auxiliary_set("synthetic", data, "3", pipe=pipe, count=9)
    assert not np.isin(drawn.item_hashes, memorised.item_hashes).any()


def test_shares_are_drawn_from_the_whole_and_have_their_size(digits):
    _, data = digits
    whole, tenth = (auxiliary_set("retain", data, "3", share=share) for share in (1.0, 0.1))
    assert len(tenth) == round(0.1 * len(whole)) and np.isin(tenth.item_hashes, whole.item_hashes).all()
    assert len(auxiliary_set("retain", data, "3", share=1e-9)) == 1
    assert auxiliary_set("public", data, "3").name == "mnist-mini"
    for wrong, kind, error in ((0.0, "retain", SettingError), (1.0, "retained", UnknownName), (1.0, "synthetic", DataError)):
        with pytest.raises(error):
            auxiliary_set(kind, data, "3", share=wrong)


def test_few_shot_sees_the_target(digits):
    """Its loss on the forgotten digits of the test set falls; that of as long an attack on the others does not fall as far."""
    pipe, data = digits
    gone = unlearn(pipe, "random-label", target="3", data=data, steps=12, learning_rate=5e-4, batch_size=16, progress=False)
    settings = SETTINGS | {"steps": 8, "learning_rate": 3e-4, "evaluate_every": 8}
    threes = data.test.only("3")

    @torch.no_grad()
    def loss(attacked):
        return float(denoising_loss(attacked.unet.eval(), pipe.encode(threes.images), threes.labels, step_generator(9, 9)))

    blind = loss(relearn(gone, data.without("3"), **settings).pipeline)
    seeing = loss(few_shot(gone, data, "3", count=20, **settings).pipeline)
    assert seeing < loss(gone) and seeing < 0.9 * blind


@pytest.mark.release
def test_few_shot_brings_the_target_back(digits):
    pipe, data = digits
    gone = unlearn(pipe, "random-label", target="3", data=data, steps=12, learning_rate=5e-4, batch_size=32, progress=False)
    settings = SETTINGS | {"samples": 16, "steps": 40, "learning_rate": 3e-4, "batch_size": 64, "evaluate_every": 40}
    blind = relearn(gone, data.without("3"), **settings).curve["target accuracy"].iloc[-1]
    seeing = few_shot(gone, data, "3", count=20, **settings).curve["target accuracy"].iloc[-1]
    assert seeing > blind + 0.3


def test_only_the_targets_embedding_row_moves(digits):
    pipe, data = digits
    attacked = relearn_embedding(pipe, data, "3", count=5, steps=3, learning_rate=1e-2, **SETTINGS).pipeline
    assert all(p.requires_grad and not p._backward_hooks for p in attacked.unet.parameters()), "what trains next, trains whole"
    for name, before in pipe.unet.state_dict().items():
        changed = (attacked.unet.state_dict()[name] != before).nonzero()
        rows = set(changed[:, 0].tolist()) if name == "class_embedding.weight" else set(changed.flatten().tolist())
        assert rows == ({3} if name == "class_embedding.weight" else set())


def test_swapping_the_row_back_restores_what_only_the_row_hid(digits):
    pipe, _ = digits
    hidden = add_weight_noise(pipe, 0.0)
    with torch.no_grad():
        hidden.unet.class_embedding.weight[3] = hidden.unet.class_embedding.weight[8]
    swapped = swap_embedding(hidden, pipe, "3")
    assert not torch.equal(hidden.unet.class_embedding.weight, pipe.unet.class_embedding.weight)
    assert all(torch.equal(swapped.unet.state_dict()[k], v) for k, v in pipe.unet.state_dict().items())


def test_weight_noise_and_pruning_do_what_they_say(digits):
    pipe, _ = digits
    kernel = pipe.unet.conv_in.weight.detach()
    noisy = add_weight_noise(pipe, 0.1, seed=1).unet.conv_in.weight.detach() - kernel
    assert float(noisy.std() / kernel.std()) == pytest.approx(0.1, rel=0.1)
    cut = prune(pipe, 0.25).unet
    assert float((cut.conv_in.weight == 0).float().mean()) == pytest.approx(0.25, abs=1e-3)
    smallest_kept = cut.conv_in.weight.abs()[cut.conv_in.weight != 0].min()
    assert smallest_kept == kernel.abs().flatten().sort().values[round(0.25 * kernel.numel())]
    assert torch.equal(cut.conv_in.bias, pipe.unet.conv_in.bias)
    with pytest.raises(SettingError, match="share must be"):
        prune(pipe, 1.0)


def test_the_attack_resumes_and_other_optimizers_are_known(digits, tmp_path):
    pipe, data = digits
    auxiliary = data.without("3")
    settings = SETTINGS | {"target": "3", "optimizer": "sgd", "learning_rate": 1e-2, "evaluate_every": 2}
    whole = relearn(pipe, auxiliary, steps=4, **settings)
    relearn(pipe, auxiliary, steps=2, out=tmp_path, **settings)
    resumed = relearn(pipe, auxiliary, steps=4, out=tmp_path, resume=True, **settings)
    assert resumed.curve.equals(whole.curve)
    assert all(torch.equal(a, b) for a, b in zip(whole.pipeline.unet.parameters(), resumed.pipeline.unet.parameters(), strict=True))
    assert whole.strips[0].shape == (4, 1, 8, 8) and sorted(whole.strips) == [0, 2, 4]
    with pytest.raises(UnknownName, match="no optimizer 'adam'. Did you mean 'adamw'"):
        relearn(pipe, auxiliary, target="3", optimizer="adam", **SETTINGS)


def test_another_models_attack_is_not_gone_on_with(digits, tmp_path):
    pipe, data = digits
    auxiliary = data.without("3")
    relearn(pipe, auxiliary, target="3", steps=1, out=tmp_path, **SETTINGS)
    with pytest.raises(CheckpointError, match="was made with start other than is given now"):
        relearn(add_weight_noise(pipe, 0.1), auxiliary, target="3", steps=2, out=tmp_path, resume=True, **SETTINGS)


@pytest.mark.parametrize("other", [
    {"target": "8"}, {"only_embedding_row": True}, {"samples": 3}, {"guidance_scale": 1.0}, {"num_inference_steps": 2},
])
def test_another_attack_or_other_measurements_are_not_gone_on_with(digits, tmp_path, other):
    pipe, data = digits
    settings = SETTINGS | {"target": "3", "allow_target": True, "samples": 2, "num_inference_steps": 1, "out": tmp_path}
    relearn(pipe, data, steps=1, **settings)
    with pytest.raises(CheckpointError, match=f"was made with {next(iter(other))} = .* is asked for now"):
        relearn(pipe, data, steps=2, resume=True, **settings | other)


def test_another_judges_curve_is_not_gone_on_with(digits, tmp_path):
    """Of two judges with the same weights, one that rejects nothing sees more."""
    pipe, data = digits
    settings = SETTINGS | {"target": "3", "samples": 2, "num_inference_steps": 1, "out": tmp_path}
    relearn(pipe, data.without("3"), steps=1, **settings)
    lenient = copy.deepcopy(find_judge(pipe))
    lenient.register_to_config(threshold=float("inf"))
    with pytest.raises(CheckpointError, match="was made with judge other than is given now"):
        relearn(pipe, data.without("3"), steps=2, resume=True, judge=lenient, **settings)


def test_a_folder_with_a_training_is_refused_before_anything_is_drawn(digits, tmp_path, monkeypatch):
    pipe, data = digits
    relearn(pipe, data.without("3"), target="3", steps=1, out=tmp_path, **SETTINGS)
    for module in (relearning, alternatives):
        monkeypatch.setattr(module, "draw_samples", None)  # which would fail if anything were drawn
    with pytest.raises(CheckpointError, match="already holds a training"):
        relearn(pipe, data.without("3"), target="3", steps=1, out=tmp_path, **SETTINGS)
    with pytest.raises(CheckpointError, match="already holds a training"):
        unlearn(pipe, "dimum", alternative="generated", target="3", data=data, out=tmp_path)
    with pytest.raises(CheckpointError, match="already holds a training"):
        train_base("cifar10-small", tmp_path, data=data.train)  # grey images, which its autoencoder cannot encode


def test_rows_of_a_network_without_a_table_are_refused(digits):
    _, data = digits
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(32,), down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    plain = ClassConditionalPipeline(unet, DDPMScheduler(**SCHEDULER_CONFIG), {0: "digit"})
    few = data.train.select(torch.arange(4))
    one = replace(few, labels=torch.zeros_like(few.labels), class_names=("digit",))
    with pytest.raises(DataError, match="this network has none"):
        relearn_embedding(plain, Dataset(one, one), "digit", count=2, **SETTINGS)
    with pytest.raises(DataError, match="this network has none"):
        swap_embedding(plain, plain, "digit")


def test_another_images_attack_is_not_gone_on_with(digits, tmp_path):
    pipe, data = digits
    first, second, auxiliary = (data.train.select(torch.arange(*part)) for part in ((0, 1), (1, 2), (2, 40)))
    settings = SETTINGS | {"samples": 2, "num_inference_steps": 1, "out": tmp_path}
    relearn(pipe, auxiliary, target=first, steps=1, **settings)
    relearn(pipe, auxiliary, target=first, steps=2, resume=True, **settings)
    with pytest.raises(CheckpointError, match="was made with target other than is given now"):
        relearn(pipe, auxiliary, target=second, steps=3, resume=True, **settings)


def test_an_attack_with_images_of_the_target_needs_some(digits):
    pipe, data = digits
    lacking = replace(data, train=data.train.without("3"))
    for attack in (few_shot, relearn_embedding):
        with pytest.raises(DataError, match="digits has no training images of '3' to attack with"):
            attack(pipe, lacking, "3", 5, steps=1, **SETTINGS)


def test_a_fuller_evaluation_says_what_the_label_draws_now(digits):
    """A model whose label 3 was renamed to 8 draws eights for it, at every scale, and as many threes unconditionally as before."""
    pipe, _ = digits
    renamed = add_weight_noise(pipe, 0.0)
    with torch.no_grad():
        renamed.unet.class_embedding.weight[3] = renamed.unet.class_embedding.weight[8]
    measured = evaluate(renamed, target="3", per_class=10, num_inference_steps=8, progress=False)
    assert measured.drawn["value"].idxmax() == "8" and measured.drawn["value"].sum() == pytest.approx(1)
    assert measured.drawn.index[-1] == "none of these" and measured["UA"] > 0.9
    worst = next(name for name in measured.table.index if name.startswith("worst class"))
    assert measured[worst] == measured.per_class["value"].drop("3").min()
    assert measured.as_dict()["drawn_for_target"]["8"] > 0.9
    sweep = guidance_sweep(renamed, "3", (1.0, 2.0), per_class=6, num_inference_steps=8, progress=False)
    assert sweep["guidance_scale"].tolist() == [1.0, 2.0] and (sweep["UA low"] <= sweep["UA"]).all()
    counts = [unconditional_share(p, "3", count=40, progress=False).value for p in (pipe, renamed)]
    assert counts[0] == counts[1] > 0


def test_a_judge_needs_no_more_than_class_names_and_a_verdict(digits):
    """As `PairJudge` says; one that does not say how large its images are sees those of the pipeline's size."""
    pipe, data = digits
    known = find_judge(pipe)
    own = SimpleNamespace(class_names=known.class_names, judge=known.judge)
    settings = {"target": "3", "data": data, "per_class": 1, "num_inference_steps": 2, "progress": False}
    ours, theirs = (evaluate(pipe, judge=judge, **settings) for judge in (own, known))
    assert ours.table.equals(theirs.table) and ours.provenance == theirs.provenance


def test_the_nearest_image_of_a_copy_is_the_copied_one(digits):
    _, data = digits
    images = data.train.images[[5, 70]].clone()
    images[1] += 0.01
    distance, index = nearest_images(images.clamp(-1, 1), data.train)
    assert index.tolist() == [5, 70] and distance[0] == 0 and 0 < distance[1] < 0.02
    assert float(nearest_images(data.test.images[:20], data.train)[0].min()) > 0.05


def test_an_attack_without_labels_goes_through_the_null_row_alone():
    pipe, data = load_pipeline("digits"), load_dataset("digits").train.without("3")
    attacked = relearn(
        pipe, data, target="3", label_dropout=1.0, steps=3, learning_rate=1e-3, batch_size=16, samples=2, evaluate_every=3,
        progress=False,
    ).pipeline
    before, after = (p.unet.class_embedding.weight for p in (pipe, attacked))
    assert torch.equal(before[:-1], after[:-1]) and not torch.equal(before[-1], after[-1])
    assert not torch.equal(pipe.unet.conv_out.weight, attacked.unet.conv_out.weight)


def test_single_images_named_as_the_target_are_what_is_measured(digits):
    """Whatever the model had unlearned before."""
    pipe, data = digits
    first, second, auxiliary = (data.train.select(torch.arange(*part)) for part in ((0, 1), (1, 2), (1, 40)))
    unlearned = unlearn(pipe, "dimum", target=first, data=data, steps=1, batch_size=16, progress=False, precision="fp32")
    relearn(unlearned, auxiliary, steps=1, **SETTINGS)
    with pytest.raises(DataError, match="has 1 images of the forget set"):
        relearn(unlearned, auxiliary, target=second, steps=1, **SETTINGS)
