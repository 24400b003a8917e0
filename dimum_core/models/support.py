"""What a pipeline must be for this package to unlearn, attack and measure it: checked once, wherever one enters."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline
from torch import nn

from ..errors import ModelError
from .adopting import TRANSFORMERS, UNETS
from .diffusion import Schedule
from .labelled import check_labels
from .sampling import ClassConditionalPipeline, check_pipeline

# by name: to import diffusers' own takes two seconds, and warns of what is not installed
SUPPORTED = ("ClassConditionalPipeline", "TextToImagePipeline", "StableDiffusionPipeline", "StableDiffusionXLPipeline")


def check_supported(pipe: object, trains: bool = False) -> None:
    """Refuse a pipeline of a kind, or with parts, that would fail later, or that training would ruin without a word.

    trains: whether its network is to be trained.
    Raises SettingError for what is no pipeline at all, ModelError for everything else.
    """
    check_pipeline(pipe)
    if not any(kind.__name__ in SUPPORTED for kind in type(pipe).__mro__):
        kind = type(pipe).__name__
        if kind in UNETS + TRANSFORMERS:
            raise ModelError(f"A {kind} does not say which classes it draws: wrap it by models.adopting.adopt(pipe, class_names).")
        raise ModelError(f"A {kind} is not supported: give a pipeline of one of the kinds {', '.join(SUPPORTED)}.")
    Schedule.of(pipe.scheduler)
    _check_shapes(pipe)
    if isinstance(pipe, ClassConditionalPipeline):
        check_labels(pipe.unet, pipe.config.id2label)
    _check_numbers(pipe, trains)


def _check_shapes(pipe: DiffusionPipeline) -> None:
    """The network predicts noise of the shape of what it sees, and sees what the codec makes of square images."""
    config, vae = pipe.unet.config, getattr(pipe, "vae", None)
    if not isinstance(config.sample_size, int):
        raise ModelError(f"Only square images of one size are supported, and this network's sample_size is {config.sample_size}.")
    if config.out_channels != config.in_channels and not config.get("num_embeds_ada_norm"):  # a transformer's variance is cut off
        raise ModelError(
            f"A network that gives {config.out_channels} channels for {config.in_channels} is not supported: it predicts more than "
            "the noise, such as its variance, or sees more than the image."
        )
    latent, folded = (config.in_channels if vae is None else vae.config.latent_channels), pipe.config.get("patch_size", 1) ** 2
    if latent != config.in_channels or (vae is None and config.in_channels % folded):
        source = f"{latent} channels of latents" if vae is not None else f"pixels folded {folded} to one"
        raise ModelError(f"The network sees {config.in_channels} channels, and is given {source}: these parts are of two models.")


def _check_numbers(pipe: DiffusionPipeline, trains: bool) -> None:
    """Precision and finite weights of the network that draws."""
    network: nn.Module = pipe.unet
    slow = network.device.type == "cpu" or trains
    if network.dtype == torch.float64 or (network.dtype == torch.float16 and slow):
        used = "be trained here" if trains else f"draw on the {network.device.type.upper()}"
        raise ModelError(f"A network in {str(network.dtype).removeprefix('torch.')} cannot {used}: pipe.to(torch.float32) first.")
    for name, weight in network.named_parameters():
        if weight.is_floating_point() and not weight.is_meta and not bool(weight.isfinite().all()):
            raise ModelError(f"The weights {name} of the network are not finite: take it as it was before, or train it again.")
