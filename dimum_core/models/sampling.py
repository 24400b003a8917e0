"""Sampling: a diffusers pipeline from class labels to images, with classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    ImagePipelineOutput,
    SchedulerMixin,
    UNet2DModel,
)
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from ..checking import check_kind, check_number, check_whole
from ..data.targets import class_index
from ..errors import DataError, SettingError, brief
from .codec import Codec
from .diffusion import NUM_TIMESTEPS


def check_pipeline(pipe: object) -> None:
    """Refuse what is no pipeline: the name of a checkpoint, say."""
    check_kind("pipe", pipe, DiffusionPipeline, "a pipeline, such as load_pipeline('digits')")


def check_classes(data, pipe: DiffusionPipeline) -> None:
    """Refuse a data or image set whose labels mean other classes than the pipeline's, if that names any."""
    if data.class_names != getattr(pipe, "class_names", data.class_names):
        raise DataError(f"{data.name} has other classes than the pipeline: {', '.join(pipe.class_names)}.")


def check_sampling(num_inference_steps: object, guidance_scale: object) -> None:
    """Refuse numbers that no sampler can follow."""
    check_whole("num_inference_steps", num_inference_steps, 1, NUM_TIMESTEPS)
    check_number("guidance_scale", guidance_scale)


def step_arguments(scheduler: SchedulerMixin, generator) -> dict:
    """What a scheduler's step takes beside the prediction: where DDPM's noise comes from; and that DDIM, once it has clipped the
    clean image, also corrects the noise: with the two at odds, guided samples come out wrong, 31 % right in place of 100 %.
    """
    if isinstance(scheduler, DDPMScheduler):
        return {"generator": generator}
    return {"use_clipped_model_output": True} if isinstance(scheduler, DDIMScheduler) else {}


class CodedImages:
    """What the pipelines share: a codec between images and network, class names, starting noise and output."""

    @property
    def class_names(self) -> tuple[str, ...]:
        names = self.config.id2label or {str(i): str(i) for i in range(self.null_label)}
        return tuple(names[str(i)] for i in range(len(names)))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        side = self.unet.config.sample_size * self.codec.factor
        return self.codec.image_channels(self.unet.config.in_channels), side, side

    @property
    def codec(self) -> Codec:
        return Codec.of(self)

    def encode(self, images: Tensor) -> Tensor:
        """Images, B x C x H x W, as the network sees them."""
        return self.codec.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse of `encode`."""
        return self.codec.decode(latents)

    def _starting_noise(self, count: int, generator, latents: Tensor | None) -> Tensor:
        side = self.unet.config.sample_size
        shape = (count, self.unet.config.in_channels, side, side)
        check_kind("generator", generator, (torch.Generator, list, tuple, type(None)), "a torch.Generator")
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self.device, dtype=self.unet.dtype)
        elif not isinstance(latents, Tensor) or latents.shape != shape or not latents.isfinite().all():
            found = f"{tuple(latents.shape)}" if isinstance(latents, Tensor) else brief(latents)
            raise SettingError(f"latents must have shape {shape} and be finite, not {found}.")
        return latents.to(self.device, self.unet.dtype) * self.scheduler.init_noise_sigma


class ClassConditionalPipeline(CodedImages, DiffusionPipeline):
    """Draws images of given classes.

    unet: called as unet(x_t, t, class_labels); its last label row is the null condition.
    scheduler: any diffusers scheduler; `pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config)` swaps it.
    id2label: class names by number (as in diffusers' DiTPipeline).
    patch_size, vae: what stands between images and network (see `Codec`): folded pixels, or the latents of an autoencoder.
    """

    model_cpu_offload_seq = "unet->vae"
    _optional_components = ["vae"]

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        id2label: dict | None = None,
        patch_size: int = 1,
        guidance_scale: float = 1.0,
        vae: AutoencoderTiny | AutoencoderKL | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, vae=vae)
        id2label = {str(key): value for key, value in (id2label or {}).items()}  # JSON has no integer keys
        self.register_to_config(id2label=id2label, patch_size=patch_size, guidance_scale=guidance_scale)

    @property
    def null_label(self) -> int:
        return self.unet.config.num_class_embeds - 1

    def label_tensor(self, class_labels: Sequence[str | int | None]) -> Tensor:
        """Class names or numbers as int64 labels; None is the null condition. UnknownName for anything else."""
        if isinstance(class_labels, str) or not isinstance(class_labels, Sequence) or not len(class_labels):
            raise SettingError(f"class_labels must be a list of classes, such as [0, 0, 1], not {brief(class_labels)}.")
        names = self.class_names
        return torch.tensor([self.null_label if c is None else class_index(c, names) for c in class_labels])

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
    ) -> ImagePipelineOutput | tuple:
        """Draw one image for each label.

        class_labels: class names or numbers; None draws from the unconditional model.
        guidance_scale: s in eps_null + s (eps_cond - eps_null); 1 is no guidance (one forward a step instead of a
            batched pair). Default: the checkpoint's own.
        latents: starting noise, of the shape that `encode` gives; two models given the same noise can be compared pairwise.
        output_type: "pil", "np" (N x H x W x C in [0, 1]) or "pt" (N x C x H x W in [-1, 1]).
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type must be 'pil', 'np' or 'pt', not {output_type!r}.")
        labels = self.label_tensor(class_labels).to(self.device)
        scale = self.config.guidance_scale if guidance_scale is None else guidance_scale
        check_sampling(num_inference_steps, scale)
        self.scheduler.set_timesteps(num_inference_steps, device=self.device)
        x_t = self._starting_noise(len(labels), generator, latents)
        extra = step_arguments(self.scheduler, generator)
        for i, t in enumerate(self.progress_bar(self.scheduler.timesteps)):
            eps = self.predict_noise(self.scheduler.scale_model_input(x_t, t), t, labels, scale)
            x_t = self.scheduler.step(eps, t, x_t, **extra, return_dict=False)[0]
            if callback_on_step_end:
                x_t = callback_on_step_end(self, i, int(t), {"latents": x_t}).get("latents", x_t)
        images = self._output(x_t, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def predict_noise(self, x_t: Tensor, t: Tensor, labels: Tensor, guidance_scale: float) -> Tensor:
        """Guided noise prediction, both conditions in one batch; labels: int64, B."""
        if guidance_scale == 1 or bool((labels == self.null_label).all()):
            return self.unet(x_t, t, class_labels=labels).sample.to(x_t.dtype)
        null = torch.full_like(labels, self.null_label)
        both = self.unet(torch.cat([x_t, x_t]), t, class_labels=torch.cat([null, labels])).sample.to(x_t.dtype)
        eps_null, eps_cond = both.chunk(2)
        return eps_null + guidance_scale * (eps_cond - eps_null)

    def _output(self, latents: Tensor, output_type: str):
        images = self.decode(latents).float().clamp(-1, 1)
        if output_type == "pt":
            return images
        images = ((images + 1) / 2).cpu().permute(0, 2, 3, 1).numpy()
        return self.numpy_to_pil(images) if output_type == "pil" else images
