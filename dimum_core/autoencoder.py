"""A small autoencoder between photographs and the denoiser: its presets, its training and what it loses.

The class is diffusers' own `AutoencoderKL`, so that `AutoencoderKL.from_pretrained` loads what is saved here. Its input is the
image folded by pixel-unshuffle, as a denoiser of folded pixels sees it: most of the work is done at a quarter of the places.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Dataset, ImageSet, draw_batch, load_dataset, step_generator
from .errors import UnknownName
from .files import write_atomically
from .models.checkpoints import (
    check_dtype,
    check_finite,
    command_line,
    find_checkpoint,
    loading_errors,
    provenance,
    quiet_diffusers,
    save_checkpoint,
)
from .models.codec import Codec
from .precision import autocast
from .training import TrainConfig, TrainResult, train


@dataclass(frozen=True)
class AutoencoderPreset:
    """Sizes and budget of an autoencoder.

    patch_size: images are folded by pixel-unshuffle first, patch_size^2 pixels to one position.
    channels, layers: width of each level (each but the last halves the side), and residual blocks a level.
    latent_channels: of the latents, which have side image_size / patch_size / 2^(levels - 1).
    absolute_weight, kl_weight: beside the mean squared error, of the mean absolute error, which keeps edges, and of the divergence
        of the posterior from N(0, I), per latent element.
    """

    name: str
    dataset: str
    image_size: int
    patch_size: int
    channels: tuple[int, ...]
    layers: int
    latent_channels: int
    flip: bool = True
    absolute_weight: float = 0.2
    kl_weight: float = 1e-4
    training: TrainConfig = field(default_factory=TrainConfig)


AUTOENCODER_PRESETS = {
    preset.name: preset
    for preset in (
        AutoencoderPreset(
            "cifar10-autoencoder", dataset="cifar10", image_size=32, patch_size=2, channels=(48, 96), layers=1, latent_channels=8,
            training=TrainConfig(steps=2_500, batch_size=128, learning_rate=2e-3, warmup_steps=100, ema_decay=0.999),
        ),
    )
}


def get_autoencoder_preset(name: str) -> AutoencoderPreset:
    if name not in AUTOENCODER_PRESETS:
        raise UnknownName("autoencoder preset", name, AUTOENCODER_PRESETS)
    return AUTOENCODER_PRESETS[name]


def build_autoencoder(preset: AutoencoderPreset, image_channels: int, seed: int = 0) -> AutoencoderKL:
    """A freshly initialised autoencoder of B x (C * patch_size^2) x (H / patch_size) x (W / patch_size)."""
    levels, folded = len(preset.channels), image_channels * preset.patch_size**2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderKL(
            in_channels=folded, out_channels=folded, block_out_channels=preset.channels, layers_per_block=preset.layers,
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            latent_channels=preset.latent_channels, norm_num_groups=16, mid_block_add_attention=False,
            sample_size=preset.image_size // preset.patch_size, scaling_factor=1.0,
        )


def load_autoencoder(checkpoint: str | Path) -> AutoencoderKL:
    """A shipped autoencoder by name, or one from a folder, in float32 on the CPU."""
    folder = find_checkpoint(checkpoint)
    with loading_errors(folder), quiet_diffusers():
        vae = AutoencoderKL.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    check_finite(vae, folder)
    return vae.float().eval().requires_grad_(False)


@dataclass(frozen=True)
class ReconstructionObjective:
    """Squared and absolute error of the reconstruction from a latent drawn from the posterior, and its divergence from N(0, I)."""

    data: ImageSet
    batch_size: int
    patch_size: int
    flip: bool
    absolute_weight: float
    kl_weight: float

    @property
    def fingerprint(self) -> dict:
        return {"data": self.data.digest, **{k: v for k, v in vars(self).items() if k != "data"}}

    def __call__(self, model: nn.Module, seed: int, step: int) -> Tensor:
        device = next(model.parameters()).device
        images, _ = draw_batch(self.data, self.batch_size, seed, step, self.flip)
        x = F.pixel_unshuffle(images, self.patch_size).to(device)
        posterior = model.encode(x).latent_dist
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        noise = torch.randn(mean.shape, generator=step_generator(seed, step)).to(device)
        error = model.decode(mean + (logvar / 2).exp() * noise).sample.float() - x
        divergence = (mean.square() + logvar.exp() - 1 - logvar).mean() / 2
        return error.square().mean() + self.absolute_weight * error.abs().mean() + self.kl_weight * divergence


def train_autoencoder(
    preset: str | AutoencoderPreset,
    out: Path | None = None,
    *,
    without: str | None = None,
    data: Dataset | None = None,
    resume: bool = False,
    dtype: str = "float32",
    on_log=None,
    progress: bool = True,
    **settings,
) -> tuple[AutoencoderKL, TrainResult]:
    """Train an autoencoder, scale its latents to mean 0 and variance 1, and measure it on the test split.

    without: a class that it never sees, to learn whether an autoencoder betrays what a denoiser has forgotten.
    data: a data set in place of the preset's own; its test split measures what is lost.
    settings: fields of TrainConfig that differ from the preset's.
    """
    preset = get_autoencoder_preset(preset) if isinstance(preset, str) else preset
    check_dtype(dtype)
    config = replace(preset.training, **settings)
    data = load_dataset(preset.dataset, preset.image_size) if data is None else data
    images = data.train if without is None else data.train.without(without)
    vae = build_autoencoder(preset, images.images.shape[1], config.seed)
    objective = ReconstructionObjective(
        images, config.batch_size, preset.patch_size, preset.flip, preset.absolute_weight, preset.kl_weight
    )
    result = train(
        vae, objective, config, out=out, resume=resume, on_log=on_log, description=f"training {preset.name}", progress=progress
    )
    codec = Codec(preset.patch_size, vae)
    standardise(vae, encoded(codec, images.images))
    if out is not None:
        write_atomically(Path(out) / "log.csv", result.log.to_csv(index=False).encode())
        save_checkpoint(vae, Path(out), autoencoder_card(preset, config, images, data.test, vae, without, result), dtype)
    return vae, result


def encoded(codec: Codec, images: Tensor, batch_size: int = 500) -> Tensor:
    """The most probable latents of images, B x C x H x W, on the CPU."""
    with autocast(codec.vae.device):
        return torch.cat([codec.encode(batch).cpu() for batch in images.split(batch_size)])


@torch.no_grad()
def reconstructed(codec: Codec, images: Tensor, batch_size: int = 500) -> Tensor:
    """Images after encoding and decoding, clamped to [-1, 1], on the CPU."""
    with autocast(codec.vae.device):
        return torch.cat([
            codec.decode(codec.encode(batch)).float().clamp(-1, 1).cpu() for batch in images.split(batch_size)
        ])


@torch.no_grad()
def standardise(vae: AutoencoderKL, latents: Tensor) -> None:
    """Give every latent channel mean 0 and variance 1, in the 1 x 1 convolutions on either side of the latents: what is decoded
    stays the same, and the denoiser needs no scaling factor.
    """
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    mean, std = mean.to(vae.device), std.to(vae.device)
    into, back, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    back.bias += back.weight[:, :, 0, 0] @ mean
    back.weight *= std[None, :, None, None]
    into.weight[:channels] /= std[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / std
    into.bias[channels:] -= 2 * std.log()


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each pair of images in [-1, 1], N x C x H x W: 10 log10(4 / mean squared error)."""
    return 10 * (4 / (images - others).square().flatten(1).mean(1)).log10()


def measure_autoencoder(codec: Codec, test: ImageSet) -> dict:
    """PSNR of held-out images, of all and by class."""
    values = psnr(test.images, reconstructed(codec, test.images))
    each = {name: values[test.labels == label].mean() for label, name in enumerate(test.class_names)}
    return {
        "PSNR of held-out images": f"{values.mean():.2f} dB, n = {len(values)}",
        "per class": ", ".join(f"{name} {value:.2f}" for name, value in each.items()),
    }


def autoencoder_card(preset, config: TrainConfig, data: ImageSet, test: ImageSet, vae, without: str | None, result) -> dict:
    lacking = f" without the class {without}" if without else ""
    return {
        "title": f"{preset.name}{lacking}",
        "summary": f"An autoencoder for {data.name} at {preset.image_size} x {preset.image_size} pixels{lacking}.",
        "kind": "autoencoder",
        "preset": preset.name,
        "without": without,
        "training": {
            "command": command_line(),
            "parameters": sum(p.numel() for p in vae.parameters()),
            **asdict(config),
            "precision": result.precision,
            "weights": "EMA" if config.ema_decay else "raw",
            "seconds": round(result.seconds),
        },
        "data": {"name": data.name, "images": len(data), "image_size": preset.image_size, "digest": data.digest},
        "quality": measure_autoencoder(Codec(preset.patch_size, vae), test),
        "provenance": provenance(),
    }
