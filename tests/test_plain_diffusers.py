"""The shipped models without this package: diffusers' own classes load them and draw the same images."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from dimum_core import load_pipeline
from dimum_core.models.checkpoints import CHECKPOINT_FOLDER

pytestmark = pytest.mark.release

# What someone would write who has diffusers and one of our folders. The image is folded into channels, patch by patch, and
# that of photographs is encoded.
SCRIPT = """
import json
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

torch.set_num_threads(1)
labels = torch.tensor([0, 3])


@torch.no_grad()
def draw(unet, scheduler, x, scale, steps=5):
    scheduler.set_timesteps(steps)
    null = torch.full_like(labels, unet.config.num_class_embeds - 1)
    generator = torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        conditional = unet(x, t, class_labels=labels).sample
        nothing = unet(x, t, class_labels=null).sample
        eps = nothing + scale * (conditional - nothing)
        x = scheduler.step(eps, t, x, generator=generator).prev_sample
    return x


for folder in sys.argv[1:]:
    name = folder.rstrip("/").split("/")[-1]
    config = json.load(open(f"{folder}/model_index.json"))
    unet = UNet2DModel.from_pretrained(f"{folder}/unet").float().eval()
    vae = AutoencoderTiny.from_pretrained(f"{folder}/vae").float().eval() if "vae" in config else None
    solver = DPMSolverMultistepScheduler.from_pretrained(f"{folder}/scheduler")
    noise = torch.from_numpy(np.load(f"{name}-noise.npy"))
    for kind, scheduler in {"solver": solver, "ddpm": DDPMScheduler.from_config(solver.config)}.items():
        x = draw(unet, scheduler, noise, config["guidance_scale"])
        with torch.no_grad():
            x = x if vae is None else vae.decode(x / vae.config.scaling_factor).sample
        images = torch.nn.functional.pixel_shuffle(x, config["patch_size"])
        np.save(f"{name}-{kind}.npy", images.clamp(-1, 1).numpy())
assert not any(name.startswith("dimum") for name in sys.modules)
"""
NAMES = ("digits", "cifar10-small")


def starting_noise(pipe) -> torch.Tensor:
    sides = [pipe.unet.config.sample_size] * 2
    return torch.randn(2, pipe.unet.config.in_channels, *sides, generator=torch.Generator().manual_seed(0))


def test_plain_diffusers_draws_the_same_images(tmp_path):
    pipes = {name: load_pipeline(name) for name in NAMES}
    for name, pipe in pipes.items():
        np.save(tmp_path / f"{name}-noise.npy", starting_noise(pipe).numpy())
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    folders = [str(CHECKPOINT_FOLDER / name) for name in NAMES]
    subprocess.run([sys.executable, "-c", SCRIPT, *folders], cwd=tmp_path, env=clean, check=True)
    for name, pipe in pipes.items():
        for kind, scheduler in {"solver": pipe.scheduler, "ddpm": DDPMScheduler.from_config(pipe.scheduler.config)}.items():
            pipe.scheduler, generator = scheduler, torch.Generator().manual_seed(1)
            ours = pipe([0, 3], num_inference_steps=5, latents=starting_noise(pipe), generator=generator, output_type="pt").images
            theirs = np.load(tmp_path / f"{name}-{kind}.npy")
            assert theirs.std() > 0.1
            np.testing.assert_allclose(theirs, ours.numpy() * 2 - 1, atol=2e-3)
