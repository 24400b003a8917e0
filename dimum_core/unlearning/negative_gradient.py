"""Negative gradient: climb the loss on the forget set (Golatkar et al. 2020, arXiv 1911.04933; with a retain term, NegGrad+)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Method, Step, ranged, register


@register("negative-gradient")
@dataclass(frozen=True)
class NegativeGradient(Method):
    """L = retain_weight * L_den(D_r) - weight * L_den(D_f), without a lower bound.

    retain_weight: 0 is the negative gradient alone. Kurmanji et al. (2023, arXiv 2302.09880) weigh the two terms 0.95 to 0.05.
    """

    weight: float = ranged(0.05, low=0)
    retain_weight: float = ranged(0.95, low=0)
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})
    compares_noise: ClassVar[bool] = False

    def loss(self, step: Step) -> Tensor:
        climb = -self.weight * step.denoising(*step.batch("forget"))
        if not self.retain_weight:
            return climb
        return climb + self.retain_weight * step.retained()
