"""What a pipeline must be for this package to unlearn, attack and measure it: checked once, wherever one enters."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline

from ..errors import ModelError
from ..precision import has_bf16
from .adopting import TRANSFORMERS, UNETS
from .labelled import check_labels
from .networks import FLUX, SD3, XL, is_kind, latent_shape, network_of, schedule_of
from .sampling import ClassConditionalPipeline, check_pipeline

SUPPORTED = ("ClassConditionalPipeline", "TextToImagePipeline", "StableDiffusionPipeline", XL, SD3, FLUX)


def check_supported(pipe: object, trains: bool = False) -> None:
    """Refuse a pipeline of a kind, or with parts, that would fail later, or that training would ruin without a word.

    trains: whether its network is to be trained.
    Raises SettingError for what is not a pipeline at all, ModelError for everything else.
    """
    check_pipeline(pipe)
    if not is_kind(pipe, *SUPPORTED):
        kind = type(pipe).__name__
        if kind in UNETS + TRANSFORMERS:
            raise ModelError(f"A {kind} does not say which classes it draws: wrap it by models.adopting.adopt(pipe, class_names).")
        raise ModelError(f"A {kind} is not supported: give a pipeline of one of the kinds {', '.join(SUPPORTED)}.")
    if not hasattr(network_of(pipe), "config"):
        kind = type(network_of(pipe)).__name__
        raise ModelError(f"The pipeline's network is a {kind}, and should be diffusers' own: give what is wrapped, its `.module`.")
    schedule_of(pipe)
    _check_shapes(pipe)
    if isinstance(pipe, ClassConditionalPipeline):
        check_labels(pipe.unet, pipe.config.id2label)
    _check_numbers(pipe, trains)


def check_trainable(pipe: object, lora_rank: int = 0) -> None:
    """Refuse, too, weights in bf16: most of what small steps add to them is rounded away, which reads as if nothing came back.

    lora_rank: of updates that train in their place, in float32; 0 for none.
    """
    check_supported(pipe, trains=True)
    if not lora_rank and has_bf16(network_of(pipe)):
        raise ModelError(
            "Weights in bfloat16 cannot be trained here, since they lose small steps: pipe.to(torch.float32) first (the network "
            "still computes in bf16 where the device does)."
        )


def _check_shapes(pipe: DiffusionPipeline) -> None:
    """The network predicts noise of the shape of what it sees, and sees what the codec makes of square images."""
    config, vae = network_of(pipe).config, getattr(pipe, "vae", None)
    channels, *sides = latent_shape(pipe)
    if sides[0] != sides[-1] or not isinstance(sides[0], int):
        raise ModelError(f"Only square images of one size are supported, and this network's sample_size is {config.sample_size}.")
    given = config.out_channels or config.in_channels  # a network of Flux's need not say it
    if given != config.in_channels and not config.get("num_embeds_ada_norm"):  # a transformer's variance is cut off
        raise ModelError(
            f"A network that gives {given} channels for {config.in_channels} is not supported: it predicts more than the noise, "
            "such as its variance, or sees more than the image."
        )
    latent, folded = (channels if vae is None else vae.config.latent_channels), pipe.config.get("patch_size", 1) ** 2
    if latent != channels or (vae is None and channels % folded):
        source = f"{latent} channels of latents" if vae is not None else f"pixels folded {folded} to one"
        raise ModelError(f"The network sees {channels} channels, and is given {source}: these parts are of two models.")


def _check_numbers(pipe: DiffusionPipeline, trains: bool) -> None:
    """Precision and finite weights of the network that draws."""
    network = network_of(pipe)
    slow = network.device.type == "cpu" or trains
    if network.dtype == torch.float64 or (network.dtype == torch.float16 and slow):
        used = "be trained here" if trains else f"draw on the {network.device.type.upper()}"
        raise ModelError(f"A network in {str(network.dtype).removeprefix('torch.')} cannot {used}: pipe.to(torch.float32) first.")
    for name, weight in network.named_parameters():
        if weight.is_floating_point() and not weight.is_meta and not bool(weight.isfinite().all()):
            raise ModelError(f"The weights {name} of the network are not finite: take it as it was before, or train it again.")
