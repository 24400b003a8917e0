"""Files that are damaged, or are something else."""

from __future__ import annotations

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from dimum_core import load_pipeline, widgets
from dimum_core.benchmark import read_results, report
from dimum_core.course import grade
from dimum_core.data import from_uint8
from dimum_core.judges import load_judge
from dimum_core.models.checkpoints import CHECKPOINT_FOLDER, check_finite
from dimum_core.pretraining import new_model
from dimum_core.resuming import read_state
from tests.bad_input.refusing import NAN, PRESET, QUICK, outcome, refusal

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


WEIGHTS = "pipeline/unet/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(("spoilt", "part"), [
    (lambda weights: weights | {"conv_in.bias": torch.full_like(weights["conv_in.bias"], NAN)}, "not finite"),
    (lambda weights: weights | {"conv_in.weight": torch.zeros(7, 4, 3, 3)}, "of another shape"),
    (lambda weights: {name: value for name, value in weights.items() if name != "conv_in.bias"}, "lacks the weights"),
])
def test_weights_that_do_not_fit_are_refused(copies, spoilt, part):
    path = copies / WEIGHTS
    whole = path.read_bytes()
    save_file(spoilt(load_file(path)), path)
    try:
        assert part in refusal(lambda: load_pipeline(copies / "pipeline"))
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", [WEIGHTS, "pipeline/model_index.json", "judge/diffusion_pytorch_model.safetensors"])
def test_a_file_that_is_not_there_is_missed(copies, name):
    (copies / name).rename(copies / "elsewhere")
    try:
        said = refusal(lambda: (load_pipeline if name.startswith("pipeline") else load_judge)(copies / name.split("/")[0]))
    finally:
        (copies / "elsewhere").rename(copies / name)
    assert "cannot be loaded" in said or "not a diffusers pipeline" in said


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
    path = copies / WEIGHTS
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
