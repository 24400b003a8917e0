"""DiMUM: memorise something else under the forgotten condition (Yuan et al. 2025, arXiv 2512.03564)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Method, Step, ranged, register


@register("dimum")
@dataclass(frozen=True)
class DiMUM(Method):
    """L = L_den(D_r) + weight * E_{x in D_alt} |eps - eps(x_t, t, c_f)|^2.

    The forgotten condition is trained with the true denoising loss on alternative data, so the objective has a real minimum
    and nothing is pushed away. For a style or an object, c_f is the image's own caption with the target in its place, so that
    an alternative image keeps everything but the feature: a filled star is memorised as "an outline star".

    weight: lambda of the paper. Both terms are means over every element.
    alternative: what to memorise; see `alternatives.ALTERNATIVES`.
    count: how many alternative images there are.
    """

    weight: float = ranged(1.0, low=0)
    alternative: str = "class"
    count: int = 512
    needs: ClassVar[frozenset[str]] = frozenset({"retain", "alternative"})
    compares_noise: ClassVar[bool] = False

    def loss(self, step: Step) -> Tensor:
        return step.retained() + self.weight * self.memorisation(step)

    def memorisation(self, step: Step) -> Tensor:
        x_alt, own = step.batch("alternative")
        return step.denoising(x_alt, step.as_target(own))

    @torch.no_grad()
    def trace(self, step: Step) -> dict[str, float]:
        """Is it memorised? It has converged when the same noised images are denoised under the target's condition as well as under
        their own. Images of noise have no condition of their own: there, retained images are the measure.
        """
        x, own = step.batch("alternative")
        _, eps, t = step.noise(x)
        memorised = float(step.error(x, eps, t, step.as_target(own)).mean())
        if self.alternative == "noise":
            x, own = step.batch("retain")
            _, eps, t = step.noise(x)
        return {"memorisation loss": memorised, "ordinary loss": float(step.error(x, eps, t, own).mean())}
