"""Models of prompts: attacked, measured, and asked on the command line."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from dimum_core import evaluate, relearn
from dimum_core.attacks import auxiliary_set, probe_prompts, search_embedding, search_tokens, swap_embedding
from dimum_core.cli import main
from dimum_core.data import step_generator
from dimum_core.data.shapes import CLASS_NAMES, OBJECTS, STYLES
from dimum_core.data.targets import find_target
from dimum_core.errors import DataError, SettingError, UnknownName
from dimum_core.evaluation import draw_samples
from dimum_core.judges import accuracies
from dimum_core.judges.classifier import Judge, PairJudge, PairVerdict, Verdict
from dimum_core.models.checkpoints import build_pipeline, save_checkpoint
from dimum_core.models.denoiser import build_denoiser
from dimum_core.precision import autocast

FEW = {"num_inference_steps": 2}


@pytest.fixture
def judge():
    torch.manual_seed(0)
    return PairJudge(*(Judge(16, 3, words, (8, 8), (2, 2)) for words in (STYLES, OBJECTS)))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


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


@pytest.mark.parametrize(("names", "rows"), [
    (("red a", "red b", "red c"), {"IRA"}), (("a x", "a y", "b x", "b y"), {"IRA", "CRA"}),
])
def test_a_retained_accuracy_that_no_sample_speaks_of_is_left_out(names, rows):
    """With a single style, no other combination shares neither word with the target."""
    labels = torch.arange(len(names))
    objects = len({name.split()[1] for name in names})
    words = (labels // objects, labels % objects)
    verdict = PairVerdict(torch.zeros(len(names), len(names)), torch.zeros(len(names)), labels, torch.zeros(len(names), 1), words)
    found = accuracies(verdict, labels, find_target(names[0], names))
    assert {"IRA", "CRA"} & set(found) == rows and found["IRA"].n == 2


@pytest.mark.parametrize(("target", "drawn", "ua", "ra"), [
    ("red", {"red": 3 / 8, "blue": 3 / 8, "none of these": 2 / 8}, 5 / 8, 3 / 4),
    ("dog", {"dog": 7 / 8, "cat": 0, "none of these": 1 / 8}, 1 / 8, 2 / 4),
])
def test_a_judge_of_whole_names_counts_the_words_of_a_style_or_object(tiny_preset, target, drawn, ua, ra):
    """Twelve samples, each class in turn; the shares are counted by hand in the list of what is seen."""
    names = ("red dog", "red cat", "blue dog")  # no grid: the number of a class is not that of its style
    seen = torch.tensor([0, 1, 2, 2, 2, 2, -1, 1, 0, 2, -1, 2])
    judge = Judge(8, 1, names, (4,), (2,))
    judge.judge = lambda images: Verdict(torch.eye(3)[seen], torch.zeros(12), seen, torch.zeros(12, 1))
    pipe = build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, names)
    measured = evaluate(pipe, target=target, judge=judge, per_class=4, num_inference_steps=1, progress=False)
    assert measured.drawn["value"].to_dict() == drawn and (measured["UA"], measured["RA"]) == (ua, ra)


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


def test_words_are_sought_in_weights_in_bf16(prompted, shapes, judge):
    settings = {"target": "outline", "judge": judge, "samples": 2, "batch_size": 4, "num_inference_steps": 2}
    found = search_embedding(prompted.to(torch.bfloat16), shapes.train, steps=1, progress=False, **settings)
    assert found.embeddings.isfinite().all() and len(found.curve) == 2
    tokens = search_tokens(prompted, shapes.train, count=1, rounds=1, candidates=2, **settings)
    assert np.isfinite(tokens.curve["loss"]).all()


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
    with autocast(prompted.unet):
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
