"""Which network of a pipeline draws, of what shape it sees images, and how diffusers' own pipelines call it with a prompt.

The only place that knows their kinds apart. What a network sees is B x C x H x W here, whatever it makes of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import Tensor, nn

from ..precision import same_device
from .codec import Codec
from .diffusion import NUM_TIMESTEPS, Schedule
from .flow import FlowSchedule

XL, SD3, FLUX = "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline"
FLOWS = (SD3, FLUX)
FLUX_GUIDANCE = 3.5  # told to a network that was distilled with guidance; diffusers' own default, in drawing and in training


def is_kind(pipe: DiffusionPipeline, *kinds: str) -> bool:
    """By name, because importing diffusers' own pipelines takes two seconds and warns of what is not installed."""
    return any(kind.__name__ in kinds for kind in type(pipe).__mro__)


def network_name(pipe: DiffusionPipeline) -> str:
    """What diffusers calls a pipeline's network that denoises: unet or transformer."""
    return "transformer" if "transformer" in pipe.components else "unet"


def networks_in(pipe: DiffusionPipeline) -> list[nn.Module]:
    return [part for part in pipe.components.values() if isinstance(part, nn.Module)]


@contextmanager
def placed(networks: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Within this context networks are on a device, then each is back where it was. If one is offloaded or quantised, all stay."""
    fixed = any(
        hasattr(module, "_hf_hook") or getattr(module, "hf_quantizer", None) for part in networks for module in part.modules()
    )
    homes = [] if fixed else [(part, part.device) for part in networks if not same_device(part.device, device)]
    try:
        for part, _ in homes:
            part.to(device)
        yield
    finally:
        for part, home in homes:
            part.to(home)


def network_of(pipe: DiffusionPipeline) -> ModelMixin:
    """The network that denoises: the one that is unlearned and attacked."""
    return getattr(pipe, network_name(pipe))


def same_layout(network: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same weights by name and shape."""
    one, two = ({name: w.shape for name, w in each.named_parameters()} for each in (network, other))
    return one == two


def schedule_of(pipe: DiffusionPipeline) -> Schedule | FlowSchedule:
    """The noise levels that a pipeline's network was trained on; ModelError if its scheduler is of another kind of diffusion."""
    return (FlowSchedule if is_kind(pipe, *FLOWS) else Schedule).of(pipe.scheduler)


def latent_shape(pipe: DiffusionPipeline) -> tuple[int, int, int]:
    """Channels, height and width of what the network sees of an image; a Flux network packs it into tokens by itself."""
    config = network_of(pipe).config
    if is_kind(pipe, FLUX):
        return config.in_channels // 4, pipe.default_sample_size, pipe.default_sample_size
    size = config.sample_size
    return config.in_channels, *(size if isinstance(size, (list, tuple)) else (size, size))


def image_shape(pipe: DiffusionPipeline) -> tuple[int, int, int]:
    """Channels, height and width of the images that a pipeline draws."""
    codec, (channels, side, _) = Codec.of(pipe), latent_shape(pipe)
    return codec.image_channels(channels), side * codec.factor, side * codec.factor


def encoded_prompts(pipe: DiffusionPipeline, prompts: list[str], device: torch.device) -> list[Tensor]:
    """What the frozen encoders make of prompts: of each token, B x L x D, and, where a network is told it, of the whole, B x D."""
    more = {"prompt_2": None, "prompt_3": None} if is_kind(pipe, SD3) else {"prompt_2": None} if is_kind(pipe, FLUX) else {}
    guided = {} if is_kind(pipe, FLUX) else {"do_classifier_free_guidance": False}
    encoded = pipe.encode_prompt(prompt=prompts, **more, device=device, num_images_per_prompt=1, **guided)
    if is_kind(pipe, FLUX):
        return list(encoded[:2])
    return [encoded[0], encoded[2]] if is_kind(pipe, XL, SD3) else [encoded[0]]


def predicted(pipe: DiffusionPipeline, network: nn.Module, x_t: Tensor, time: Tensor, parts: list[Tensor]) -> Tensor:
    """What a network, the pipeline's or a copy, says of x_t, B x C x H x W, called as diffusers' own pipeline does.

    time: B, as the schedule tells it. parts: as `encoded_prompts` gives them, for each of the B images.
    """
    call = _flux if is_kind(pipe, FLUX) else _sd3 if is_kind(pipe, SD3) else _xl if is_kind(pipe, XL) else _sd
    return call(pipe, network, x_t, time, *parts)


def _sd(pipe, network: nn.Module, x_t: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
    return network(x_t, time, encoder_hidden_states=tokens).sample


def _xl(pipe, network: nn.Module, x_t: Tensor, time: Tensor, tokens: Tensor, whole: Tensor) -> Tensor:
    """Beside each token, Stable Diffusion XL is told the prompt as a whole, and that images are uncut and of one size."""
    _, height, width = image_shape(pipe)
    sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(x_t), dtype=torch.float32, device=x_t.device)
    return network(x_t, time, encoder_hidden_states=tokens, added_cond_kwargs={"text_embeds": whole, "time_ids": sizes}).sample


def _sd3(pipe, network: nn.Module, x_t: Tensor, time: Tensor, tokens: Tensor, whole: Tensor) -> Tensor:
    return network(hidden_states=x_t, timestep=time, encoder_hidden_states=tokens, pooled_projections=whole).sample


def _flux(pipe, network: nn.Module, x_t: Tensor, time: Tensor, tokens: Tensor, whole: Tensor) -> Tensor:
    """Each 2 x 2 of the latents are one token with its place, and times are in [0, 1]."""
    count, channels, height, width = x_t.shape
    places = pipe._prepare_latent_image_ids(count, height // 2, width // 2, x_t.device, torch.float32)
    guidance = torch.full((count,), FLUX_GUIDANCE, device=x_t.device) if network_of(pipe).config.guidance_embeds else None
    output = network(
        hidden_states=pipe._pack_latents(x_t, count, channels, height, width), timestep=time / NUM_TIMESTEPS, guidance=guidance,
        pooled_projections=whole, encoder_hidden_states=tokens, txt_ids=places.new_zeros(tokens.shape[1], 3), img_ids=places,
    ).sample
    return pipe._unpack_latents(output, height, width, 1)
