"""UCE: edit the keys and values of the cross-attention in closed form (Gandikota et al. 2024, arXiv 2308.14761)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from .base import Method, Step, ranged, register


@register("uce")
@dataclass(frozen=True)
class UCE(Method):
    """For every key and value matrix W of the cross-attention, the minimum over W' of

    sum_e |W' c_e - W c_e*|^2 + sum_k |W' c_k - W c_k|^2 + preserve |W' - W|^2   (eq. 7),

    c_e the token embeddings of captions with the target, c_e* those of the same captions with an anchor in its place, c_k those of
    the other captions; sums over captions and their tokens. No image is seen and nothing is trained.

    anchor: as in concept ablation. preserve: weight of staying where one was; without it, what no caption asks
    for would be anything.
    """

    anchor: str | int | None = None
    preserve: float = ranged(0.5, low=1e-6)
    needs: ClassVar[frozenset[str]] = frozenset()
    compares_noise: ClassVar[bool] = False
    prompts_only: ClassVar[bool] = True

    @torch.no_grad()
    def edit(self, step: Step) -> bool:
        forget, keep = step.conditions.every_caption()
        embed = lambda condition: step.conditions.embeddings(condition).flatten(0, 1).cpu().double()  # noqa: E731
        erased, anchors, kept = embed(forget), embed(step.anchored(forget, self.anchor)), embed(keep)
        for layer in key_value_layers(step.model):
            layer.weight.copy_(closed_form(layer.weight, erased, anchors, kept, self.preserve))
        return True


def closed_form(weight: Tensor, erased: Tensor, anchors: Tensor, kept: Tensor, preserve: float) -> Tensor:
    """W' = (sum W c* c^T + sum W c_k c_k^T + preserve W) (sum c c^T + sum c_k c_k^T + preserve I)^-1.

    weight: out x in; erased, anchors: n x in, row by row; kept: m x in. float64 within, on the CPU: Apple's GPUs have none.
    """
    old, erased, anchors, kept = (part.cpu().double() for part in (weight, erased, anchors, kept))
    identity = torch.eye(old.shape[1], dtype=old.dtype, device=old.device)
    right = old @ (anchors.T @ erased + kept.T @ kept + preserve * identity)
    gram = erased.T @ erased + kept.T @ kept + preserve * identity
    return torch.linalg.solve(gram, right.T).T.to(weight)


def key_value_layers(unet: nn.Module) -> list[nn.Linear]:
    """The matrices that the text goes into."""
    found = [m for name, m in unet.named_modules() if name.endswith(("attn2.to_k", "attn2.to_v"))]
    if not found:
        raise TrainingError("uce edits cross-attention (attn2), and this network has none: take one that trains, such as dimum.")
    return found
