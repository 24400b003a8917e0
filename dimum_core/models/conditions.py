"""How a pipeline is told what to draw: by class labels, or by prompts. The only place that knows the difference.

A condition is a number: label * (wordings of a label) + wording, and one number more for the null condition. A class label has one
wording, so there a condition is the label itself; a prompt's is looked up, and embedded by the frozen text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..data import step_generator
from ..data.captions import CANVAS_TEMPLATES, PARTIAL_SHARE, caption
from ..data.targets import Target, find_target
from ..errors import DataError
from ..precision import short_attention
from .codec import PIXELS, Codec
from .diffusion import Schedule, drop_labels
from .sampling import ClassConditionalPipeline, CodedImages, seed_noise_sampler

LABEL_DROPOUT = 0.1


class Conditions:
    """What both kinds share: arithmetic on the numbers of conditions, where a target is a set of labels.

    A kind has class_names, codec and given_target, a Target or None.
    """

    wordings = 1  # of a label that are whole
    all_wordings = 1  # with those that leave a word out, which come last
    schedule = Schedule()

    @property
    def alphas_cumprod(self) -> Tensor:
        return self.schedule.alphas_cumprod

    @property
    def scheduler_config(self) -> dict:
        """For a sampler of one's own: guesses of the image are clipped to the range of pixels, and latents have none."""
        return self.schedule.config | {"clip_sample": not self.codec.latent}

    def encode(self, images: Tensor) -> Tensor:
        """Images, B x C x H x W, as the network sees them: folded pixels, or latents."""
        return self.codec.encode(images)

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
        return torch.full((count,), self.null_number)

    def dropped(self, condition: Tensor, generator: torch.Generator, probability: float = LABEL_DROPOUT) -> Tensor:
        return drop_labels(condition, self.null_number, probability, generator)

    def as_target(self, condition: Tensor) -> Tensor:
        """The same conditions with the target in its place: "a filled star" becomes "an outline star" for the style outline."""
        return self._relabelled(condition, self.forgotten.moved())

    def anchored(self, condition: Tensor, anchor: str | int | None = None) -> Tensor:
        """The target's conditions with one other word or class in its place, the same for all.

        anchor: default, the first of its kind that is not the target.
        """
        target = self.forgotten
        if anchor is not None and find_target(anchor, self.class_names).name == target.name:
            raise DataError(f"The anchor {anchor!r} is what is to be forgotten: take another.")
        if target.position is None:
            first = int(target.others[0]) if anchor is None else anchor
            return self._relabelled(condition, target.moved(self._known(find_target(first, self.class_names))))
        kinds = dict.fromkeys(name.split(" ")[target.position] for name in self.class_names if name)
        chosen = next(k for k in kinds if k != target.name) if anchor is None else find_target(anchor, self.class_names).name
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


@dataclass
class ClassConditions(Conditions):
    """A condition is a class label, and the last row of the label embedding is the null condition."""

    given_target: Target | int | None
    null_label: int
    codec: Codec = PIXELS
    class_names: tuple[str, ...] = ()
    schedule: Schedule = field(default_factory=Schedule, repr=False)

    def __post_init__(self):
        self.class_names = self.class_names or tuple(str(i) for i in range(self.null_label))
        if self.given_target is not None:
            self.given_target = find_target(self.given_target, self.class_names)

    @classmethod
    def of(cls, pipe: ClassConditionalPipeline, target: str | int | Target | None = None) -> ClassConditions:
        names = pipe.class_names
        target = None if target is None else find_target(target, names)
        return cls(target, pipe.null_label, pipe.codec, names, Schedule.of(pipe.scheduler))

    @property
    def null_number(self) -> int:
        """The pipeline's own null row."""
        return self.null_label

    @property
    def fingerprint(self) -> dict:
        return {"null_label": self.null_label, **self.codec.fingerprint}

    @property
    def target_name(self) -> int | str:
        """As a training's settings record it."""
        whole_class = len(self.forgotten.labels) == 1 and not self.forgotten.items
        return self.forgotten.labels[0] if whole_class else self.forgotten.name

    def predict(self, model: nn.Module, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        with short_attention(x_t):
            return model(x_t, t, class_labels=condition).sample.float()

    def asked(self, labels: Sequence[int | str | None]) -> list:
        """What to call the pipeline with, to have these labels drawn."""
        return list(labels)


@dataclass
class PromptConditions(Conditions):
    """A condition is a caption of a class name; the null condition is the empty prompt. Fits diffusers' own Stable Diffusion too.

    text_trains: the text encoder is part of the network that trains, which is then called with the tokens.
    """

    class_names: tuple[str, ...]
    given_target: Target | None
    pipe: object
    text_trains: bool = False
    _embedded: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self.schedule = Schedule.of(self.pipe.scheduler)
        self.templates = (*self._configured("templates", CANVAS_TEMPLATES), *self._configured("partial_templates", ()))
        self.all_wordings = len(self.templates)
        self.wordings = self.all_wordings - len(self._configured("partial_templates", ()))
        self.codec = Codec.of(self.pipe)

    def _configured(self, key: str, default: tuple) -> tuple:
        return tuple(self.pipe.config.get(key) or default)

    @property
    def fingerprint(self) -> dict:
        return {"captions": list(self.templates), **self.codec.fingerprint}

    @property
    def target_name(self) -> str:
        return self.forgotten.name

    def of_labels(self, labels: Tensor, seed: int, step: int, partial: bool = False) -> Tensor:
        generator = step_generator(seed, step, "captions")
        wording = torch.randint(self.wordings, labels.shape, generator=generator)
        if partial and self.wordings < self.all_wordings:
            short = torch.randint(self.wordings, self.all_wordings, labels.shape, generator=generator)
            wording = torch.where(torch.rand(labels.shape, generator=generator) < PARTIAL_SHARE, short, wording)
        return labels * self.all_wordings + wording.to(labels.device)

    def caption(self, number: int) -> str:
        """The prompt that a condition stands for."""
        if number == self.null_number:
            return ""
        if not self.class_names:
            raise DataError("This pipeline has no class names, so it can only be asked in whole prompts.")
        return caption(self.class_names[number // self.all_wordings], self.templates[number % self.all_wordings])

    def asked(self, labels: Sequence[int | str | None]) -> list[str]:
        """What to call the pipeline with, to have these labels drawn: each in the first wording. A prompt stays as it is."""
        def prompt(label: int | str | None) -> str:
            if label is None:
                return ""
            return label if isinstance(label, str) else self.caption(label * self.all_wordings)

        return [prompt(label) for label in labels]

    def predict(self, model: nn.Module, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        if self.text_trains:
            captions = [self.caption(number) for number in condition.tolist()]
            said = {"input_ids": self.pipe.tokenize(captions).to(x_t.device)}
        else:
            said = {"encoder_hidden_states": self.embeddings(condition).to(x_t.device)}
        with short_attention(x_t):
            return model(x_t, t, **said).sample.float()

    @torch.no_grad()
    def embeddings(self, condition: Tensor) -> Tensor:
        """B x L x D from the frozen text encoder; each caption is embedded once."""
        numbers = condition.tolist()
        new = sorted(set(numbers) - set(self._embedded))
        if new:
            with torch.autocast(self.pipe.text_encoder.device.type, enabled=False):
                captions = [self.caption(number) for number in new]
                embeds, _ = self.pipe.encode_prompt(captions, self.pipe.text_encoder.device, 1, False)
            self._embedded |= dict(zip(new, embeds, strict=True))
        return torch.stack([self._embedded[number] for number in numbers])


def image_size(pipe) -> int:
    """The side of the images that a pipeline draws."""
    return pipe.unet.config.sample_size * Codec.of(pipe).factor


def conditions_of(
    pipe, target: str | int | Target | None = None, class_names: tuple[str, ...] | None = None, **settings
) -> ClassConditions | PromptConditions:
    """How a pipeline is told what to draw.

    class_names: what its prompts are about, for a pipeline that does not say it itself. Raises UnknownName for an unknown target.
    """
    names = tuple(getattr(pipe, "class_names", ()) or class_names or ())
    if target is not None and not names:
        raise DataError("This pipeline has no class names: pass the data set whose classes its prompts are about.")
    if isinstance(pipe, ClassConditionalPipeline):
        return ClassConditions.of(pipe, target)
    return PromptConditions(names, None if target is None else find_target(target, names), pipe, **settings)


@torch.no_grad()
def draw(pipe, labels: Sequence[int | str | None], class_names: tuple[str, ...] | None = None, **sampling) -> Tensor:
    """Draw one image for each label, class name or prompt: N x C x H x W in [-1, 1], on the pipeline's device.

    sampling: what the pipeline takes: generator, guidance_scale, num_inference_steps; None is the pipeline's own default.
    """
    asked = conditions_of(pipe, class_names=class_names).asked(labels)
    sampling = {key: value for key, value in sampling.items() if value is not None}
    if isinstance(pipe, ClassConditionalPipeline):  # not by way of [0, 1], which would round
        return pipe.to_images(pipe(asked, output_type="latent", **sampling).images)
    if not isinstance(pipe, CodedImages):  # whose pipelines do it themselves
        seed_noise_sampler(pipe.scheduler, sampling.get("generator"))
    return pipe(asked, output_type="pt", **sampling).images.float() * 2 - 1
