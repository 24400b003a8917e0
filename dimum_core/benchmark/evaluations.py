"""Network evaluations (NFEs): what a method costs, whatever the machine.

One evaluation is one pass of the network over one image under one condition; a backward pass is not counted beside its forward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ..sampling import ClassConditionalPipeline

SAMPLING_STEPS = 10  # of the solver, for every sample of a recovery curve


@contextlib.contextmanager
def counted(unet: nn.Module) -> Iterator[dict[str, int]]:
    """Count the evaluations of a network *and of the copies made of it* in this context: {"training": ..., "sampling": ...}.

    Methods train a copy beside a frozen one; hooks are copied with the network, so both are counted. Sampling is what an unfrozen
    network does in evaluation mode without gradients: here, drawing the samples that decide when to stop.
    """
    seen = {"training": 0, "sampling": 0}

    def count(module: nn.Module, arguments: tuple) -> None:
        frozen = not next(module.parameters()).requires_grad
        sampling = not (module.training or frozen or torch.is_grad_enabled())
        seen["sampling" if sampling else "training"] += len(arguments[0])

    handle = unet.register_forward_pre_hook(count)
    try:
        yield seen
    finally:
        handle.remove()


def attack_evaluations(attack: dict, pipe: ClassConditionalPipeline, point: int, step: int) -> dict[str, int]:
    """What a recovery curve has cost by its `point`-th evaluation (from 0), at attack step `step`."""
    a_sample = SAMPLING_STEPS * (1 if pipe.config.guidance_scale == 1 else 2)
    return {
        "attack_nfes": step * attack["attack_batch_size"],
        "sampling_nfes": (point + 1) * 2 * attack["samples"] * a_sample,
    }
