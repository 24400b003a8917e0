"""Prompts: the pipeline keeps diffusers' conventions, conditions are captions, and every method, attack and metric takes them."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image
from transformers.utils import logging as transformers_logging

from dimum_core import evaluate, load_pipeline, relearn, unlearn
from dimum_core.attacks import auxiliary_set, probe_prompts, search_embedding, swap_embedding
from dimum_core.cli import main
from dimum_core.data import step_generator
from dimum_core.data.captions import PARAPHRASES, TEMPLATES, caption
from dimum_core.data.shapes import CLASS_NAMES, OBJECTS, STYLES
from dimum_core.data.targets import find_target
from dimum_core.errors import DataError, SettingError, TrainingError, UnknownName
from dimum_core.evaluation import draw_samples
from dimum_core.judges import accuracies
from dimum_core.judges.classifier import Judge, PairJudge, PairVerdict
from dimum_core.models.checkpoints import read_card, save_checkpoint
from dimum_core.models.conditions import conditions_of
from dimum_core.models.denoiser import Preset
from dimum_core.precision import autocast
from dimum_core.pretraining import DenoisingObjective, new_model, train_base
from dimum_core.training import TrainConfig, train
from dimum_core.unlearning import METHODS
from dimum_core.unlearning.base import Step
from dimum_core.unlearning.uce import UCE, closed_form, key_value_layers

FEW = {"num_inference_steps": 2}


@pytest.fixture
def judge():
    torch.manual_seed(0)
    return PairJudge(*(Judge(16, 3, words, (8, 8), (2, 2)) for words in (STYLES, OBJECTS)))


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


def test_words_and_pixels_train_together_and_resume_bit_for_bit(shapes, tmp_path):
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


# Methods ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"sealed"}))  # which seals a label's own row of weights
def test_every_method_forgets_a_style_by_prompt(name, prompted, shapes):
    before = {k: v.clone() for k, v in prompted.unet.state_dict().items()}
    words = {k: v.clone() for k, v in prompted.text_encoder.state_dict().items()}
    forgetful = unlearn(prompted, name, target="outline", data=shapes, steps=2, batch_size=4, learning_rate=1e-3, progress=False)
    after = forgetful.unet.state_dict()
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    assert changed and all(torch.equal(before[k], v) for k, v in prompted.unet.state_dict().items())
    assert all(torch.equal(words[k], v) for k, v in forgetful.text_encoder.state_dict().items())
    if name == "esd-x":
        assert all("attn2" in k for k in changed)
    if name == "uce":
        assert all(k.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for k in changed)
    assert forgetful.unlearning["settings"]["target"] == "outline" and len(forgetful.unlearning["forget_set"]) == 24


def test_methods_for_words_refuse_labels(tiny_preset, tiny_data):
    from dimum_core.data import Dataset
    from dimum_core.pretraining import new_model

    pipe = new_model(tiny_preset, tiny_data, 0)[1]
    for name in ("uce", "esd-x"):
        with pytest.raises(TrainingError, match="asked by labels"):
            unlearn(pipe, name, target="top", data=Dataset(tiny_data, tiny_data), steps=1)


def test_dimum_memorises_a_feature_under_the_caption_that_names_it(prompted, shapes):
    """Every image of another style is denoised under its own caption with the forgotten style in it, and nothing else changes."""
    method = METHODS["dimum"]()
    conditions = conditions_of(prompted, "outline")
    alternative = shapes.train.only("filled")
    step = Step(prompted.unet, prompted.unet, conditions, {"alternative": alternative}, 8, (48, 4, 4), seed=0, index=0)
    asked = []
    original = step.denoising

    def denoising(x, condition):
        asked.extend(conditions.caption(n) for n in condition.tolist())
        return original(x, condition)

    step.denoising = denoising
    method.memorisation(step)
    _, own = step.batch("alternative")
    assert asked == [conditions.caption(n).replace("filled", "outline") for n in own.tolist()]


def test_uce_solves_its_normal_equations():
    torch.manual_seed(0)
    weight, erased, anchors, kept = torch.randn(5, 4).double(), *(torch.randn(n, 4).double() for n in (7, 7, 9))
    edited = closed_form(weight, erased, anchors, kept, 0.3).requires_grad_(True)
    loss = (erased @ edited.T - anchors @ weight.T).square().sum() + (kept @ edited.T - kept @ weight.T).square().sum()
    (loss + 0.3 * (edited - weight).square().sum()).backward()
    assert edited.grad.abs().max() < 1e-9
    same = closed_form(weight, erased, erased, kept, 0.3)
    assert torch.allclose(same, weight)


def test_uce_sends_the_target_to_its_anchor(prompted):
    conditions = conditions_of(prompted, "outline")
    student = copy.deepcopy(prompted.unet)
    step = Step(student, prompted.unet, conditions, {}, 4, (48, 4, 4), 0, 0)
    UCE(preserve=1e-3).edit(step)
    forget, _ = conditions.every_caption()
    old, new = key_value_layers(prompted.unet)[0].weight, key_value_layers(student)[0].weight
    target, anchor = conditions.embeddings(forget), conditions.embeddings(conditions.anchored(forget))
    before = (target @ old.T - anchor @ old.T).square().mean()
    assert (target @ new.T - anchor @ old.T).square().mean() < 0.7 * before


# Attacks and metrics ------------------------------------------------------------------------------------------------


def test_the_attack_runs_on_data_without_the_style_and_refuses_others(prompted, shapes, judge):
    settings = {"steps": 2, "batch_size": 4, "samples": 6, "num_inference_steps": 2, "judge": judge, "progress": False}
    attack = relearn(prompted, shapes.without("outline"), target="outline", **settings)
    assert attack.curve["step"].tolist() == [0, 1, 2] and attack.curve["distance"].iloc[-1] > 0
    with pytest.raises(DataError, match=r"24 images of the target style outline.*without\('outline'\)"):
        relearn(prompted, shapes.train, target="outline", **settings)
    hidden = shapes.train.only("outline").select(torch.arange(2))
    renamed = type(hidden)(hidden.name, hidden.images, hidden.labels + 6, hidden.class_names, hidden.item_hashes)
    with pytest.raises(DataError, match="2 images of the forget set"):
        relearn(prompted, renamed, target="outline", forget=shapes.train.only("outline"), **settings)
    with pytest.raises(UnknownName, match="Did you mean 'outline'"):
        relearn(prompted, shapes.train, target="outlien", **settings)


@pytest.mark.parametrize("kind", ["retain", "synthetic", "public", "noise"])
def test_no_auxiliary_set_has_the_style(kind, prompted, shapes):
    for target in ("outline", "star", "outline star"):
        made = auxiliary_set(kind, shapes, target, pipe=prompted, count=12, share=0.5)
        assert len(made) and not find_target(target, CLASS_NAMES).among(made.labels).any()


def test_the_retained_accuracies_are_unlearn_canvass():
    """A table worked by hand: asked for all 36, drawn right but for the outline row, which comes out as filled triangles."""
    labels = torch.arange(36)
    style, thing = labels // 6, labels % 6
    style[:6], thing[:6] = 1, 2
    style[35] = -1  # the watercolour heart has a style that nobody knows
    seen = torch.where(style < 0, -1, style * 6 + thing)
    verdict = PairVerdict(torch.zeros(36, 36), torch.zeros(36), seen, torch.zeros(36, 1), (style, thing))
    value = lambda target: {k: r.value for k, r in accuracies(verdict, labels, find_target(target, CLASS_NAMES)).items()}  # noqa: E731
    style_target = value("outline")
    assert style_target["UA"] == 1 and style_target["IRA"] == pytest.approx(29 / 30)
    assert style_target["CRA"] == pytest.approx(31 / 36) and style_target["RA"] == pytest.approx(29 / 30)
    object_target = value("heart")
    assert object_target["UA"] == pytest.approx(1 / 6)  # of the outline heart alone; the last one is still a heart
    assert object_target["IRA"] == pytest.approx(26 / 30) and object_target["CRA"] == pytest.approx(29 / 36)
    one = value("outline circle")
    assert one["UA"] == 1 and one["IRA"] == pytest.approx(5 / 10) and one["CRA"] == pytest.approx(24 / 25)


def test_two_judges_judge_as_one(judge, shapes):
    verdict = judge.judge(shapes.test.images[:8])
    style, thing = (one.judge(shapes.test.images[:8]) for one in (judge.style, judge.object))
    assert verdict.probabilities.shape == (8, 36) and torch.allclose(verdict.probabilities.sum(1), torch.ones(8), atol=1e-5)
    assert torch.equal(verdict.forced_labels, style.forced_labels * 6 + thing.forced_labels)
    assert torch.equal(verdict.shows(find_target("hatched", CLASS_NAMES)), style.labels == 2)
    assert judge.class_names == CLASS_NAMES


def test_evaluation_of_a_style_has_its_metrics(prompted, shapes, judge):
    measured = evaluate(prompted, target="outline", data=shapes, judge=judge, per_class=1, num_inference_steps=2, progress=False)
    assert {"UA", "RA", "IRA", "CRA", "kernel distance"} <= set(measured.table.index)
    assert measured.table.loc["UA", "n"] == 6 and measured.table.loc["IRA", "n"] == 30 and measured.table.loc["CRA", "n"] == 36
    assert measured.drawn.index.tolist() == [*STYLES, "none of these"]


def test_probes_ask_in_four_ways(prompted, judge):
    for target in ("outline", "star", "outline star"):
        probes = probe_prompts(prompted, target, judge=judge, count=6, **FEW)
        assert probes.index.tolist() == ["captions", "paraphrases", "word left out", "away from the target"]
        assert ((probes["low"] <= probes["value"]) & (probes["value"] <= probes["high"])).all()


class Watched:
    """Notes for each call of a pipeline how many images it draws, under which autocast, and where its network is."""

    def __init__(self, pipe, monkeypatch):
        self.calls, real = [], type(pipe).__call__

        def call(this, *args, **asked):
            entries = asked.get("prompt_embeds") if asked.get("prompt") is None else asked["prompt"]
            negative = asked.get("negative_prompt")
            assert negative is None or len(negative) == len(entries)
            precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
            self.calls.append((len(entries), precision))
            return real(this, *args, **asked)

        monkeypatch.setattr(type(pipe), "__call__", call)


def test_attacks_by_words_draw_in_batches_and_in_the_devices_precision(prompted, shapes, judge, monkeypatch):
    """All images had been drawn at once, and in float32 where samples are drawn otherwise: too much for Stable Diffusion."""
    monkeypatch.setattr("dimum_core.precision.native_precision", lambda device: "bf16")
    watched = Watched(prompted, monkeypatch)
    probe_prompts(prompted, "outline", judge=judge, count=6, batch_size=4, **FEW)
    search_embedding(prompted, shapes.train, target="outline", judge=judge, samples=6, batch_size=4, steps=0, progress=False, **FEW)
    assert watched.calls == [(4, torch.bfloat16), (2, torch.bfloat16)] * 5


def test_a_probe_in_batches_asks_for_the_same_images(prompted, judge, monkeypatch):
    drawn, real = [], PairJudge.judge
    monkeypatch.setattr(PairJudge, "judge", lambda self, images: drawn.append(images) or real(self, images))
    for batch_size in (32, 16):
        probe_prompts(prompted, "outline", judge=judge, count=32, batch_size=batch_size, **FEW)
    for whole, parts in zip(drawn[:4], drawn[4:], strict=True):
        assert whole.shape == (32, 3, 16, 16) and torch.allclose(whole, parts, atol=0.05)


def test_settings_of_attacks_by_words_are_checked_before_anything_is_drawn(prompted, shapes, judge):
    settings = {"target": "outline", "judge": judge, "progress": False}
    for name, value in (("evaluate_every", 0), ("samples", 0), ("batch_size", 0), ("steps", -1)):
        with pytest.raises(SettingError, match=f"{name} must be a whole number of at least"):
            search_embedding(prompted, shapes.train, **settings | {name: value})
    for name in ("count", "batch_size"):
        with pytest.raises(SettingError, match=f"{name} must be a whole number of at least 1, not 0"):
            probe_prompts(prompted, "outline", judge=judge, **{name: 0})
    with pytest.raises(SettingError, match="shots must be an image set"):
        search_embedding(prompted, "outline", **settings)


def test_the_search_moves_embeddings_alone_and_lowers_the_loss(prompted, shapes, judge):
    before = {k: v.clone() for k, v in prompted.unet.state_dict().items()}
    settings = {"target": "outline", "judge": judge, "samples": 6, "batch_size": 8, "progress": False, **FEW}
    found = search_embedding(prompted, shapes.train, steps=4, evaluate_every=2, **settings)
    assert found.curve["step"].tolist() == [0, 2, 4] and found.curve["moved"].is_monotonic_increasing
    assert found.embeddings.shape == (6, 12, 16) and found.images.shape == (6, 3, 16, 16)
    assert all(torch.equal(before[k], v) for k, v in prompted.unet.state_dict().items())
    with pytest.raises(DataError, match="no images of 'outline'"):
        search_embedding(prompted, shapes.train.without("outline"), **settings)


def test_controls_on_label_rows_say_what_to_use_instead(prompted):
    with pytest.raises(DataError, match="use search_embedding"):
        swap_embedding(prompted, prompted, "outline")


def test_samples_of_a_label_and_of_its_caption_are_the_same(prompted):
    name = "a hatched star"
    number = CLASS_NAMES.index("hatched star")
    both = [draw_samples(prompted, [asked], progress=False, **FEW) for asked in (number, name)]
    assert torch.equal(*both)
    with autocast(prompted.device):
        direct = prompted([name], generator=step_generator(0, 0), output_type="pt", **FEW).images * 2 - 1
    assert torch.allclose(both[0], direct)


def test_the_command_draws_prompts_styles_and_refuses_them_of_labels(prompted, tmp_path, capsys):
    save_checkpoint(prompted, tmp_path / "m", {"title": "t", "summary": "s", "kind": "denoiser"})
    sample = f"sample {tmp_path / 'm'} --count 2 --steps 2 --out {tmp_path / 'x.png'}".split()
    assert main([*sample, "--prompt", "a hatched star"]) == 0 and Image.open(tmp_path / "x.png").size == (2 * 17 * 4, 17 * 4)
    assert main([*sample, "--label", "hatched"]) == 0 and Image.open(tmp_path / "x.png").size == (2 * 17 * 4, 6 * 17 * 4)
    assert main([*sample, "--label", "hatchet"]) == 1 and "Did you mean 'hatched'" in capsys.readouterr().err
    assert main(["sample", "digits", "--prompt", "a three", "--out", str(tmp_path / "x.png")]) == 1
    assert "draws classes, not prompts" in capsys.readouterr().err
