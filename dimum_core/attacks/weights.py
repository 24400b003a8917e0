"""Attacks that edit weights and train nothing: a nudge, a cut, fewer bits, and weights guessed from those around them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..checking import check_number, check_whole
from ..data import step_generator
from ..errors import DataError, brief
from ..models.history import with_unet
from ..models.networks import network_of, same_layout
from ..models.sampling import check_pipeline
from .base import MASK, Attack, Attacked, Means, register


def add_weight_noise(pipe: DiffusionPipeline, level: float, seed: int = 0) -> DiffusionPipeline:
    """Gaussian noise on every weight, `level` times the standard deviation of its tensor: does forgetting survive a nudge?"""
    check_number("level", level, 0)
    generator = step_generator(seed, 0, "weight noise")

    def disturb(_: str, weight: Tensor) -> Tensor:
        spread = weight.std() if weight.numel() > 1 else weight.abs().mean()
        return weight + level * spread * torch.randn(weight.shape, generator=generator).to(weight)

    return _edited(pipe, disturb)


def prune(pipe: DiffusionPipeline, share: float) -> DiffusionPipeline:
    """Set the smallest `share` of each matrix's and kernel's weights to zero."""
    check_number("share", share, 0, math.nextafter(1, 0))

    def cut(_: str, weight: Tensor) -> Tensor:
        removed = round(share * weight.numel())
        if weight.ndim < 2 or not removed:
            return weight
        return torch.where(weight.abs() > weight.abs().flatten().kthvalue(removed).values, weight, 0.0)

    return _edited(pipe, cut)


def round_weights(pipe: DiffusionPipeline, bits: int) -> DiffusionPipeline:
    """Each matrix and kernel rounded to whole numbers of `bits` bits and back, with one scale for each output channel.

    The numbers are symmetric, -(2^(b-1) - 1) to 2^(b-1) - 1, and the largest weight of a channel is kept as it is. What forgot by
    less than half a step of this grid is rounded back to where the original is, if that lies on the same point of it. For language
    models 4 bits bring back much of what was unlearned (Zhang et al. 2025, arXiv 2410.16454).
    """
    check_whole("bits", bits, 2, 16)
    most = 2 ** (bits - 1) - 1

    def rounded(_: str, weight: Tensor) -> Tensor:
        if weight.ndim < 2:
            return weight
        full = weight.float()  # torch rounds no bf16
        scale = (full.flatten(1).abs().amax(1) / most).clamp_min(torch.finfo(full.dtype).tiny)
        zero = torch.zeros_like(scale, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(full, scale, zero, 0, -most, most).to(weight.dtype)

    return _edited(pipe, rounded)


def complete_weights(pipe: DiffusionPipeline, masks: dict[str, Tensor], steps: int = 30) -> DiffusionPipeline:
    """Guess the weights that a mask selects from the others, as the entries that a low-rank matrix has lost.

    The edited values are thrown away; what they had been may still be read from the weights that nobody touched. By
    soft-thresholded singular values (soft-impute, Mazumder et al. 2010, JMLR 11), after Roots beneath the Cut (CVPR 2026,
    arXiv 2603.06640), which does it to weights that were pruned. Needs neither data nor training.

    masks: name of a parameter -> bool, of its shape, true where the weight is to be guessed.
    """
    check_pipeline(pipe)
    check_whole("steps", steps)
    if unknown := masks.keys() - dict(network_of(pipe).named_parameters()).keys():
        raise DataError(f"The network has no parameter {brief(min(unknown))}: masks must have names of its own.")

    def completed(name: str, weight: Tensor) -> Tensor:
        mask = masks.get(name)
        if mask is None or not mask.any():
            return weight
        if mask.shape != weight.shape:
            raise DataError(f"The mask of {name} must have its shape {tuple(weight.shape)}, not {tuple(mask.shape)}.")
        if weight.ndim < 2 or mask.all():
            return weight
        return soft_impute(weight.flatten(1), mask.flatten(1), steps).view_as(weight)

    return _edited(pipe, completed)


def soft_impute(matrix: Tensor, missing: Tensor, steps: int = 30, floor: float = 0.02) -> Tensor:
    """A matrix with its missing entries filled in such that its singular values stay few.

    matrix: M x N; what stands at the missing entries is not read. missing: bool, M x N. The threshold falls evenly, on a
    logarithmic scale, from the largest singular value of what is known to `floor` of it; each solution starts the next. float64
    within, on the CPU: Apple's GPUs have none.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return soft_impute(matrix.T, missing.T, steps, floor).T
    missing = missing.cpu()
    filled = known = matrix.cpu().double().masked_fill(missing, 0.0)
    largest = torch.linalg.matrix_norm(known, 2)
    if not largest:  # no threshold falls from there
        return filled.to(matrix)
    for threshold in torch.logspace(0, math.log10(floor), steps).to(largest) * largest:
        squares, u = torch.linalg.eigh(filled @ filled.T)  # of the shorter side: many times faster than singular vectors of both
        s = squares.clamp_min(0).sqrt()
        kept = (s - threshold).clamp_min(0) / s.clamp_min(threshold)
        filled = torch.where(missing, u * kept @ (u.T @ filled), known)
    return filled.to(matrix)


@torch.no_grad()
def _edited(pipe: DiffusionPipeline, edit: Callable[[str, Tensor], Tensor]) -> DiffusionPipeline:
    """A pipeline like the given one, with every parameter replaced by what `edit` makes of its name and value."""
    check_pipeline(pipe)
    unet: nn.Module = copy.deepcopy(network_of(pipe))
    for name, parameter in unet.named_parameters():
        parameter.copy_(edit(name, parameter))
    return with_unet(pipe, unet)


def edited_weights(pipe: DiffusionPipeline, original: DiffusionPipeline) -> dict[str, Tensor]:
    """Which weights differ from the original's: name -> bool, of the parameter's shape. DataError for networks of other shapes."""
    if not same_layout(network_of(pipe), network_of(original)):
        raise DataError("The original's network has other weights than the unlearned one: take the one that it was made from.")
    ours, theirs = (dict(network_of(model).named_parameters()) for model in (pipe, original))
    return {name: weight.detach() != theirs[name].detach().to(weight) for name, weight in ours.items()}


# As attacks by name ---------------------------------------------------------------------------------------------------


@register("rounding")
@dataclass(frozen=True)
class Rounding(Attack):
    """The weights rounded to whole numbers of few bits, and back."""

    bits: int = 8

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        return Attacked(round_weights(pipe, self.bits))


@register("weight-noise")
@dataclass(frozen=True)
class WeightNoise(Attack):
    """Noise on every weight."""

    level: float = 0.05

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        return Attacked(add_weight_noise(pipe, self.level, means.seed))


@register("pruning")
@dataclass(frozen=True)
class Pruning(Attack):
    """The smallest weights set to zero."""

    share: float = 0.1

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        return Attacked(prune(pipe, self.share))


@register("completion")
@dataclass(frozen=True)
class Completion(Attack):
    """Guess the weights that a mask let the method change from the others.

    The attacker knows the mask, not the original: that is used only to find the mask, which no checkpoint names.
    """

    steps: int = 30
    least: ClassVar[float] = 0.02  # share of the matrices' weights that must be as they were: else there was no mask
    has: ClassVar[tuple[str, ...]] = (MASK,)

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        if means.original is None:
            return "the original model, which shows the mask, was not given"
        if not same_layout(network_of(pipe), network_of(means.original)):
            return "its network has other weights than the original's"
        masks = [mask for mask in edited_weights(pipe, means.original).values() if mask.ndim > 1]
        edited = sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
        if not edited:
            return "no matrix differs from the original's"
        return "" if edited <= 1 - self.least else f"the method had no mask: it changed {edited:.0%} of the weights"

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        return Attacked(complete_weights(pipe, edited_weights(pipe, means.original), self.steps), steps=self.steps)
