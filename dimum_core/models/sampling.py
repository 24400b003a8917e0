"""Sampling: a diffusers pipeline from class labels to images, with classifier-free guidance."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DiffusionPipeline, ImagePipelineOutput, ModelMixin, SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ..checking import check_kind, check_number, check_whole
from ..data import Dataset, ImageSet
from ..data.image_set import check_square
from ..data.targets import class_index
from ..errors import DataError, SettingError, brief
from .codec import Codec
from .diffusion import NUM_TIMESTEPS, Schedule
from .history import HISTORY_FILE, history_of
from .labelled import has_labels, keep_labels, null_row, output_of
from .networks import image_shape, latent_shape

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


def check_pipeline(pipe: object, name: str = "pipe") -> None:
    """Refuse what is not a pipeline: the name of a checkpoint, say."""
    check_kind(name, pipe, DiffusionPipeline, "a pipeline, such as load_pipeline('digits')")


def check_data(data: Dataset | ImageSet, pipe: DiffusionPipeline) -> None:
    """Refuse a data or image set whose labels mean other classes than the pipeline's, if that names any, or whose images are oblong
    or of other channels."""
    if data.class_names != getattr(pipe, "class_names", data.class_names):
        raise DataError(f"{data.name} has other classes than the pipeline: {', '.join(pipe.class_names)}.")
    images = data.train if isinstance(data, Dataset) else data
    check_square(images)
    theirs, ours = images.images.shape[1], image_shape(pipe)[0]
    if theirs != ours:
        kinds = f"{coloured(theirs)} images, and the pipeline draws {coloured(ours)} ones"
        raise DataError(f"{data.name} has {kinds}: convert them first.")


def coloured(channels: int) -> str:
    return {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")


def check_sampling(num_inference_steps: object, guidance_scale: object) -> None:
    """Refuse numbers that no sampler can follow."""
    check_whole("num_inference_steps", num_inference_steps, 1, NUM_TIMESTEPS)
    check_number("guidance_scale", guidance_scale)


def default_guidance(pipe: DiffusionPipeline) -> float:
    """The guidance scale that a pipeline draws with if nobody says one: the checkpoint's, or diffusers' own for its kind."""
    own = pipe.config.get("guidance_scale")
    return inspect.signature(type(pipe).__call__).parameters["guidance_scale"].default if own is None else own


def check_output_type(output_type: object) -> None:
    """Refuse, before the sampling, a format that there is not."""
    if output_type not in OUTPUT_TYPES:
        raise SettingError(f"output_type must be one of {', '.join(OUTPUT_TYPES)}, not {brief(output_type)}.")


def step_arguments(scheduler: SchedulerMixin, generator, eta: float | None = None) -> dict:
    """What a scheduler's step takes beside the prediction, asked of its signature.

    generator: where fresh noise comes from; the global stream, the alternative, depends on what ran before in the process.
    eta: None is the scheduler's own.
    DDIM, once it has clipped the clean image, also corrects the noise: with the two at odds, guided samples come out wrong, 31 %
    right in place of 100 %.
    """
    known = inspect.signature(scheduler.step).parameters
    if eta is not None:
        check_number("eta", eta, 0, 1)
        if "eta" not in known:
            raise SettingError(f"{type(scheduler).__name__} has no eta: leave it out, or take DDIMScheduler.")
    arguments = {"generator": generator, "use_clipped_model_output": True, **({} if eta is None else {"eta": eta})}
    return {name: value for name, value in arguments.items() if name in known}


def seed_noise_sampler(scheduler: SchedulerMixin, generator: torch.Generator | list[torch.Generator] | None) -> None:
    """DPMSolverSDEScheduler draws from Brownian paths of its own, and takes a seed for them in place of a generator."""
    if generator is not None and hasattr(scheduler, "noise_sampler_seed"):
        seeds = [int(torch.randint(2**62, (), generator=g, device=g.device)) for g in _each(generator)]
        scheduler.noise_sampler_seed = seeds if isinstance(generator, list) else seeds[0]


@contextlib.contextmanager
def fresh_noise_from(scheduler: SchedulerMixin, generator: torch.Generator | list[torch.Generator] | None) -> Iterator[None]:
    """Within this context a scheduler's fresh noise is the generator's, though diffusers' Stable Diffusion 3 hands it none."""
    seed_noise_sampler(scheduler, generator)
    if "generator" in inspect.signature(scheduler.step).parameters:
        scheduler.step = functools.partial(scheduler.step, generator=generator)
    try:
        yield
    finally:
        vars(scheduler).pop("step", None)


@contextlib.contextmanager
def unfiltered(pipe: DiffusionPipeline) -> Iterator[None]:
    """Within this context Stable Diffusion's safety checker, if there is one, blackens no image: it would pass for forgetting."""
    if hasattr(pipe, "run_safety_checker"):
        pipe.run_safety_checker = lambda image, *_: (image, None)
    try:
        yield
    finally:
        vars(pipe).pop("run_safety_checker", None)


def _each(generator: torch.Generator | list[torch.Generator]) -> list[torch.Generator]:
    return generator if isinstance(generator, list) else [generator]


def set_timesteps(scheduler: SchedulerMixin, num_inference_steps: int, device: torch.device) -> None:
    """The timesteps of a sampling; SettingError, with the scheduler's name, for a number of steps that it cannot sample in."""
    steps = f"{num_inference_steps} step{'s' * (num_inference_steps > 1)}"
    try:
        scheduler.set_timesteps(num_inference_steps, device=device)
    except (ValueError, IndexError) as error:  # PNDM, for one, needs four steps
        raise SettingError(
            f"{type(scheduler).__name__} cannot sample in {steps} ({error}): take another number, or another scheduler."
        ) from error
    if not scheduler.timesteps.isfinite().all():
        raise SettingError(f"{type(scheduler).__name__} has no finite timesteps for {steps}: take more, or another scheduler.")


class CodedImages:
    """What the pipelines share: a codec between images and network, class names, starting noise and output."""

    @property
    def class_names(self) -> tuple[str, ...]:
        names = self.config.id2label or {str(i): str(i) for i in range(self.null_label)}
        return tuple(names[str(i)] for i in range(len(names)))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return image_shape(self)

    @property
    def codec(self) -> Codec:
        return Codec.of(self)

    def encode(self, images: Tensor) -> Tensor:
        """Images, B x C x H x W, as the network sees them."""
        return self.codec.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`."""
        return self.codec.decode(latents)

    def to_images(self, latents: Tensor) -> Tensor:
        """What the network sees, as images: N x C x H x W in [-1, 1], float32."""
        return self.decode(latents).float().clamp(-1, 1)

    def save_pretrained(self, save_directory: str | os.PathLike, **settings) -> None:
        """As diffusers saves a pipeline, with its history beside it."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / HISTORY_FILE).write_text(history_of(self).to_json(), "utf-8")
        super().save_pretrained(save_directory, **settings)

    def _starting_noise(self, count: int, generator, latents: Tensor | None) -> Tensor:
        shape = (count, *latent_shape(self))
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self.device, dtype=self.unet.dtype)
        elif not isinstance(latents, Tensor) or latents.shape != shape or not latents.isfinite().all():
            actual = f"{tuple(latents.shape)}" if isinstance(latents, Tensor) else brief(latents)
            raise SettingError(f"latents must have shape {shape} and be finite, not {actual}.")
        return latents.to(self.device, self.unet.dtype) * self.scheduler.init_noise_sigma

    def _sample(self, predict, count: int, num_inference_steps: int, generator, latents, eta, callback) -> Tensor:
        """From noise to what the network sees of `count` images. predict: (x_t, t) to the guided noise.

        Everything random comes from the generator, or from the list of them, one for each image.
        """
        check_kind("generator", generator, (torch.Generator, list, tuple, type(None)), "a torch.Generator, or a list of them")
        generator = list(generator) if isinstance(generator, tuple) else generator
        if isinstance(generator, list) and (len(generator) != count or not all(isinstance(g, torch.Generator) for g in generator)):
            raise SettingError(f"generator must be a torch.Generator, or a list of {count}, one per image, not {brief(generator)}.")
        Schedule.of(self.scheduler)  # which refuses one that cannot draw from these models
        set_timesteps(self.scheduler, num_inference_steps, self.device)
        x_t = self._starting_noise(count, generator, latents)
        seed_noise_sampler(self.scheduler, generator)
        extra = step_arguments(self.scheduler, generator, eta)
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            eps = predict(self.scheduler.scale_model_input(x_t, t), t)
            x_t = self.scheduler.step(eps, t, x_t, **extra, return_dict=False)[0]
            if callback:
                x_t = callback(self, i, int(t), {"latents": x_t}).get("latents", x_t)
        return x_t

    def _output(self, latents: Tensor, output_type: str, return_dict: bool) -> ImagePipelineOutput | tuple:
        images = latents
        if output_type != "latent":
            images = (self.to_images(latents) + 1) / 2
        if output_type in ("np", "pil"):
            images = images.cpu().permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)


class ClassConditionalPipeline(CodedImages, DiffusionPipeline):
    """Draws images of given classes.

    unet: diffusers' UNet2DModel or DiTTransformer2DModel, called as unet(x_t, t, class_labels). Its last label row is the null
        condition, unless there are no more rows than names: then there is none, and no guidance. Without rows, it draws one class.
    scheduler: any diffusers scheduler; `pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)` swaps it.
    id2label: class names by number (as in diffusers' DiTPipeline).
    patch_size, vae: what stands between images and network (see `Codec`): folded pixels, or the latents of an autoencoder.
    """

    _optional_components = ["vae"]

    def __init__(
        self,
        unet: ModelMixin,
        scheduler: SchedulerMixin,
        id2label: dict | None = None,
        patch_size: int = 1,
        guidance_scale: float = 1.0,
        vae: AutoencoderTiny | AutoencoderKL | None = None,
    ):
        super().__init__()
        keep_labels(unet)
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)
        id2label = {str(key): value for key, value in (id2label or {}).items()}  # JSON has no integer keys
        self.register_to_config(id2label=id2label, patch_size=patch_size, guidance_scale=guidance_scale)

    @property
    def null_label(self) -> int | None:
        """The row of the null condition, if there is one."""
        return null_row(self.unet, len(self.config.id2label))

    def label_tensor(self, class_labels: Sequence[str | int | None]) -> Tensor:
        """Class names or numbers as int64 labels; None is the null condition. UnknownName for anything else."""
        if isinstance(class_labels, str) or not isinstance(class_labels, Sequence) or not len(class_labels):
            raise SettingError(f"class_labels must be a list of classes, such as [0, 0, 1], not {brief(class_labels)}.")
        names, null = self.class_names, self.null_label
        if null is None and None in class_labels:
            raise SettingError("This model has no null condition, so it draws nothing without a class: name one.")
        return torch.tensor([null if c is None else class_index(c, names) for c in class_labels])

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[str | int | None],
        guidance_scale: float | None = None,
        num_inference_steps: int = 20,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        callback_on_step_end: Callable[[DiffusionPipeline, int, int, dict], dict] | None = None,
        return_dict: bool = True,
        eta: float | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Draw one image for each label.

        class_labels: class names or numbers; None draws from the unconditional model.
        guidance_scale: s in eps_null + s (eps_cond - eps_null); 1 is no guidance (one forward for each step instead of a
            batched pair). Default: the checkpoint's own.
        generator: where all noise comes from, or a list of them, one for each image.
        latents: starting noise, of the shape that `encode` gives; two models given the same noise can be compared pairwise.
        output_type: as in diffusers, "pil", "np" (N x H x W x C) or "pt" (N x C x H x W), both in [0, 1], or "latent".
        eta: share of fresh noise in a step of DDIM (0 to 1); default, the scheduler's own.
        """
        check_output_type(output_type)
        labels = self.label_tensor(class_labels).to(self.device)
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        check_sampling(num_inference_steps, scale)
        if scale != 1 and self.null_label is None:
            raise SettingError(f"This model has no null condition to guide away from: guidance_scale must be 1, not {scale}.")
        latents = self._sample(
            lambda x_t, t: self.predict_noise(x_t, t, labels, scale), len(labels), num_inference_steps, generator, latents, eta,
            callback_on_step_end,
        )
        return self._output(latents, output_type, return_dict)

    def predict_noise(self, x_t: Tensor, t: Tensor, labels: Tensor, guidance_scale: float) -> Tensor:
        """Guided prediction, of the noise or what else the network predicts, both conditions in one batch; labels: int64, B."""
        if guidance_scale == 1 or bool((labels == self.null_label).all()):
            return output_of(self.unet, x_t, t, labels if has_labels(self.unet) else None).to(x_t.dtype)
        null = torch.full_like(labels, self.null_label)
        both = output_of(self.unet, torch.cat([x_t, x_t]), t, torch.cat([null, labels])).to(x_t.dtype)
        eps_null, eps_cond = both.chunk(2)
        return eps_null + guidance_scale * (eps_cond - eps_null)
