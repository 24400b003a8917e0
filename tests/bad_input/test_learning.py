"""Calls that train, unlearn and attack."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dimum_core import load_dataset, load_pipeline, relearn, train_base, unlearn
from dimum_core.attacks import (
    Means,
    add_weight_noise,
    attack,
    auxiliary_set,
    few_shot,
    get_attack,
    prune,
    reset_embedding,
    swap_embedding,
)
from dimum_core.evaluation import copying_rate, nearest_images
from dimum_core.models.history import with_unet
from dimum_core.unlearning import load_plugin
from tests.bad_input.refusing import INF, MOVED, NAN, PRESET, refused


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


def without_null(pipe):
    """A pipeline like it, whose network has a row for each class and no more."""
    names = pipe.class_names
    return with_unet(pipe, type(pipe.unet).from_config({**pipe.unet.config, "num_class_embeds": len(names)}).eval())


CASES = {
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
    "relearn: no step to look at": (relearning(evaluate_every=[]), "evaluate_every must list at least one step"),
    "unlearn: no step to look at": (unlearning(evaluate_every=range(0)), "evaluate_every must list at least one step"),
    "unlearn: scissorhands by low-rank updates": (unlearning(method="scissorhands", lora_rank=2), "no such weights train"),
    "relearn: the row by low-rank updates": (relearning(only_embedding_row=True, lora_rank=2), "give one of the two"),
    "relearn: images to forget of other channels": (
        lambda w: relearning(forget=replace(w.tiny, images=w.tiny.images.repeat(1, 3, 1, 1)))(w), "are RGB, and those of tiny",
    ),
    "relearn: no null condition": (
        lambda w: relearning(pipe=without_null(w.pipe), label_dropout=1.0)(w), "null condition alone, and this model has none",
    ),
    "relearn: the row of prompts": (
        lambda w: relearn(
            load_pipeline("shapes"), load_dataset("shapes").without("outline"), target="outline", only_embedding_row=True
        ), "trains a row of the label embedding, and this network has none",
    ),
    "unlearn: a judge of other classes": (unlearning(until=0.9, judge=MOVED), "pass one of these"),
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
    "few shots of a name": (lambda w: few_shot(w.pipe, "digits", "top", 2), "data must be a data set"),
    "few shots for a name": (lambda w: few_shot("digits", w.data, "top", 2), "pipe must be a pipeline"),
    "means of a name": (lambda w: Means("top", "digits", w.judge), "data must be a data set"),
    "means for single images": (lambda w: Means(w.tiny.select([0]), w.data, w.judge), "use relearn, which counts copies"),
    "means for another class": (lambda w: Means("cat", w.data, w.judge), "no class 'cat'"),
    "an attack on a name": (lambda w: attack("digits", get_attack("none"), Means("top", w.data, w.judge)), "pipe must be a pipe"),
    **{f"{name}: {key} {value!r}": (
        lambda w, name=name, key=key, value=value: attack(w.pipe, get_attack(name, **{key: value}), Means("top", w.data, w.judge)),
        f"{key} must be a whole number of at least 1, not {value!r}",
    ) for name, key, value in (("initial-noise", "count", 0), ("initial-noise", "samples", "x"), ("inversion", "count", -5))},
    "copies in an array": (lambda w: copying_rate(w.tiny.images.numpy(), w.tiny, w.tiny), "images must be a tensor"),
    "copies of a name": (lambda w: copying_rate(w.tiny.images, "digits", w.tiny), "of must be an image set"),
    "neighbours in an array": (lambda w: nearest_images(w.tiny.images.numpy(), w.tiny), "images must be a tensor"),
    "a plugin by number": (lambda w: load_plugin(5), "path must be a Python file, such as 'mine.py', not 5"),
    "weights: a name pruned": (lambda w: prune("digits", 0.1), "pipe must be a pipeline, such as load_pipeline('digits')"),
    "weights: noise on a name": (lambda w: add_weight_noise("digits", 0.1), "pipe must be a pipeline"),
    "weights: rows of a name": (lambda w: swap_embedding(w.pipe, "digits", "top"), "original must be a pipeline"),
    "weights: rows of a model of prompts": (lambda w: swap_embedding(w.pipe, load_pipeline("shapes"), "top"), "another table of"),
    "weights: the row of a name": (lambda w: reset_embedding("digits", "top"), "pipe must be a pipeline"),
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
    "train: images of another size": (lambda w: train_base(PRESET, data=w.tiny.resized(4)), "to a multiple of 8"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_is_refused_in_one_sentence(w, case):
    refused(w, *CASES[case])
