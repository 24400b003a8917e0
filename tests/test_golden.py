"""A golden run: train, unlearn and attack for a few steps from fixed seeds, and compare a handful of numbers with stored ones.

    python -m tests.test_golden --write    stores what this machine gets, after a change that is meant

With other versions, or on another kind of CPU, the numbers must agree within tolerances; where versions and CPU are those of the
file, weights must be the same bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.evaluation import draw_samples
from dimum_core.geometry import weights
from dimum_core.judges import load_judge
from dimum_core.models.denoiser import Preset
from dimum_core.precision import native_precision
from dimum_core.pretraining import train_base
from dimum_core.training import TrainConfig

FILE = Path(__file__).with_name("golden.json")
PINNED = ("torch", "diffusers", "numpy")
PRESET = Preset(
    "golden", dataset="digits", image_size=8, patch_size=2, channels=(32, 64), layers=1, attention=(False, True), flip=False,
    training=TrainConfig(steps=6, batch_size=16, learning_rate=1e-3, ema_decay=0.9, precision="fp32"),
)
# name -> (how much it may drift, relatively, with another torch; what a larger drift means)
NUMBERS = {
    "first loss of training": (1e-5, "the data, their order, the noise, the initial weights or the loss itself are others"),
    "last loss of training": (1e-4, "the optimiser, the schedule of its rate, the clip or the dropout of labels changed"),
    "norm of the averaged weights": (1e-5, "the optimiser or the average of the weights changed"),
    "loss of dimum": (1e-4, "the alternative data, DiMUM's loss or its weight changed"),
    "distance moved by dimum": (1e-3, "DiMUM's steps, or how the loop takes them, changed"),
    "distance moved by esd": (1e-3, "ESD's target, or the guided path it starts from, changed"),
    "distance moved by the attack": (1e-3, "the attack's loss, its auxiliary data or its rate changed"),
    "mean pixel of samples": (1e-2, "the sampler, the guidance or the starting noise changed"),
    "mean distance by the judge": (2e-2, "the judge, or what it looks at, changed"),
}


def run() -> tuple[dict[str, float], str]:
    """The numbers, and a digest of the weights that they come from."""
    torch.set_num_threads(1)
    data, pipe = load_dataset("digits"), load_pipeline("digits")
    base, training = train_base(PRESET, progress=False)
    small = {"batch_size": 16, "progress": False, "precision": "fp32"}
    forgetful = {m: unlearn(pipe, m, target="3", data=data, steps=4, **small) for m in ("dimum", "esd")}
    attack = relearn(forgetful["dimum"], data.without("3"), steps=4, samples=2, num_inference_steps=4, evaluate_every=4, **small)
    images = draw_samples(attack.pipeline, list(range(10)), num_inference_steps=5, progress=False)
    vectors = [weights(p.unet) for p in (base, *forgetful.values(), attack.pipeline)]
    values = (
        training.log["loss"].iloc[0], training.log["loss"].iloc[-1], vectors[0].norm(),
        forgetful["dimum"].unlearning["log"]["loss"].dropna().iloc[-1], *((v - weights(pipe.unet)).norm() for v in vectors[1:3]),
        attack.curve["distance"].iloc[-1], images.mean(), load_judge("digits-judge").judge(images).distance.mean(),
    )
    digest = hashlib.blake2b(b"".join(v.numpy().tobytes() for v in vectors), digest_size=16).hexdigest()
    return dict(zip(NUMBERS, map(float, values), strict=True)), digest


def processor() -> str:
    """Maker, family and model: two kinds with the same instruction set still add up in another order."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor()
    told = dict(re.findall(r"(?m)^(vendor_id|cpu family|model|stepping)\s*: (.*)$", info.read_text()))
    return " ".join(told.values())


def here() -> dict[str, str]:
    """What decides the bits."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cpu = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} {processor()}"
    return {name: version(name) for name in PINNED} | {"cpu": cpu, "device": device.type, "sampled in": native_precision(device)}


def drifted(found: dict[str, float], stored: dict[str, float]) -> list[str]:
    """One sentence for each number that moved too far."""
    said = []
    for name, (tolerance, meaning) in NUMBERS.items():
        drift = abs(found[name] - stored[name]) / max(abs(stored[name]), 1e-12)
        if not drift <= tolerance:  # also true for NaN
            said.append(
                f"{name} was {stored[name]:.8g} and is {found[name]:.8g}, a drift of {drift:.1e} where {tolerance:.0e} is allowed: "
                f"{meaning}."
            )
    return said


@pytest.fixture(scope="module")
def golden() -> dict:
    return json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def now() -> tuple[dict[str, float], str]:
    return run()


def test_no_number_drifted(golden, now):
    said = drifted(now[0], golden["numbers"])
    assert not said, "\n".join([*said, "If that was meant, run python -m tests.test_golden --write and say why in the message."])


def test_the_bits_are_the_same_where_versions_and_cpu_are(golden, now):
    others = [f"{key} {value} here, {golden['made with'].get(key)} there" for key, value in here().items()
              if golden["made with"].get(key) != value]
    if others:
        pytest.skip(f"bits are compared on like machines only: {', '.join(others)}")
    assert now[1] == golden["weights"], (
        "The numbers agree, but the weights differ in some bit with the same versions on the same kind of CPU: the order of some "
        "operations changed, so that stored results can no longer be made again exactly. If that was meant, write the file anew."
    )


def test_the_file_was_made_with_the_tested_versions(golden):
    pins = dict(re.findall(r"(?m)^([\w-]+)==(\S+)$", (FILE.parent.parent / "constraints.txt").read_text()))
    assert {name: golden["made with"][name].split("+")[0] for name in PINNED} == {name: pins[name] for name in PINNED}


def test_a_drift_is_told_by_name_with_its_meaning(golden):
    stored = golden["numbers"]
    assert drifted(stored, stored) == []
    off = stored | {"distance moved by esd": stored["distance moved by esd"] * 1.02, "mean pixel of samples": float("nan")}
    first, second = drifted(off, stored)
    assert first.startswith("distance moved by esd was") and "ESD's target" in first and "the sampler" in second


if __name__ == "__main__" and "--write" in sys.argv:
    numbers, digest = run()
    FILE.write_text(json.dumps({"made with": here(), "numbers": numbers, "weights": digest}, indent=1) + "\n")
