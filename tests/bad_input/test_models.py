"""Calls that load, draw and measure."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dimum_core import load_dataset, load_pipeline
from dimum_core.attacks import probe_prompts, search_embedding
from dimum_core.evaluation import draw_samples, evaluate, guidance_sweep, nearest_images, unconditional_share
from dimum_core.judges import load_judge
from dimum_core.pictures import save_picture, tile
from tests.bad_input.refusing import INF, MOVED, NAN, refused

CASES = {
    "no checkpoint": (lambda w: load_pipeline(None), "no checkpoint None"),
    "a checkpoint by number": (lambda w: load_pipeline(5), "no checkpoint 5"),
    "a list of checkpoints": (lambda w: load_pipeline(["digits"]), "no checkpoint ['digits']"),
    "an empty name": (lambda w: load_pipeline(""), "no checkpoint ''"),
    "a name too long": (lambda w: load_pipeline("x" * 5000), "give a folder, or one of"),
    "a name with a null": (lambda w: load_pipeline("a\0b"), "no checkpoint 'a"),
    "a name that climbs out": (lambda w: load_pipeline("../checkpoints/nothing"), "no checkpoint"),
    "a judge as a pipeline": (lambda w: load_pipeline("digits-judge"), "not a diffusers pipeline"),
    "a pipeline as a judge": (lambda w: load_judge("digits"), "holds a pipeline that draws, and should hold a judge"),
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
    "a generator by its seed": (
        lambda w: w.pipe([0], generator=0), "generator must be a torch.Generator, or a list of them, not 0",
    ),
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
    "nearest: other channels": (lambda w: nearest_images(torch.zeros(2, 3, 8, 8), w.tiny), "the same number of features"),
    "nearest: a name": (lambda w: nearest_images(torch.zeros(2, 1, 8, 8), "digits"), "reference must be"),
    "tiles in 0 columns": (lambda w: tile(torch.zeros(2, 1, 8, 8), 0), "columns must be"),
    "a picture of many": (lambda w: save_picture(torch.zeros(2, 1, 8, 8), w.out / "x.png"), "not (2, 1, 8, 8)"),
    "a picture of nan": (lambda w: save_picture(torch.full((1, 8, 8), NAN), w.out / "x.png"), "finite numbers"),
    "prompts for classes": (lambda w: probe_prompts(w.pipe, "top", judge=w.judge), "asked by class labels"),
    "embeddings of classes": (lambda w: search_embedding(w.pipe, w.tiny, target="top", judge=w.judge), "asked by class labels"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_is_refused_in_one_sentence(w, case):
    refused(w, *CASES[case])
