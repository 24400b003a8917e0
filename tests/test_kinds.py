"""The table of kinds of models in docs/your_own_pictures.md is true: each word of it is tried, on tiny networks of real classes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from dimum_core import evaluate, load_pipeline, relearn, unlearn
from dimum_core.attacks import search_embedding, search_tokens
from dimum_core.data import Dataset, load_unlearn_canvas
from dimum_core.errors import CheckpointError, DataError, DimumError
from dimum_core.evaluation import copying_rate, draw_samples
from dimum_core.judges.classifier import Judge
from dimum_core.models.checkpoints import save_checkpoint
from dimum_core.models.low_rank import save_adapter
from dimum_core.models.networks import image_shape, network_of
from tests import test_own_models as own
from tests import tiny_pipelines as tiny

PAGE = Path(__file__).parent.parent / "docs" / "your_own_pictures.md"
QUICK = {"batch_size": 2, "progress": False}
SAMPLING = {"num_inference_steps": 2, "progress": False}


def rows() -> dict[str, dict[str, str]]:
    """Kind -> column -> what is said."""
    lines = re.search(r"\n(\| kind \|.*?)\n\n", PAGE.read_text("utf-8"), re.S).group(1).splitlines()
    head, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].replace("`", ""): dict(zip(head[1:], row[1:], strict=True)) for row in body[1:]}


def labelled(rows: int = 4, **schedule) -> DDPMPipeline:
    return DDPMPipeline(own.unet_of(num_class_embeds=rows), DDPMScheduler(**schedule))


KINDS: dict[str, list[Callable]] = {
    "UNet2DModel with labels and a null row": [labelled],
    "the same, without a null row": [lambda: labelled(rows=3)],
    "the same, prediction_type v or sample": [
        lambda: labelled(prediction_type="v_prediction"), lambda: labelled(prediction_type="sample")
    ],
    "the same, other betas": [lambda: labelled(beta_schedule="squaredcos_cap_v2")],
    "DiTPipeline": [own.transformer],
    "DDPMPipeline without labels": [lambda: DDPMPipeline(own.unet_of(), DDPMScheduler())],
    "StableDiffusionPipeline, 1.x": [tiny.stable_diffusion],
    "StableDiffusionPipeline, 2.x (v)": [lambda: tiny.stable_diffusion("v_prediction")],
    "StableDiffusionXLPipeline": [tiny.stable_diffusion_xl],
    "StableDiffusion3Pipeline": [tiny.stable_diffusion_3, lambda: tiny.stable_diffusion_3(with_t5=False)],
    "FluxPipeline": [tiny.flux],
    "other than 1,000 noise levels": [lambda: labelled(num_train_timesteps=500)],
    "flow matching in any other pipeline": [lambda: swapped(labelled()), lambda: swapped(tiny.stable_diffusion())],
}
CASES = [(kind, number) for kind, makers in KINDS.items() for number in range(len(makers))]


def swapped(pipe):
    pipe.register_modules(scheduler=FlowMatchEulerDiscreteScheduler())
    return pipe


@dataclass
class Trial:
    """One model, and what it is tried on."""

    pipe: object
    data: Dataset
    judge: object
    target: object

    def unlearn(self, method: str = "dimum", **more):
        return unlearn(self.pipe, method, target=more.pop("target", self.target), data=self.data, steps=1, **QUICK, **more)


@pytest.fixture
def trial(tiny_data, canvas_folder):
    """What a model that was loaded is tried on: classes, prompts or single images."""

    def make(pipe) -> Trial:
        names = getattr(pipe, "class_names", None)
        if names is None:
            side = image_shape(pipe)[1]
            canvas = load_unlearn_canvas(canvas_folder, image_size=side, per_combination=4, held_out=2)
            return Trial(pipe, canvas, tiny.canvas_judge(side), "Van_Gogh")
        judge = Judge(8, 1, names, (8,), (2,))
        if len(names) == 1:
            data = own.unconditional()[1]
            return Trial(pipe, data, judge, data.train.select([2]))
        data = Dataset(*(type(tiny_data)(
            part.name, part.images, part.labels, names, part.item_hashes
        ) for part in (tiny_data.select(range(30)), tiny_data.select(range(30, 60)))))
        return Trial(pipe, data, judge, names[1])

    return make


def unlearns(trial: Trial, said: str) -> None:
    trial.unlearn("dimum")
    if said == "single images":
        with pytest.raises(DataError, match="no retain images"):
            trial.unlearn("finetune", target=trial.pipe.class_names[0])
        return
    trial.unlearn("finetune")
    if said == "yes":
        trial.unlearn("esd")
        return
    why = {"without a null condition": "has no null condition", "by the velocity": "esd compares predictions of the noise"}[said]
    with pytest.raises(DimumError, match=why):
        trial.unlearn("esd")
    if said == "without a null condition":
        trial.unlearn("random-label")
    else:
        trial.unlearn("negative-gradient")


def is_attacked(trial: Trial, said: str):
    without = trial.data.train.without(trial.target)
    attack = relearn(
        trial.pipe, without, target=trial.target, judge=trial.judge, steps=1, samples=1, num_inference_steps=2, **QUICK
    )
    assert attack.curve["distance"].iloc[-1] > 0
    if hasattr(trial.pipe, "class_names"):
        return
    shots, settings = trial.data.train.only(trial.target), {"target": trial.target, "judge": trial.judge, "samples": 1}
    searches = (
        lambda: search_embedding(trial.pipe, shots, steps=1, num_inference_steps=1, **settings, **QUICK),
        lambda: search_tokens(trial.pipe, shots, count=1, rounds=1, candidates=1, batch_size=2, num_inference_steps=1, **settings),
    )
    for search in searches:
        if said == "yes, and by words":
            search()
            continue
        with pytest.raises(DimumError, match="this one has several"):
            search()


def is_measured(trial: Trial, said: str) -> None:
    if said == "by copies":
        images = draw_samples(trial.pipe, [0, 0], **SAMPLING)
        assert 0 <= copying_rate(images, trial.target, trial.data.train).value <= 1
        return
    settings = {"judge": trial.judge, "target": trial.target, "per_class": 1, **SAMPLING}
    scales = [1.0, 2.0] if said == "yes" else [1.0]
    for scale in scales:
        assert 0 <= evaluate(trial.pipe, guidance_scale=scale, **settings)["UA"] <= 1
    if said == "without guidance":
        with pytest.raises(DimumError, match="guidance_scale must be 1"):
            evaluate(trial.pipe, guidance_scale=2.0, **settings)


def is_read(trial: Trial, folder: Path) -> None:
    """By diffusers' own classes, weight by weight and part by part."""
    unlearned = trial.unlearn("finetune", learning_rate=1e-3)
    save_checkpoint(unlearned, folder, {"title": "t", "summary": "s", "kind": "denoiser"})
    kind = type(network_of(unlearned))
    part = "transformer" if "transformer" in unlearned.components else "unet"
    if hasattr(trial.pipe, "class_names"):
        plain = kind.from_pretrained(folder, subfolder="unet")
        type(unlearned.scheduler).from_pretrained(folder, subfolder="scheduler")
    else:
        absent = {name: None for name, value in unlearned.components.items() if value is None}
        plain = getattr(getattr(diffusers, type(unlearned).__name__).from_pretrained(folder, **absent), part)
    ours, theirs = network_of(unlearned).state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def keeps_updates(trial: Trial, said: str, folder: Path) -> None:
    if said == "yes":
        save_adapter(trial.unlearn("finetune", lora_rank=2), folder)
        return
    with pytest.raises(DimumError, match="diffusers has no format"):
        save_adapter(trial.pipe, folder)


def test_the_table_has_these_kinds():
    assert list(rows()) == list(KINDS)


@pytest.mark.parametrize(("kind", "number"), CASES)
def test_a_row_is_true(kind, number, trial, tmp_path, smaller_flux):
    said = rows()[kind]
    pipe = KINDS[kind][number]()
    pipe.save_pretrained(tmp_path / "given")
    names = {"yes, with names": ["left", "top", "checks"], "yes, with one name": ["images"]}.get(said["loads"])
    if said["loads"] == "refused":
        with pytest.raises(CheckpointError, match=r"cannot be used\. .*(500 noise levels|has no alphas_cumprod)"):
            load_pipeline(tmp_path / "given", class_names=None if "text_encoder" in pipe.components else ["left", "top", "checks"])
        assert not any(list(said.values())[1:])
        return
    if names:
        with pytest.raises(CheckpointError, match="load_pipeline.folder, class_names="):
            load_pipeline(tmp_path / "given")
    tried = trial(load_pipeline(tmp_path / "given", class_names=names))
    unlearns(tried, said["unlearns"])
    is_attacked(tried, said["is attacked"])
    is_measured(tried, said["is measured"])
    assert said["read by diffusers"] == "yes"
    is_read(tried, tmp_path / "unlearned")
    keeps_updates(tried, said["updates alone"], tmp_path / "updates")
