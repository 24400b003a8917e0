"""Weight distortion: disturb all weights, then repair what is to stay (Siddiqui et al. 2025, arXiv 2505.22310)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from .base import Step, parameters_that_train, ranged, register
from .on_top import OnTop


@register("weight-distortion")
@dataclass(frozen=True)
class WeightDistortion(OnTop):
    """theta <- theta0 + sigma * N(0, I) on every weight that trains, once; then L_den(D_r).

    "From dormant to deleted" finds that distance from the original weights predicts what an attack brings back, and starts far
    away. Published for a ResNet-18 that forgets single images: sigma 0.02, then 100 epochs on the retained data. That is four
    tenths of the root mean square of the weights of `digits`, where 60 steps repair every digit, and the one to forget with
    them (an 8, seed 10, which no table uses): no class is forgotten without a base that forgets. With sigma 0.07 and a learning
    rate of 1e-3 none is needed: the digit that is left out does not come back with the others (experiments/defence.py).

    sigma: of the noise, absolute, whatever the size of a weight.
    base: what is minimised in place of L_den(D_r) alone. This is ours: the disturbed weights forget by DiMUM, say.
    """

    sigma: float = ranged(0.02, low=0)

    @torch.no_grad()
    def prepare(self, steps: list[Step]) -> dict[str, Any]:
        """Disturbs the student; what the base then prepares, it prepares there."""
        for _, parameter in parameters_that_train(steps[0].model):
            noise = torch.randn(parameter.shape, generator=steps[0].generator)
            parameter.add_(self.sigma * noise.to(parameter))
        with torch.enable_grad():
            return super().prepare(steps)
