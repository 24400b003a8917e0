"""Weight-distance regulariser: forget, and go far from the original weights (Siddiqui et al. 2025, arXiv 2505.22310)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .base import Step, ranged, register
from .on_top import FromStart


@register("weight-distance")
@dataclass(frozen=True)
class WeightDistance(FromStart):
    """L = L_den(D_r) - weight * sqrt(mean_i (theta_i - theta0_i)^2 + 1e-8), i over the weights that train.

    The second term is the root mean square of how far the weights have moved, as in the authors' code (weight_dist_reg). It has
    no upper bound. At theta0 it has no gradient: what the first term moves goes on moving.

    weight: published 1, for a ResNet-18 and 100 epochs. On the digits 100 goes six times as far as 1 in 60 steps, and forgets as
        little without a base that does (an 8, seed 10, which no table uses).
    base: what is minimised in place of L_den(D_r) alone; the authors start from another safeguard's weights.
    """

    weight: float = ranged(1.0, low=0)

    def loss(self, step: Step) -> Tensor:
        return super().loss(step) - self.weight * (self.moved(step).square().mean() + 1e-8).sqrt()
