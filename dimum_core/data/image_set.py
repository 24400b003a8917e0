"""Labelled image sets: one type, and its splits by target.

An image set holds float32 pixels in [-1, 1] (N x C x H x W), int64 labels and class names. A *target* is a class name, a word of
class names, such as a style, or a list of these, and selects a set of labels, or it is an image set, and selects just these images;
`only` and `without` give the forget set D_f and the retain set D_r.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..checking import check_images, check_indices, check_whole
from ..errors import DataError, UnknownName
from .targets import Wanted, class_index, find_target, word_kinds


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one split.

    images: float32, N x C x H x W, in [-1, 1].
    labels: int64, N, in [0, len(class_names)).
    item_hashes: N byte strings; blake2b of an item's original pixels. They stay with the item through every subset
        and resize, so that a leak of one set into another can be seen.
    """

    name: str
    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    item_hashes: np.ndarray

    def __post_init__(self):
        check_images(self.images, self.labels, self.class_names, self.name)
        if len(self.item_hashes) != len(self.images):
            raise DataError(f"{self.name}: {len(self.images)} images need as many item_hashes, not {len(self.item_hashes)}.")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:  # not a thousand numbers
        size = " x ".join(map(str, self.images.shape[1:]))
        return f"ImageSet({self.name}: {len(self):,} images of {size}, {len(self.class_names)} classes)"

    def class_index(self, target: str | int) -> int:
        return class_index(target, self.class_names)

    def select(self, indices) -> ImageSet:
        """The items at `indices` (int64 tensor or boolean mask of length N)."""
        indices = check_indices(indices, len(self), self.name)
        return replace(
            self,
            images=self.images[indices],
            labels=self.labels[indices],
            item_hashes=self.item_hashes[indices.numpy()],
        )

    def only(self, target: Wanted) -> ImageSet:
        """The forget set D_f: items of the target's classes, or the images given, as often as they are there."""
        return self.select(find_target(target, self.class_names).selects(self))

    def without(self, target: Wanted) -> ImageSet:
        """The retain set D_r: items of every other class, or every other image. Labels and class names keep their numbering."""
        return self.select(~find_target(target, self.class_names).selects(self))

    def with_repeats(self, indices, times: int) -> ImageSet:
        """The set with the items at `indices` in it `times` times: repeated images are what a diffusion model copies first.

        indices: as of `select`.
        """
        check_whole("times", times)
        indices = check_indices(indices, len(self), self.name)
        numbers = indices.nonzero().squeeze(1) if indices.dtype == torch.bool else indices
        return self.select(torch.cat([torch.arange(len(self)), numbers.repeat(times - 1)]))

    def relabelled(self, position: int) -> ImageSet:
        """The same images, labelled by one word of their class names: styles (0) or objects (1)."""
        kinds = word_kinds(self.class_names)
        check_whole("position", position, 0, 1)
        if not kinds:
            raise DataError(f"The classes of {self.name} are not a style and an object: {', '.join(self.class_names[:5])}.")
        table = torch.tensor([kinds[position].index(name.split(" ")[position]) for name in self.class_names])
        return replace(self, labels=table[self.labels], class_names=kinds[position])

    def resized(self, size: int) -> ImageSet:
        """Images averaged down to size x size (exact box average, so `size` must divide the side). DataError for oblong images."""
        check_whole("image size", size)
        check_square(self)
        side = self.images.shape[-1]
        if size == side:
            return self
        if side % size:
            raise DataError(
                f"{self.name} has {side} x {side} images, which cannot be averaged to {size} x {size}: scale them to a multiple of "
                f"{size} before they become an image set, or take another size."
            )
        return replace(self, images=F.avg_pool2d(self.images, side // size))

    @property
    def digest(self) -> str:
        """Hash of the whole set: its items (order included), labels and image size."""
        parts = (self.item_hashes.tobytes(), self.labels.numpy().tobytes(), str(tuple(self.images.shape)).encode())
        return hashlib.blake2b(b"|".join(parts), digest_size=16).hexdigest()


def check_square(images: ImageSet) -> None:
    """Refuse oblong images: models draw square ones."""
    height, width = images.images.shape[-2:]
    if height != width:
        raise DataError(
            f"{images.name} has oblong images, {height} x {width}: cut them square before they become an image set, to "
            f"{min(height, width)} x {min(height, width)}, say."
        )


@dataclass(frozen=True)
class Dataset:
    """A data set as its two splits; `without` and `resized` apply to both, `with_repeats` to the training images."""

    train: ImageSet
    test: ImageSet

    @property
    def name(self) -> str:
        return self.train.name

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.train.class_names

    def __getitem__(self, split: str) -> ImageSet:
        if split not in ("train", "test"):
            raise UnknownName("split", split, ("train", "test"))
        return getattr(self, split)

    def only(self, target: Wanted) -> Dataset:
        return Dataset(self.train.only(target), self.test.only(target))

    def without(self, target: Wanted) -> Dataset:
        return Dataset(self.train.without(target), self.test.without(target))

    def with_repeats(self, indices, times: int) -> Dataset:
        return Dataset(self.train.with_repeats(indices, times), self.test)

    def relabelled(self, position: int) -> Dataset:
        return Dataset(self.train.relabelled(position), self.test.relabelled(position))

    def resized(self, size: int) -> Dataset:
        return Dataset(self.train.resized(size), self.test.resized(size))


def from_uint8(name: str, pixels: np.ndarray, labels: np.ndarray, class_names: Iterable[str]) -> ImageSet:
    """An image set from uint8 pixels, N x C x H x W, and whole-number labels; DataError for anything else."""
    pixels, labels = np.asarray(pixels), np.asarray(labels)
    if pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise DataError(f"{name}: pixels must be uint8, 0 to 255, of shape N x C x H x W, not {pixels.dtype} {pixels.shape}.")
    if len(labels) and not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name}: labels must be whole numbers, the places of class_names, not {labels.dtype}.")
    hashes = np.array([hashlib.blake2b(p.tobytes(), digest_size=8).digest() for p in pixels], dtype="V8")
    images = torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(127.5).sub_(1)
    return ImageSet(name, images, torch.from_numpy(np.asarray(labels, dtype=np.int64)), tuple(class_names), hashes)
