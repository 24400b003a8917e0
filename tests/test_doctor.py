"""The doctor times what it says it times; help is quick."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from dimum_core.pretraining import train_base


def test_help_is_quick_and_names_every_command():
    command = [sys.executable, "-X", "importtime", "-m", "dimum_core.cli", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(command in said.stdout for command in ("train", "sample", "evaluate", "unlearn", "relearn", "doctor"))
    assert " torch\n" not in said.stderr and " diffusers\n" not in said.stderr


@pytest.mark.parametrize("name", ["digits", "shapes"])
def test_the_doctor_times_a_model_of_labels_and_one_of_prompts(name):
    from dimum_core.doctor import preset_minutes
    from dimum_core.models.denoiser import PRESETS

    preset = PRESETS[name]
    assert preset_minutes(replace(preset, training=replace(preset.training, batch_size=4, steps=60)), steps=1) > 0


def test_the_doctor_times_steps_and_not_what_comes_before_them(monkeypatch):
    """A machine that was busy while the first of two runs began had made the difference of the two negative."""
    from dimum_core import doctor
    from dimum_core.models.denoiser import PRESETS

    delays = iter((0.5, 0.0))

    def train_slowly(*arguments, **settings):
        time.sleep(next(delays))
        return train_base(*arguments, **settings)

    monkeypatch.setattr(doctor, "train_base", train_slowly)
    preset = PRESETS["digits"]
    assert doctor.preset_minutes(replace(preset, training=replace(preset.training, batch_size=4, steps=600)), steps=2) > 1e-3


def test_the_doctor_reports_every_section(capsys, monkeypatch, tiny_preset, tmp_path):
    from dimum_core import doctor
    from dimum_core.data import cifar10

    monkeypatch.setattr(cifar10, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(doctor, "PRESETS", {"tiny": tiny_preset})
    doctor.report()
    said = capsys.readouterr().out
    assert all(part in said for part in ("This machine", "Packages", "Data", "Checkpoints", "tiny", "GFLOP/s"))
    assert "1,442 + 355 images" in said and "not on this machine" in said
    assert {"transformers", "tokenizers", "peft"} <= doctor.packages().keys()
