"""How a pipeline is told what to draw: by class labels, or by prompts. The only place that knows the difference.

A condition is a number (see `Conditions`). A class label has one wording, so there a condition is the label itself; a prompt's is
looked up, and embedded by the frozen text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..data import step_generator
from ..data.captions import CANVAS_TEMPLATES, PARTIAL_SHARE, PLAIN_TEMPLATES, caption
from ..data.targets import Target, find_target, word_kinds
from ..errors import DataError
from ..precision import short_attention
from ..training import digest_of
from .codec import PIXELS, Codec
from .condition_numbers import Conditions
from .diffusion import Schedule
from .labelled import has_labels, output_of
from .networks import FLOWS, encoded_prompts, image_shape, is_kind, predicted, schedule_of
from .sampling import ClassConditionalPipeline, CodedImages, fresh_noise_from, set_timesteps, unfiltered

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")  # as diffusers calls them


@dataclass
class ClassConditions(Conditions):
    """A condition is a class label, and the last row of the label embedding is the null condition, if it has one.

    labelled: whether the network takes labels at all.
    """

    given_target: Target | int | None
    null_label: int | None
    codec: Codec = PIXELS
    class_names: tuple[str, ...] = ()
    schedule: Schedule = field(default_factory=Schedule, repr=False)
    labelled: bool = True

    def __post_init__(self):
        self.class_names = self.class_names or tuple(str(i) for i in range(self.null_label))
        if self.given_target is not None:
            self.given_target = find_target(self.given_target, self.class_names)

    @classmethod
    def of(cls, pipe: ClassConditionalPipeline, target: str | int | Target | None = None) -> ClassConditions:
        names = pipe.class_names
        target = None if target is None else find_target(target, names)
        return cls(target, pipe.null_label, pipe.codec, names, Schedule.of(pipe.scheduler), has_labels(pipe.unet))

    @property
    def null_number(self) -> int | None:
        """The pipeline's own null row."""
        return self.null_label

    @property
    def fingerprint(self) -> dict:
        return {"null_label": self.null_label, **self.codec.fingerprint, **self.meaning}

    @property
    def target_name(self) -> int | str:
        """As a training's settings record it."""
        whole_class = len(self.forgotten.labels) == 1 and not self.forgotten.items
        return self.forgotten.labels[0] if whole_class else self.forgotten.name

    def output(self, model: nn.Module, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        with short_attention(x_t):
            return output_of(model, x_t, t, condition if self.labelled else None).float()

    def asked(self, labels: Sequence[int | str | None]) -> list:
        """What to call the pipeline with, to have these labels drawn."""
        return list(labels)


@dataclass
class PromptConditions(Conditions):
    """A condition is a caption of a class name; the null condition is the empty prompt. Fits diffusers' own Stable Diffusion too,
    which is asked in UnlearnCanvas's words for class names of a style and an object, and for any others as for "a photo of a dog".

    text_trains: the text encoder is part of the network that trains, which is then called with the tokens.
    """

    class_names: tuple[str, ...]
    given_target: Target | None
    pipe: object
    text_trains: bool = False
    _embedded: dict[int, tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self):
        self.schedule = schedule_of(self.pipe)
        usual = CANVAS_TEMPLATES if word_kinds(self.class_names) else PLAIN_TEMPLATES
        self.templates = (*self._configured("templates", usual), *self._configured("partial_templates", ()))
        self.all_wordings = len(self.templates)
        self.wordings = self.all_wordings - len(self._configured("partial_templates", ()))
        self.codec = Codec.of(self.pipe)

    def _configured(self, key: str, default: tuple) -> tuple:
        return tuple(self.pipe.config.get(key) or default)

    @property
    def fingerprint(self) -> dict:
        frozen = {} if self.text_trains else self.pipe.components
        encoders = {name: digest_of(part) for name, part in frozen.items() if name in TEXT_ENCODERS and part is not None}
        return {"captions": list(self.templates), **self.codec.fingerprint, **self.meaning, **encoders}

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

    def output(self, model: nn.Module, x_t: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        if self.text_trains:
            captions = [self.caption(number) for number in condition.tolist()]
            tokens = self.pipe.tokenize(captions).to(x_t.device)
            with short_attention(x_t):
                return model(x_t, t, tokens).sample.float()
        parts = [part.to(x_t.device) for part in self._embed(condition)]
        with short_attention(x_t):
            return predicted(self.pipe, model, x_t, self.schedule.told(t), parts).float()

    def embeddings(self, condition: Tensor) -> Tensor:
        """B x L x D from the frozen text encoder, or from all of them; each caption is embedded once."""
        return self._embed(condition)[0]

    @torch.no_grad()
    def _embed(self, condition: Tensor) -> list[Tensor]:
        """As `encoded_prompts` gives it, for each condition."""
        numbers = condition.tolist()
        new = sorted(set(numbers) - set(self._embedded))
        if new:
            encoder = self.pipe.text_encoder
            with torch.autocast(encoder.device.type, enabled=False):
                parts = encoded_prompts(self.pipe, [self.caption(number) for number in new], encoder.device)
            if self.pipe.config.get("force_zeros_for_empty_prompt"):
                empty = torch.tensor([number == self.null_number for number in new], device=parts[0].device)
                parts = [values.masked_fill(empty.view(-1, *[1] * (values.ndim - 1)), 0) for values in parts]
            self._embedded |= dict(zip(new, zip(*parts, strict=True), strict=True))
        return [torch.stack(parts) for parts in zip(*(self._embedded[number] for number in numbers), strict=True)]


def in_several_encoders(pipe) -> bool:
    """Whether a pipeline embeds prompts by more than one encoder, as Stable Diffusion XL and 3 do."""
    return hasattr(pipe, "text_encoder_2")


def image_size(pipe) -> int:
    """The side of the images that a pipeline draws."""
    return image_shape(pipe)[1]


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
    if isinstance(pipe, CodedImages):  # whose pipelines seed fresh noise themselves
        return pipe(asked, output_type="pt", **sampling).images.float() * 2 - 1
    if "num_inference_steps" in sampling and not is_kind(pipe, *FLOWS):  # whose pipelines say more to their schedulers
        set_timesteps(pipe.scheduler, sampling["num_inference_steps"], pipe.device)
    with fresh_noise_from(pipe.scheduler, sampling.get("generator")), unfiltered(pipe):
        return pipe(asked, output_type="pt", **sampling).images.float() * 2 - 1
