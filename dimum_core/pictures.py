"""Samples side by side, and image files of them."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .checking import check_whole
from .data.targets import word_kinds
from .errors import DataError
from .files import write_atomically
from .models.conditions import draw
from .models.sampling import ClassConditionalPipeline


def image_grid(pipe: ClassConditionalPipeline, rows: int = 4, seed: int = 0, **sampling) -> Tensor:
    """`rows` samples of each class from fixed noise as one image in [-1, 1]: a column for each class, or for each object."""
    labels = list(range(len(pipe.class_names))) * rows
    images = draw(pipe, labels, generator=torch.Generator().manual_seed(seed), **sampling)
    kinds = word_kinds(pipe.class_names)
    return tile(images, columns=len(kinds[1] if kinds else pipe.class_names))


def tile(images: Tensor, columns: int, margin: int = 1) -> Tensor:
    """N x C x H x W side by side, row after row, with a white margin: C x (rows (H + m)) x (columns (W + m))."""
    check_whole("columns", columns)
    padded = F.pad(images, (0, margin, 0, margin), value=1.0)
    missing = -len(images) % columns
    padded = torch.cat([padded, padded.new_ones(missing, *padded.shape[1:])])
    return torch.cat([torch.cat(list(row), dim=2) for row in padded.split(columns)], dim=1)


def save_picture(image: Tensor, path: Path, scale: int = 4) -> None:
    """Write an image, C x H x W in [-1, 1], with `scale` x `scale` screen pixels to a pixel."""
    if image.ndim != 3 or len(image) not in (1, 3) or not image.isfinite().all():
        raise DataError(f"A picture is written from finite numbers of shape 1 or 3 x H x W, not {tuple(image.shape)}.")
    pixels = ((image.detach().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).squeeze(-1).cpu().numpy()
    pixels = pixels.repeat(scale, axis=0).repeat(scale, axis=1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    write_atomically(Path(path), buffer.getvalue())
