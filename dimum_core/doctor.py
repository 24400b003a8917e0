"""`dimum doctor`: what this machine is, what is installed, what data and checkpoints are there, what a preset costs."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import platform
import shlex
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from .data import DATASETS, ImageSet, OwnPictures, from_uint8, load_data, load_dataset
from .data.shapes import CLASS_NAMES
from .errors import DimumError
from .models.cards import CARD_FILE, gpu_name, read_card
from .models.checkpoints import CHECKPOINT_FOLDER, shipped_checkpoints
from .models.denoiser import PRESETS, Preset
from .precision import native_precision
from .pretraining import train_base

PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "accelerate", "peft", "safetensors", "numpy", "scipy",
            "scikit-learn", "pandas", "matplotlib", "papermill", "nbconvert", "jupyterlab", "ipywidgets", "torch-fidelity")


EVENING = 180  # minutes


def machine() -> dict[str, str]:
    device = torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    rows = {
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "CPU": f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        "GPU": gpu_name() or "none",
        "precision": f"{native_precision(device)} on {device.type}",
        "matmul": f"{matmul_gflops(device):.0f} GFLOP/s in float32",
        "free disk": f"{shutil.disk_usage(Path.cwd()).free / 1e9:.0f} GB here",
    }
    return rows


def matmul_gflops(device: torch.device, size: int = 1024) -> float:
    """The best of ten float32 matrix products, in GFLOP/s."""
    a = torch.randn(size, size, device=device)
    return 2e-9 * size**3 / min(_seconds(lambda: a @ a, device) for _ in range(10))


def packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def datasets() -> dict[str, str]:
    """Each data set, and whether it can be loaded here without a download."""
    rows = {}
    for name in DATASETS:
        try:
            data = load_dataset(name, download=False)
            rows[name] = f"{len(data.train):,} + {len(data.test):,} images"
        except DimumError as error:
            rows[name] = str(error)
    return rows


def checkpoints() -> dict[str, str]:
    rows = {}
    for name in shipped_checkpoints():
        card = read_card(CHECKPOINT_FOLDER / name)
        size = sum(f.stat().st_size for f in (CHECKPOINT_FOLDER / name).rglob("*") if f.is_file())
        rows[name] = f"{card['summary']} {size / 1e6:.1f} MB, see {CARD_FILE}"
    return rows


def preset_minutes(preset: Preset, steps: int = 3, channels: int | None = None) -> float:
    """Minutes that training a preset takes on this machine, from a few steps on random images, all of one run.

    channels: of the images; default, of those that the preset is made for.
    """
    channels = channels or (1 if preset.dataset == "digits" else 3)
    generator = torch.Generator().manual_seed(0)
    batch = preset.training.batch_size
    if preset.name == "cifar10" and not torch.cuda.is_available():
        batch = 4  # a whole batch of the papers' network takes a laptop a minute
    pixels = torch.randint(256, (batch, channels, preset.image_size, preset.image_size), generator=generator)
    names = CLASS_NAMES if preset.dataset == "shapes" else [str(k) for k in range(10)]  # prompts need words
    data: ImageSet = from_uint8("random", pixels.byte().numpy(), [i % len(names) for i in range(batch)], names)
    quiet = replace(preset, training=replace(preset.training, batch_size=batch))
    done: list[float] = []  # when each step was; a run of so few logs every one
    train_base(quiet, data=data, steps=1 + steps, progress=False, on_log=lambda row: done.append(time.perf_counter()))
    a_step = statistics.median(after - before for before, after in itertools.pairwise(done))
    return a_step * preset.training.batch_size / batch * preset.training.steps / 60


def presets_for(data: OwnPictures) -> dict[Preset, float]:
    """Presets that one's own pictures can be trained with, smallest first, with the minutes that each takes here, up to the first
    that takes too long: timing larger ones would itself take too long. Presets with an autoencoder take pictures in colour."""
    channels = data.train.images.shape[1]
    fitting = [preset for preset in PRESETS.values() if not preset.text_width and (channels == 3 or not preset.autoencoder)]
    minutes = {}
    for preset in sorted([*fitting, replace(PRESETS["digits"], image_size=16)], key=lambda preset: preset.image_size):
        minutes[preset] = preset_minutes(preset, channels=channels)
        if minutes[preset] > EVENING:
            break
    return minutes


def suggested(minutes: dict[Preset, float], side: int) -> Preset:
    """The largest preset whose images are no larger than the pictures, and that is trained in an evening; or else the smallest."""
    fitting = [preset for preset in minutes if preset.image_size <= side and minutes[preset] <= EVENING]
    return fitting[-1] if fitting else next(iter(minutes))


def report_pictures(named: str) -> None:
    """Print what one's own pictures are, what was left out, and how they could be trained on here."""
    data = load_data(named, 32)
    if not isinstance(data, OwnPictures):
        raise DimumError(f"{named} is a data set that is shipped; --data is for your own pictures: a folder, or a table of paths.")
    print(data.report)
    minutes = presets_for(data)
    best = suggested(minutes, data.side)
    print("\nTraining on them here (from a few steps just now; other programs slow it down)")
    for preset, needed in minutes.items():
        size = f"{preset.image_size} x {preset.image_size}"
        mark = "  <- suggested" if preset is best else ""
        print(f"  {preset.name:<22} {size:<8} {preset.training.steps:>7,} steps, about {_duration(needed)}{mark}")
    other_size = f" --image-size {best.image_size}" if best.image_size != PRESETS[best.name].image_size else ""
    print(f"\ndimum train {best.name}{other_size} --data {shlex.quote(named)} --out my-model\n"
          f"dimum judge train --data {shlex.quote(named)} --image-size {best.image_size} --out my-judge")


def _seconds(work, device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type != "cpu":
        torch.accelerator.synchronize()
    return time.perf_counter() - started


def report() -> None:
    """Print everything, section by section."""
    for title, rows in (
        ("This machine", machine()), ("Packages", packages()), ("Data", datasets()), ("Checkpoints", checkpoints())
    ):
        _section(title, rows)
    print("\nTraining a preset here (from a few steps just now; other programs slow it down)")
    for name, preset in PRESETS.items():
        minutes = preset_minutes(preset)
        print(f"  {name:<22} {preset.training.steps:>7,} steps, about {_duration(minutes)}", flush=True)


def _section(title: str, rows: dict[str, str]) -> None:
    print(f"\n{title}")
    for key, value in rows.items():
        print(f"  {key:<22} {value}")


def _duration(minutes: float) -> str:
    if minutes < 90:
        return f"{minutes:.0f} minutes" if minutes >= 2 else f"{minutes * 60:.0f} seconds"
    return f"{minutes / 60:.0f} hours" if minutes < 60 * 48 else f"{minutes / 60 / 24:.0f} days: take a GPU"
