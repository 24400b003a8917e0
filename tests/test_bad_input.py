"""Bad input at every border: one error of the package, one sentence, which names what is wrong, and nothing left behind."""

from __future__ import annotations

import json
import math
import shutil
import traceback
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import dimum_core
from dimum_core import load_dataset, load_pipeline, metrics, relearn, train_base, unlearn, widgets
from dimum_core.attacks import add_weight_noise, auxiliary_set, few_shot, probe_prompts, prune, search_embedding, swap_embedding
from dimum_core.benchmark import load_plan, read_results, report, write_results
from dimum_core.benchmark import reading as plans
from dimum_core.benchmark.page import write_report
from dimum_core.cli import main
from dimum_core.course import check, grade, hint
from dimum_core.course import given as numbers_of
from dimum_core.data import DATA_FOLDER, Dataset, ImageSet, from_uint8, load_unlearn_canvas
from dimum_core.data.captions import caption
from dimum_core.data.shapes import CLASS_NAMES, render
from dimum_core.data.targets import find_target
from dimum_core.errors import DimumError, UnknownName
from dimum_core.evaluation import draw_samples, evaluate, guidance_sweep, nearest_images, unconditional_share
from dimum_core.judges import load_judge
from dimum_core.judges.classifier import Judge
from dimum_core.models.checkpoints import CHECKPOINT_FOLDER, check_finite
from dimum_core.models.denoiser import Preset
from dimum_core.pictures import save_picture, tile
from dimum_core.pretraining import new_model
from dimum_core.training import TrainConfig, read_state

PACKAGE = str(Path(dimum_core.__file__).parent)
NAN, INF = math.nan, math.inf
PRESET = Preset(
    "tiny", dataset="digits", image_size=8, patch_size=2, channels=(32, 64), layers=1, attention=(False, True), flip=False,
    training=TrainConfig(steps=2, batch_size=4, precision="fp32"),
)
MOVED = Judge(8, 1, ("top", "left", "checks"), (4,), (2,))  # knows the same classes by other numbers
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def w(tmp_path_factory):
    """What good input looks like, so that a case can spoil one thing of it; nothing here is trained."""
    pixels = np.random.default_rng(0).integers(256, size=(30, 1, 8, 8), dtype=np.uint8)
    tiny = from_uint8("tiny", pixels, np.arange(30) % 3, ("left", "top", "checks"))
    folder = tmp_path_factory.mktemp("bad")
    canvas = folder / "canvas" / "Crayon" / "Dogs"
    canvas.mkdir(parents=True)
    for number in range(3):
        save_picture(torch.zeros(3, 2, 2), canvas / f"{number}.png")
    (folder / "file").write_text("in the way")
    return SimpleNamespace(
        tiny=tiny, data=Dataset(tiny, tiny), pipe=new_model(PRESET, tiny, 0)[1], canvas=folder / "canvas", folder=folder,
        judge=Judge(8, 1, tiny.class_names, (4,), (2,)), out=folder / "out",
        features=np.random.default_rng(0).normal(size=(8, 3)), runs=pd.DataFrame({"rate": [1, 2], "seed": [0, 1], "v": [0.0, 1.0]}),
        rows=read_results(DATA_FOLDER / "results" / "digits.parquet").head(60),
    )


def refusal(call) -> str:
    """What a call is refused with: an error of the package, raised in the package, in one sentence."""
    with pytest.raises(DimumError) as caught:
        call()
    said = str(caught.value)
    innermost = traceback.extract_tb(caught.value.__traceback__)[-1].filename
    assert innermost.startswith(PACKAGE), f"from deep inside {innermost}: {said}"
    assert "\n" not in said and 20 < len(said) < 600 and said.endswith("."), said
    return said


def outcome(call):
    """What a call returns and None, or None and what it is refused with."""
    try:
        return call(), None
    except DimumError as error:
        return None, str(error)


def image_set(w, **changes):
    good = {"images": w.tiny.images, "labels": w.tiny.labels, "class_names": w.tiny.class_names, "item_hashes": w.tiny.item_hashes}
    return ImageSet("mine", **good | changes)


DATA = {
    "a data set by number": (lambda w: load_dataset(5), "no data set 5"),
    "a list of data sets": (lambda w: load_dataset(["digits"]), "no data set ['digits']"),
    "a data set by its path": (lambda w: load_dataset("../digits"), "Did you mean 'digits'"),
    "size 0": (lambda w: w.tiny.resized(0), "image size must be a whole number of at least 1, not 0"),
    "size -1": (lambda w: w.data.resized(-1), "not -1"),
    "size in words": (lambda w: w.tiny.resized("8"), "not '8'"),
    "size a half": (lambda w: w.tiny.resized(2.5), "not 2.5"),
    "size true": (lambda w: w.tiny.resized(True), "not True"),
    "size huge": (lambda w: w.tiny.resized(10**9), "choose a divisor of 8"),
    "images in a list": (lambda w: image_set(w, images=[[1]]), "must be tensors of torch, not list and Tensor"),
    "images of numpy": (lambda w: image_set(w, images=w.tiny.images.numpy()), "not ndarray and Tensor"),
    "labels of numpy": (lambda w: image_set(w, labels=w.tiny.labels.numpy()), "not Tensor and ndarray"),
    "images without height": (lambda w: image_set(w, images=w.tiny.images[:, :, :0]), "shape N x C x H x W"),
    "too few hashes": (lambda w: image_set(w, item_hashes=w.tiny.item_hashes[:3]), "as many item_hashes, not 3"),
    "a class twice": (lambda w: image_set(w, class_names=("a", "a", "b")), "different names"),
    "classes in one word": (lambda w: image_set(w, class_names="abc"), "tuple of different names, not 'abc'"),
    "no classes": (lambda w: image_set(w, class_names=None), "not None"),
    "labels below 0": (lambda w: image_set(w, labels=w.tiny.labels - 1), "not in [-1, 1]"),
    "pixels of floats": (lambda w: from_uint8("mine", np.ones((2, 1, 4, 4)), [0, 1], ("a", "b")), "pixels must be uint8"),
    "pixels without channels": (lambda w: from_uint8("mine", np.zeros((2, 4, 4), np.uint8), [0, 1], ("a", "b")), "(2, 4, 4)"),
    "labels of halves": (lambda w: from_uint8("mine", np.zeros((1, 1, 4, 4), np.uint8), [0.5], ("a", "b")), "not float64"),
    "labels in words": (lambda w: from_uint8("mine", np.zeros((1, 1, 4, 4), np.uint8), ["a"], ("a", "b")), "whole numbers"),
    "an item that is not there": (lambda w: w.tiny.select([100]), "its 30 items are selected"),
    "half an item": (lambda w: w.tiny.select([0.5]), "not by tensor([0.5"),
    "an item in words": (lambda w: w.tiny.select("a"), "not by 'a'"),
    "a mask too short": (lambda w: w.tiny.select(torch.ones(3, dtype=torch.bool)), "or a mask"),
    "no selection": (lambda w: w.tiny.select(None), "not by None"),
    "repeats of no item": (lambda w: w.tiny.with_repeats([100], 2), "its 30 items are selected"),
    "repeats in words": (lambda w: w.tiny.with_repeats("a", 2), "not by 'a'"),
    "repeats by a short mask": (lambda w: w.data.with_repeats(torch.ones(3, dtype=torch.bool), 2), "or a mask"),
    "repeated no times": (lambda w: w.tiny.with_repeats([1], 0), "times must be a whole number of at least 1, not 0"),
    "repeated half a time": (lambda w: w.tiny.with_repeats([1], 1.5), "not 1.5"),
    "a target too long to print": (lambda w: w.tiny.only("x" * 5000), "xxx..."),
    "a target in a list": (lambda w: w.tiny.only(["top"]), "Did you mean 'top'"),
    "words of plain classes": (lambda w: w.tiny.relabelled(0), "not a style and an object"),
    "a third word": (lambda w: w.tiny.relabelled(5), "position must be a whole number from 0 to 1"),
    "a shape below 0": (lambda w: render([-1]), "from 0 to 35"),
    "a shape too many": (lambda w: render(np.array([36])), "not array([36])"),
    "half a shape": (lambda w: render(np.array([0.5])), "not array([0.5])"),
    "shapes in a square": (lambda w: render(np.zeros((2, 2), int)), "list of whole numbers"),
    "a seed in words": (lambda w: render([0], "x"), "seed must be a whole number"),
    "a seed below 0": (lambda w: render([0], -1), "not -1"),
    "a caption of one word": (lambda w: caption("star", "a {style} {object}"), "not 'star'"),
    "a caption of nothing": (lambda w: caption(None, "a {style} {object}"), "not None"),
    "a misspelt style": (lambda w: find_target("hached", CLASS_NAMES), "Did you mean 'hatched'"),
    "an empty target": (lambda w: find_target("", CLASS_NAMES), "no style, object or class ''"),
    "a blank prompt": (lambda w: find_target("   ", CLASS_NAMES), "names nothing to forget"),
    "a prompt of two things": (lambda w: find_target("a star and a heart", CLASS_NAMES), "more than one thing"),
    "canvas at size 0": (lambda w: load_unlearn_canvas(w.canvas, image_size=0), "image_size must be"),
    "canvas at size 2.5": (lambda w: load_unlearn_canvas(w.canvas, image_size=2.5), "not 2.5"),
    "canvas: styles in one word": (lambda w: load_unlearn_canvas(w.canvas, styles="Crayon"), "styles must be a list"),
    "canvas: a style outside": (
        lambda w: load_unlearn_canvas(w.canvas, styles=["../canvas"]), "no style in this folder '../canvas'",
    ),
    "canvas: no styles": (lambda w: load_unlearn_canvas(w.canvas, styles=[]), "styles names none"),
    "canvas: counts in words": (lambda w: load_unlearn_canvas(w.canvas, per_combination="5"), "per_combination must be"),
    "canvas: a file": (lambda w: load_unlearn_canvas(w.folder / "file"), "There is no folder"),
}
SAMPLING = {
    "no checkpoint": (lambda w: load_pipeline(None), "no checkpoint None"),
    "a checkpoint by number": (lambda w: load_pipeline(5), "no checkpoint 5"),
    "a list of checkpoints": (lambda w: load_pipeline(["digits"]), "no checkpoint ['digits']"),
    "an empty name": (lambda w: load_pipeline(""), "no checkpoint ''"),
    "a name too long": (lambda w: load_pipeline("x" * 5000), "give a folder, or one of"),
    "a name with a null": (lambda w: load_pipeline("a\0b"), "no checkpoint 'a"),
    "a name that climbs out": (lambda w: load_pipeline("../checkpoints/nothing"), "no checkpoint"),
    "a judge as a pipeline": (lambda w: load_pipeline("digits-judge"), "not a diffusers pipeline"),
    "a pipeline as a judge": (lambda w: load_judge("digits"), "cannot be loaded"),
    "no judge": (lambda w: load_judge(None), "no checkpoint None"),
    "one label, not a list": (lambda w: w.pipe("top"), "list of classes, such as [0, 0, 1], not 'top'"),
    "no labels": (lambda w: w.pipe([]), "not []"),
    "labels None": (lambda w: w.pipe(None), "not None"),
    "a label of a half": (lambda w: w.pipe([0.5]), "no class 0.5"),
    "guidance nan": (lambda w: w.pipe([0], guidance_scale=NAN), "guidance_scale must be a finite number, not nan"),
    "guidance infinite": (lambda w: w.pipe([0], guidance_scale=INF), "not inf"),
    "guidance in words": (lambda w: w.pipe([0], guidance_scale="3"), "not '3'"),
    "0 sampling steps": (lambda w: w.pipe([0], num_inference_steps=0), "whole number from 1 to 1000, not 0"),
    "1001 sampling steps": (lambda w: w.pipe([0], num_inference_steps=1001), "not 1001"),
    "sampling steps in words": (lambda w: w.pipe([0], num_inference_steps="4"), "not '4'"),
    "no sampling steps": (lambda w: w.pipe([0], num_inference_steps=None), "not None"),
    "latents of nan": (lambda w: w.pipe([0], latents=torch.full((1, 4, 4, 4), NAN)), "be finite"),
    "latents in a list": (lambda w: w.pipe([0], latents=[1]), "latents must have shape (1, 4, 4, 4)"),
    "a generator by its seed": (lambda w: w.pipe([0], generator=0), "generator must be a torch.Generator, not 0"),
    "samples of nothing": (lambda w: draw_samples(w.pipe, []), "at least one class"),
    "samples of one word": (lambda w: draw_samples(w.pipe, "top"), "list of classes or prompts, not 'top'"),
    "samples in batches of 0": (lambda w: draw_samples(w.pipe, [0], batch_size=0), "batch_size must be"),
    "samples of a seed in words": (lambda w: draw_samples(w.pipe, [0], seed="x"), "seed must be"),
    "samples of a name": (lambda w: draw_samples("digits", [0]), "pipe must be a pipeline, such as load_pipeline"),
    "samples of no pipeline": (lambda w: draw_samples(None, [0]), "not None"),
    "judge: bytes": (lambda w: w.judge.judge(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), "torch.uint8"),
    "judge: numpy": (lambda w: w.judge.judge(np.zeros((2, 1, 8, 8), np.float32)), "images must be a tensor"),
    "judge: pictures": (lambda w: w.judge.judge(["picture"]), "images must be a tensor"),
    "evaluate: a name": (lambda w: evaluate("digits"), "pipe must be a pipeline"),
    "evaluate: data by name": (lambda w: evaluate(w.pipe, data="digits", judge=w.judge), "data must be a data set"),
    "evaluate: one split": (lambda w: evaluate(w.pipe, data=w.tiny, judge=w.judge), "data must be a data set"),
    "evaluate: no samples": (lambda w: evaluate(w.pipe, per_class=0, judge=w.judge), "per_class must be"),
    "evaluate: half a sample": (lambda w: evaluate(w.pipe, per_class=2.5, judge=w.judge), "not 2.5"),
    "evaluate: a judge by name": (lambda w: evaluate(w.pipe, judge="digits-judge"), "load_judge('digits-judge'), not"),
    "evaluate: a judge of other classes": (lambda w: evaluate(w.pipe, judge=MOVED), "('top', 'left', 'checks'), not ('left'"),
    "share by a judge of other classes": (lambda w: unconditional_share(w.pipe, "top", judge=MOVED), "pass one of these"),
    "probes by a judge of other classes": (lambda w: probe_prompts(w.pipe, "top", judge=MOVED), "pass one of these"),
    "search by a judge of other classes": (lambda w: search_embedding(w.pipe, w.tiny, target="top", judge=MOVED), "one of these"),
    "probes by a judge by name": (lambda w: probe_prompts(w.pipe, "top", judge="digits-judge"), "judge must be a judge"),
    "evaluate: other classes": (
        lambda w: evaluate(w.pipe, data=load_dataset("digits"), judge=w.judge), "other classes than the judge",
    ),
    "evaluate: another target": (lambda w: evaluate(w.pipe, target="cat", judge=w.judge), "no class 'cat'"),
    "sweep: one scale": (lambda w: guidance_sweep(w.pipe, "top", scales=3.0, judge=w.judge), "scales must be a list"),
    "share of no samples": (lambda w: unconditional_share(w.pipe, "top", count=0, judge=w.judge), "count must be"),
    "nearest: nan": (lambda w: nearest_images(torch.full((2, 1, 8, 8), NAN), w.tiny), "finite"),
    "nearest: other channels": (lambda w: nearest_images(torch.zeros(2, 3, 8, 8), w.tiny), "as many features"),
    "nearest: a name": (lambda w: nearest_images(torch.zeros(2, 1, 8, 8), "digits"), "reference must be"),
    "tiles in 0 columns": (lambda w: tile(torch.zeros(2, 1, 8, 8), 0), "columns must be"),
    "a picture of many": (lambda w: save_picture(torch.zeros(2, 1, 8, 8), w.out / "x.png"), "not (2, 1, 8, 8)"),
    "a picture of nan": (lambda w: save_picture(torch.full((1, 8, 8), NAN), w.out / "x.png"), "finite numbers"),
    "prompts for classes": (lambda w: probe_prompts(w.pipe, "top", judge=w.judge), "asked by class labels"),
    "embeddings of classes": (lambda w: search_embedding(w.pipe, w.tiny, target="top", judge=w.judge), "asked by class labels"),
}


def unlearning(**changes):
    good = {"method": "finetune", "target": "top", "steps": 1, "batch_size": 2, "progress": False}
    others = {key: value for key, value in changes.items() if key != "pipe"}
    return lambda w: unlearn(changes.get("pipe", w.pipe), **({"data": w.data} | good | others), out=w.out)


def relearning(**changes):
    good = {"target": "top", "steps": 1, "batch_size": 2, "samples": 1, "progress": False}
    others = {k: v for k, v in changes.items() if k not in ("pipe", "auxiliary")}
    return lambda w: relearn(
        changes.get("pipe", w.pipe), changes.get("auxiliary", w.tiny.without("top")),
        **{"judge": w.judge, **good, **others}, out=w.out,
    )


def training(preset=PRESET, **changes):
    return lambda w: train_base(preset, **{"data": w.tiny, "progress": False, "out": w.out, **changes})


LEARNING = {
    **{f"unlearn: {name} {value!r}": (unlearning(**{name: value}), said) for name, value, said in (
        ("target", None, "no class None"), ("target", 1.0, "no class 1.0"), ("steps", 0, "steps must be"),
        ("steps", 1.5, "not 1.5"),
        ("steps", "2", "not '2'"), ("steps", True, "not True"), ("learning_rate", -1, "finite number above 0, not -1"),
        ("learning_rate", NAN, "not nan"), ("learning_rate", INF, "not inf"), ("learning_rate", "x", "not 'x'"),
        ("batch_size", 0, "batch_size must be"), ("batch_size", 2.5, "not 2.5"), ("seed", "x", "seed must be"),
        ("seed", -1, "not -1"),
        ("seed", 10**30, "seed must be"), ("until", 2, "until must be a finite number of at least 0 and at most 1"),
        ("until", NAN, "not nan"), ("precision", "fp8", "not 'fp8'"), ("lora_rank", -1, "lora_rank must be"),
        ("evaluate_every", -1, "evaluate_every must be"), ("data", "digits", "data must be a data set"),
        ("method", None, "method must be the name"), ("method", ["dimum"], "method must be the name"),
        ("method", "DIMUM", "no method 'DIMUM'"), ("method", "uce", "asked by labels"),
        ("pipe", "digits", "pipe must be a pipeline"),
        ("pipe", None, "not None"),
    )},
    **{f"unlearn: {method} {settings}": (unlearning(method=method, **settings), said) for method, settings, said in (
        ("dimum", {"weight": "x"}, "weight of dimum must be"), ("dimum", {"weight": NAN}, "not nan"),
        ("dimum", {"weight": None}, "not None"), ("dimum", {"count": 0}, "count of dimum must be"),
        ("dimum", {"count": -1}, "count of dimum must"),
        ("dimum", {"count": 2.5}, "not 2.5"), ("dimum", {"alternative": 5}, "alternative of dimum must be a word"),
        ("dimum", {"needs": "x"}, "hyper-parameters weight, alternative, count"), ("sealed", {"rounds": -1}, "rounds of sealed"),
        ("concept-ablation", {"anchor": "top"}, "what is to be forgotten"),
        ("concept-ablation", {"anchor": "cat"}, "no class 'cat'"),
    )},
    "unlearn: other classes": (
        lambda w: unlearn(w.pipe, target="top", data=load_dataset("digits")), "other classes than the pipeline",
    ),
    "unlearn: a folder by number": (
        lambda w: unlearn(w.pipe, "finetune", target="top", data=w.data, out=5), "out must be a folder",
    ),
    **{f"relearn: {name} {value!r}": (relearning(**{name: value}), said) for name, value, said in (
        ("target", "cat", "no class 'cat'"), ("steps", -1, "steps must be"), ("steps", None, "not None"),
        ("learning_rate", 0, "learning_rate must be"), ("batch_size", "x", "batch_size must be"), ("samples", 0, "samples must be"),
        ("samples", 2.5, "not 2.5"), ("evaluate_every", "x", "evaluate_every must be"),
        ("optimizer", "adam", "Did you mean 'adamw'"),
        ("guidance_scale", "x", "guidance_scale must be"), ("num_inference_steps", 0, "num_inference_steps must be"),
        ("label_dropout", 2, "at most 1, not 2"), ("auxiliary", "retain", "auxiliary must be an image set"),
        ("auxiliary", [], "not []"),
        ("forget", "x", "forget must be an image set"), ("judge", "digits-judge", "judge must be a judge"),
        ("pipe", "digits", "pipe must be a pipeline"), ("lora_rank", "x", "lora_rank must be"),
    )},
    "unlearn: low-rank updates of labels": (unlearning(lora_rank=2), "no low-rank updates for a UNet2DModel"),
    "unlearn: a judge of other classes": (unlearning(until=0.9, judge=MOVED), "pass one of these"),
    "relearn: low-rank updates of labels": (relearning(lora_rank=2), "no low-rank updates for a UNet2DModel"),
    "relearn: a judge of other classes": (relearning(judge=MOVED), "pass one of these"),
    "relearn: other classes": (lambda w: relearn(w.pipe, load_dataset("digits"), target="top"), "other classes than the pipeline"),
    **{f"auxiliary: {kind} {others}": (
        lambda w, kind=kind, others=others: auxiliary_set(kind, **{"data": w.data, "target": "top", **others}), said
    ) for kind, others, said in (
        (None, {}, "no auxiliary set None"), ("retain", {"share": NAN}, "share must be"), ("retain", {"share": "x"}, "not 'x'"),
        ("noise", {"count": 0}, "count must be"), ("noise", {"count": "x"}, "not 'x'"),
        ("synthetic", {"pipe": "x"}, "pipe must be"),
        ("retain", {"data": "digits"}, "data must be"), ("retain", {"target": "cat"}, "no class 'cat'"),
    )},
    "few shots: none": (lambda w: few_shot(w.pipe, w.data, "top", 0), "count must be"),
    "few shots in words": (lambda w: few_shot(w.pipe, w.data, "top", "x"), "not 'x'"),
    "weights: noise of nan": (lambda w: add_weight_noise(w.pipe, NAN), "level must be"),
    "weights: noise below 0": (lambda w: add_weight_noise(w.pipe, -1.0), "of at least 0, not -1.0"),
    "weights: pruned by nan": (lambda w: prune(w.pipe, NAN), "share must be"),
    "weights: pruned by words": (lambda w: prune(w.pipe, "x"), "not 'x'"),
    "weights: rows of another class": (lambda w: swap_embedding(w.pipe, w.pipe, "cat"), "no class 'cat'"),
    "weights: rows of another network": (
        lambda w: swap_embedding(w.pipe, load_pipeline("digits"), "top"), "another table of labels",
    ),
    **{f"train: {name} {value!r}": (training(**{name: value}), said) for name, value, said in (
        ("preset", None, "no preset None"), ("preset", 5, "no preset 5"), ("without", "cat", "no class 'cat'"),
        ("dtype", "float8", "dtype must be float32 or float16, not 'float8'"), ("steps", 1.5, "not 1.5"),
        ("seed", None, "not None"),
        ("learning_rate", NAN, "not nan"), ("stepz", 3, "Did you mean 'steps'"), ("grad_clip", NAN, "grad_clip must be"),
        ("warmup_steps", -1, "warmup_steps must be"), ("ema_decay", NAN, "ema_decay must be"), ("data", "digits", "data must be"),
        ("out", "a\0b", "could not be written"), ("out", 5, "out must be a folder"),
    )},
    "train: images of another size": (lambda w: train_base(PRESET, data=w.tiny.resized(4)), "take resized(8)"),
}


def wrong_features(call):
    return [(f"{call.__name__}: {name}", lambda w, bad=bad: call(w.features, bad), said) for name, bad, said in (
        ("nothing", None, "Features must be N x D"), ("words", "x", "Features must be real numbers"), ("empty", [], "N x D"),
        ("one item", [1.0, 2.0, 3.0], "N x D"), ("nan", np.full((8, 3), NAN), "finite"),
        ("other width", np.zeros((8, 4)), "as many features"),
        ("ragged", [[1.0], [1.0, 2.0]], "Features must be real numbers"),
        ("a gradient", torch.zeros(8, 3, requires_grad=True), "gradients"),
        ("complex", np.zeros((8, 3)) + 1j, "Features must be"),
    )]


METRICS = {
    **{name: case for metric in (metrics.frechet_distance, metrics.kernel_distance) for name, *case in wrong_features(metric)},
    **{f"{call.__name__}: {given!r}": (lambda w, call=call, given=given: call(*given), said) for call, given, said in (
        (metrics.wilson_interval, ("x", 5), "not 'x' of 5"), (metrics.wilson_interval, (1, None), "1 of None"),
        (metrics.wilson_interval, ([1], [2]), "not [1] of [2]"), (metrics.wilson_interval, (1, 5, "x"), "A confidence lies"),
        (metrics.wilson_interval, (1, 5, 95), "not 95"), (metrics.t_interval, ("ab",), "must be real numbers"),
        (metrics.t_interval, ([1, 2j],), "must be real numbers"), (metrics.t_interval, ([[1, 2]],), "two finite values"),
        (metrics.accuracy, ([[1], [1, 2]], [1, 2]), "lists of integers"), (metrics.accuracy, (None, None), "must be as many"),
        (metrics.accuracy, (torch.ones(1, requires_grad=True), [1]), "without gradients"),
        (metrics.confusion_matrix, ([0], [0], None), "class_names must be"), (metrics.auroc, (["a"], [1]), "Scores must be"),
        (metrics.expected_calibration_error, ("x", [0]), "Probabilities must be"),
        (metrics.expected_calibration_error, ([[0.5, 0.5]], [0], "x"), "bins must be"),
        (metrics.auroc, (None, [1]), "finite scores"),
        (metrics.area_under_recovery, ("x", "y"), "must be real numbers"),
        (metrics.area_under_recovery, ([0, 1], [0, NAN]), "[0, 1]"),
        (metrics.steps_to_recovery, ([0, 1], [0, 1], NAN), "level must be"),
        (metrics.steps_to_recovery, ([0, 1], [0, 1], 2), "not 2"),
        (metrics.recovery_ratio, (NAN, 0, 1), "unlearned must be"), (metrics.recovery_ratio, ("x", 0, 1), "not 'x'"),
        (metrics.paired_difference, ("ab", "cd"), "must be real numbers"),
        (metrics.holm, (["a"],), "p-values must be"), (metrics.average_ranks, (None,), "table must be"),
        (metrics.average_ranks, ([[1, 2]],), "table must be"), (metrics.average_ranks, (pd.DataFrame(),), "gaps, or no rows"),
        (metrics.pairwise_comparisons, (pd.DataFrame({"a": ["x"], "b": ["y"]}),), "compared by numbers"),
        (metrics.power, (NAN, 1, 5), "difference must be"), (metrics.pairs_needed, (NAN, 1), "difference must be"),
        (metrics.least_difference, (1, 5, 2), "not 2"), (metrics.least_difference, (1, 5, 0.05), "must be above 0.05"),
        (metrics.least_difference, (0.1, 2, 0.8, 0.999), "2 pairs find not even a difference of 100 deviations"),
        (metrics.pairs_needed, (1, 1, NAN), "not nan"), (metrics.least_difference, (NAN, 5), "deviation must be"),
    )},
    "neighbours: 0": (lambda w: metrics.nearest_neighbours(w.features, w.features, 0), "no 0 neighbours"),
    "neighbours: 9 of 8": (lambda w: metrics.nearest_neighbours(w.features, w.features, 9), "no 9 neighbours among 8"),
    "neighbours: a half": (lambda w: metrics.nearest_neighbours(w.features, w.features, 1.5), "k must be"),
    "neighbourhoods in words": (lambda w: metrics.precision_recall(reference=w.features, samples=w.features, k="x"), "k must be"),
    "a floor in words": (lambda w: metrics.frechet_noise_floor(w.features, "x"), "n must be"),
    "a fidelity of nothing known": (lambda w: metrics.fidelity(w.features, w.features, None), "provenance must be"),
    "a defence that is no column": (
        lambda w: metrics.best_attacks(w.runs, ["m"], ["rate"], "v"), "lacks the columns m; it has rate, seed",
    ),
    "no table of runs": (lambda w: metrics.best_attacks([], ["rate"], ["v"], "v"), "table must be"),
}
RESULTS = {
    "results: none": (lambda w: read_results(None), "source must be"),
    "results: not there": (lambda w: read_results(w.folder / "nowhere"), "no finished cells"),
    "results: rows of nothing": (lambda w: report(None), "rows must be a table"),
    "results: no rows": (lambda w: report(w.rows.head(0)), "has no rows"),
    "results: a page of no rows": (lambda w: write_report(w.rows.head(0), w.out, "title"), "has no rows"),
    "results: another suffix": (lambda w: write_results(w.rows, w.out / "x.txt"), "ends in .parquet or .csv"),
    **{f"results: without {name}": (lambda w, name=name: report(w.rows.drop(columns=name)),
    f"lacks the columns {name}") for name in (
        "label", "target", "seed", "step", "attack_rate", "target accuracy", "retained accuracy", "unlearning_steps")},
    **{f"results: words for {name}": (lambda w, name=name: report(w.rows.assign(**{name: "x"})), f"column {name}") for name in (
        "step", "seed", "attack_rate", "target accuracy", "retained accuracy", "unlearning_steps")},
    "results: an accuracy of 2": (lambda w: report(w.rows.assign(**{"target accuracy": 2.0})), "accuracies in [0, 1]"),
    "results: accuracies of nan": (lambda w: report(w.rows.assign(**{"target accuracy": NAN})), "accuracies in [0, 1]"),
}
COURSE = {
    "check: no such exercise": (lambda w: check("99.9", 1), "no exercise '99.9'"),
    "check: a number for a number": (lambda w: check(1.2, 1), "no exercise 1.2"),
    "check: no exercise": (lambda w: check(["01.1"], 1), "no exercise ['01.1']"),
    "check: no student": (lambda w: check("01.1", 1, None), "student must be a name"),
    "hint: nothing": (lambda w: hint(None), "no exercise None"),
    "given: a student by number": (lambda w: numbers_of("01.1", 5), "student must be a name"),
    "frames: a step too many": (lambda w: frames().frame(step=99), "no frame of Steps (99,)"),
    "frames: a misspelt choice": (lambda w: frames().frame(stepp=1), "Did you mean 'step'"),
    "frames: results outside": (lambda w: widgets.recovery_explorer("../../nothing.parquet"), "There is no file"),
    "grade: no folder": (lambda w: grade.grade(w.folder / "no", w.out), "There is no folder"),
    "grade: a file": (lambda w: grade.grade(w.folder / "file", w.out), "There is no folder"),
    **{f"grade: {name} {value!r}": (lambda w, name=name, value=value: grade.grade(w.canvas, w.out, **{name: value}),
    f"{name} must be")
       for name, value in (("seconds", 0), ("seconds", NAN), ("seconds", "x"), ("memory", -1), ("memory", INF))},
}
CASES = {**DATA, **SAMPLING, **LEARNING, **METRICS, **RESULTS, **COURSE}


def frames():
    return widgets.Frames("Steps", {"step": (0, 1)}, {(0,): b"", (1,): b""}, {(0,): "", (1,): ""})


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_is_refused_in_one_sentence(w, case):
    call, part = CASES[case]
    assert part in refusal(lambda: call(w))
    assert not w.out.exists() or not list(w.out.iterdir())


def test_frames_without_a_picture_for_each_choice_are_refused():
    for choices, pictures in (({}, {}), ({"a": (1,)}, {(2,): b""}), ({"a": ()}, {})):
        with pytest.raises(ValueError, match="pictures and texts"):
            widgets.Frames("t", choices, pictures, dict.fromkeys(pictures, ""))


# Files that are damaged, or are something else ------------------------------------------------------------------------------

BROKEN_RESULTS = {
    "x.parquet": (b"", b"PAR1xxxxPAR1", b"hello"),
    "x.csv": (b"", b"\xff\xfe\x00", b'a,"b\n1', b"a,b\n1,2\n"),
    "cells/ab/result.json": (b"{", b"null", b"5", b"\xff", b'{"curve": []}', b'{"curve": [], "config": {}}',
                             b'{"curve": 5, "config": {"model": "ab"}}'),
}


@pytest.mark.parametrize(("name", "content"), [(name, content) for name, all_ in BROKEN_RESULTS.items() for content in all_])
def test_files_that_hold_no_results_are_named(tmp_path, name, content):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    said = refusal(lambda: report(read_results(tmp_path if "cells" in name else path)))
    assert path.name in said or "lack" in said


@pytest.mark.parametrize("content", [
    "", "- 1", "points: 5", "points: [1]", 'points: {"01.1": x}', 'points: {"01.1": true}', 'points: {"01.1": .nan}',
    "others: .inf",
    "others: null", "variants: x", "pointz: {}", "a: [", "a: \x07",
])
def test_points_that_are_none_are_refused(tmp_path, content):
    path = tmp_path / "points.yaml"
    path.write_text(content)
    assert "points" in refusal(lambda: grade.read_points(path))


@pytest.mark.parametrize("content", [b"PK nothing", b"", b"\x80\x04K\x01."])
def test_damaged_frames_say_how_to_make_them_again(tmp_path, monkeypatch, content):
    monkeypatch.setattr(widgets, "FRAMES_FOLDER", tmp_path)
    (tmp_path / "denoising.npz").write_bytes(content)
    assert "is damaged" in refusal(widgets.denoising_scrubber)
    np.savez(tmp_path / "denoising.npz", names=["a"])
    assert "make it again, python tools/make/frames.py denoising" in refusal(widgets.denoising_scrubber)


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A small checkpoint of each kind to damage, and where its files lie."""
    folder = tmp_path_factory.mktemp("copies")
    tiny = new_model(PRESET, from_uint8("tiny", np.zeros((1, 1, 8, 8), np.uint8), [0], ("a", "b")), 0)[1]
    tiny.save_pretrained(folder / "pipeline")
    shutil.copytree(CHECKPOINT_FOLDER / "digits-judge", folder / "judge")
    return folder


@pytest.mark.parametrize(("name", "content", "part"), [
    ("pipeline/model_index.json", b"", "cannot be loaded"), ("pipeline/model_index.json", b"[]", "cannot be loaded"),
    ("pipeline/model_index.json", b"{}", "cannot be loaded"),
    ("pipeline/model_index.json", b'{"_class_name": "os"}', "cannot be loaded"),
    ("pipeline/model_index.json", b'{"_class_name": "UNet2DModel"}', "cannot be loaded"),
    ("pipeline/model_index.json", b'{"_class_name": ["x"]}', "cannot be loaded"),
    ("pipeline/unet/config.json", b"\xff", "cannot be"),
    ("pipeline/unet/config.json", b"null", "cannot be"), ("pipeline/scheduler/scheduler_config.json", b"{", "cannot be"),
    ("judge/config.json", b"{}", "cannot be"), ("judge/config.json", b"5", "cannot be"),
    ("judge/diffusion_pytorch_model.safetensors", b"", "cannot be"),
    ("judge/diffusion_pytorch_model.safetensors", b"x" * 100, "cannot be"),
])
def test_checkpoints_with_one_spoilt_file_are_refused(copies, name, content, part):
    path = copies / name
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        said = refusal(lambda: (load_pipeline if name.startswith("pipeline") else load_judge)(copies / name.split("/")[0]))
    finally:
        path.write_bytes(whole)
    assert part in said and str(copies) in said


def test_a_judge_that_is_not_finite_is_refused(copies, w):
    w.judge.head.weight.data[0, 0] = NAN
    try:
        assert "not finite" in refusal(lambda: check_finite(w.judge, copies))
    finally:
        w.judge.head.weight.data[0, 0] = 0.0


@QUICK
@given(st.data())
def test_weights_with_a_flipped_or_missing_byte_are_refused_or_have_the_same_shapes(copies, data):
    """Nothing but the header can be told to be damaged; a weight with another value is a weight."""
    path = copies / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    if data.draw(st.booleans()):
        spoilt = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        at = data.draw(st.integers(0, header - 1))
        spoilt = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1:]
    path.write_bytes(spoilt)
    try:
        pipe, said = outcome(lambda: load_pipeline(copies / "pipeline"))
    finally:
        path.write_bytes(whole)
    if pipe is None:
        assert str(copies) in said
    else:
        assert {k: v.shape for k, v in pipe.unet.state_dict().items()} == {k: v.shape for k, v in load_file(path).items()}


@QUICK
@given(st.data())
def test_a_table_with_a_flipped_or_missing_byte_is_refused_or_is_a_table(w, data):
    path = w.folder / "flipped.parquet"
    w.rows.head(3)[["seed", "label", "target accuracy"]].to_parquet(path)
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:at] + (b"" if data.draw(st.booleans()) else bytes([whole[at] ^ 0x55]) + whole[at + 1:]))
    rows, said = outcome(lambda: read_results(path))
    assert isinstance(rows, pd.DataFrame) or "flipped.parquet cannot be read" in said


@QUICK
@given(content=st.binary(max_size=200))
def test_a_state_of_random_bytes_is_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "training.safetensors"
    path.write_bytes(content)
    assert "is damaged" in refusal(lambda: read_state(path))


# Generated tensors and plans -----------------------------------------------------------------------------------------------

DTYPES = (torch.float16, torch.float32, torch.float64, torch.uint8, torch.int64, torch.bool, torch.complex64)


@QUICK
@given(
    shape=st.lists(st.integers(0, 3), max_size=5), dtype=st.sampled_from(DTYPES), value=st.sampled_from((0, 1, -1, 2, NAN, INF)),
    labels=st.lists(st.integers(-2, 4), max_size=4), label_type=st.sampled_from((torch.int64, torch.int32, torch.float32)),
)
def test_tensors_make_an_image_set_or_one_sentence(shape, dtype, value, labels, label_type):
    whole = not dtype.is_floating_point and not dtype.is_complex and not math.isfinite(value)
    images = torch.full(shape, 0 if whole or (dtype == torch.uint8 and value < 0) else value, dtype=dtype)
    labels = torch.tensor(labels, dtype=label_type)
    right = (
        dtype == torch.float32 and len(shape) == 4 and min(shape[1:]) > 0 and label_type == torch.int64 and len(labels) == shape[0]
        and (not shape[0] or (abs(value) <= 1 and int(labels.min()) >= 0 and int(labels.max()) < 3))
    )
    hashes = np.zeros(len(images) if images.ndim else 0, "V8")
    if right:
        assert len(ImageSet("mine", images, labels, ("a", "b", "c"), hashes)) == shape[0]
    else:
        assert refusal(lambda: ImageSet("mine", images, labels, ("a", "b", "c"), hashes)).startswith("mine: ")


@QUICK
@given(
    shape=st.lists(st.integers(0, 9), max_size=5), dtype=st.sampled_from(DTYPES), value=st.sampled_from((0, 0.5, NAN, INF)),
)
def test_tensors_are_judged_or_refused(w, shape, dtype, value):
    whole = not dtype.is_floating_point and not dtype.is_complex
    images = torch.full(shape, 0 if whole else value, dtype=dtype)
    right = len(shape) == 4 and shape[1:] == [1, 8, 8] and shape[0] > 0 and dtype.is_floating_point and math.isfinite(value)
    if right:
        assert len(w.judge.judge(images).labels) == shape[0]
    else:
        assert "judge" in refusal(lambda: w.judge.judge(images))


PLAN = {
    "checkpoint": "tiny", "data": "digits", "targets": ["3"], "methods": ["finetune", {"method": "dimum", "count": 4}],
    "budgets": [2],
    "seeds": [0, 1], "controls": ["original"], "attack_rates": [1e-4], "attack_steps": 4, "optimizers": ["adamw"], "samples": 2,
    "auxiliaries": ["retain", "retain 10 %"], "batch_size": 8, "learning_rate": 1e-4, "check_every": 1, "points": 3,
}
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from((10**30, NAN, INF, -1.5, "", "x", "../../x", "retain 0 %",
    "3")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("method", "steps", "label", "checkpoint", 5)),
    inner, max_size=2),
    max_leaves=4,
)


@pytest.fixture
def quick_plans(monkeypatch):
    """Plans are checked against one model and one data set, loaded once."""
    pipe = new_model(PRESET, load_dataset("digits").train, 0)[1]

    def find(name):
        if name == "tiny":
            return pipe
        return load_pipeline(f"nothing/{name}")

    monkeypatch.setattr(plans, "load_pipeline", find)


@settings(QUICK, max_examples=150)
@given(key=st.sampled_from([*PLAN, "name", "plugins"]), how=st.sampled_from(("drop", "misspell", "replace", "nest")), junk=JUNK)
def test_a_plan_with_one_thing_spoilt_is_refused_or_can_be_listed(quick_plans, key, how, junk):
    content = dict(PLAN)
    if how in ("drop", "misspell"):
        content.pop(key, None)
    if how == "misspell":
        content[key + "x"] = PLAN.get(key, junk)
    if how == "replace":
        content[key] = junk
    if how == "nest":
        content[key] = [junk] if not isinstance(PLAN.get(key), list) else [*PLAN[key], junk]
    plan, said = outcome(lambda: plans.check_plan(content))
    if plan is None:
        assert "\n" not in said and "the plan has" in said
        assert how != "misspell" or f"unknown setting '{key}x'" in said
    else:
        assert how in ("drop", "replace", "nest") and len(plan.seeds) >= 1 and isinstance(plan.name, str)


@pytest.mark.parametrize("content", [
    b"\xff\xfe\x00\x01", b"!!python/object/apply:os.getcwd []", b"", b"a: \x07", b"? [a]\n: 1", b"plugins: 5", b"plugins: null",
    b"plugins: [[x]]", b"plugins: ['../../x.py']", b"methods: null", b"methods: [{checkpoint: [1]}]", b"name: [1]",
])
def test_files_that_are_no_plan_are_refused(tmp_path, content):
    path = tmp_path / "plan.yaml"
    path.write_bytes(content)
    refusal(lambda: load_plan(path))


def test_no_file_is_no_plan(tmp_path):
    for wrong in (None, 5, "a\0b", tmp_path):
        refusal(lambda wrong=wrong: load_plan(wrong))
    for wrong in (None, [], "x"):
        assert "a plan must be a mapping" in refusal(lambda wrong=wrong: plans.check_plan(wrong))
    assert yaml.safe_load("a: 1") == {"a": 1}


# The command line ----------------------------------------------------------------------------------------------------------

WRONG_COMMANDS = {
    "train digits --out {out} --steps -1": "steps must be", "train digits --out {out} --seed -1": "seed must be",
    "train digits --out {out} --threads -1": "--threads", "train digits --out {out} --samples-every -1": "--samples-every",
    "train digits --out {file} --steps 0": "could not be written", "train digits --out {file}/x --steps 0": "could not be written",
    "train digits-judge --out {out} --steps -1": "steps must be", "train digits-judg --out {out}": "Did you mean 'digits-judge'",
    "sample nothing --out {out}/x.png": "no checkpoint 'nothing'", "sample {file} --out {out}/x.png": "no checkpoint",
    "sample digits --label ten --out {out}/x.png": "no class 'ten'",
    "sample digits --prompt three --out {out}/x.png": "use --label",
    "sample digits --steps 1001 --out {out}/x.png": "from 1 to 1000",
    "sample digits --guidance-scale nan --out {out}/x.png": "not nan",
    "sample digits --seed -1 --out {out}/x.png": "seed must be", "sample digits --count -1 --out {out}/x.png": "at least 1",
    "evaluate digits --count 0": "at least 1", "evaluate digits --target ten --count 1": "no class 'ten'",
    "evaluate digits --data shapez --count 1": "no data set 'shapez'", "evaluate digits-judge": "not a diffusers pipeline",
    "evaluate digits --guidance-scale inf --count 1": "not inf",
    "unlearn digits --target 3 --out {out} --steps 0": "steps must be",
    "unlearn digits --target 3 --out {out} --until 2": "until must be",
    "unlearn digits --target 3 --out {out} --learning-rate nan": "learning_rate must be",
    "unlearn digits --target 3 --out {out} --set weight=heavy": "weight of dimum must be",
    "unlearn digits --target 3 --out {out} --set =1": "--set takes",
    "unlearn digits --target 3 --out {out} --set steps=1": "hyper-parameter",
    "unlearn digits --target 3 --out {out} --plugin {file}": "end in .py",
    "unlearn digits --target 3 --out {out} --plugin none.py": "no file",
    "unlearn digits --target 3 --out {out} --data cifar10-mini": "other classes",
    "relearn digits --target 3 --out {out} --share 0": "share must be", "relearn digits --target ten --out {out}": "no class 'ten'",
    "relearn digits --target 3 --out {out} --learning-rate -1": "learning_rate must be",
    "relearn digits --target 3 --out {out} --auxiliary synthetic --drawn-by nothing": "no checkpoint",
    "relearn digits --target 3 --out {out} --drawn-by digits": "add --auxiliary synthetic",
    "relearn digits --target 3 --out {file}": "not be written",
    "relearn digits --target 3 --out {out} --steps -1": "steps must be",
    "benchmark run {file} --out {out}": "should be a mapping", "benchmark run none.yaml --out {out}": "cannot be read",
    "benchmark run {file} --out {out} --workers 0": "at least 1", "benchmark report {out}": "no finished cells",
    "benchmark report none.parquet": "There is no file", "benchmark report {file}.csv": "There is no file",
    "grade {file} --out {out}": "There is no folder", "grade {folder} --out {out} --seconds 0": "seconds must be",
    "grade {folder} --out {out} --points {file}": "should be a mapping",
    "grade {folder} --out {out} --memory nan": "memory must be",
}


@pytest.mark.parametrize("command", WRONG_COMMANDS)
def test_a_wrong_command_says_one_line_and_leaves_nothing(w, command, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = command.format(out=out, file=w.folder / "file", folder=w.canvas).split()
    assert main(arguments) == 1
    said = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()
    assert len(said) == 1 and said[0].startswith("dimum: ") and WRONG_COMMANDS[command] in said[0], said
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("command", [
    "", "tran", "train", "train digits", "train digits --out x --steps many", "sample digits",
    "sample digits --out x.png --count 1.5",
    "relearn digits --target 3 --out x --auxiliary everything", "benchmark", "benchmark run", "unlearn digits --out x",
    "train digits --out x --nope",
])
def test_a_command_that_cannot_be_parsed_shows_its_usage(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "usage: dimum" in said and "error: " in said and "Traceback" not in said


def test_the_message_of_an_unknown_name_stays_short():
    assert len(str(UnknownName("class", "x" * 10**5, ("a", "b")))) < 200
    assert json.dumps(str(UnknownName("class", "a\nb", ("a",)))).count("\\n") == 1
