"""ESD: steer away from the forgotten condition, along the student's own trajectories (Gandikota et al. 2023, arXiv 2303.07345)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from ..models.diffusion import NUM_TIMESTEPS
from ..models.sampling import step_arguments
from .base import Method, Step, ranged, register


@register("esd")
@dataclass(frozen=True)
class ESD(Method):
    """L = |eps_0(x_t, t, null) - guidance * (eps_0(x_t, t, c_f) - eps_0(x_t, t, null)) - eps(x_t, t, c_f)|^2.

    x_t is not a noised image but a point on the student's own path from noise, drawn under c_f, so no data is needed (eq. 7 and 8).
    The target comes from the frozen original.

    guidance: eta, published 1. sampling_steps: of DDIM, and sampling_scale of guidance, for the student's path (published 50 and 3;
    10 steps here, because the path is drawn anew in every step of training).
    """

    guidance: float = 1.0
    sampling_steps: int = ranged(10, 1, NUM_TIMESTEPS)
    sampling_scale: float = 3.0
    needs: ClassVar[frozenset[str]] = frozenset()

    def loss(self, step: Step) -> Tensor:
        x_t, t, condition = self.point_on_the_path(step)
        null = step.null(len(x_t))
        eps_null = step.predict(x_t, t, null, original=True)
        eps_target = step.predict(x_t, t, condition, original=True)
        away = eps_null - self.guidance * (eps_target - eps_null)
        return (away - step.predict(x_t, t, condition)).square().mean()

    @torch.no_grad()
    def point_on_the_path(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """x_t after a random number of the student's sampling steps, and the timestep that it belongs to."""
        scheduler = DDIMScheduler(**step.conditions.scheduler_config, timestep_spacing="trailing")
        scheduler.set_timesteps(self.sampling_steps)
        ends = step.within(scheduler.timesteps.tolist())
        end = ends[int(torch.randint(len(ends), (1,), generator=step.generator))]
        condition, null = step.target(step.batch_size), step.null(step.batch_size)
        x_t = torch.randn(step.batch_size, *step.latent_shape, generator=step.generator).to(step.device)
        for t in scheduler.timesteps[scheduler.timesteps > end]:
            every_t = t.expand(len(x_t)).to(step.device)
            eps_null, eps_target = (step.predict(x_t, every_t, c) for c in (null, condition))
            eps = eps_null + self.sampling_scale * (eps_target - eps_null)
            x_t = scheduler.step(eps, t, x_t, **step_arguments(scheduler, step.generator)).prev_sample
        torch.clear_autocast_cache()  # before 2.10 torch used weights that were cast here, without a graph, in the loss again
        return x_t, torch.full((len(x_t),), end, device=step.device), condition


@register("esd-x")
@dataclass(frozen=True)
class ESDx(ESD):
    """ESD on the cross-attention alone, where the words come in: the authors' choice for styles and names."""

    trains: ClassVar[str] = "attn2"
    prompts_only: ClassVar[bool] = True
