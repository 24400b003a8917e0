"""Finetuning on the retained data and nothing else: the control that every method must beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Method, Step, register


@register("finetune")
@dataclass(frozen=True)
class Finetune(Method):
    """L = L_den(D_r). Forgets only as far as the model drifts."""

    needs: ClassVar[frozenset[str]] = frozenset({"retain"})
    compares_noise: ClassVar[bool] = False

    def loss(self, step: Step) -> Tensor:
        return step.retained()
