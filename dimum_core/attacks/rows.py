"""Attacks on one row of the label embedding: all that a method hides behind the name of a class comes back with the row."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from ..checking import check_seed, check_whole
from ..data import Dataset
from ..data.targets import Wanted, find_target
from ..errors import DataError
from ..models.history import history_of, remember, with_unet
from ..models.networks import network_of
from ..models.sampling import ClassConditionalPipeline, check_pipeline
from .base import OLD_ROW, SEED, SHOTS, Attack, Attacked, Means, register
from .finetuning import UNMEASURED, images_of
from .relearning import Relearning, has_rows, relearn

NEAR_START = 0.5  # of its length: a row that has moved less than this from where a seed puts it began there


def swap_embedding(
    pipe: ClassConditionalPipeline, original: ClassConditionalPipeline, target: Wanted
) -> ClassConditionalPipeline:
    """The unlearned network with the original's rows for the target put back: is the class still there, without its name?"""
    _need_labels(pipe, "swap_embedding")
    check_pipeline(original, "original")
    table = network_of(original).class_embedding.weight if has_rows(original) else None
    if table is None or table.shape != network_of(pipe).class_embedding.weight.shape:
        raise DataError("The original has another table of labels than the unlearned network: take the one it was made from.")
    swapped = _with_row(pipe, target, table)
    return remember(swapped, history_of(pipe).having_seen(history_of(original)))


def reset_embedding(pipe: ClassConditionalPipeline, target: Wanted, seed: int = 0) -> ClassConditionalPipeline:
    """The network with the target's row as it was when the original's training began, made again from the published `seed`.

    Rows hardly move in pretraining: a few per cent of their length in the shipped models. So whoever knows the code and the seed
    has nearly the old row, without the original.
    """
    _need_labels(pipe, "reset_embedding")
    check_seed(seed)
    return _with_row(pipe, target, first_rows(pipe, seed))


def first_rows(pipe: ClassConditionalPipeline, seed: int) -> Tensor:
    """The label embedding of a network of the same shape, freshly initialised as pretraining does."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return type(network_of(pipe)).from_config(network_of(pipe).config).class_embedding.weight.detach()


def _with_row(pipe: ClassConditionalPipeline, target: Wanted, table: Tensor) -> ClassConditionalPipeline:
    changed = with_unet(pipe, copy.deepcopy(network_of(pipe)))
    labels = list(find_target(target, pipe.class_names).labels)
    with torch.no_grad():
        weight = changed.unet.class_embedding.weight
        weight[labels] = table[labels].to(weight)
    return changed


def relearn_embedding(pipe: ClassConditionalPipeline, data: Dataset, target: Wanted, count: int, **settings) -> Relearning:
    """Train the target's row of the label embedding alone, on `count` images of the target: what can the rest still draw?

    With prompts, `search_embedding` asks the same.
    """
    _need_labels(pipe, "relearn_embedding")
    check_whole("count", count)
    shown = images_of(target, data)
    shots = shown.select(torch.arange(min(count, len(shown))))
    return relearn(pipe, shots, target=target, allow_target=True, only_embedding_row=True, **settings)


def _need_labels(pipe: DiffusionPipeline, control: str) -> None:
    check_pipeline(pipe)
    if not isinstance(pipe, ClassConditionalPipeline):
        raise DataError(f"{control} works on the label embedding, which a text-to-image model lacks: use search_embedding.")
    if not has_rows(pipe):
        raise DataError(f"{control} works on the label embedding of a UNet, and this network has none.")


# As attacks by name ---------------------------------------------------------------------------------------------------


class RowAttack(Attack):
    """An attack on the target's row."""

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        return "" if has_rows(pipe) else "it works on the label embedding, and this network has none"


@register("old-row")
@dataclass(frozen=True)
class OldRow(RowAttack):
    """The original's row for the target, put back."""

    has: ClassVar[tuple[str, ...]] = (OLD_ROW,)

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        if means.original is None:
            return "the original model was not given"
        return super().lacking(pipe, means)

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        return Attacked(swap_embedding(pipe, means.original, means.target))


@register("seed-row")
@dataclass(frozen=True)
class SeedRow(RowAttack):
    """The target's row as it was when the original's training began, from its published seed."""

    has: ClassVar[tuple[str, ...]] = (SEED,)

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        if reason := super().lacking(pipe, means):
            return reason
        rows, first = network_of(pipe).class_embedding.weight.detach().cpu()[means.target.others], first_rows(pipe, means.init_seed)
        moved = (rows - first[means.target.others]).norm(dim=1) / rows.norm(dim=1)
        near = float(moved.median()) < NEAR_START
        return "" if near else f"the other labels' rows did not begin where the seed {means.init_seed} puts them"

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        return Attacked(reset_embedding(pipe, means.target, means.init_seed))


@register("trained-row")
@dataclass(frozen=True)
class TrainedRow(RowAttack):
    """The target's row, trained alone on a few images of the target."""

    count: int = 16
    steps: int = 60
    learning_rate: float = 3e-2
    has: ClassVar[tuple[str, ...]] = (SHOTS,)

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        settings = {"steps": self.steps, "learning_rate": self.learning_rate, "seed": means.seed, "judge": means.judge}
        attacked = relearn_embedding(pipe, means.data, means.target, self.count, **settings, **UNMEASURED)
        return Attacked(attacked.pipeline, steps=self.steps)
