"""Batches that need no state: each is a pure function of a seed and a step."""

from __future__ import annotations

import hashlib
from functools import lru_cache

import torch
from torch import Tensor

from ..errors import DataError
from .image_set import ImageSet


def step_generator(seed: int, step: int, purpose: str = "") -> torch.Generator:
    """The random stream of one step. Everything random in step k depends on (seed, k) alone, so resuming needs no state.

    purpose: a name for draws that must not share the stream of their step, which the batch's noise uses. Without one, steps below 0
        are the orders of epochs.
    """
    name = f"{seed}/{purpose}/{step}" if purpose else f"{seed}/{step}"
    key = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()  # a folder may be named in Latin-1
    return torch.Generator().manual_seed(int.from_bytes(key, "little") >> 1)


@lru_cache(maxsize=4)
def _epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(size, generator=step_generator(seed, -1 - epoch))


def batch_indices(size: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices of batch `step` in an endless sequence of reshuffled epochs: a pure function of its arguments."""
    positions = torch.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = positions // size, positions % size
    return torch.cat([
        _epoch_order(size, seed, int(epoch))[offsets[epochs == epoch]] for epoch in epochs.unique()
    ])


def mirrored(batch_size: int, seed: int, step: int) -> Tensor:
    """Which images of batch `step` are mirrored: a fresh half, bool, B."""
    return torch.rand(batch_size, generator=step_generator(seed, step, "mirror")) < 0.5  # nothing else draws from it


def draw_batch(data: ImageSet, batch_size: int, seed: int, step: int, flip: bool = False) -> tuple[Tensor, Tensor]:
    """Batch `step` of an image set: images and labels; `flip` mirrors a fresh half of them each time."""
    if not len(data):
        raise DataError(f"{data.name}: there are no images to draw a batch from.")
    indices = batch_indices(len(data), batch_size, seed, step)
    images, labels = data.images[indices], data.labels[indices]
    if flip:
        images = torch.where(mirrored(batch_size, seed, step)[:, None, None, None], images.flip(-1), images)
    return images, labels
