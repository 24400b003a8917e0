"""Conditions as numbers, and what is computed with them, whether they stand for class labels or for prompts.

A condition is label * (wordings of a label) + wording, and one number more is the null condition, if a model has one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..data.targets import Target, find_target
from ..errors import DataError, ModelError
from .codec import Latents
from .diffusion import Schedule, drop_labels
from .flow import FlowSchedule

LABEL_DROPOUT = 0.1


class Conditions:
    """What both kinds share: arithmetic on the numbers of conditions, where a target is a set of labels.

    A kind has class_names, codec and given_target, a Target or None.
    """

    wordings = 1  # of a label that are whole
    all_wordings = 1  # with those that leave a word out, which come last
    schedule: Schedule | FlowSchedule = Schedule()
    _latents = None

    @property
    def alphas_cumprod(self) -> Tensor:
        return self.schedule.alphas_cumprod

    @property
    def meaning(self) -> dict:
        """What the numbers stand for and what the network says of them: a training goes on with the same only."""
        return {"class_names": list(self.class_names), **self.schedule.fingerprint}

    @property
    def scheduler_config(self) -> dict:
        """For a sampler of one's own: guesses of the image are clipped to the range of pixels, and latents have none."""
        return self.schedule.config | {"clip_sample": not self.codec.latent}

    def predict(self, model: nn.Module, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The noise in x_t, B x C x H x W, as the network sees it, whatever it predicts itself."""
        return self.schedule.epsilon(self.output(model, x_t, t, condition), x_t, t)

    def denoising_error(self, model: nn.Module, x: Tensor, eps: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """(wanted - output)^2 for x noised by eps, B x C x H x W: its training loss, in what it predicts itself."""
        output = self.output(model, self.schedule.add_noise(x, eps, t), t, condition)
        return (self.schedule.wanted(x, eps, t) - output).square()

    def encode(self, images: Tensor) -> Tensor:
        """Images, B x C x H x W on the CPU, as the network sees them: folded pixels, or latents, which are remembered."""
        if not self.codec.latent:
            return self.codec.encode(images)
        if self._latents is None:
            self._latents = Latents(self.codec)
        return self._latents.of(images)

    @property
    def forgotten(self) -> Target:
        if self.given_target is None:
            raise DataError("There is no target here: say what is to be forgotten.")
        return self.given_target

    @property
    def null_number(self) -> int:
        return len(self.class_names) * self.all_wordings

    def of_labels(self, labels: Tensor, seed: int, step: int, partial: bool = False) -> Tensor:
        """The conditions of labels in batch `step`, each in a wording drawn for it: a pure function of its arguments."""
        return labels

    def labels_of(self, condition: Tensor) -> Tensor:
        return condition // self.all_wordings

    def target(self, count: int, generator: torch.Generator) -> Tensor:
        """Conditions of the target, drawn evenly. DataError for single images, which share theirs with others."""
        return self._draw(torch.tensor(self._own_labels()), count, generator)

    def others(self, count: int, generator: torch.Generator) -> Tensor:
        """Conditions other than the target's, drawn evenly."""
        return self._draw(self.forgotten.others, count, generator)

    def every_caption(self) -> tuple[Tensor, Tensor]:
        """Every condition that has the target in it, and every other one, the null condition included."""
        own, others = self._whole(torch.tensor(self._own_labels())), self._whole(self.forgotten.others)
        return own, torch.cat([others, self.null(1)])

    def _whole(self, labels: Tensor) -> Tensor:
        """Every whole wording of these labels."""
        return (labels[:, None] * self.all_wordings + torch.arange(self.wordings)).flatten()

    def _own_labels(self) -> tuple[int, ...]:
        if self.forgotten.items:
            raise DataError(
                "This method changes all that a condition draws, and single images share theirs with images that stay: take a "
                "method that learns from the images themselves, such as dimum, finetune or salun."
            )
        return self.forgotten.labels

    def null(self, count: int) -> Tensor:
        if self.null_number is None:
            raise ModelError(
                "This model has no null condition, and this needs one: take a method that learns from images alone, such as dimum, "
                "finetune or random-label."
            )
        return torch.full((count,), self.null_number)

    def dropped(self, condition: Tensor, generator: torch.Generator, probability: float = LABEL_DROPOUT) -> Tensor:
        """Some of the conditions give way to the null condition, if there is one."""
        return condition if self.null_number is None else drop_labels(condition, self.null_number, probability, generator)

    def as_target(self, condition: Tensor, first: int = 0) -> Tensor:
        """The same conditions with the target in its place: "a filled star" becomes "an outline star" for the style outline. Of
        several targets each in turn; first: which one begins."""
        tables, own = [target.moved() for target in self.forgotten.each], condition.clone()
        for number, table in enumerate(tables):
            turn = slice((number - first) % len(tables), None, len(tables))
            own[turn] = self._relabelled(condition[turn], table)
        return own

    def anchored(self, condition: Tensor, anchor: str | int | None = None) -> Tensor:
        """The target's conditions with one other word or class in its place, the same for all.

        anchor: default, the first of its kind that is not the target.
        """
        target, names = self.forgotten, {part.name for part in self.forgotten.each}
        if anchor is not None and find_target(anchor, self.class_names).name in names:
            raise DataError(f"The anchor {anchor!r} is what is to be forgotten: take another.")
        if target.position is None:
            first = int(target.others[0]) if anchor is None else anchor
            return self._relabelled(condition, target.moved(self._known(find_target(first, self.class_names))))
        kinds = dict.fromkeys(name.split(" ")[target.position] for name in self.class_names if name)
        chosen = next(k for k in kinds if k not in names) if anchor is None else find_target(anchor, self.class_names).name
        if chosen not in kinds:
            raise DataError(f"The anchor {chosen!r} cannot stand in the place of {target.name!r}: take one of {', '.join(kinds)}.")
        return self._relabelled(condition, target.moved(chosen))

    def _known(self, anchor: Target) -> str:
        if anchor.position is not None:
            raise DataError(f"The anchor of {self.forgotten.name!r} is a whole class, not {anchor.name!r}.")
        return anchor.name

    def instead(self, condition: Tensor, generator: torch.Generator) -> Tensor:
        """The target's conditions with another in its place, drawn for each: an outline star becomes a star in some other style."""
        labels = self.labels_of(condition.cpu())
        near = {label: self.forgotten.neighbours(label) for label in labels.unique().tolist()}
        choices = [near[label] for label in labels.tolist()]
        if not all(map(len, choices)):
            raise DataError("There is no other class to put in the target's place: take a method that needs none, such as dimum.")
        moved = torch.stack([some[torch.randint(len(some), (), generator=generator)] for some in choices])
        return (moved * self.all_wordings + condition.cpu() % self.all_wordings).to(condition.device)

    def _relabelled(self, condition: Tensor, table: Tensor) -> Tensor:
        labels = table.to(condition.device)[self.labels_of(condition)]
        return labels * self.all_wordings + condition % self.all_wordings

    def _draw(self, labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
        choices = self._whole(labels)
        if len(choices) == 1:
            return choices.repeat(count)
        return choices[torch.randint(len(choices), (count,), generator=generator)]
