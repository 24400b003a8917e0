"""Attacks on the noise that sampling starts from: the network stays, and a start is sought that leads to the target.

Both go along the deterministic path of DDIM (Song et al. 2021, arXiv 2010.02502), on diffusers' schedulers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from accelerate import Accelerator
from diffusers import DDIMInverseScheduler, DDIMScheduler, DiffusionPipeline
from torch import Tensor

from ..checking import check_number, check_whole
from ..data import step_generator
from ..models.codec import Codec
from ..models.conditions import conditions_of, image_size
from ..models.diffusion import SCHEDULER_CONFIG
from ..models.networks import FLOWS, is_kind, network_of
from ..models.sampling import default_guidance
from ..precision import as_its_weights
from .base import HELD_OUT, SHOTS, Attack, Attacked, Means, register
from .finetuning import images_of, in_turn

Predict = Callable[[Tensor, Tensor], Tensor]  # of x_t, B x C x H x W, and t, a number, to eps of x_t's shape


def ddim_path(predict: Predict, start: Tensor, steps: int, config: dict | None = None, invert: bool = False) -> Tensor:
    """From noise x_T to an image x_0 without fresh noise, or, to `invert`, from an image to the noise that leads to it.

    start: B x C x H x W. config: of the noise levels; default, DDPM's. Nothing is clipped, so that both ways are the same and
    gradients pass.
    """
    check_whole("steps", steps, 1, 1000)
    kind = DDIMInverseScheduler if invert else DDIMScheduler
    ours = {"prediction_type": "epsilon", "clip_sample": False, "set_alpha_to_one": True}
    scheduler = kind.from_config({**(config or SCHEDULER_CONFIG), **ours})
    scheduler.set_timesteps(steps)
    x_t = start
    for t in scheduler.timesteps:
        x_t = scheduler.step(predict(x_t, t), t, x_t, return_dict=False)[0]
    return x_t


def seek_noise(
    draw: Callable[[Tensor], Tensor], wanted: Tensor, start: Tensor, steps: int = 40, learning_rate: float = 0.05
) -> tuple[Tensor, list[float]]:
    """Noise from which a deterministic sampler draws what is wanted, found by Adam on the mean squared difference; and the loss
    before each step.

    draw: noise, B x ..., to images of the shape of `wanted`, differentiable. start: the noise to begin with. After each step, noise
    that is longer than sqrt(its size), what noise of a normal distribution has, is shortened to that: the sampler was made for
    such noise, and from any other even a network that knows nothing can be driven anywhere.
    """
    check_whole("steps", steps)
    check_number("learning_rate", learning_rate, 0, above=True)
    noise = start.detach().clone().requires_grad_(True)
    optimizer, losses = torch.optim.Adam([noise], lr=learning_rate), []
    for _ in range(steps):
        loss = (draw(noise) - wanted).square().flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(loss, noise)
        noise.grad = gradient
        optimizer.step()
        losses.append(float(loss.detach()) / len(noise))
        with torch.no_grad():
            length = noise.flatten(1).norm(dim=1).view(-1, *[1] * (noise.ndim - 1))
            noise.mul_((noise[0].numel() ** 0.5 / length).clamp(max=1))
    return noise.detach(), losses


def guided(pipe: DiffusionPipeline, means: Means, labels: Tensor, scale: float | None = None) -> tuple[Predict, dict]:
    """A pipeline's guided prediction for images of these labels, of its network frozen; and its noise levels.

    labels: int64, B. scale: of guidance; 1 for none, default the pipeline's own.
    """
    conditions, count = conditions_of(pipe, means.target, means.target.class_names), len(labels)
    scale = default_guidance(pipe) if scale is None else scale
    device = Accelerator().device
    unet = copy.deepcopy(network_of(pipe)).to(device).eval().requires_grad_(False)
    condition = (labels * conditions.all_wordings).to(device)

    def predict(x_t: Tensor, t: Tensor) -> Tensor:
        times = torch.full((count,), int(t), device=device)
        if scale == 1:
            with as_its_weights(unet):
                return conditions.predict(unet, x_t, times, condition).float()
        null = conditions.null(count).to(device)
        with as_its_weights(unet):
            both = conditions.predict(unet, torch.cat([x_t, x_t]), times.repeat(2), torch.cat([null, condition]))
        eps_null, eps = both.float().chunk(2)
        return eps_null + scale * (eps - eps_null)

    return predict, conditions.schedule.config


@torch.no_grad()
def _images(pipe: DiffusionPipeline, latents: Tensor) -> Tensor:
    return Codec.of(pipe).decode(latents).float().clamp(-1, 1).cpu()


class StartAttack(Attack):
    """An attack on the noise that a drawing starts from, along paths of DDIM."""

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        said = "it follows predictions of the noise, and a network of flow matching predicts a velocity"
        return said if is_kind(pipe, *FLOWS) else ""


@register("initial-noise")
@dataclass(frozen=True)
class InitialNoise(StartAttack):
    """Move the initial noise, by gradients through a few steps of DDIM, until what it draws is near a few images of the target.

    In the spirit of IVO (arXiv 2602.00175). count: images that the attacker has. samples: drawings that are moved, each
    to one of them.
    """

    count: int = 16
    samples: int = 32
    steps: int = 20
    sampling_steps: int = 6
    has: ClassVar[tuple[str, ...]] = (SHOTS,)

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        check_whole("count", self.count)
        check_whole("samples", self.samples)
        shots = images_of(means.target, means.data).resized(image_size(pipe))
        shots = shots.select(torch.arange(self.samples) % min(self.count, len(shots)))
        predict, levels = guided(pipe, means, shots.labels)
        wanted = Codec.of(pipe).encode(shots.images).to(Accelerator().device)
        start = torch.randn(wanted.shape, generator=step_generator(means.seed, 0, "initial noise")).to(wanted)

        def draw(noise: Tensor) -> Tensor:
            return ddim_path(predict, noise, self.sampling_steps, levels)

        noise, losses = seek_noise(draw, wanted, start, self.steps)
        with torch.no_grad():
            drawn = draw(noise)
        details = {"loss before": losses[0], "loss after": float((drawn - wanted).square().mean())}
        return Attacked(images=_images(pipe, drawn), steps=self.steps, details=details)


@register("inversion")
@dataclass(frozen=True)
class Inversion(StartAttack):
    """Invert held-out images of the target to the noise that leads to them, renew half of that noise, and draw from it.

    After Memories of Forgotten Concepts (CVPR 2025, arXiv 2412.00782): if the model still knows the target, what leads to its
    images is likely as noise, and what lies near it leads to others. Inverted without guidance, drawn with the pipeline's own.
    fresh: share of the variance of the noise that is fresh. details: root-mean-square difference of what the inverted noise itself
    leads to and the images (in the network's space), and that noise's mean square, 1 for noise that sampling could have drawn.
    """

    count: int = 50
    steps: int = 50
    fresh: float = 0.5
    has: ClassVar[tuple[str, ...]] = (HELD_OUT,)

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        if reason := super().lacking(pipe, means):
            return reason
        return "" if len(means.data.test.only(means.target)) else f"{means.data.name} has no held-out images of the target"

    @torch.no_grad()
    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        check_whole("count", self.count)
        check_number("fresh", self.fresh, 0, 1)
        held_out = in_turn(means.data.test.only(means.target)).resized(image_size(pipe))
        held_out = held_out.select(torch.arange(min(self.count, len(held_out))))
        x = Codec.of(pipe).encode(held_out.images).to(Accelerator().device)
        plain, levels = guided(pipe, means, held_out.labels, scale=1)
        noise = ddim_path(plain, x, self.steps, levels, invert=True)
        error = (ddim_path(plain, noise, self.steps, levels) - x).square().mean().sqrt()
        renewed = torch.randn(noise.shape, generator=step_generator(means.seed, 0, "renewed noise")).to(noise)
        mixed = (1 - self.fresh) ** 0.5 * noise + self.fresh**0.5 * renewed
        images = _images(pipe, ddim_path(guided(pipe, means, held_out.labels)[0], mixed, self.steps, levels))
        details = {"reconstruction error": float(error), "mean square of the noise": float(noise.square().mean())}
        return Attacked(images=images, details=details)
