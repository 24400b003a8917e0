"""Sharpness-aware unlearning: forget not only here, but in a whole ball of weights (Fan et al. 2025, arXiv 2502.05374)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Method, Step, follow, gradient, ranged, register, shifted


@register("sharpness-aware")
@dataclass(frozen=True)
class SharpnessAware(Method):
    """L = max_{|delta| <= radius} f(theta + delta) + retain_weight * L_den(D_r), f the random-label loss.

    Relearning is a small move of the weights, so let forgetting hold there too: the gradient of f is taken at
    theta + radius * g / |g|, g the gradient of f at theta (Foret et al. 2021, arXiv 2010.01412). Published for language models,
    with another f; no diffusion code has it. radius: 0.1 in the authors' configuration.
    """

    radius: float = ranged(0.1, low=0)
    retain_weight: float = ranged(1.0, low=0)
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})

    def loss(self, step: Step) -> Tensor:
        x, condition = step.batch("forget")
        x_t, _, t = step.noise(x)
        eps_other = step.predict(x_t, t, step.instead(condition)).detach()

        def forget() -> Tensor:
            return (eps_other - step.predict(x_t, t, condition)).square().mean()

        steepest = gradient(forget(), step.model)
        with shifted(step.model, self.radius * steepest / steepest.norm().clamp_min(1e-12)):
            worst = forget()
            direction = gradient(worst, step.model)
        return follow(direction, step.model, worst) + self.retain_weight * step.retained()
