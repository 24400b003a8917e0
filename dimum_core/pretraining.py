"""Base models: a preset trained from scratch by the one loop, all classes or all but one (the gold standard)."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from .checkpoints import build_pipeline, command_line, provenance, save_checkpoint
from .data import ImageSet, draw_batch, load_dataset, step_generator
from .denoiser import Preset, build_denoiser, get_preset
from .diffusion import denoising_loss, drop_labels
from .sampling import ClassConditionalPipeline
from .training import TrainConfig, TrainResult, train, write_atomically


@dataclass(frozen=True)
class DenoisingObjective:
    """L_den on an image set, with label dropout: what every base model minimises."""

    data: ImageSet
    batch_size: int
    null_label: int
    patch_size: int = 1
    label_dropout: float = 0.1
    flip: bool = False

    @property
    def fingerprint(self) -> dict:
        return {"data": self.data.digest, **{k: v for k, v in vars(self).items() if k != "data"}}

    def __call__(self, model: nn.Module, seed: int, step: int) -> Tensor:
        device = next(model.parameters()).device
        generator = step_generator(seed, step)
        images, labels = draw_batch(self.data, self.batch_size, seed, step, self.flip)
        labels = drop_labels(labels, self.null_label, self.label_dropout, generator)
        x = F.pixel_unshuffle(images, self.patch_size)
        return denoising_loss(model, x.to(device), labels.to(device), generator)


def train_base(
    preset: str | Preset,
    out: Path | None = None,
    *,
    without: str | None = None,
    data: ImageSet | None = None,
    resume: bool = False,
    dtype: str = "float32",
    evaluate=None,
    evaluate_every: int = 0,
    on_log=None,
    progress: bool = True,
    **settings,
) -> tuple[ClassConditionalPipeline, TrainResult]:
    """Train a preset from scratch; returns the pipeline with averaged weights, and the log.

    out: folder for the checkpoint and, while it runs, its resumable state.
    without: a class that it never sees: the retrained model that unlearning is measured against.
    data: an image set in place of the preset's own.
    settings: fields of TrainConfig that differ from the preset's, e.g. steps=200, seed=1.
    """
    preset = get_preset(preset) if isinstance(preset, str) else preset
    config: TrainConfig = replace(preset.training, **settings)
    data = load_dataset(preset.dataset, preset.image_size).train if data is None else data
    if without is not None:
        data = data.without(without)
    num_classes, image_channels = len(data.class_names), data.images.shape[1]
    unet = build_denoiser(preset, num_classes, image_channels, config.seed)
    pipe = build_pipeline(unet, preset, data.class_names)
    objective = DenoisingObjective(
        data, config.batch_size, num_classes, preset.patch_size, preset.label_dropout, preset.flip
    )
    call = None if evaluate is None else lambda step, _: evaluate(step, pipe)
    result = train(
        unet, objective, config, out=out, resume=resume, evaluate=call, evaluate_every=evaluate_every,
        on_log=on_log, description=f"training {preset.name}", progress=progress,
    )
    if out is not None:
        write_atomically(Path(out) / "log.csv", result.log.to_csv(index=False).encode())
        save_checkpoint(pipe, Path(out), base_card(preset, config, data, without, result), dtype)
    return pipe, result


def base_card(preset: Preset, config: TrainConfig, data: ImageSet, without: str | None, result: TrainResult) -> dict:
    lacking = f" without the class {without}" if without else ""
    losses = result.log["loss"].dropna() if len(result.log) else []
    return {
        "title": f"{preset.name}{lacking}",
        "summary": f"A class-conditional DDPM for {data.name} at {preset.image_size} x {preset.image_size} pixels{lacking}.",
        "kind": "denoiser",
        "preset": preset.name,
        "without": without,
        "training": {
            "command": command_line(),
            "parameters": sum(p.numel() for p in result.model.parameters()),
            **asdict(config),
            "precision": result.precision,
            "weights": "EMA" if config.ema_decay else "raw",
            "final_loss": round(float(losses.iloc[-20:].mean()), 5) if len(losses) else None,
            "seconds": round(result.seconds),
        },
        "data": {"name": data.name, "images": len(data), "image_size": preset.image_size, "digest": data.digest},
        "provenance": provenance(),
    }


def image_grid(pipe: ClassConditionalPipeline, rows: int = 4, seed: int = 0, **sampling) -> Tensor:
    """`rows` samples of each class from fixed noise, a column a class, as one image in [-1, 1]."""
    labels = [name for _ in range(rows) for name in pipe.class_names]
    images = pipe(labels, generator=torch.Generator().manual_seed(seed), output_type="pt", **sampling).images
    return tile(images, columns=len(pipe.class_names))


def tile(images: Tensor, columns: int, margin: int = 1) -> Tensor:
    """N x C x H x W side by side, row after row, with a white margin: C x (rows (H + m)) x (columns (W + m))."""
    padded = F.pad(images, (0, margin, 0, margin), value=1.0)
    missing = -len(images) % columns
    padded = torch.cat([padded, padded.new_ones(missing, *padded.shape[1:])])
    return torch.cat([torch.cat(list(row), dim=2) for row in padded.split(columns)], dim=1)


def save_picture(image: Tensor, path: Path, scale: int = 4) -> None:
    """Write an image, C x H x W in [-1, 1], with `scale` x `scale` screen pixels to a pixel."""
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).squeeze(-1).numpy()
    pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_atomically(Path(path), buffer.getvalue())
