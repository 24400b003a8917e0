"""Shared by all tests: one thread a worker, no network, tiny models that train in seconds."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dimum_core.data import from_uint8, load_dataset
from dimum_core.models.checkpoints import load_pipeline
from dimum_core.models.denoiser import Preset
from dimum_core.training import TrainConfig


@pytest.fixture
def in_c_locale():
    """Runs Python in a process of its own whose system encoding is ASCII, as on a bare server."""

    def run_python(*arguments, cwd=None) -> subprocess.CompletedProcess:
        plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "OMP_NUM_THREADS": "1"}
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), **plain}
        return subprocess.run([sys.executable, *map(str, arguments)], env=environment, cwd=cwd, capture_output=True)

    return run_python


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)  # workers share the cores, and results do not depend on how many there are


@pytest.fixture(autouse=True)
def denormals():
    yield
    torch.set_flush_denormal(False)  # a training sets it for the process, and hypothesis refuses to draw floats then


@pytest.fixture(autouse=True)
def no_cifar_of_this_machine(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("DIMUM_DATA", str(tmp_path_factory.getbasetemp()))  # a folder without it


@pytest.fixture
def few_drawings(monkeypatch):
    """Curves, and looks at whether it is time to stop, of two samples in two steps: for tests that read no share."""
    from dimum_core import relearn
    from dimum_core.unlearning import run

    for name in ("samples", "num_inference_steps"):
        monkeypatch.setitem(relearn.__kwdefaults__, name, 2)
    monkeypatch.setattr(run, "UNTIL_SAMPLES", 2)
    monkeypatch.setattr(run, "FRESH_STEPS", 2)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def tiny_data():
    """60 images of 8 x 8 in 3 classes: bright at the left, at the top, or in checks; each with a little noise."""
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    patterns = torch.stack([column < 4, row < 4, (row // 2 + column // 2) % 2 == 0])[:, None]
    labels = torch.arange(60) % 3
    pixels = 40 + 160 * patterns[labels] + torch.randint(16, (60, 1, 8, 8), generator=generator)
    return from_uint8("tiny", pixels.byte().numpy(), labels.numpy(), ("left", "top", "checks"))


@pytest.fixture
def tiny_preset():
    return Preset(
        "tiny", dataset="digits", image_size=8, patch_size=2, channels=(32, 64), layers=1, attention=(False, True),
        flip=False, training=TrainConfig(steps=6, batch_size=8, learning_rate=1e-3, ema_decay=0.9, precision="fp32"),
    )


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def pipe():
    """The shipped model of digits; modules on tiny models have a `pipe` of their own."""
    return load_pipeline("digits")


@pytest.fixture(scope="session")
def small_digits(tmp_path_factory):
    """Folders with two networks for digits, of random weights and a hundredth the size of the shipped one."""
    from dimum_core.pretraining import new_model

    preset = Preset(
        "small-digits", dataset="digits", image_size=8, patch_size=2, channels=(32, 64), layers=1, attention=(False, True),
        flip=False, training=TrainConfig(),
    )
    folders = [tmp_path_factory.mktemp(name) for name in ("small-digits", "small-digits-retrained")]
    for seed, folder in enumerate(folders):
        new_model(preset, load_dataset("digits").train, seed)[1].save_pretrained(folder)
    return tuple(map(str, folders))


@pytest.fixture(scope="session")
def shapes():
    """144 training pictures of shapes and 72 others, each of the 36 combinations equally often."""
    from dimum_core.data import Dataset
    from dimum_core.data.shapes import CLASS_NAMES, render

    labels = (np.arange(36).repeat(4), np.arange(36).repeat(2))
    return Dataset(*(from_uint8("shapes", render(part, seed), part, CLASS_NAMES) for seed, part in enumerate(labels)))


@pytest.fixture
def prompted(shapes):
    """A text-to-image pipeline with random weights, small enough for every method."""
    from dimum_core.pretraining import new_model

    preset = Preset(
        "tiny-shapes", dataset="shapes", image_size=16, patch_size=4, channels=(16, 32), layers=1, attention=(False, True),
        flip=False, guidance_scale=2.0, text_width=16,
    )
    return new_model(preset, shapes.train, 0)[1]


@pytest.fixture(scope="session")
def canvas_folder(tmp_path_factory):
    """Two styles and three objects, four pictures of 40 x 48 pixels each, as UnlearnCanvas lays them out."""
    from tests.tiny_pipelines import OBJECTS, STYLES

    folder, random = tmp_path_factory.mktemp("canvas"), np.random.default_rng(0)
    for style in STYLES:
        for thing in OBJECTS:
            (folder / style / thing).mkdir(parents=True)
            for number in (1, 2, 3, 10):
                pixels = random.integers(0, 255, (5, 6, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
                Image.fromarray(pixels).save(folder / style / thing / f"{number}.jpg")
    return folder


@pytest.fixture(scope="session")
def canvas(canvas_folder):
    from dimum_core.data import load_unlearn_canvas

    return load_unlearn_canvas(canvas_folder, image_size=32, per_combination=4, held_out=2)


@pytest.fixture
def smaller_flux(monkeypatch):
    """The class fixes the side of its latents at 128, which is 4,096 tokens; here it is 16."""
    from diffusers import FluxPipeline

    begin = FluxPipeline.__init__

    @functools.wraps(begin)
    def begin_smaller(self, *parts, **named):
        begin(self, *parts, **named)
        self.default_sample_size = 16

    monkeypatch.setattr(FluxPipeline, "__init__", begin_smaller)
