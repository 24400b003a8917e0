"""SalUn: random label on the weights that matter most for the forget set (Fan et al. 2024, arXiv 2310.12508)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from .base import Step, parameters_that_train, ranged, register
from .random_label import RandomLabel


@register("salun")
@dataclass(frozen=True)
class SalUn(RandomLabel):
    """Random label where |gradient of L_den(D_f)| at the original weights is among the largest; the other weights stay as they are.

    keep: share of the weights that may change (published: 0.5, over all weights together).
    mask_batches: batches of the forget set over which the gradient is summed.
    """

    keep: float = ranged(0.5, 0, 1)
    mask_batches: int = 8
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})

    @property
    def prepare_batches(self) -> int:
        return self.mask_batches

    def prepare(self, steps: list[Step]) -> dict:
        """The saliency mask: one 0/1 tensor for each weight, handed to the loop, which multiplies gradients by it."""
        model = steps[0].model
        model.zero_grad(set_to_none=True)
        for step in steps:
            step.denoising(*step.batch("forget")).backward()
        saliency = {name: p.grad.abs() if p.grad is not None else torch.zeros_like(p) for name, p in parameters_that_train(model)}
        model.zero_grad(set_to_none=True)
        everything = torch.cat([value.flatten() for value in saliency.values()])
        kept = round(self.keep * everything.numel())
        threshold = everything.kthvalue(everything.numel() - kept).values if kept < everything.numel() else -1.0
        return {"mask": {name: value > threshold for name, value in saliency.items()}}
