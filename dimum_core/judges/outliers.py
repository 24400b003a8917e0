"""Images that show none of the classes, made from real ones, and how a judge learns to tell them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import ImageSet
from .classifier import Judge


@torch.inference_mode()
def fit_outliers(judge: Judge, real: ImageSet, seed: int = 1) -> None:
    """Fit the judge's log-odds that an image shows no class: real images against what `outliers` and `blends` make of them.

    A logistic regression on the judge's evidence, standardised, with both kinds of equal weight. A model that half
    knows a class draws blends of two photographs, and features that are trained to tell classes do not find a blend strange.
    """
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(seed)
    mixed = [blends(real.images, real.labels, generator) for _ in range(2)]
    strange = [*mixed, *outliers(real.images[:1000], real.labels[:1000], seed).values()]
    both = ([part.to(judge.device) for part in judge.seen(images)] for images in (real.images, torch.cat(strange)))
    known, unknown = (judge.evidence(*parts).cpu().double().numpy() for parts in both)
    mean, scale = known.mean(0), known.std(0) + 1e-6
    evidence, answer = (np.concatenate([known, unknown]) - mean) / scale, np.repeat([0, 1], [len(known), len(unknown)])
    fitted = LogisticRegression(C=0.01, max_iter=1000, class_weight="balanced").fit(evidence, answer)
    weights = fitted.coef_[0] / scale
    judge.outlier_weights.copy_(torch.from_numpy(np.append(weights, fitted.intercept_[0] - weights @ mean)))


def blends(images: Tensor, labels: Tensor, generator: torch.Generator, share: tuple[float, float] = (0.35, 0.65)) -> Tensor:
    """Each image mixed with one of another class, by its own share; those paired with one of their own class are left out."""
    partner = torch.randperm(len(images), generator=generator)
    weight = torch.empty(len(images), 1, 1, 1).uniform_(*share, generator=generator)
    return (weight * images + (1 - weight) * images[partner])[labels != labels[partner]]


def side_by_side(images: Tensor, labels: Tensor, seed: int = 0) -> Tensor:
    """The left half of one image beside the right half of one of another class: a kind that no judge was fitted on."""
    partner = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    half = torch.arange(images.shape[-1]) < images.shape[-1] // 2
    return torch.where(half, images, images[partner])[labels != labels[partner]]


def outliers(images: Tensor, labels: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Images that show none of the classes, made from real ones of N x C x H x W."""
    generator = torch.Generator().manual_seed(seed)
    count, channels, side, _ = images.shape
    noise = torch.randn(images.shape, generator=generator)
    coarse = torch.randn((count, channels, side // 4, side // 4), generator=generator)
    shuffled = shuffle_tiles(images, generator)
    return {
        "white noise": noise.mul(0.5).clamp(-1, 1),
        "coloured clouds": F.interpolate(coarse, size=side, mode="bilinear").clamp(-1, 1),
        "shuffled tiles": shuffled,
        "mixtures of two classes": blends(images, labels, generator, (0.5, 0.5)),
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
