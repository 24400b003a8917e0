"""CBFT: a barrier on the straight way back to the original weights (Siddiqui et al. 2025, arXiv 2505.22310)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Step, follow, gradient, ranged, register, shifted
from .on_top import FromStart


@register("cbft")
@dataclass(frozen=True)
class CBFT(FromStart):
    """L = L_den(D_r) - weight * min(L_den(D_f and D_r; (theta0 + theta) / 2), bound).

    Connectivity-based finetuning (after Lubana et al. 2023, arXiv 2211.08422) keeps the unlearned weights from being connected to
    the original ones by a line of low loss: half-way between them, the loss is to be high. As in the authors' code
    (mode_connectivity), on the batch to forget and the retained one together. The gradient by theta of the second term is
    half the gradient at the midpoint.

    Published with cross-entropy: weight 0.001, bound 50. bound here: the loss of a network that predicts no noise at all is 1. Of
    the weights 0.1 and 1 the second forgot within 60 steps and drew the other digits as before, and the first forgot nothing (an 8
    of `digits`, seed 10, which no table uses).

    base: what is minimised in place of L_den(D_r) alone; the authors start from another safeguard's weights.
    """

    weight: float = ranged(1.0, low=0)
    bound: float = ranged(1.0, low=0)
    adds: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})

    def loss(self, step: Step) -> Tensor:
        half_way = -self.moved(step).detach() / 2
        x, condition = (torch.cat(parts) for parts in zip(step.batch("forget"), step.batch("retain"), strict=True))
        with shifted(step.model, half_way):
            barrier = step.denoising(x, condition).clamp_max(self.bound)
            direction = gradient(barrier, step.model) / 2
        return super().loss(step) + follow(-self.weight * direction, step.model, -self.weight * barrier)
