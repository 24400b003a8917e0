"""EraseDiff: keep the retained loss low, subject to a wrong prediction under the forgotten condition.

Wu et al. 2024, arXiv 2401.05779.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UnknownName
from .base import Method, Step, follow, gradient, register
from .random_label import random_label_loss

TOWARDS = ("label", "uniform", "gaussian")


@register("erasediff")
@dataclass(frozen=True)
class EraseDiff(Method):
    """min L_den(D_r) subject to f(theta; D_f) being minimal, as a first-order bilevel step (value function, as in BOME).

    The step is g_r + lambda g_f with lambda = max(0, eta - <g_r, g_f> / |g_f|^2), g_r and g_f the gradients of L_den(D_r) and of f:
    at least eta |g_f|^2 of the step goes towards forgetting, whatever the retained data want. The authors' inner steps on f only
    give a constant to subtract from it, which has no gradient, so there are none here.

    f = E |e_f - eps(x_t, t, c_f)|^2 on the forget set; towards: which of the published targets e_f,
    label: the student's prediction under another label. uniform: noise from U[0, 1). gaussian: noise from N(0.5, 1).
    eta: published 0.1.
    """

    towards: str = "label"
    eta: float = 0.1
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})

    def __post_init__(self):
        if self.towards not in TOWARDS:
            raise UnknownName("target of EraseDiff", self.towards, TOWARDS)

    def loss(self, step: Step) -> Tensor:
        forget, retain = self.forget_loss(step), step.retained()
        g_f, g_r = gradient(forget, step.model), gradient(retain, step.model)
        weight = (self.eta - (g_r * g_f).sum() / g_f.square().sum().clamp_min(1e-12)).clamp_min(0)
        return follow(g_r + weight * g_f, step.model, retain + weight * forget)

    def forget_loss(self, step: Step) -> Tensor:
        if self.towards == "label":
            return random_label_loss(step)
        x, condition = step.batch("forget")
        x_t, _, t = step.noise(x)
        if self.towards == "uniform":
            target = torch.rand(x.shape, generator=step.generator)
        else:
            target = 0.5 + torch.randn(x.shape, generator=step.generator)
        return (target.to(step.device) - step.predict(x_t, t, condition)).square().mean()
