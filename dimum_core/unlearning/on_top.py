"""What goes on top of any method: a term, a start or an attacker added to whatever it minimises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import SettingError
from .base import Method, Step, parameters_that_train
from .choosing import named

INHERITED = ("alternative", "count", "trains", "prompts_only", "compares_noise", "prepare_batches", "uses_total_steps")


@dataclass(frozen=True)
class OnTop(Method):
    """A method on top of another, with that one's loss unless it has its own; `under` is the other, with its settings.

    base: the other, with settings that differ from its own defaults: "dimum", or "dimum alternative=mixed".
    adds: the data that what is added needs beside the other's.
    """

    base: str = "finetune"
    adds: ClassVar[frozenset[str]] = frozenset()
    needs: ClassVar[frozenset[str]] = frozenset({"retain"})

    def __post_init__(self):
        under = named(self.base)
        if type(under).loss is Method.loss:
            raise SettingError(f"{under.name} trains nothing that {self.name} could go on top of: take another base.")
        if (under.t_min, under.t_max) != (Method.t_min, Method.t_max):
            raise SettingError(f"{self.name} has a t_min and a t_max, which hold for its base too: give them to it.")
        base = under
        while base is not None:  # which may forget in `prepare` already
            for name in ("t_min", "t_max"):
                object.__setattr__(base, name, getattr(self, name))
            base = getattr(base, "under", None)
        inherited = {name: getattr(under, name) for name in INHERITED}
        for name, value in {"under": under, "needs": under.needs | self.adds, **inherited}.items():
            object.__setattr__(self, name, value)

    def prepare(self, steps: list[Step]) -> dict[str, Any]:
        return self.under.prepare(steps)

    def loss(self, step: Step) -> Tensor:
        return self.under.loss(step)

    def trace(self, step: Step) -> dict[str, float]:
        return self.under.trace(step)


@dataclass(frozen=True)
class FromStart(OnTop):
    """On top of another, with a look back at the weights from which the unlearning began."""

    def prepare(self, steps: list[Step]) -> dict[str, Any]:
        start = weights_that_train(steps[0]).detach().clone()
        return {**super().prepare(steps), "start": start}

    def moved(self, step: Step) -> Tensor:
        """How far the weights that train have come since, as one vector with its graph."""
        return weights_that_train(step) - step.state["start"].to(step.device)


def weights_that_train(step: Step) -> Tensor:
    """All weights that train as one vector, with their graph."""
    return torch.cat([parameter.flatten() for _, parameter in parameters_that_train(step.model)])
