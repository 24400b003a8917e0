"""Nobody is let in: no pickle from outside is run, no path leads out of its folder, and no secret lands in what is written."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dimum_core import load_pipeline, widgets
from dimum_core.benchmark import load_plan, read_results, report
from dimum_core.benchmark.results import ResultsError
from dimum_core.course import grade
from dimum_core.data import cifar10, loaders
from dimum_core.errors import CheckpointError, DataError, DimumError
from dimum_core.judges import load_judge
from dimum_core.models.cards import command_line, provenance, render_card
from dimum_core.models.checkpoints import CHECKPOINT_FOLDER
from dimum_core.resuming import read_state


class RunsCode:
    """Unpickled, it leaves a folder behind."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.fixture
def trace(tmp_path):
    """Where a payload that was run would leave its mark; the payload itself works, or the test would prove nothing."""
    place = tmp_path / "trace"
    pickle.loads(pickle.dumps(RunsCode(place)))
    place.rmdir()
    yield place
    assert not place.exists(), "the payload was run"


def payloads(trace: Path) -> dict[str, bytes]:
    """The same code in each of the containers that weights and arrays come in."""
    torch_file, arrays, legacy = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"weight": RunsCode(trace)}, torch_file)
    torch.save({"weight": RunsCode(trace)}, legacy, _use_new_zipfile_serialization=False)
    np.savez(arrays, pixels=np.array([RunsCode(trace)], dtype=object))
    return {
        "pickle": pickle.dumps(RunsCode(trace)), "torch": torch_file.getvalue(), "old torch": legacy.getvalue(),
        "npz": arrays.getvalue(),
        "gzip": gzip.compress(pickle.dumps(RunsCode(trace))),
    }


KINDS = ("pickle", "torch", "old torch", "npz", "gzip")


NAMES = ("diffusion_pytorch_model.pt", "diffusion_pytorch_model.ckpt", "diffusion_pytorch_model.safetensors", "pytorch_model.bin")


@pytest.mark.parametrize(
    ("name", "kind"), [("diffusion_pytorch_model.bin", kind) for kind in KINDS] + [(name, "torch") for name in NAMES]
)
def test_weights_that_are_a_pickle_are_not_run(tmp_path, trace, name, kind):
    for folder, load in (("digits", load_pipeline), ("digits-judge", load_judge)):
        copy = tmp_path / folder
        shutil.copytree(CHECKPOINT_FOLDER / folder, copy)
        place = copy / "unet" if folder == "digits" else copy
        (place / "diffusion_pytorch_model.safetensors").unlink()
        (place / name).write_bytes(payloads(trace)[kind])
        with pytest.raises(CheckpointError, match="cannot be loaded|could run code when it is read"):
            load(copy)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pickle_beside_good_weights_is_not_looked_at(tmp_path, trace, kind):
    shutil.copytree(CHECKPOINT_FOLDER / "digits-judge", tmp_path / "judge")
    for name in ("pytorch_model.bin", "diffusion_pytorch_model.bin", "optimizer.pt"):
        (tmp_path / "judge" / name).write_bytes(payloads(trace)[kind])
    assert load_judge(tmp_path / "judge").class_names[0] == "0"


@pytest.mark.parametrize("index", [
    {"_class_name": "ClassConditionalPipeline", "unet": ["os", "system"], "scheduler": ["diffusers", "DDPMScheduler"]},
    {"_class_name": "ClassConditionalPipeline", "unet": ["evil", "Model"], "scheduler": ["diffusers", "DDPMScheduler"]},
    {"_class_name": "ClassConditionalPipeline", "unet": ["diffusers", "Evil"], "scheduler": ["diffusers", "DDPMScheduler"]},
    {"_class_name": ["pipeline", "Evil"]}, {"_class_name": "utils"}, {"_class_name": "../evil"},
])
def test_a_checkpoint_brings_no_code_of_its_own(tmp_path, trace, index):
    shutil.copytree(CHECKPOINT_FOLDER / "digits", tmp_path / "copy")
    code = f"import os\nos.mkdir({str(trace)!r})\n"
    for name in ("evil.py", "pipeline.py", "unet/evil.py", "unet/os.py", "unet/diffusers.py"):
        (tmp_path / "copy" / name).write_text(code)
    (tmp_path / "copy" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="asks for code of its own.*never run" if "unet" in index else "cannot be loaded"):
        load_pipeline(tmp_path / "copy")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["results.parquet", "results.csv", "cells/ab/result.json", "results.csv.gz"])
def test_results_that_are_a_pickle_are_not_run(tmp_path, trace, kind, name):
    path = tmp_path / "results" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(payloads(trace)[kind])
    with pytest.raises(ResultsError):
        report(read_results(tmp_path / "results" if "cells" in name else path))


def test_objects_in_a_parquet_file_stay_bytes(tmp_path, trace):
    pd.DataFrame({"cell": [pickle.dumps(RunsCode(trace))]}).to_parquet(tmp_path / "x.parquet")
    rows = read_results(tmp_path / "x.parquet")
    assert isinstance(rows["cell"][0], bytes)
    with pytest.raises(ResultsError, match="lack"):
        report(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_frames_and_states_that_are_a_pickle_are_not_run(tmp_path, trace, kind, monkeypatch):
    content = payloads(trace)[kind]
    for name in ("cifar10-mini/images.npz", "denoising.npz", "training.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    monkeypatch.setattr(loaders, "DATA_FOLDER", tmp_path)
    monkeypatch.setattr(widgets, "FRAMES_FOLDER", tmp_path)
    with pytest.raises(DataError, match="is damaged"):
        loaders._load_cifar10_mini.__wrapped__()
    with pytest.raises(DataError, match="is damaged"):
        widgets.denoising_scrubber()
    with pytest.raises(CheckpointError, match="is damaged"):
        read_state(tmp_path / "training.safetensors")


@pytest.mark.parametrize("name", ["batches.meta", "data_batch_1", "test_batch"])
def test_a_batch_of_cifar10_that_runs_code_is_refused(tmp_path, trace, name):
    (tmp_path / name).write_bytes(pickle.dumps({b"data": RunsCode(trace)}))
    with pytest.raises(DataError, match="asks for (posix|nt).mkdir"):
        cifar10.read_pickle(tmp_path / name)


@pytest.mark.parametrize("code", [
    b"cbuiltins\neval\n(S'__import__(\"os\").mkdir(\"TRACE\")'\ntR.", b"cos\nmkdir\n(S'TRACE'\ntR.", b"(S'TRACE'\nios\nmkdir\n.",
    b"cnumpy\nload\n(S'TRACE'\ntR.", b"cnumpy.core.multiarray\nfromfile\n(S'TRACE'\ntR.",
    b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x05TRACE\x85R.",
])
def test_opcodes_that_call_are_refused(tmp_path, trace, code):
    (tmp_path / "test_batch").write_bytes(code.replace(b"\x05TRACE", bytes([len(str(trace))]) + str(trace).encode())
                                          .replace(b"TRACE", str(trace).encode()))
    with pytest.raises(DataError, match="cannot be read"):
        cifar10.read_pickle(tmp_path / "test_batch")


# Paths -------------------------------------------------------------------------------------------------------------------


def archive(path: Path, members: dict[str, tarfile.TarInfo | bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = 0 if isinstance(content, tarfile.TarInfo) else len(content)
            tar.addfile(info, None if isinstance(content, tarfile.TarInfo) else io.BytesIO(content))
    return path


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("name", ["../escaped", "/tmp/dimum-escaped", f"{cifar10.FOLDER}/../../escaped",
f"{cifar10.FOLDER}/./../escaped"])
def test_members_of_an_archive_cannot_leave_its_folder(tmp_path, name):
    home = tmp_path / "cache"
    home.mkdir()
    names = (cifar10.META, *cifar10.BATCHES["train"], *cifar10.BATCHES["test"])
    good = {f"{cifar10.FOLDER}/{member}": b"x" for member in names}
    folder = cifar10.extract(archive(home / cifar10.ARCHIVE, {name: b"evil"} | good | {f"{name}-too": b"evil"}))
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert sorted(path.name for path in tmp_path.rglob("*escaped*")) == [] and not Path("/tmp/dimum-escaped").exists()


@pytest.mark.parametrize("target", ["../../secret", "/etc/hostname"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_members_that_are_links_bring_nothing_in(tmp_path, target, kind):
    (tmp_path / "secret").write_text("secret")
    home = tmp_path / "cache"
    home.mkdir()
    names = (cifar10.META, *cifar10.BATCHES["train"], *cifar10.BATCHES["test"])
    members = {f"{cifar10.FOLDER}/{name}": b"x" for name in names}
    first = f"{cifar10.FOLDER}/{cifar10.META}"
    with pytest.raises(DataError, match="is not the CIFAR-10 archive"):
        cifar10.extract(archive(home / cifar10.ARCHIVE, members | {first: link(first, target, kind)}))
    assert [path.name for path in home.iterdir()] == [cifar10.ARCHIVE]


def test_a_zip_in_place_of_the_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / cifar10.ARCHIVE, "w") as file:
        file.writestr("../escaped", "evil")
    with pytest.raises(DataError, match="is not the CIFAR-10 archive"):
        cifar10.extract(tmp_path / cifar10.ARCHIVE)
    assert [path.name for path in tmp_path.iterdir()] == [cifar10.ARCHIVE]


@pytest.mark.parametrize("path", ["../outside.py", "../../outside.py", "{outside}", "deep/../../outside.py"])
def test_a_plugin_of_a_plan_lies_beside_it(tmp_path, trace, path):
    """A plan is passed on: what it runs should be what came with it."""
    (tmp_path / "plans" / "deep").mkdir(parents=True)
    outside = tmp_path / "outside.py"
    outside.write_text(f"import os\nos.mkdir({str(trace)!r})\n")
    plan = tmp_path / "plans" / "plan.yaml"
    plan.write_text(f"checkpoint: digits\ndata: digits\ntargets: ['3']\nmethods: [finetune]\nbudgets: [2]\n"
                    f"plugins: ['{path.format(outside=outside)}']\n")
    with pytest.raises(DimumError, match="lies outside"):
        load_plan(plan)


def test_a_plugin_that_is_a_link_is_followed_before_it_is_judged(tmp_path, trace):
    (tmp_path / "outside.py").write_text(f"import os\nos.mkdir({str(trace)!r})\n")
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "inside.py").symlink_to(tmp_path / "outside.py")
    (tmp_path / "plans" / "plan.yaml").write_text("plugins: [inside.py]\n")
    with pytest.raises(DimumError, match="lies outside"):
        load_plan(tmp_path / "plans" / "plan.yaml")


@pytest.mark.parametrize("name", ["../mine-{target}", "/etc", "a/../../mine"])
def test_a_checkpoint_of_a_plan_lies_beside_it(tmp_path, name):
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "plan.yaml").write_text(f"methods: [{{checkpoint: '{name}', label: x}}]\n")
    with pytest.raises(DimumError, match="checkpoint .* lies outside the plan's folder"):
        load_plan(tmp_path / "plans" / "plan.yaml")


@pytest.mark.parametrize("yaml", [
    "name: !!python/object/apply:os.mkdir ['{trace}']", "!!python/object/new:os.mkdir ['{trace}']", "a: !!python/name:os.mkdir",
    "a: !!python/module:os",
])
def test_plans_and_points_run_nothing(tmp_path, trace, yaml):
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.format(trace=trace))
    with pytest.raises(DimumError, match="is not YAML"):
        load_plan(path)
    with pytest.raises(DimumError, match="cannot be read"):
        grade.read_points(path)


def test_submissions_that_are_links_or_pipes_are_not_read(tmp_path):
    folder, secret = tmp_path / "hand-ins", tmp_path / "secret.py"
    (folder / "bob").mkdir(parents=True)
    secret.write_text("check('01.1', 259)")
    (folder / "bob" / "answers.py").write_text("")
    (folder / "ada.py").symlink_to(secret)
    (folder / "eve").symlink_to(folder / "bob", target_is_directory=True)
    (folder / "bob" / "more.py").symlink_to(secret)
    os.mkfifo(folder / "kim.py")
    found = grade.submissions(folder)
    assert set(found) == {"ada", "bob", "eve", "kim"}
    for student, files in found.items():
        result = grade.grade_student(student, files, {"01.1": 1.0}, False, 1.0, 1.0)
        assert result.points == 0 and "is not a plain file" in result.note, student


# Secrets -----------------------------------------------------------------------------------------------------------------


def test_no_secret_of_the_environment_lands_in_what_is_written(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DIMUM_DATA", "PASSWORD"):
        monkeypatch.setenv(name, "hunter2-in-the-environment")
    card = {"title": "t", "summary": "s", "training": {"command": command_line()}, "provenance": provenance()}
    assert "hunter2" not in json.dumps(card) + render_card(card)
    assert set(provenance()) == {"commit", "dimum", "python", "torch", "diffusers", "threads", "device"}


def test_a_command_that_is_noted_names_no_folder_of_the_machine(monkeypatch, tmp_path):
    said = ["dimum", "train", "digits", f"--out={tmp_path}/run", "--out", f"{tmp_path}/run", "--data", str(Path.home() / "x")]
    monkeypatch.setattr("sys.argv", said)
    assert command_line() == "dimum train digits --out=run --out run --data x"
