"""The sampler that everything is measured with.

A solver without noise follows one path from the first noise on, and in a half-recovered model many of these paths end beside the
class. Euler ancestral draws fresh noise in each step, as DDPM does: with 25 steps it ranks methods as DDPM's thousand do
(docs/performance.md).
"""

from __future__ import annotations

from diffusers import DiffusionPipeline, EulerAncestralDiscreteScheduler, SchedulerMixin

from .history import with_unet

FRESH_STEPS = 25


def with_fresh_noise(pipe: DiffusionPipeline, scheduler: SchedulerMixin | None = None) -> DiffusionPipeline:
    """The same network with a sampler that draws fresh noise in every step, or with another; the pipeline keeps its own."""
    sampler = with_unet(pipe, pipe.unet)
    kind = EulerAncestralDiscreteScheduler if scheduler is None else type(scheduler)
    sampler.scheduler = kind.from_config((scheduler or pipe.scheduler).config)
    return sampler
