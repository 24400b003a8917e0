"""Attacks that train on: DiMRA without the target, in all weights or by low-rank updates, and with a few images of it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import torch
from diffusers import DiffusionPipeline

from ..checking import check_kind, check_whole
from ..data import Dataset, ImageSet
from ..data.targets import Wanted, find_target
from ..errors import DataError, brief
from ..models.history import history_of
from ..models.networks import network_of
from ..models.sampling import ClassConditionalPipeline, check_pipeline
from ..unlearning.adapters import has_attention
from .base import RETAINED, SHOTS, Attack, Attacked, Means, register
from .relearning import Relearning, relearn

UNMEASURED = {"samples": 1, "num_inference_steps": 4, "progress": False}  # of `relearn`, where only its end is looked at


def few_shot(pipe: ClassConditionalPipeline, data: Dataset, target: Wanted, count: int, **settings) -> Relearning:
    """The upper bound: relearn with `count` images of the target beside the retained data, a tenth of each batch.

    settings: as for `relearn`.
    """
    check_pipeline(pipe)
    check_whole("count", count)
    shown = images_of(target, data)
    shots = shown.select(torch.arange(count) % len(shown))
    retain, _ = history_of(pipe).leave_out(data.train.without(target))
    copies = max(1, round(len(retain) / 9 / count))
    return relearn(pipe, concatenate(retain, *[shots] * copies), target=target, allow_target=True, **settings)


def images_of(target: Wanted, data: Dataset) -> ImageSet:
    """The training images of the target, of which an attacker has some: of its labels in turn."""
    check_kind("data", data, Dataset, "a data set, such as load_dataset('digits')")
    target = find_target(target, data.class_names)
    if lacking := [part.name for part in target.each if not len(data.train.only(part))]:
        names = ", ".join(map(brief, lacking))
        raise DataError(f"{data.name} has no training images of {names} to attack with: pass a data set that has some.")
    return in_turn(data.train.only(target))


def in_turn(images: ImageSet) -> ImageSet:
    """The same images, first one of each label, then a second one, and so on: the first few of a style show every object."""
    order = images.labels.argsort(stable=True)
    turns = torch.cat([torch.arange(int(count)) for count in images.labels.unique(return_counts=True)[1]])
    return images.select(order[turns.argsort(stable=True)])


def concatenate(first: ImageSet, *others: ImageSet) -> ImageSet:
    """One image set of several with the same classes."""
    sets = [first, *others]
    return ImageSet(
        first.name, torch.cat([s.images for s in sets]), torch.cat([s.labels for s in sets]), first.class_names,
        np.concatenate([s.item_hashes for s in sets]),
    )


# As attacks by name ---------------------------------------------------------------------------------------------------


@register("relearning")
@dataclass(frozen=True)
class Relearn(Attack):
    """DiMRA: all weights are finetuned on the images of the other classes."""

    steps: int = 150
    learning_rate: float = 3e-4
    has: ClassVar[tuple[str, ...]] = (RETAINED,)

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        return Attacked(_relearnt(self, pipe, means).pipeline, steps=self.steps)


@register("low-rank")
@dataclass(frozen=True)
class LowRank(Attack):
    """DiMRA by low-rank updates of the attention's matrices; the other weights stay (Hu et al. 2021, arXiv 2106.09685)."""

    rank: int = 4
    steps: int = 150
    learning_rate: float = 1e-2
    has: ClassVar[tuple[str, ...]] = (RETAINED,)

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        if find_spec("peft") is None:
            return "it needs peft (pip install -e '.[stable-diffusion]')"
        return "" if has_attention(network_of(pipe)) else "the network has no attention to update"

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        return Attacked(_relearnt(self, pipe, means, lora_rank=self.rank).pipeline, steps=self.steps)


def _relearnt(attack: Relearn | LowRank, pipe: DiffusionPipeline, means: Means, **more) -> Relearning:
    return relearn(
        pipe, means.data.train.without(means.target), target=means.target, steps=attack.steps,
        learning_rate=attack.learning_rate, seed=means.seed, judge=means.judge, **UNMEASURED, **more,
    )


@register("few-shot")
@dataclass(frozen=True)
class FewShot(Attack):
    """All weights are finetuned on the images of the other classes and `count` of the target's."""

    count: int = 10
    steps: int = 60
    learning_rate: float = 3e-4
    has: ClassVar[tuple[str, ...]] = (RETAINED, SHOTS)

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        attacked = few_shot(
            pipe, means.data, means.target, self.count, steps=self.steps, learning_rate=self.learning_rate, seed=means.seed,
            judge=means.judge, **UNMEASURED,
        )
        return Attacked(attacked.pipeline, steps=self.steps)
