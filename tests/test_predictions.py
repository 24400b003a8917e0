"""What a network predicts, noise, velocity or the image, becomes noise: against the algebra and the steps of diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
)

from dimum_core import load_pipeline
from dimum_core.models.diffusion import Schedule, add_noise
from dimum_core.models.fresh_noise import with_fresh_noise

from .test_own_models import SCHEDULES


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_right_output_is_the_noise_that_was_added(kind, schedule):
    scheduler = DDIMScheduler(**SCHEDULES[schedule] | {"prediction_type": kind})
    ours = Schedule.of(scheduler)
    x, eps, t = torch.randn(20, 2, 4, 4), torch.randn(20, 2, 4, 4), torch.arange(20, 1000, 49)
    x_t = add_noise(x, eps, t, ours.alphas_cumprod)
    torch.testing.assert_close(x_t, scheduler.add_noise(x, eps, t), rtol=1e-4, atol=1e-4)
    theirs = {"epsilon": eps, "sample": x, "v_prediction": scheduler.get_velocity(x, eps, t)}[kind]
    torch.testing.assert_close(ours.wanted(x, eps, t), theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.epsilon(theirs, x_t, t), eps, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("kind", ["v_prediction", "sample"])
@pytest.mark.parametrize("sampler", [DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler])
def test_diffusers_goes_the_same_step_with_our_noise_as_with_the_networks_own_output(kind, schedule, sampler):
    free = {"clip_sample": False} if sampler is not DPMSolverMultistepScheduler else {}
    own = sampler(**SCHEDULES[schedule] | free | {"prediction_type": kind})
    ours = Schedule.of(own)
    noise = sampler(**ours.config | free)
    assert ours.config["prediction_type"] == "epsilon"
    for scheduler in (own, noise):
        scheduler.set_timesteps(10)
    t, x_t, output = own.timesteps[4], torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8)
    eps = ours.epsilon(output, x_t, t.expand(2))
    steps = [
        scheduler.step(value, t, x_t, generator=torch.Generator().manual_seed(0)).prev_sample
        for scheduler, value in ((own, output), (noise, eps))
    ]
    torch.testing.assert_close(*steps, rtol=1e-3, atol=1e-4)


def test_a_network_that_predicts_the_image_is_drawn_from_with_fresh_noise_too():
    """diffusers' Euler ancestral refuses it. The same images from a seed, others from another one, whatever the first noise."""
    pipe = load_pipeline("digits")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="sample")
    sampler, first = with_fresh_noise(pipe), torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    images = [
        sampler([0, 1], None, 3, latents=first, generator=torch.Generator().manual_seed(seed), output_type="pt").images
        for seed in (1, 1, 2)
    ]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
    assert isinstance(pipe.scheduler, DDIMScheduler)
