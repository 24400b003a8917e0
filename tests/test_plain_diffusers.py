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
from dimum_core.checkpoints import CHECKPOINT_FOLDER

# What someone would write who has diffusers and one of our folders. The image is folded into channels, patch by patch.
SCRIPT = """
import json
import sys

import numpy as np
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

folder, noise_file, out = sys.argv[1:]
torch.set_num_threads(1)
config = json.load(open(f"{folder}/model_index.json"))
unet = UNet2DModel.from_pretrained(f"{folder}/unet").float().eval()
solver = DPMSolverMultistepScheduler.from_pretrained(f"{folder}/scheduler")
labels = torch.tensor([0, 3])
null = torch.full_like(labels, unet.config.num_class_embeds - 1)


@torch.no_grad()
def draw(scheduler, steps):
    x = torch.from_numpy(np.load(noise_file))
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(1)
    for t in scheduler.timesteps:
        conditional = unet(x, t, class_labels=labels).sample
        nothing = unet(x, t, class_labels=null).sample
        eps = nothing + config["guidance_scale"] * (conditional - nothing)
        x = scheduler.step(eps, t, x, generator=generator).prev_sample
    return torch.nn.functional.pixel_shuffle(x, config["patch_size"]).clamp(-1, 1).numpy()


np.savez(out, solver=draw(solver, 5), ddpm=draw(DDPMScheduler.from_config(solver.config), 5))
assert not any(name.startswith("dimum") for name in sys.modules)
"""


@pytest.mark.parametrize("name", ["digits", "cifar10-small"])
def test_plain_diffusers_draws_the_same_images(name, tmp_path):
    pipe = load_pipeline(name)
    sides = [pipe.unet.config.sample_size] * 2
    noise = torch.randn(2, pipe.unet.config.in_channels, *sides, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "noise.npy", noise.numpy())
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    arguments = [str(CHECKPOINT_FOLDER / name), str(tmp_path / "noise.npy"), str(tmp_path / "drawn.npz")]
    subprocess.run([sys.executable, "-c", SCRIPT, *arguments], cwd=tmp_path, env=clean, check=True)
    drawn = np.load(tmp_path / "drawn.npz")

    def ours():
        generator = torch.Generator().manual_seed(1)
        return pipe([0, 3], num_inference_steps=5, latents=noise.clone(), generator=generator, output_type="np").images

    for key, scheduler in (("solver", pipe.scheduler), ("ddpm", DDPMScheduler.from_config(pipe.scheduler.config))):
        pipe.scheduler = scheduler
        theirs = (drawn[key].transpose(0, 2, 3, 1) + 1) / 2
        assert theirs.std() > 0.1
        np.testing.assert_allclose(theirs, ours(), atol=1e-3)
