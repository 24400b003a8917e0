"""What a plan will cost, before it runs: counted in steps and samples, timed on this machine."""

from __future__ import annotations

import secrets
import time

import torch
from accelerate import Accelerator
from torch import nn

from ..evaluation import draw_samples
from ..fitting import data_for
from ..models.checkpoints import load_pipeline
from ..models.conditions import conditions_of, image_size
from ..models.fresh_noise import FRESH_STEPS, with_fresh_noise
from ..models.networks import network_of
from ..precision import autocast
from ..pretraining import DenoisingObjective
from .plan import Plan

TERMS = 2.2  # forward-and-backward passes of a typical method in a step


def estimate_minutes(plan: Plan, threads: int = 1) -> float:
    """Minutes that all cells of a plan take one after the other, with `threads` torch threads; right within a factor of two."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        step, image = _time_step_and_image(plan)
    finally:
        torch.set_num_threads(before)
    seconds = 0.0
    for model in plan.models():
        if "steps" in model and model == plan.snapshots(model)[-1]:  # one run gives them all
            checks = model["steps"] // model["check_every"] * (32 if model["until"] else 0)
            seconds += model["steps"] * TERMS * step + checks * image
        point = 2 * plan.samples * image  # the first point of a curve is drawn once for all attacks on a model
        seconds += point + len(plan.attacks(model)) * (plan.attack_steps * step + (curve_points(plan) - 1) * point)
    return seconds / 60


def curve_points(plan: Plan) -> int:
    """Points of a recovery curve, the first and the last included."""
    return plan.points if isinstance(plan.points, int) else len({0, *plan.points, plan.attack_steps})


def _time_step_and_image(plan: Plan) -> tuple[float, float]:
    """Seconds of one step of training on a batch, and of one sample as a recovery curve takes it."""
    pipe = load_pipeline(plan.checkpoint)
    data = data_for(pipe, plan.data)
    objective = DenoisingObjective(data.train.resized(image_size(pipe)), plan.batch_size, conditions_of(pipe))
    network = network_of(pipe).to(Accelerator().device)  # where it trains
    step = _quickest(lambda: _one_step(network, objective))
    image = _quickest(lambda: _draw_anew(pipe), repeats=1) / 16
    return step, image


def _draw_anew(pipe) -> None:
    """16 samples from a seed that nobody has used: samples drawn before are remembered, and take no time."""
    draw_samples(
        with_fresh_noise(pipe), [0] * 16, seed=secrets.randbits(60), num_inference_steps=FRESH_STEPS, progress=False
    )


def _one_step(unet: nn.Module, objective: DenoisingObjective) -> None:
    unet.train().requires_grad_(True)
    with autocast(unet):
        loss = objective(unet, 0, 0)
    loss.backward()
    if torch.accelerator.is_available():  # else only its launch is timed
        torch.accelerator.synchronize()
    unet.zero_grad(set_to_none=True)


def _quickest(action, repeats: int = 3) -> float:
    action()  # the first time, memory is allocated and kernels are chosen
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return min(times)
