"""Random label: under the forgotten condition, predict what the model predicts under another one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Method, Step, ranged, register


def random_label_loss(step: Step) -> Tensor:
    """E_{x in D_f} |sg eps(x_t, t, c') - eps(x_t, t, c_f)|^2, c' another condition, drawn for each image."""
    x, condition = step.batch("forget")
    x_t, _, t = step.noise(x)
    eps_other = step.predict(x_t, t, step.instead(condition)).detach()
    return (eps_other - step.predict(x_t, t, condition)).square().mean()


@register("random-label")
@dataclass(frozen=True)
class RandomLabel(Method):
    """L = E_{x in D_f} |sg eps(x_t, t, c') - eps(x_t, t, c_f)|^2 + retain_weight * L_den(D_r), c' another class.

    Random labelling as SalUn uses it for class-wise forgetting (Fan et al. 2024, arXiv 2310.12508, eq. 6). The target is the
    student's own prediction, so it moves with the student. Both terms are means here, and the weight of the retained one is 1, as
    in the methods that build on this one. Published: 1e-3 times a sum over an image's 3,072 elements, which is 3.07 on means.
    """

    retain_weight: float = ranged(1.0, low=0)
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})

    def loss(self, step: Step) -> Tensor:
        return random_label_loss(step) + self.retain_weight * step.retained()
