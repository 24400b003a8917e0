"""Concept ablation: under the forgotten condition, predict what the original predicts under an anchor.

Kumari et al. 2023, arXiv 2303.13516.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Step, register


@register("concept-ablation")
@dataclass(frozen=True)
class ConceptAblation:
    """L = E_{x in D_f} |sg eps_0(x_t, t, c_anchor) - eps(x_t, t, c_f)|^2 + retain_weight * L_den(D_r)  (the model-based variant).

    The target comes from the frozen original, so it stays where it is. The anchor is one other class for the whole run.

    anchor: its number; None takes the first class that is not the target.
    """

    anchor: int | None = None
    retain_weight: float = 1.0
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})

    def loss(self, step: Step) -> Tensor:
        x, condition = step.batch("forget")
        x_t, _, t = step.noise(x)
        first = int(step.conditions.target_label == 0)
        anchor = torch.full_like(condition, first if self.anchor is None else self.anchor)
        wanted = step.predict(x_t, t, anchor, original=True)
        forget = (wanted - step.predict(x_t, t, condition)).square().mean()
        return forget + self.retain_weight * step.retained()
