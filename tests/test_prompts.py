"""Prompts: the pipeline keeps the conventions of diffusers, and conditions are captions."""

from __future__ import annotations

import pytest
import torch
from transformers.utils import logging as transformers_logging

from dimum_core import load_pipeline
from dimum_core.data.captions import PARAPHRASES, TEMPLATES, caption
from dimum_core.data.shapes import CLASS_NAMES, STYLES
from dimum_core.errors import CheckpointError, DataError
from dimum_core.models.cards import read_card
from dimum_core.models.checkpoints import save_checkpoint
from dimum_core.models.conditions import conditions_of
from dimum_core.models.denoiser import Preset
from dimum_core.pretraining import DenoisingObjective, new_model, train_base
from dimum_core.training import TrainConfig, train

FEW = {"num_inference_steps": 2}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# The pipeline -------------------------------------------------------------------------------------------------------


def test_one_prompt_or_several_and_several_images_each(prompted):
    assert len(prompted("a hatched star", **FEW).images) == 1
    images = prompted(["a hatched star", "a filled cross"], num_images_per_prompt=2, output_type="np", **FEW).images
    assert images.shape == (4, 16, 16, 3) and images.min() >= 0 and images.max() <= 1


def test_guidance_is_the_weighted_difference_of_two_predictions(prompted):
    x, t = torch.randn(2, 48, 4, 4, generator=generator()), torch.tensor(500)
    embeds, negative = prompted.encode_prompt(["a hatched star"] * 2, do_classifier_free_guidance=True, negative_prompt="filled")
    predict = lambda e: prompted.unet(x, t, encoder_hidden_states=e).sample  # noqa: E731
    with torch.no_grad():
        wanted = predict(negative) + 3.0 * (predict(embeds) - predict(negative))
        assert torch.allclose(prompted.predict_noise(x, t, embeds, negative, 3.0), wanted, atol=1e-5)
    empty = prompted.encode_prompt([""])[0]
    assert torch.equal(prompted.encode_prompt(["a"], do_classifier_free_guidance=True)[1], empty)


def test_a_prompt_and_its_embedding_draw_the_same(prompted):
    embeds = prompted.encode_prompt(["a hatched star"])[0]
    same = [prompted(**ask, generator=generator(), output_type="pt", **FEW).images
            for ask in ({"prompt": "a hatched star"}, {"prompt_embeds": embeds})]
    assert torch.equal(*same)
    other = prompted("a hatched star", negative_prompt="filled style", generator=generator(), output_type="pt", **FEW).images
    assert not torch.equal(same[0], other)
    with pytest.raises(ValueError, match="either prompt or prompt_embeds"):
        prompted(**FEW)


def test_the_callback_sees_and_changes_the_latents(prompted):
    seen = []

    def stop_at_zero(pipe, i, t, state):
        seen.append((i, t, state["latents"].shape))
        return {"latents": torch.zeros_like(state["latents"])}

    images = prompted("a hatched star", callback_on_step_end=stop_at_zero, output_type="pt", **FEW).images
    assert len(seen) == 2 and seen[0][2] == (1, 48, 4, 4) and torch.allclose(images, torch.tensor(0.5))


def test_saving_and_loading_keep_pixels_and_words(prompted, tmp_path):
    save_checkpoint(prompted, tmp_path, {"title": "t", "summary": "s", "kind": "denoiser"})
    again = load_pipeline(tmp_path)
    draw = lambda pipe: pipe(["a hatched star"], generator=generator(), output_type="pt", **FEW).images  # noqa: E731
    assert torch.equal(draw(prompted), draw(again))
    assert again.class_names == CLASS_NAMES and again.config.templates == list(TEMPLATES)
    save_checkpoint(prompted, tmp_path / "half", {"title": "t", "summary": "s", "kind": "denoiser"}, "float16")
    half = load_pipeline(tmp_path / "half")
    assert half.text_encoder.dtype == half.unet.dtype == prompted.text_encoder.dtype == torch.float32
    assert (draw(prompted) - draw(half)).abs().mean() < 0.05


def test_loading_draws_no_bar_and_leaves_the_bars_of_others(capfd):
    load_pipeline("shapes")
    assert capfd.readouterr().err == ""
    assert transformers_logging.is_progress_bar_enabled()


def test_every_word_of_every_caption_is_known(prompted):
    unknown = prompted.tokenizer.unk_token_id
    captions = [caption(name, template) for name in CLASS_NAMES for template in (*TEMPLATES, *PARAPHRASES)]
    tokens = prompted.tokenize(captions)
    assert not (tokens == unknown).any() and (tokens == prompted.tokenizer.eos_token_id).any(1).all()
    assert (prompted.tokenize(["a blue star"]) == unknown).any()
    assert not set(PARAPHRASES) & set(TEMPLATES)


def test_words_and_pixels_train_together_resume_bit_for_bit_and_are_trained_on(shapes, tmp_path):
    preset = Preset(
        "tiny-shapes", dataset="shapes", image_size=16, patch_size=4, channels=(16, 32), layers=1, attention=(False, True),
        flip=False, text_width=16, held_out=("outline heart",),
        training=TrainConfig(steps=4, batch_size=8, learning_rate=1e-3, ema_decay=0.9, precision="fp32"),
    )
    fresh = new_model(preset, shapes.train, 0)[1]
    whole, _ = train_base(preset, tmp_path / "whole", data=shapes.train, progress=False)

    def interrupt(row):
        if row["step"] == 3:
            raise KeyboardInterrupt

    model, pipe = new_model(preset, shapes.train, 0)
    objective = DenoisingObjective(shapes.train.without("outline heart"), 8, conditions_of(pipe, text_trains=True), 0.1, False)
    with pytest.raises(KeyboardInterrupt):  # after the state of step 2 was saved and step 3 taken
        train(model, objective, preset.training, out=tmp_path / "part", on_log=interrupt, checkpoint_seconds=0, progress=False)
    resumed, _ = train_base(preset, tmp_path / "part", data=shapes.train, progress=False, resume=True)
    for part in ("unet", "text_encoder"):
        a, b, start = (getattr(pipe, part).state_dict() for pipe in (whole, resumed, fresh))
        assert all(torch.equal(a[k], b[k]) for k in a) and any(not torch.equal(a[k], start[k]) for k in a)
    card = read_card(tmp_path / "whole")
    assert card["data"]["images"] == 140 and card["held_out"] == ["outline heart"]
    on, _ = train_base(preset, data=shapes.train, start=tmp_path / "whole", steps=0, seed=1, progress=False)
    for part in ("unet", "text_encoder"):
        a, b = (getattr(pipe, part).state_dict() for pipe in (whole, on))
        assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(CheckpointError, match="has a network of another shape"):
        train_base(preset, data=shapes.train, start="digits", steps=0, progress=False)


# Conditions ---------------------------------------------------------------------------------------------------------


def test_conditions_are_captions(prompted):
    conditions = conditions_of(prompted, "outline")
    labels = torch.arange(36).repeat(20)
    drawn = conditions.of_labels(labels, seed=1, step=2)
    assert torch.equal(drawn, conditions.of_labels(labels, seed=1, step=2)) and (conditions.labels_of(drawn) == labels).all()
    said = {conditions.caption(n) for n in drawn[labels == 3].tolist()}
    assert said <= {caption("outline star", template) for template in TEMPLATES} and len(said) > 3
    partial = conditions.of_labels(labels, 1, 2, partial=True) % conditions.all_wordings >= conditions.wordings
    assert 0.05 < partial.float().mean() < 0.16
    assert conditions.caption(conditions.null_number) == "" and conditions.asked([None, "a b", 3]) == ["", "a b", "a outline star"]


def test_replacing_keeps_everything_but_the_feature(prompted):
    conditions = conditions_of(prompted, "outline")
    number = CLASS_NAMES.index("filled star") * conditions.all_wordings + 3
    assert conditions.caption(number) == "a star in filled style"
    say = lambda numbers: [conditions.caption(n) for n in numbers.tolist()]  # noqa: E731
    as_target = conditions.as_target(torch.tensor([number]))
    assert say(as_target) == ["a star in outline style"]
    assert say(conditions.anchored(as_target)) == ["a star in filled style"]
    assert say(conditions.anchored(as_target, "dotted")) == ["a star in dotted style"]
    others = say(conditions.instead(as_target.repeat(200), generator()))
    assert set(others) == {f"a star in {style} style" for style in STYLES[1:]}
    assert all("outline" in text for text in say(conditions.target(50, generator())))
    assert not any("outline" in text for text in say(conditions.others(50, generator())))
    with pytest.raises(DataError, match="cannot stand in the place"):
        conditions.anchored(as_target, "circle")


def test_embeddings_are_the_text_encoders(prompted):
    conditions = conditions_of(prompted, "outline star")
    numbers = torch.tensor([5, conditions.null_number, 5])
    expected = prompted.encode_prompt([conditions.caption(n) for n in numbers.tolist()])[0]
    assert torch.allclose(conditions.embeddings(numbers), expected, atol=1e-6)
