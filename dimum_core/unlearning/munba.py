"""MUNBa: forgetting and keeping bargain over each step (Wu and Harandi 2024, arXiv 2411.15537)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Method, Step, follow, gradient, register
from .random_label import random_label_loss


@register("munba")
@dataclass(frozen=True)
class MUNBa(Method):
    """The Nash bargaining step between g_r, the gradient of L_den(D_r), and g_f, that of the random-label loss.

    The bargain G^T G alpha = 1 / alpha has for two players the solution alpha_i = 1 / (|g_i| sqrt(1 + cos)), cos between the two
    gradients: the step halves the angle between them. Their lengths, and so the weights of the losses, do not matter.
    Where they are opposite (1 + cos < floor), there is no bargain, and the published fallback is g_r + g_f / 2.
    """

    floor: float = 1e-3
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})

    def loss(self, step: Step) -> Tensor:
        forget, retain = random_label_loss(step), step.retained()
        g_f, g_r = gradient(forget, step.model), gradient(retain, step.model)
        weight_r, weight_f = self.bargain(g_r, g_f)
        return follow(weight_r * g_r + weight_f * g_f, step.model, retain + forget)

    def bargain(self, g_r: Tensor, g_f: Tensor) -> tuple[Tensor | float, Tensor | float]:
        norm_r, norm_f = g_r.norm().clamp_min(1e-12), g_f.norm().clamp_min(1e-12)
        agreement = 1 + (g_r * g_f).sum() / (norm_r * norm_f)
        if agreement < self.floor:
            return 1.0, 0.5
        return 1 / (norm_r * agreement.sqrt()), 1 / (norm_f * agreement.sqrt())
