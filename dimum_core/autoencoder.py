"""A small autoencoder between photographs and the denoiser: its presets, its training and what it loses.

The class is diffusers' own `AutoencoderTiny`, so that `AutoencoderTiny.from_pretrained` loads what is saved here. Its input is the
image folded by pixel-unshuffle, as a denoiser of folded pixels sees it: most of the work is done at a quarter of the places.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn
from torch.nn import functional as F

from .checking import check_kind, check_multiple
from .data import Dataset, ImageSet, draw_batch, load_dataset, step_generator
from .data.targets import Wanted, find_target
from .errors import DataError, UnknownName
from .files import write_atomically
from .models.cards import command_line, provenance
from .models.checkpoints import check_dtype, check_finite, find_checkpoint, save_checkpoint
from .models.codec import Codec
from .models.folders import check_holds, loading_errors, quiet_diffusers
from .precision import autocast
from .resuming import check_begins
from .training import TrainConfig, TrainResult, train


@dataclass(frozen=True)
class AutoencoderPreset:
    """Sizes and budget of an autoencoder.

    patch_size: images are folded by pixel-unshuffle first, patch_size^2 pixels to one position.
    channels, blocks: width of all layers, and residual blocks of the encoder at each level (of the decoder in reverse).
    latent_channels: of the latents, which have side image_size / patch_size / 2^(levels - 1): each level but the last halves it.
    absolute_weight: of the mean absolute error, which keeps edges, beside the mean squared error.
    noise: added to the latents before decoding, in units of their standard deviation, so that neighbours decode alike.
    scale_weight: of the penalty that holds each latent channel near mean 0 and variance 1.
    """

    name: str
    dataset: str
    image_size: int
    patch_size: int
    channels: int
    blocks: tuple[int, ...]
    latent_channels: int
    flip: bool = True
    absolute_weight: float = 0.2
    noise: float = 0.03
    scale_weight: float = 0.01
    training: TrainConfig = field(default_factory=TrainConfig)


AUTOENCODER_PRESETS = {
    preset.name: preset
    for preset in (
        AutoencoderPreset(
            "cifar10-autoencoder", dataset="cifar10", image_size=32, patch_size=2, channels=64, blocks=(1, 3), latent_channels=8,
            # Small batches: after as many images, a quarter of the batch gives 4 dB more.
            training=TrainConfig(steps=8_000, batch_size=32, learning_rate=2e-3, warmup_steps=50, ema_decay=0.999),
        ),
    )
}


def get_autoencoder_preset(name: str) -> AutoencoderPreset:
    if name not in AUTOENCODER_PRESETS:
        raise UnknownName("autoencoder preset", name, AUTOENCODER_PRESETS)
    return AUTOENCODER_PRESETS[name]


def build_autoencoder(preset: AutoencoderPreset, image_channels: int, seed: int = 0) -> AutoencoderTiny:
    """A freshly initialised autoencoder of B x (C * patch_size^2) x (H / patch_size) x (W / patch_size)."""
    check_multiple(f"image_size of {preset.name}", preset.image_size, preset.patch_size * 2 ** (len(preset.blocks) - 1))
    widths, folded = (preset.channels,) * len(preset.blocks), image_channels * preset.patch_size**2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoencoderTiny(
            in_channels=folded, out_channels=folded, encoder_block_out_channels=widths, decoder_block_out_channels=widths,
            num_encoder_blocks=preset.blocks, num_decoder_blocks=preset.blocks[::-1], latent_channels=preset.latent_channels,
        )


def load_autoencoder(checkpoint: str | Path) -> AutoencoderTiny | AutoencoderKL:
    """A shipped autoencoder by name, or one from a folder, in float32 on the CPU."""
    folder = find_checkpoint(checkpoint)
    with loading_errors(folder), quiet_diffusers():
        kinds = {cls.__name__: cls for cls in (AutoencoderTiny, AutoencoderKL)}
        check_holds(folder, "an autoencoder", *kinds)
        kind = kinds[AutoencoderTiny.load_config(folder)["_class_name"]]
        vae = kind.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    check_finite(vae, folder)
    return vae.float().eval().requires_grad_(False)


@dataclass(frozen=True)
class ReconstructionObjective:
    """Squared and absolute error of images decoded from slightly noisy latents, whose channels are each held near N(0, 1)."""

    data: ImageSet
    batch_size: int
    patch_size: int
    flip: bool
    absolute_weight: float
    noise: float
    scale_weight: float

    @property
    def fingerprint(self) -> dict:
        return {"data": self.data.digest, **{k: v for k, v in vars(self).items() if k != "data"}}

    def __call__(self, model: nn.Module, seed: int, step: int) -> Tensor:
        device = next(model.parameters()).device
        images, _ = draw_batch(self.data, self.batch_size, seed, step, self.flip)
        x = F.pixel_unshuffle(images, self.patch_size).to(device)
        latents = model.encode(x).latents.float()
        noise = torch.randn(latents.shape, generator=step_generator(seed, step)).to(device)
        error = model.decode(latents + self.noise * noise).sample.float() - x
        mean, variance = latents.mean((0, 2, 3)), latents.var((0, 2, 3))
        scale = mean.square().mean() + variance.log().square().mean()
        return error.square().mean() + self.absolute_weight * error.abs().mean() + self.scale_weight * scale


def train_autoencoder(
    preset: str | AutoencoderPreset,
    out: Path | None = None,
    *,
    without: Wanted | None = None,
    data: Dataset | None = None,
    resume: bool = False,
    dtype: str = "float32",
    on_log=None,
    progress: bool = True,
    **settings,
) -> tuple[AutoencoderTiny, TrainResult]:
    """Train an autoencoder, and measure it on the test split.

    without: a class, or a list of them, that it never sees, to learn whether an autoencoder betrays what a denoiser has forgotten.
    data: a data set in place of the preset's own; its test split measures what is lost. DataError if nothing is held out.
    settings: fields of TrainConfig that differ from the preset's.
    """
    preset = get_autoencoder_preset(preset) if isinstance(preset, str) else preset
    check_dtype(dtype)
    check_begins(out, resume)
    config = preset.training.changed(**settings)
    data = load_dataset(preset.dataset) if data is None else data
    check_kind("data", data, Dataset, "a data set, such as load_dataset('cifar10'): its test split measures the autoencoder")
    if not len(data.test):
        raise DataError(f"{data.name} has no held-out images, by which an autoencoder is measured: hold some out.")
    data = data.resized(preset.image_size)
    images = data.train if without is None else data.train.without(without)
    vae = build_autoencoder(preset, images.images.shape[1], config.seed)
    objective = ReconstructionObjective(
        images, config.batch_size, preset.patch_size, preset.flip, preset.absolute_weight, preset.noise, preset.scale_weight
    )
    result = train(
        vae, objective, config, out=out, resume=resume, on_log=on_log, description=f"training {preset.name}", progress=progress
    )
    if out is not None:
        write_atomically(Path(out) / "log.csv", result.log.to_csv(index=False).encode())
        save_checkpoint(vae, Path(out), autoencoder_card(preset, config, images, data.test, vae, without, result), dtype)
    return vae, result


def encoded(codec: Codec, images: Tensor, batch_size: int = 500) -> Tensor:
    """The most probable latents of images, B x C x H x W, on the CPU."""
    with autocast(codec.vae):
        return torch.cat([codec.encode(batch).cpu() for batch in images.split(batch_size)])


@torch.no_grad()
def reconstructed(codec: Codec, images: Tensor, batch_size: int = 500) -> Tensor:
    """Images after encoding and decoding, clamped to [-1, 1], on the CPU."""
    with autocast(codec.vae):
        return torch.cat([
            codec.decode(codec.encode(batch)).float().clamp(-1, 1).cpu() for batch in images.split(batch_size)
        ])


def psnr(images: Tensor, others: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each pair of images in [-1, 1], N x C x H x W: 10 log10(4 / mean squared error)."""
    return 10 * (4 / (images - others).square().flatten(1).mean(1)).log10()


def measure_autoencoder(codec: Codec, test: ImageSet) -> dict:
    """PSNR of held-out images, of all and by class, and how far the scale of the latents is from 1."""
    values = psnr(test.images, reconstructed(codec, test.images))
    spread = encoded(codec, test.images).std((0, 2, 3))
    each = {name: values[test.labels == label].mean() for label, name in enumerate(test.class_names)}
    return {
        "PSNR of held-out images": f"{values.mean():.2f} dB, n = {len(values)}",
        "per class": ", ".join(f"{name} {value:.2f}" for name, value in each.items()),
        "standard deviation of the latents": f"{spread.min():.2f} to {spread.max():.2f}, by channel",
    }


def autoencoder_card(preset, config: TrainConfig, data: ImageSet, test: ImageSet, vae, without: Wanted | None, result) -> dict:
    target = None if without is None else find_target(without, data.class_names)
    lacking = "" if target is None else f" without {target.in_words}"
    return {
        "title": f"{preset.name}{lacking}",
        "summary": f"An autoencoder for {data.name} at {preset.image_size} x {preset.image_size} pixels{lacking}.",
        "kind": "autoencoder",
        "preset": preset.name,
        "without": target and target.said,
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
