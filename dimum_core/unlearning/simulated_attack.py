"""A simulated attack inside the loss: forget such that finetuning does not undo it.

The idea of ResAlign (Li et al. 2025, arXiv 2507.16302) and Meta-Unlearning (Gao et al. 2024, arXiv 2410.12777).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .base import Step, follow, gradient, ranged, register, shifted
from .on_top import OnTop, weights_that_train

ATTACKERS = 2 * 10**6  # where the numbers of the attacker's batches begin: neither the loop's nor those that methods prepare on


@register("simulated-attack")
@dataclass(frozen=True)
class SimulatedAttack(OnTop):
    """L = (1 - weight) * L_base(theta) + weight * L_base(theta*), theta* = theta after an attacker's first steps.

    The attacker finetunes on the retained data, as DiMRA does: `attack_steps` steps of Adam, with no state before, on L_den(D_r),
    each on a batch of its own. theta* is made anew in every step of the unlearning. A mask of the base does not hold for the
    attacker; where only some weights train, by the base's `trains` or as low-rank updates, the attacker moves only these.

    ResAlign's outer loss is f(theta) + lambda (f(theta*) - f(theta)) + L_den(D_r), f that of ESD; in its code lambda rises from 0.2
    to 0.8. Two things here are ours. The base's loss is taken whole, what is retained with it. And theta* counts as theta plus a
    constant, so that its gradient is the one at theta*: a first-order approximation, as Meta-Unlearning's code makes it, where
    ResAlign sums a Neumann series of Hessian products.

    base: the method whose loss is to stay low. attack_rate: learning rate of the attacker.
    """

    base: str = "dimum"
    weight: float = ranged(0.5, 0, 1)
    attack_steps: int = 3
    attack_rate: float = ranged(1e-3, low=0)
    adds: ClassVar[frozenset[str]] = frozenset({"retain"})
    needs: ClassVar[frozenset[str]] = frozenset({"retain", "alternative"})

    def loss(self, step: Step) -> Tensor:
        with shifted(step.model, self.attack(step)):
            attacked = self.under.loss(step)
            direction = gradient(attacked, step.model)
        return (1 - self.weight) * self.under.loss(step) + follow(self.weight * direction, step.model, self.weight * attacked)

    def attack(self, step: Step) -> Tensor:
        """How far the attacker's steps move the weights, as one vector."""
        move = torch.zeros_like(weights_that_train(step)).requires_grad_()
        optimizer = torch.optim.Adam([move], self.attack_rate)
        for number in range(self.attack_steps):
            theirs = replace(step, index=ATTACKERS + step.index * self.attack_steps + number)
            with shifted(step.model, move.detach()):
                move.grad = gradient(theirs.retained(), step.model)
            optimizer.step()
        return move.detach()
