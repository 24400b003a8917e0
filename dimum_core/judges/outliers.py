"""Images that show none of the classes, made from real ones."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def outliers(images: Tensor, labels: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Images that show none of the classes, made from real ones of N x C x H x W; used to measure, never to fit."""
    generator = torch.Generator().manual_seed(seed)
    count, channels, side, _ = images.shape
    noise = torch.randn(images.shape, generator=generator)
    coarse = torch.randn((count, channels, side // 4, side // 4), generator=generator)
    shuffled = shuffle_tiles(images, generator)
    partner = torch.randperm(count, generator=generator)
    mixed = (labels != labels[partner]).nonzero().squeeze(1)
    return {
        "white noise": noise.mul(0.5).clamp(-1, 1),
        "coloured clouds": F.interpolate(coarse, size=side, mode="bilinear").clamp(-1, 1),
        "shuffled tiles": shuffled,
        "mixtures of two classes": ((images + images[partner]) / 2)[mixed],
    }


def shuffle_tiles(images: Tensor, generator: torch.Generator) -> Tensor:
    """The 4 x 4 tiles of each image in an order of its own; a side that does not divide by 4 keeps its last pixels in place."""
    count, channels, side, _ = images.shape
    tile = side // 4
    tiles = images[:, :, : 4 * tile, : 4 * tile].unfold(2, tile, tile).unfold(3, tile, tile).reshape(count, channels, 16, -1)
    order = torch.rand((count, 16), generator=generator).argsort(1)
    tiles = tiles.gather(2, order[:, None, :, None].expand(-1, channels, -1, tile**2))
    shuffled = images.clone()
    shuffled[:, :, : 4 * tile, : 4 * tile] = (
        tiles.reshape(count, channels, 4, 4, tile, tile).permute(0, 1, 2, 4, 3, 5).reshape(count, channels, 4 * tile, 4 * tile)
    )
    return shuffled
