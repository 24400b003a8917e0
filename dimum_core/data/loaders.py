"""Data sets by name, and the folder of the repository that carries the small ones."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..errors import DataError, UnknownName
from .cifar10 import read_cifar10
from .image_set import Dataset, ImageSet, from_uint8
from .own_pictures import load_images
from .shapes import CLASS_NAMES, render

CLONE = Path(__file__).resolve().parents[2]
IN_CLONE = (CLONE / "pyproject.toml").is_file()
# A package installed without its repository has no data beside it; DIMUM_DATA may point to that of a clone.
DATA_FOLDER = CLONE / "data" if IN_CLONE else Path(os.environ.get("DIMUM_DATA") or CLONE / "data")
HOW_TO_GET = (
    "run `git checkout -- data` in the clone, which carries it" if IN_CLONE
    else "clone the repository, which carries it, and set DIMUM_DATA to its data folder"
)
DATASETS = ("digits", "mnist-mini", "cifar10-mini", "shapes", "cifar10")


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


def load_data(named: str, image_size: int, **settings) -> Dataset:
    """A data set by name, at its own size, or your own pictures by folder or table, at this one. settings: as of `load_images`.

    A name is the data set's even where a folder has it, too, which is said: such a folder is often a model that was trained on it.
    """
    if named in DATASETS:
        if os.path.isdir(named):
            warnings.warn(f"{named} is the shipped data set; for the folder {named} here, give ./{named}.", stacklevel=2)
        return load_dataset(named)
    if not os.path.exists(named):
        raise UnknownName("data set, folder or table", named, DATASETS)
    return load_images(named, image_size, **settings)


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
        np.asarray(Image.open(io.BytesIO(blob[start:end]), formats=("WEBP",)))
        for start, end in zip(starts, ends, strict=True)
    ])
    return from_uint8("cifar10-mini", pixels.transpose(0, 3, 1, 2), pack[f"{split}_labels"], class_names)


@lru_cache(maxsize=1)
def _load_shapes() -> Dataset:
    """300 pictures of each of 36 combinations to train on, 50 held out; drawn in a few seconds, the same each time."""
    labels = {"train": np.arange(36).repeat(300), "test": np.arange(36).repeat(50)}
    parts = [(render(labels[split], seed), labels[split]) for seed, split in enumerate(labels)]
    return Dataset(*(from_uint8("shapes", *part, CLASS_NAMES) for part in parts))


@lru_cache(maxsize=1)
def _load_cifar10(download: bool) -> Dataset:
    arrays = read_cifar10(download=download)
    names = arrays["class_names"]
    return Dataset(*(from_uint8("cifar10", *arrays[split], names) for split in ("train", "test")))
