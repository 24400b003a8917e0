"""The same code on a CUDA device: skipped where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.geometry import Probe
from dimum_core.judges.presets import get_judge_preset
from dimum_core.judges.training import train_judge
from dimum_core.precision import native_precision
from dimum_core.pretraining import train_base

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]


@pytest.fixture(autouse=True)
def fresh_accelerator():
    """Accelerate remembers its first device for the whole process: forget it, now and afterwards."""
    AcceleratorState._reset_state(True)
    yield AcceleratorState._reset_state
    AcceleratorState._reset_state(True)


def test_training_on_the_gpu_follows_that_on_the_cpu(tiny_preset, tiny_data, monkeypatch, fresh_accelerator):
    _, on_gpu = train_base(tiny_preset, data=tiny_data, steps=20, progress=False)
    fresh_accelerator(True)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    _, on_cpu = train_base(tiny_preset, data=tiny_data, steps=20, progress=False)
    assert on_gpu.log["loss"].iloc[-5:].mean() == pytest.approx(on_cpu.log["loss"].iloc[-5:].mean(), rel=0.05)


def test_a_killed_training_resumes_on_the_gpu(tiny_preset, tiny_data, tmp_path):
    train_base(tiny_preset, tmp_path, data=tiny_data, progress=False)
    pipe, result = train_base(tiny_preset, tmp_path, data=tiny_data, resume=True, progress=False)
    assert len(result.log) == 6 and pipe.device.type == "cpu"  # trained on the GPU, and back where it was made
    assert all(p.isfinite().all() for p in pipe.unet.parameters())


def test_samples_are_those_of_the_cpu(tiny_preset, tiny_data):
    pipe, _ = train_base(tiny_preset, data=tiny_data, progress=False)
    latents = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    draw = lambda: pipe([0, 1, 2], latents=latents, num_inference_steps=5, output_type="pt").images.cpu()  # noqa: E731
    on_cpu = draw()
    pipe.to("cuda")
    torch.testing.assert_close(draw(), on_cpu, atol=2e-2, rtol=0)


@pytest.mark.parametrize("method", ["dimum", "esd", "salun", "selective-amnesia", "sfr-on", "scissorhands", "sharpness-aware"])
def test_unlearning_and_the_attack_run_on_the_gpu_and_leave_their_input_where_it_was(method):
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gone = unlearn(pipe, method, target="3", data=data, steps=4, until=0.99, evaluate_every=2, progress=False)
    assert torch.cuda.max_memory_allocated() > before
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    attack = relearn(gone, data.without("3"), steps=2, samples=4, progress=False)
    assert torch.cuda.max_memory_allocated() > before
    assert attack.curve["distance"].iloc[-1] > 0
    assert {p.device.type for p in (pipe, gone, attack.pipeline)} == {"cpu"}


def test_a_judge_of_outliers_is_fitted_and_latents_are_probed_on_the_gpu():
    judge, _ = train_judge(replace(get_judge_preset("digits-judge"), knows_outliers=True), steps=2)
    assert judge.device.type == "cuda" and judge.config.knows_outliers and judge.outlier_weights.isfinite().all()
    pipe = load_pipeline("cifar10-small").to("cuda")
    assert 0 < Probe.of(pipe, load_dataset("cifar10-mini").test, count=4)(pipe.unet) < 1


def test_the_precision_is_one_that_the_device_has():
    assert native_precision(torch.device("cuda")) in ("bf16", "fp16")
