"""The network that is finetuned, by unlearning or by an attack: a copy of a pipeline's, and how it is trained on."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence

from accelerate import Accelerator
from diffusers import DiffusionPipeline

from ..checking import check_whole
from ..errors import SettingError
from ..models.history import with_unet
from ..models.low_rank import has_attached, updates_of
from ..models.networks import network_of, placed
from ..training import TrainConfig
from .adapters import add_lora, merged


@contextlib.contextmanager
def student(
    pipe: DiffusionPipeline, lora_rank: int = 0, gradient_checkpointing: bool = False, seed: int = 0
) -> Iterator[DiffusionPipeline]:
    """A pipeline like `pipe` with a copy of its network, which trains within this context, on the accelerator's device.

    After it the network is where the given one is, low-rank updates are added to the weights, and every weight is free to train;
    the updates alone are the pipeline's `adapter`. Those that are attached to the given network are added at the start: whoever
    trains it on begins with what it draws.
    lora_rank: of low-rank updates of the attention's matrices, which then train, in float32, in place of all weights; 0 for none.
        Added to weights in bf16 they are rounded.
    """
    check_whole("lora_rank", lora_rank, 0)
    unet = copy.deepcopy(network_of(pipe)).to(Accelerator().device).requires_grad_(True)
    if has_attached(unet):
        merged(unet)
    if lora_rank:
        add_lora(unet, lora_rank, seed)
    if gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    vae = getattr(pipe, "vae", None)  # goes along: on a CPU it takes seconds for an image of 512 pixels
    with placed([] if vae is None else [vae], unet.device):
        yield (trained := with_unet(pipe, unet))
    if gradient_checkpointing and not network_of(pipe).is_gradient_checkpointing:
        unet.disable_gradient_checkpointing()
    if lora_rank:
        trained.adapter = updates_of(unet)
        merged(unet)
    unet.to(network_of(pipe).device).requires_grad_(True)


def finetuning(
    steps: int, batch_size: int, learning_rate: float, seed: int, precision: str, optimizer: str = "adamw"
) -> TrainConfig:
    """How to train weights that know something already: the learning rate rises over a tenth of the steps, at most ten, since
    otherwise Adam's first steps alone wreck a model; then it stays, and no average is kept."""
    check_whole("steps", steps, 0)
    return TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, warmup_steps=min(10, steps // 10), decay=False,
        ema_decay=0.0, seed=seed, precision=precision, optimizer=optimizer,
    )


def evaluation_interval(evaluate_every: int | Sequence[int] | None, steps: int, count: int) -> int | tuple[int, ...]:
    """Steps between two evaluations, as given or such that there are `count` of them; or a list of the steps that have one."""
    if evaluate_every is None:
        return max(1, steps // count)
    if not isinstance(evaluate_every, (list, tuple, range)):
        check_whole("evaluate_every", evaluate_every)
        return evaluate_every
    if not evaluate_every:
        raise SettingError("evaluate_every must list at least one step, or be a number of steps, and is empty.")
    for step in evaluate_every:
        check_whole("a step of evaluate_every", step)
    return tuple(evaluate_every)
