"""Network evaluations (NFEs): what a method costs, whatever the machine; and beside them, what it took on this one.

One evaluation is one pass of the network over one image under one condition; a backward pass is not counted beside its forward.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import torch
from torch import nn

from ..models.fresh_noise import FRESH_STEPS
from ..models.sampling import ClassConditionalPipeline


class _Counter:
    """A hook that is copied with its network, and knows every copy, so that it can be taken off again."""

    def __init__(self, unet: nn.Module):
        self.seen, self.networks = {"training": 0, "sampling": 0}, [unet]
        self.number = unet.register_forward_pre_hook(self, with_kwargs=True).id

    def __deepcopy__(self, memo: dict) -> _Counter:
        self.networks += [memo[id(network)] for network in self.networks if id(network) in memo]  # it comes before its parts
        return self

    def __call__(self, module: nn.Module, arguments: tuple, named: dict) -> None:
        frozen = not any(parameter.requires_grad for parameter in module.parameters())
        sampling = not (module.training or frozen or torch.is_grad_enabled())
        self.seen["sampling" if sampling else "training"] += len(arguments[0] if arguments else named["hidden_states"])

    def remove(self) -> None:
        for network in self.networks:
            network._forward_pre_hooks.pop(self.number, None)
            network._forward_pre_hooks_with_kwargs.pop(self.number, None)


@contextlib.contextmanager
def counted(unet: nn.Module) -> Iterator[dict[str, int]]:
    """Count the evaluations of a network *and of the copies made of it* in this context: {"training": ..., "sampling": ...}.

    Methods train a copy beside the original, which is frozen meanwhile: whatever it predicts or draws is part of the training.
    Sampling is what an unfrozen network does in evaluation mode without gradients: the looks along the way.
    """
    trained = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    counter = _Counter(unet.requires_grad_(False))
    try:
        yield counter.seen
    finally:
        counter.remove()
        for parameter in trained:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def spent(unet: nn.Module) -> Iterator[dict[str, float]]:
    """What a network and its copies cost within this context, filled in when it is over: {"seconds", "passes", "memory"}.

    passes: network evaluations of training, as in `counted`. memory: the most that was in use above what was in use before, in MB;
    with CUDA that of its tensors, else of the whole process, looked at every 5 ms. A process keeps memory that it has had, so
    to compare CPU memory, run each method in a process of its own.
    """
    cost, cuda = {}, torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else psutil.Process().memory_info().rss
    with _resident_memory() as most, counted(unet) as seen:
        started = time.perf_counter()
        yield cost
        cost["seconds"], cost["passes"] = time.perf_counter() - started, seen["training"]
    cost["memory"] = ((torch.cuda.max_memory_allocated() if cuda else most()) - before) / 1e6


@contextlib.contextmanager
def _resident_memory() -> Iterator[Callable[[], int]]:
    """The most bytes of memory that this process has had within this context."""
    process, over = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def look() -> None:
        while not over.wait(0.005):
            seen.append(max(seen.pop(), process.memory_info().rss))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield lambda: max(*seen, process.memory_info().rss)
    finally:
        over.set()
        watcher.join()


def attack_nfes(attack: dict, pipe: ClassConditionalPipeline, point: int, step: int) -> dict[str, int]:
    """What a recovery curve has cost by its `point`-th evaluation (from 0), at attack step `step`."""
    a_sample = FRESH_STEPS * (1 if pipe.config.guidance_scale == 1 else 2)
    return {
        "attack_nfes": step * attack["attack_batch_size"],
        "sampling_nfes": (point + 1) * 2 * attack["samples"] * a_sample,
    }
