"""A training goes on after whatever stopped it, and its folder is never mixed up or half written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from safetensors.torch import load_file, save
from torch import nn

from dimum_core import unlearn
from dimum_core.data import Dataset, from_uint8
from dimum_core.errors import CheckpointError, FileError
from dimum_core.files import write_atomically
from dimum_core.models.codec import Codec
from dimum_core.models.conditions import ClassConditions
from dimum_core.pretraining import DenoisingObjective, train_base
from dimum_core.resuming import check_begins, read_state
from dimum_core.training import STATE_FILE, train

from .test_training import Line, line_config, new_line
from .tiny_pipelines import stable_diffusion


def test_a_resumed_training_equals_an_unbroken_one_bit_for_bit(tiny_preset, tiny_data, tmp_path):
    whole, _ = train_base(tiny_preset, tmp_path / "whole", data=tiny_data, progress=False)

    def interrupt(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_after_three(tiny_preset, tiny_data, tmp_path / "broken", interrupt)
    resumed, _ = train_base(tiny_preset, tmp_path / "broken", data=tiny_data, resume=True, progress=False)
    a, b = whole.unet.state_dict(), resumed.unet.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    whole_state, broken_state = (load_file(tmp_path / part / STATE_FILE) for part in ("whole", "broken"))
    assert whole_state.keys() == broken_state.keys()
    assert all(torch.equal(whole_state[key], broken_state[key]) for key in whole_state)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "nesterov"])
def test_a_resumed_training_keeps_the_memory_layout_and_what_is_frozen(tmp_path, optimizer):
    """Of kernels in channels-last, whose moments must be laid out alike, and beside weights that have no moments."""

    class Pixels(Line):
        def __call__(self, model, seed, step):
            x = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(step))
            return (model(x) - x.sum(1, keepdim=True).roll(1, 2)).square().mean()

    def network():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
        model[2].bias.requires_grad_(False)
        return model.to(memory_format=torch.channels_last)

    settings = {"optimizer": optimizer, "ema_decay": 0.5, "decay": False, "learning_rate": 1e-3}
    whole = train(network(), Pixels(), line_config(steps=8, **settings), progress=False).model
    train(network(), Pixels(), line_config(steps=4, **settings), out=tmp_path, progress=False)
    resumed = train(network(), Pixels(), line_config(steps=8, **settings), out=tmp_path, resume=True, progress=False).model
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


class Begun(Line):
    """A line whose beginning is known, so that what is frozen need not be kept."""

    fingerprint = {"line": 3, "start": "these weights"}


def half_frozen(bias: float = 0.5) -> nn.Linear:
    model = new_line()
    nn.init.constant_(model.bias, bias)
    model.bias.requires_grad_(False)
    return model


def test_frozen_weights_of_a_known_beginning_are_not_kept_and_must_be_the_same(tmp_path):
    go_on = {"out": tmp_path, "resume": True, "progress": False}
    config, state = line_config(steps=8, decay=False), tmp_path / STATE_FILE
    whole = train(half_frozen(), Begun(), config, progress=False).model
    train(half_frozen(), Begun(), line_config(steps=4, decay=False), out=tmp_path, progress=False)
    kept, content = read_state(state)
    assert "model.weight" in kept and "model.bias" not in kept
    with pytest.raises(CheckpointError, match="other frozen weights than the model has now"):
        train(half_frozen(0.25), Begun(), config, **go_on)
    assert torch.equal(train(half_frozen(), Begun(), config, **go_on).model.weight, whole.weight)
    del content["frozen"]  # as files were before: all weights in them
    state.write_bytes(save(kept | {"model.bias": torch.tensor([0.5])}, metadata={"dimum": json.dumps(content)}))
    old = train(half_frozen(0.25), Begun(), config, **go_on).model
    assert torch.equal(old.weight, whole.weight) and old.bias.item() == 0.5
    del content["fingerprint"]["objective"]["start"]
    state.write_bytes(save(kept, metadata={"dimum": json.dumps(content)}))
    with pytest.raises(CheckpointError, match="does not say its start, as older versions did not: begin in another folder"):
        train(half_frozen(), Begun(), config, **go_on)


def stop_after_three(preset, data, out, interrupt):
    """A training that saves its state after every step and is interrupted in the fourth."""
    from dimum_core.models.denoiser import build_denoiser

    unet = build_denoiser(preset, 3, 1, preset.training.seed)
    conditions = ClassConditions(None, 3, Codec(preset.patch_size), data.class_names)
    objective = DenoisingObjective(data, 8, conditions, preset.label_dropout, preset.flip)
    train(unet, objective, preset.training, out=out, on_log=interrupt, checkpoint_seconds=0, progress=False)


def test_a_training_that_goes_on_is_not_asked_to_stop_by_a_row_without_measurements(tiny_preset, tiny_data, tmp_path):
    """It was killed between two looks, so a row of the loss is the last one of its log."""
    def interrupt(row):
        if row["step"] == 4:
            raise KeyboardInterrupt

    asked, go_on = [], {"out": tmp_path, "evaluate": lambda step, _: {"share": step}, "evaluate_every": 3, "checkpoint_seconds": 0,
                        "stop": lambda row: asked.append(row["share"]), "progress": False}
    with pytest.raises(KeyboardInterrupt):
        train(new_line(), Line(), line_config(steps=9), on_log=interrupt, **go_on)
    train(new_line(), Line(), line_config(steps=9), resume=True, **go_on)
    assert asked == [3, 6, 9] or asked == [3, 3, 6, 9]


KILLED = """
import sys, torch
from pathlib import Path
from tests.test_training import new_line, Line, line_config
from dimum_core.training import train
import time
torch.set_num_threads(1)
train(new_line(), Line(), line_config(steps=400, ema_decay=0.9), out=Path(sys.argv[1]), checkpoint_seconds=0,
      resume=True, on_log=lambda row: time.sleep(0.01), progress=False)
"""


def test_kill_nine_loses_at_most_one_checkpoint_and_resumes_bit_for_bit(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed")]
    process = subprocess.Popen(command, cwd=os.path.dirname(os.path.dirname(__file__)))
    state = tmp_path / "killed" / STATE_FILE
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)  # kill it somewhere in the middle, perhaps while it writes
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    config = line_config(steps=400, ema_decay=0.9)
    resumed = train(new_line(), Line(), config, out=tmp_path / "killed", resume=True, progress=False)
    whole = train(new_line(), Line(), config, progress=False)
    assert torch.equal(resumed.model.weight, whole.model.weight) and torch.equal(resumed.model.bias, whole.model.bias)
    assert resumed.log["loss"].tolist() == whole.log["loss"].tolist()


def test_a_folder_with_a_training_is_not_overwritten_and_not_mixed_up(tmp_path):
    train(new_line(), Line(), line_config(), out=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="already holds a training: continue it with --resume"):
        train(new_line(), Line(), line_config(), out=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="made with learning_rate = 0.05, and 0.1 is asked for"):
        train(new_line(), Line(), line_config(learning_rate=0.1), out=tmp_path, resume=True, progress=False)


@pytest.mark.parametrize("name", ["model_index.json", "config.json"])
def test_a_folder_with_a_model_and_no_training_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match="already holds a model, which would be overwritten: choose another folder"):
        train(new_line(), Line(), line_config(), out=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match=f"would be overwritten, and no {STATE_FILE} to go on from: choose"):
        train(new_line(), Line(), line_config(), out=tmp_path, resume=True, progress=False)


def test_more_steps_bring_a_longer_warm_up_and_are_taken_if_both_are_over(tmp_path):
    settings = {"decay": False, "ema_decay": 0.0}
    train(new_line(), Line(), line_config(steps=4, warmup_steps=1, **settings), out=tmp_path, progress=False)
    longer = train(new_line(), Line(), line_config(steps=8, warmup_steps=3, **settings), out=tmp_path, resume=True, progress=False)
    usual = train(new_line(), Line(), line_config(steps=8, warmup_steps=1, **settings), progress=False)
    assert all(map(torch.equal, longer.model.parameters(), usual.model.parameters()))
    with pytest.raises(CheckpointError, match="made with warmup_steps = 1, and 9 is asked for"):
        train(new_line(), Line(), line_config(steps=99, warmup_steps=9, **settings), out=tmp_path, resume=True, progress=False)


def test_fewer_steps_than_are_done_are_refused_whatever_the_rate_does(tmp_path):
    train(new_line(), Line(), line_config(steps=4, decay=False), out=tmp_path, progress=False)
    with pytest.raises(CheckpointError, match="has 4 steps behind it, and 3 are asked for: ask for more"):
        train(new_line(), Line(), line_config(steps=3, decay=False), out=tmp_path, resume=True, progress=False)


def test_a_base_model_goes_on_as_the_same_network_of_the_same_classes(tiny_preset, tiny_data, tmp_path):
    go_on = {"data": tiny_data, "progress": False, "resume": True}
    train_base(tiny_preset, tmp_path, data=tiny_data, progress=False)
    for preset in (replace(tiny_preset, dropout=0.5), replace(tiny_preset, channels=(64, 64))):
        with pytest.raises(CheckpointError, match="made with network other than is given now"):
            train_base(preset, tmp_path, **go_on)
    with pytest.raises(CheckpointError, match=r"class_names = \['left', 'top', 'checks'\], and \['a', 'b', 'c'\] is asked for now"):
        train_base(tiny_preset, tmp_path, **go_on | {"data": replace(tiny_data, class_names=("a", "b", "c"))})
    kept, content = read_state(tmp_path / STATE_FILE)
    for key in ("network", "class_names", "noise_levels", "prediction_type"):
        del content["fingerprint"]["objective"][key]  # as files were before
    (tmp_path / STATE_FILE).write_bytes(save(kept, metadata={"dimum": json.dumps(content)}))
    assert len(train_base(tiny_preset, tmp_path, **go_on)[1].log) == 6


def test_unlearning_goes_on_with_the_same_words_encoder_and_noise(tmp_path):
    pixels = torch.randint(0, 256, (16, 3, 32, 32), generator=torch.Generator().manual_seed(0)).byte().numpy()
    names = ("Crayon Cats", "Crayon Dogs", "Ink Cats", "Ink Dogs")
    images, pipe = from_uint8("canvas", pixels, torch.arange(16).numpy() % 4, names), stable_diffusion()

    def forget(images=images, steps=2, **settings):
        data = Dataset(images, images)
        unlearn(pipe, "finetune", target="Ink", data=data, steps=steps, batch_size=2, progress=False, out=tmp_path, **settings)

    forget(steps=1)
    with pytest.raises(CheckpointError, match="made with class_names = .*Crayon Cats.* is asked for now"):
        forget(replace(images, class_names=("Crayon Trees", "Crayon Dogs", "Ink Trees", "Ink Dogs")), resume=True)
    own, pipe.scheduler = pipe.scheduler, DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    with pytest.raises(CheckpointError, match="prediction_type = 'epsilon', and 'v_prediction' is asked for now"):
        forget(resume=True)
    pipe.scheduler = DDIMScheduler.from_config(own.config, beta_schedule="squaredcos_cap_v2")
    with pytest.raises(CheckpointError, match="noise_levels other than is given now"):
        forget(resume=True)
    pipe.scheduler = own
    forget(resume=True)
    next(pipe.text_encoder.parameters()).data.mul_(2)
    with pytest.raises(CheckpointError, match="text_encoder other than is given now"):
        forget(resume=True)


def test_a_second_training_in_a_folder_waits_for_the_first_to_end(tmp_path):
    refused = []

    def begin_another(row):
        with pytest.raises(CheckpointError, match="Another process is training in"):
            train(new_line(), Line(), line_config(), out=tmp_path, resume=True, progress=False)
        with pytest.raises(CheckpointError, match="Another process is training in"):
            check_begins(tmp_path, resume=True)  # before images are encoded, say
        refused.append(row["step"])

    first = train(new_line(), Line(), line_config(), out=tmp_path, on_log=begin_another, progress=False)
    whole = train(new_line(), Line(), line_config(), progress=False)
    assert refused and torch.equal(first.model.weight, whole.model.weight)
    train(new_line(), Line(), line_config(), out=tmp_path, resume=True, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == [STATE_FILE]


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"\0" * len(b), lambda b: b""])
def test_a_damaged_state_is_said_to_be_damaged(tmp_path, damage):
    train(new_line(), Line(), line_config(), out=tmp_path, progress=False)
    state = tmp_path / STATE_FILE
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(CheckpointError, match="is damaged .*delete it and start this training again"):
        train(new_line(), Line(), line_config(), out=tmp_path, resume=True, progress=False)


def test_a_full_disk_leaves_the_former_file_and_no_debris(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"former")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device.*free some space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"former" and [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("reason", [errno.EACCES, errno.EROFS])
def test_a_read_only_folder_is_named_and_no_space_is_asked_for(tmp_path, monkeypatch, reason):
    def denied(path, mode):
        raise OSError(reason, os.strerror(reason), str(path))

    monkeypatch.setattr("dimum_core.files.open", denied, raising=False)
    with pytest.raises(FileError) as refused:
        train(new_line(), Line(), line_config(steps=1), out=tmp_path, progress=False)
    said = f"{tmp_path} could not be written ({os.strerror(reason)}): choose another folder, or change who may write there."
    assert str(refused.value) == said
