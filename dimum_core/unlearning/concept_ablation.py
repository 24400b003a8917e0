"""Concept ablation: under the forgotten condition, predict what the original predicts under an anchor.

Kumari et al. 2023, arXiv 2303.13516.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Method, Step, ranged, register


@register("concept-ablation")
@dataclass(frozen=True)
class ConceptAblation(Method):
    """L = E_{x in D_f} |sg eps_0(x_t, t, c_anchor) - eps(x_t, t, c_f)|^2 + retain_weight * L_den(D_r).

    After the authors' model-based variant, with two deviations: x are images of the target, where they noise images of the
    anchor; and the prediction to match is that of the frozen original, so it stays where it is, where theirs is the student's own.
    The anchor is one other class for the whole run, or with prompts the caption with one other style or object in the target's
    place: "an outline star" is to give "a filled star".

    anchor: a class, by name or number, or a style or object; None takes the first of its kind that is not the target.
    """

    anchor: str | int | None = None
    retain_weight: float = ranged(1.0, low=0)
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})

    def loss(self, step: Step) -> Tensor:
        x, condition = step.batch("forget")
        x_t, _, t = step.noise(x)
        eps_anchor = step.predict(x_t, t, step.anchored(condition, self.anchor), original=True)
        forget = (eps_anchor - step.predict(x_t, t, condition)).square().mean()
        return forget + self.retain_weight * step.retained()
