"""SFR-on: a step up the forget loss on the weights that matter for it, then a step down the retained loss on all.

Huang et al. 2024, "Unified gradient-based machine unlearning with remain geometry enhancement", arXiv 2409.19732.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Method, Step, follow, gradient, ranged, register


@register("sfr-on")
@dataclass(frozen=True)
class SFRon(Method):
    """Even steps climb, odd steps repair.

    Climb: -forget_weight * (1 + cos(pi k / K)) / 2 * sum_i w_i l_i on the forget set, l_i the loss of image i and w_i proportional
    to l_i^-adaptivity with mean 1, so that images already forgotten weigh less; only weights whose Fisher information is at least
    `threshold` times as large on the forget set as on the retained set move. Repair: L_den(D_r), every weight.

    Published: forget_weight 10, adaptivity 0.5, threshold 1. Both published losses are sums over the d elements of an image, and
    gradients are clipped at 1 afterwards, which makes the two steps equally long; so both are multiplied by d here too.
    """

    forget_weight: float = ranged(10.0, low=0)
    adaptivity: float = 0.5
    threshold: float = 1.0
    fisher_batches: int = 16
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})
    uses_total_steps: ClassVar[bool] = True

    @property
    def prepare_batches(self) -> int:
        return self.fisher_batches

    def prepare(self, steps: list[Step]) -> dict:
        """1 where the Fisher information of the forget set is at least `threshold` times the retained set's."""
        fisher = {}
        for kind in ("forget", "retain"):
            squares = (gradient(s.denoising(*s.batch(kind)), s.model).square() for s in steps)
            fisher[kind] = sum(squares)
        return {"salient": (fisher["forget"] + 1e-15) / (fisher["retain"] + 1e-15) >= self.threshold}

    def loss(self, step: Step) -> Tensor:
        elements = math.prod(step.latent_shape)
        if step.index % 2:
            return elements * step.retained()
        decay = (1 + math.cos(math.pi * step.index / step.steps)) / 2
        climb = -self.forget_weight * decay * elements * self.adaptive_loss(step)
        return follow(gradient(climb, step.model) * step.state["salient"], step.model, climb)

    def adaptive_loss(self, step: Step) -> Tensor:
        x, condition = step.batch("forget")
        x_t, eps, t = step.noise(x)
        each = (eps - step.predict(x_t, t, condition)).square().flatten(1).mean(1)
        weight = each.detach().clamp_min(1e-8) ** -self.adaptivity
        return (weight / weight.mean() * each).mean()
