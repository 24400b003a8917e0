"""The sampler that everything is measured with.

A solver without noise follows one path from the first noise on, and in a half-recovered model many of these paths end beside the
class. Euler ancestral draws fresh noise in each step, as DDPM does: with 25 steps it ranks methods as DDPM's thousand do
(docs/performance.md).
"""

from __future__ import annotations

from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, SchedulerMixin

from .history import with_unet
from .networks import FLOWS, is_kind, network_of

FRESH_STEPS = 25


def with_fresh_noise(pipe: DiffusionPipeline, scheduler: SchedulerMixin | None = None) -> DiffusionPipeline:
    """The same network with a sampler that draws fresh noise in every step, or with another; the pipeline keeps its own.

    diffusers' Euler ancestral has no place for networks that predict the image, or a velocity of flow matching: these draw by
    DPM-Solver++ for SDEs.
    """
    sampler = with_unet(pipe, network_of(pipe))
    config, kind, more = (scheduler or pipe.scheduler).config, EulerAncestralDiscreteScheduler, {}
    if scheduler is not None:
        kind = type(scheduler)
    elif is_kind(pipe, *FLOWS):
        config, shift = dict(config), config.get("shift", 1.0)
        config.pop("shift", None)  # which has another name there
        levels = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
        kind, more = DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++", **levels}
    elif config.get("prediction_type") == "sample":
        kind, more = DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}
    sampler.scheduler = kind.from_config(config, **more)
    return sampler
