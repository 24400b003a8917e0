"""DiMRA: what it optimises, what it refuses, and that it brings back what was only hidden."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.attacks import refuse_leaks
from dimum_core.data import step_generator
from dimum_core.errors import DataError
from dimum_core.models.diffusion import denoising_loss


def test_it_is_plain_finetuning_on_the_auxiliary_set():
    """One step of AdamW on L_den(D_aux), by hand, from the same batch and noise."""
    pipe, data = load_pipeline("digits"), load_dataset("digits").train.without("3")
    settings = {"steps": 1, "learning_rate": 1e-4, "batch_size": 16, "precision": "fp32"}
    attack = relearn(pipe, data, target="3", samples=2, progress=False, **settings)

    from dimum_core.data import draw_batch
    from dimum_core.models.diffusion import drop_labels

    unet = copy.deepcopy(pipe.unet).train()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, weight_decay=0.0)
    images, labels = draw_batch(data, 16, 0, 0)
    generator = step_generator(0, 0)
    labels = drop_labels(labels, pipe.null_label, 0.1, generator)
    denoising_loss(unet, pipe.encode(images), labels, generator).backward()
    torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
    optimizer.step()
    ours, by_hand = attack.pipeline.unet.state_dict(), unet.state_dict()
    assert all(torch.allclose(ours[k], by_hand[k], atol=2e-6) for k in ours)
    assert attack.curve["distance"].iloc[-1] == pytest.approx(
        float(sum((by_hand[k] - v).square().sum() for k, v in pipe.unet.state_dict().items()) ** 0.5), rel=1e-2
    )


def test_the_attack_lowers_the_auxiliary_loss_and_the_curve_begins_before_it():
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    unlearned = unlearn(pipe, "esd", target="3", data=data, steps=8, learning_rate=1e-3, batch_size=32, progress=False)
    settings = {"steps": 12, "batch_size": 32, "learning_rate": 3e-4, "samples": 10, "evaluate_every": 6, "num_inference_steps": 5}
    attack = relearn(unlearned, data.without("3"), progress=False, **settings)
    curve, held_out = attack.curve, data.test.without("3")

    @torch.no_grad()
    def loss(p):
        return float(denoising_loss(p.unet.eval(), p.encode(held_out.images), held_out.labels, step_generator(9, 9)))

    assert loss(attack.pipeline) < loss(unlearned)
    assert curve["step"].tolist() == [0, 6, 12]
    assert curve["distance"].is_monotonic_increasing
    assert curve["distance"].iloc[0] == 0
    assert (curve["target low"] <= curve["target accuracy"]).all()
    assert (curve["target accuracy"] <= curve["target high"]).all()


def test_the_curve_does_not_change_the_attack_and_the_model_it_was_given_stays():
    pipe, data = load_pipeline("digits"), load_dataset("digits").train.without("7")
    before = copy.deepcopy(pipe.unet.state_dict())
    quick = {"steps": 4, "batch_size": 8, "num_inference_steps": 2, "progress": False}
    attacks = [
        relearn(pipe, data, target=target, samples=samples, evaluate_every=every, **quick)
        for target, samples, every in (("7", 2, 4), (7, 3, 1))
    ]
    a, b = (attack.pipeline.unet.state_dict() for attack in attacks)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert all(torch.equal(before[k], v) for k, v in pipe.unet.state_dict().items())


def test_a_target_in_the_auxiliary_set_is_refused_before_the_first_step(tiny_data):
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    with pytest.raises(DataError, match=r"has \d+ images of the target class 3.*digits.without\('3'\)"):
        relearn(pipe, data, target="3")
    with pytest.raises(DataError, match="names no target"):
        relearn(pipe, data.without("3"))
    disguised = replace(tiny_data, labels=torch.zeros_like(tiny_data.labels))
    with pytest.raises(DataError, match="has 20 images of the forget set or near copies of them, under another label"):
        refuse_leaks(disguised, 1, forget=tiny_data.only("top"))
    with pytest.raises(DataError, match="is empty"):
        refuse_leaks(tiny_data.select(torch.zeros(60, dtype=torch.bool)), 1)


def test_an_unlearned_pipeline_knows_what_must_not_come_back():
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    gone = unlearn(pipe, "finetune", target="3", data=data, steps=1, progress=False)
    threes = data.train.only("3")
    nearly = replace(threes, images=(threes.images + 0.02).clamp(-1, 1), labels=torch.full_like(threes.labels, 8))
    nearly = replace(nearly, item_hashes=data.train.without("3").item_hashes[: len(threes)])
    with pytest.raises(DataError, match="has 147 images of the forget set or near copies of them, under another label"):
        relearn(gone, nearly)


def test_a_model_attacked_again_is_not_sampled_again_before_the_attack(monkeypatch):
    from dimum_core import evaluation
    from dimum_core.models.sampling import ClassConditionalPipeline

    pipe, data, drawn = load_pipeline("digits"), load_dataset("digits").train.without("3"), []
    real = ClassConditionalPipeline.__call__
    monkeypatch.setattr(ClassConditionalPipeline, "__call__", lambda *a, **k: drawn.append(1) or real(*a, **k))
    monkeypatch.setattr(evaluation, "_DRAWN", {})
    settings = {"target": "3", "steps": 2, "evaluate_every": 2, "samples": 2, "batch_size": 8, "progress": False}
    first, second = (relearn(pipe, data, learning_rate=rate, **settings).curve for rate in (1e-4, 1e-3))
    assert len(drawn) == 3 and first.iloc[0].equals(second.iloc[0])
    relearn(pipe, data, seed=1, **settings)
    assert len(drawn) == 5


def test_networks_too_large_to_hash_are_drawn_from_each_time(monkeypatch):
    from dimum_core import evaluation

    pipe = load_pipeline("digits")
    monkeypatch.setattr(evaluation, "_DRAWN", {})
    monkeypatch.setattr(evaluation, "MOST_HASHED", 1000)
    first, second = (evaluation.draw_samples(pipe, ["3"], num_inference_steps=2, progress=False) for _ in range(2))
    assert first.equal(second) and not evaluation._DRAWN


def test_drawings_are_remembered_up_to_a_number_of_bytes_and_the_oldest_goes_first(monkeypatch):
    from dimum_core import evaluation

    pipe, one = load_pipeline("digits"), 8 * 8 * 4
    monkeypatch.setattr(evaluation, "_DRAWN", {})
    monkeypatch.setattr(evaluation, "MOST_KEPT", 3 * one)
    for labels in (["3"] * 4, ["1"], ["2"] * 2, ["3"]):  # the first is more than all that is kept
        drawn = evaluation.draw_samples(pipe, labels, num_inference_steps=1, progress=False)
    kept = list(evaluation._DRAWN.values())
    assert [len(images) for images in kept] == [2, 1] and kept[1].equal(drawn)


def test_a_defence_with_the_originals_weights_is_not_answered_from_memory(monkeypatch):
    """A pipeline, a network's forward or an attention of one's own draws something else by the same weights."""
    from dimum_core import evaluation
    from dimum_core.models.sampling import ClassConditionalPipeline

    class Guarded(ClassConditionalPipeline):
        def __call__(self, labels, **settings):
            return super().__call__(["8"] * len(labels), **settings)

    class Silent:
        def __call__(self, attention, hidden_states, *given, **named):
            return 0 * hidden_states

    def drawn(pipe):
        return evaluation.draw_samples(pipe, ["3"], num_inference_steps=2, progress=False)

    plain, patched, silent = (load_pipeline("digits") for _ in range(3))
    monkeypatch.setattr(evaluation, "_DRAWN", {})
    before = drawn(plain)
    patched.unet.conv_out.forward = lambda x: x[:, :4] * 0
    next(part for part in silent.unet.modules() if hasattr(part, "processor")).set_processor(Silent())
    guarded = Guarded(**plain.components, **{key: plain.config[key] for key in ("id2label", "patch_size", "guidance_scale")})
    assert all(not before.equal(drawn(pipe)) for pipe in (guarded, patched, silent)) and before.equal(drawn(plain))


def test_a_hook_or_other_noise_is_not_answered_from_memory(monkeypatch):
    from dimum_core import evaluation

    pipe = load_pipeline("digits")
    monkeypatch.setattr(evaluation, "_DRAWN", {})
    before = evaluation.draw_samples(pipe, ["3"], num_inference_steps=2, progress=False)
    hook = pipe.unet.conv_out.register_forward_hook(lambda module, given, out: 0 * out)
    assert not before.equal(evaluation.draw_samples(pipe, ["3"], num_inference_steps=2, progress=False))
    hook.remove()
    noise = torch.randn(80, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    other = noise.clone()
    other[40] = -noise[40]
    drawn = [evaluation.draw_samples(pipe, ["3"] * 80, num_inference_steps=2, latents=x, progress=False) for x in (noise, other)]
    assert not drawn[0].equal(drawn[1])
