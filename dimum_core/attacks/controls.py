"""Controls beside DiMRA: attacks that see the target, that touch one embedding row, or that need no data at all."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
from torch import nn

from ..checking import check_number, check_whole
from ..data import Dataset, ImageSet, step_generator
from ..errors import DataError, brief
from ..models.history import history_of, remember, with_unet
from ..models.sampling import ClassConditionalPipeline
from .relearning import Relearning, relearn


def few_shot(pipe: ClassConditionalPipeline, data: Dataset, target: str | int, count: int, **settings) -> Relearning:
    """The upper bound: relearn with `count` images of the target beside the retained data, a tenth of each batch.

    settings: as for `relearn`.
    """
    check_whole("count", count)
    shown = _images_of(target, data)
    shots = shown.select(torch.arange(count) % len(shown))
    retain = data.train.without(target)
    copies = max(1, round(len(retain) / 9 / count))
    return relearn(pipe, concatenate(retain, *[shots] * copies), target=target, allow_target=True, **settings)


def relearn_embedding(pipe: ClassConditionalPipeline, data: Dataset, target: str | int, count: int, **settings) -> Relearning:
    """Train the target's row of the label embedding alone, on `count` images of the target: what can the rest still draw?

    With prompts, `search_embedding` asks the same.
    """
    _need_labels(pipe, "relearn_embedding")
    check_whole("count", count)
    shown = _images_of(target, data)
    shots = shown.select(torch.arange(min(count, len(shown))))
    return relearn(pipe, shots, target=target, allow_target=True, only_embedding_row=True, **settings)


def _images_of(target: str | int, data: Dataset) -> ImageSet:
    """The training images of the target, of which this attacker has some."""
    shown = data.train.only(target)
    if not len(shown):
        raise DataError(f"{data.name} has no training images of {brief(target)} to attack with: pass a data set that has some.")
    return shown


def swap_embedding(
    pipe: ClassConditionalPipeline, original: ClassConditionalPipeline, target: str | int
) -> ClassConditionalPipeline:
    """The unlearned network with the original's row for the target put back: is the class still there, without its name?"""
    _need_labels(pipe, "swap_embedding")
    if original.unet.class_embedding.weight.shape != pipe.unet.class_embedding.weight.shape:
        raise DataError("The original has another table of labels than the unlearned network: take the one it was made from.")
    swapped = with_unet(pipe, copy.deepcopy(pipe.unet))
    label = int(pipe.label_tensor([target])[0])
    with torch.no_grad():
        swapped.unet.class_embedding.weight[label] = original.unet.class_embedding.weight[label]
    return remember(swapped, history_of(pipe).having_seen(history_of(original)))


def _need_labels(pipe, control: str) -> None:
    if not isinstance(pipe, ClassConditionalPipeline):
        raise DataError(f"{control} works on the label embedding, which a text-to-image model lacks: use search_embedding.")


def add_weight_noise(pipe: ClassConditionalPipeline, level: float, seed: int = 0) -> ClassConditionalPipeline:
    """Gaussian noise on every weight, `level` times the standard deviation of its tensor: does forgetting survive a nudge?"""
    check_number("level", level, 0)
    generator = step_generator(seed, 0, "weight noise")

    def disturb(weight: torch.Tensor) -> torch.Tensor:
        spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
        return weight + level * spread * torch.randn(weight.shape, generator=generator).to(weight)

    return _edited(pipe, disturb)


def prune(pipe: ClassConditionalPipeline, share: float) -> ClassConditionalPipeline:
    """Set the smallest `share` of each matrix's and kernel's weights to zero."""
    check_number("share", share, 0, math.nextafter(1, 0))

    def cut(weight: torch.Tensor) -> torch.Tensor:
        removed = round(share * weight.numel())
        if weight.ndim < 2 or not removed:
            return weight
        return torch.where(weight.abs() > weight.abs().flatten().kthvalue(removed).values, weight, 0.0)

    return _edited(pipe, cut)


@torch.no_grad()
def _edited(pipe: ClassConditionalPipeline, edit) -> ClassConditionalPipeline:
    unet: nn.Module = copy.deepcopy(pipe.unet)
    for parameter in unet.parameters():
        parameter.copy_(edit(parameter))
    return with_unet(pipe, unet)


def concatenate(first: ImageSet, *others: ImageSet) -> ImageSet:
    """One image set of several with the same classes."""
    sets = [first, *others]
    return ImageSet(
        first.name, torch.cat([s.images for s in sets]), torch.cat([s.labels for s in sets]), first.class_names,
        np.concatenate([s.item_hashes for s in sets]),
    )
