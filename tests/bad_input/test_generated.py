"""Tensors and plans, generated: they are right, or refused in one sentence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dimum_core import load_dataset, load_pipeline
from dimum_core.benchmark import load_plan
from dimum_core.benchmark import reading as plans
from dimum_core.data import ImageSet
from dimum_core.pretraining import new_model
from tests.bad_input.refusing import INF, NAN, PRESET, QUICK, outcome, refusal

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
