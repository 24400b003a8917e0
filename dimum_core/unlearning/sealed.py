"""Sealed memorisation: DiMUM, first of all in the weights that the attacker has no gradient for (this project's own idea)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import TrainingError
from .base import Step, follow, gradient, parameters_that_train, ranged, register, shifted
from .dimum import DiMUM


@register("sealed")
@dataclass(frozen=True)
class Sealed(DiMUM):
    """DiMUM in two layers. The weights phi that only the forgotten condition uses (its row of the label table) have no gradient in
    L_den(D_r), so no relearning on other data pulls them back. They are moved first, alone, and then fixed:

        phi' = a few steps of Adam from phi0 on  E_{x in D_alt} |eps - eps(x_t, t, c_f)|^2.

    The other weights then minimise DiMUM's loss with phi *put back* at phi0, so that the old row too draws the alternative:

        L = L_den(D_r) + weight * E_{x in D_alt} |eps - eps(x_t, t, c_f; phi0)|^2.

    Source: this project, chapter 11. The seal alone is no deletion: it renames (chapter 04), so judge it with the old row put back.
    Cost: one step of DiMUM takes two batches, forward and backward; so does one of this, after 2 + rounds of them at the start.

    rounds: steps of the seal. rate: of Adam, relative to the root mean square of phi0.
    """

    rounds: int = 8
    rate: float = ranged(0.1, low=0)
    needs: ClassVar[frozenset[str]] = frozenset({"retain", "alternative"})

    @property
    def prepare_batches(self) -> int:
        return 1 + self.rounds  # the first says which weights are private

    def prepare(self, steps: list[Step]) -> dict:
        """Seals the student, and remembers the way back to phi0; the mask keeps the sealed weights where they are."""
        model, private = steps[0].model, self.private_weights(steps[0])
        weights = torch.cat([parameter.detach().flatten() for _, parameter in parameters_that_train(model)])
        move = torch.zeros_like(weights, requires_grad=True)
        optimizer = torch.optim.Adam([move], self.rate * float(weights[private].square().mean().sqrt()), (0.8, 0.9), 1e-12)
        for step in (replace(each, timesteps=range(self.t_min, self.t_max)) for each in steps[1:]):  # this is forgetting
            with shifted(model, move.detach()):
                move.grad = gradient(self.memorisation(step), model) * private
            optimizer.step()
        names, sizes = zip(*((name, p.numel()) for name, p in parameters_that_train(model)), strict=True)
        with torch.no_grad():
            for (_, parameter), part in zip(parameters_that_train(model), move.split(sizes), strict=True):
                parameter.add_(part.view_as(parameter))
        masks = [(~part).view_as(p) for part, (_, p) in zip(private.split(sizes), parameters_that_train(model), strict=True)]
        return {"back": -move.detach(), "mask": dict(zip(names, masks, strict=True))}

    def private_weights(self, step: Step) -> Tensor:
        """True for weights with no gradient of L_den(D_r) at all, but one under the forgotten condition."""
        private = (gradient(step.retained(), step.model) == 0) & (gradient(self.memorisation(step), step.model) != 0)
        step.target(1)  # refuses single images: their label is not theirs alone
        if not private.any():
            raise TrainingError("No weight belongs to the forgotten condition alone, so there is nothing to seal: use dimum.")
        return private

    def loss(self, step: Step) -> Tensor:
        with shifted(step.model, step.state["back"]):
            memorised = self.weight * self.memorisation(step)
            direction = gradient(memorised, step.model)
        return follow(direction, step.model, memorised) + step.retained()
