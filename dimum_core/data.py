"""Labelled image sets: one type, its splits by target, and batches that need no state.

An image set holds float32 pixels in [-1, 1] (N x C x H x W), int64 labels and class names. A *target* is a class name, or a
word of class names, such as a style, and selects a set of labels, or it is an image set, and selects just these images;
`only` and `without` give the forget set D_f and the retain set D_r.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .checking import check_images, check_indices, check_whole
from .errors import DataError, UnknownName
from .targets import class_index, find_target, word_kinds

CLONE = Path(__file__).resolve().parent.parent
IN_CLONE = (CLONE / "pyproject.toml").is_file()
# A package installed without its repository has no data beside it; DIMUM_DATA may point to that of a clone.
DATA_FOLDER = CLONE / "data" if IN_CLONE else Path(os.environ.get("DIMUM_DATA") or CLONE / "data")
HOW_TO_GET = (
    "run `git checkout -- data` in the clone, which carries it" if IN_CLONE
    else "clone the repository, which carries it, and set DIMUM_DATA to its data folder"
)
DATASETS = ("digits", "mnist-mini", "cifar10-mini", "shapes", "cifar10")


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

    def only(self, target: str | int | ImageSet) -> ImageSet:
        """The forget set D_f: items of the target's classes, or the images given, as often as they are there."""
        return self.select(find_target(target, self.class_names).selects(self))

    def without(self, target: str | int | ImageSet) -> ImageSet:
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
        """Images averaged down to size x size (exact box average, so `size` must divide the side)."""
        check_whole("image size", size)
        side = self.images.shape[-1]
        if size == side:
            return self
        if side % size:
            raise DataError(
                f"{self.name} has {side} x {side} images, which cannot be averaged to {size} x {size}: "
                f"choose a divisor of {side}."
            )
        return replace(self, images=F.avg_pool2d(self.images, side // size))

    @property
    def digest(self) -> str:
        """Hash of the whole set: its items (order included), labels and image size."""
        parts = (self.item_hashes.tobytes(), self.labels.numpy().tobytes(), str(tuple(self.images.shape)).encode())
        return hashlib.blake2b(b"|".join(parts), digest_size=16).hexdigest()


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

    def only(self, target: str | int | ImageSet) -> Dataset:
        return Dataset(self.train.only(target), self.test.only(target))

    def without(self, target: str | int | ImageSet) -> Dataset:
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
        raise DataError(f"{name}: pixels must be uint8 of shape N x C x H x W, not {pixels.dtype} {pixels.shape}.")
    if len(labels) and not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{name}: labels must be whole numbers, the places of class_names, not {labels.dtype}.")
    hashes = np.array([hashlib.blake2b(p.tobytes(), digest_size=8).digest() for p in pixels], dtype="V8")
    images = torch.from_numpy(np.ascontiguousarray(pixels)).float().div_(127.5).sub_(1)
    return ImageSet(name, images, torch.from_numpy(np.asarray(labels, dtype=np.int64)), tuple(class_names), hashes)


def load_dataset(name: str, image_size: int | None = None, *, download: bool = True) -> Dataset:
    """Load a data set by name: "digits", "mnist-mini", "cifar10-mini", "shapes" (all without network) or "cifar10".

    image_size: average the images down to this side (a divisor of the original one).
    download: whether "cifar10" may be fetched if it is not on this machine.
    Raises UnknownName for another name and DataError if files are missing or damaged.
    """
    loaders = {
        "digits": _load_digits, "mnist-mini": _load_mnist_mini, "cifar10-mini": _load_cifar10_mini, "shapes": _load_shapes,
        "cifar10": lambda: _load_cifar10(download),
    }
    if not isinstance(name, str) or name not in loaders:
        raise UnknownName("data set", name, DATASETS)
    data = loaders[name]()
    return data if image_size is None else data.resized(image_size)


@lru_cache(maxsize=1)
def _load_digits() -> Dataset:
    """scikit-learn's 1,797 digits: 8 x 8, grey, values 0 to 16; every fifth item of a class is held out."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return _split_digits("digits", bunch.images, bunch.target)


@lru_cache(maxsize=1)
def _load_mnist_mini() -> Dataset:
    """5,000 digits of MNIST, made to look like scikit-learn's (see data/mnist-mini)."""
    with _open_pack(DATA_FOLDER / "mnist-mini" / "images.npz") as pack:
        return _split_digits("mnist-mini", pack["pixels"], pack["labels"])


def _split_digits(name: str, counts: np.ndarray, labels: np.ndarray) -> Dataset:
    """counts: N x 8 x 8, 0 to 16."""
    pixels, labels = np.round(counts[:, None] * (255 / 16)).astype(np.uint8), labels.astype(np.int64)
    rank = np.array([np.sum(labels[:i] == labels[i]) for i in range(len(labels))])
    held_out = rank % 5 == 4
    names = tuple(str(digit) for digit in range(10))
    train, test = (from_uint8(name, pixels[part], labels[part], names) for part in (~held_out, held_out))
    return Dataset(train, test.without(train))  # two of MNIST's ones are plain bars in both


@contextlib.contextmanager
def _open_pack(path: Path):
    """An archive of arrays that the repository carries; one clear sentence if it is missing or damaged."""
    if not path.exists():
        raise DataError(f"{path} is missing: {HOW_TO_GET}.")
    try:
        with np.load(path, allow_pickle=False) as pack:
            yield pack
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}): {HOW_TO_GET}.") from error


@lru_cache(maxsize=1)
def _load_cifar10_mini() -> Dataset:
    with _open_pack(DATA_FOLDER / "cifar10-mini" / "images.npz") as pack:
        names = tuple(pack["class_names"].tolist())
        return Dataset(*(_decode_split(pack, split, names) for split in ("train", "test")))


def _decode_split(pack, split: str, class_names: tuple[str, ...]) -> ImageSet:
    from PIL import Image

    ends = np.cumsum(pack[f"{split}_sizes"])
    blob = pack[f"{split}_bytes"].tobytes()
    starts = np.concatenate([[0], ends[:-1]])
    pixels = np.stack([
        np.asarray(Image.open(io.BytesIO(blob[start:end]), formats=("JPEG",)))
        for start, end in zip(starts, ends, strict=True)
    ])
    return from_uint8("cifar10-mini", pixels.transpose(0, 3, 1, 2), pack[f"{split}_labels"], class_names)


@lru_cache(maxsize=1)
def _load_shapes() -> Dataset:
    """300 pictures of each of 36 combinations to train on, 50 held out; drawn in a few seconds, the same each time."""
    from .shapes import CLASS_NAMES, render

    labels = {"train": np.arange(36).repeat(300), "test": np.arange(36).repeat(50)}
    parts = [(render(labels[split], seed), labels[split]) for seed, split in enumerate(labels)]
    return Dataset(*(from_uint8("shapes", *part, CLASS_NAMES) for part in parts))


@lru_cache(maxsize=1)
def _load_cifar10(download: bool) -> Dataset:
    from .cifar10 import read_cifar10

    arrays = read_cifar10(download=download)
    names = arrays["class_names"]
    return Dataset(*(from_uint8("cifar10", *arrays[split], names) for split in ("train", "test")))


# Batches ------------------------------------------------------------------------------------------------------------


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random stream of one step. Everything random in step k depends on (seed, k) alone, so resuming needs no state."""
    key = hashlib.blake2b(f"{seed}/{step}".encode(), digest_size=8).digest()
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


def draw_batch(data: ImageSet, batch_size: int, seed: int, step: int, flip: bool = False) -> tuple[Tensor, Tensor]:
    """Batch `step` of an image set: images and labels; `flip` mirrors a fresh half of them each time."""
    if not len(data):
        raise DataError(f"{data.name}: there are no images to draw a batch from.")
    indices = batch_indices(len(data), batch_size, seed, step)
    images, labels = data.images[indices], data.labels[indices]
    if flip:
        mirrored = torch.rand(batch_size, generator=step_generator(f"{seed}/mirror", step)) < 0.5  # nothing else draws from it
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images, labels
