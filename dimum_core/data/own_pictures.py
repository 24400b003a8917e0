"""`load_images`: your own pictures as a data set, whatever they lie in, and a report of what was left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from ..checking import check_kind, check_number, check_seed, check_whole
from ..errors import DataError, SettingError, brief
from .batches import step_generator
from .image_set import Dataset, ImageSet, from_uint8
from .picture_cache import PicturesRead, read_pictures
from .picture_lists import Picture, PictureList, list_pictures
from .targets import as_spelt

LARGEST = 4096  # side of an image, in pixels
SHOWN = 3  # pictures that a report names of each kind that was left out


@dataclass(frozen=True)
class OwnPictures(Dataset):
    """A data set of one's own pictures.

    left_out: one row for each picture, or another file, that is not in it: picture, why.
    side: the median of the shorter sides of all pictures, before they were scaled.
    """

    left_out: pd.DataFrame
    side: int

    @property
    def report(self) -> str:
        """What is in it, and what was left out, in a few lines."""
        count, channels = len(self.train) + len(self.test), self.train.images.shape[1]
        kind, size = "grey" if channels == 1 else "RGB", self.train.images.shape[-1]
        lines = [
            f"{self.name}: {count:,} pictures, {kind}, scaled to {size} x {size} (the shorter side of half of them is {self.side} "
            f"or more); {len(self.train):,} to train on, {len(self.test):,} held out"
        ]
        for label, name in enumerate(self.class_names):
            train, test = (int((part.labels == label).sum()) for part in (self.train, self.test))
            lines.append(f"  {name}: {train:,} and {test:,}")
        for why, rows in self.left_out.groupby("why", sort=False):
            named = ", ".join(rows["picture"][:SHOWN]) + (", ..." if len(rows) > SHOWN else "")
            lines.append(f"left out, {len(rows):,}: {why} ({named})")
        return "\n".join(lines)


def load_images(
    source, image_size: int = 32, *, labels: Sequence | None = None, class_names: Sequence[str] | None = None,
    image_channels: int | None = None, held_out: float = 0.2, balanced: bool = False, seed: int = 0,
) -> OwnPictures:
    """Your own pictures as a data set with the splits "train" and "test"; `.report` says what was left out and why.

    source: a folder with a folder for each class, or with train/CLASS and test/CLASS; a CSV or Parquet file, or a DataFrame, with
        columns `path` (or the bytes of a picture) and `label`, and `split`, if you have one; arrays of uint8, N x H x W,
        N x H x W x C or N x C x H x W, or a list of arrays or of Pillow's images of any size, with `labels`; or a
        `datasets.Dataset` or `DatasetDict`.
    image_size: pictures are cut square in the middle and averaged to this side, smaller ones enlarged; transparent is white.
    class_names: the classes in the order of their numbers; default, those found, by name. DataError for a picture of another class.
    image_channels: 1 or 3; default, 1 if no picture has colour.
    held_out: share of each class that is the test split, drawn by the seed, where the source has no test split of its own.
    balanced: as many pictures of each class as of the smallest, in each split.
    Pictures that are the same pixel by pixel are in it once, and not at all if they are in several classes. Files are read once
    (see `read_pictures`). Item hashes are of the whole pictures, so that a leak is seen whatever the sizes.
    """
    check_whole("image_size", image_size, 1, LARGEST)
    check_number("held_out", held_out, 0, 0.9)
    check_seed(seed)
    if image_channels not in (None, 1, 3):
        raise SettingError(f"image_channels must be 1 (grey) or 3 (RGB), not {brief(image_channels)}.")
    found = list_pictures(source, labels)
    names = found.class_names if class_names is None else _given_names(class_names, found)
    read = read_pictures(found, image_size)
    left_out, chosen = list(found.left_out), _readable_once(found, read)
    left_out += [(found.pictures[i].name, why) for i, why in chosen.items() if why]
    kept = [i for i, why in chosen.items() if not why]
    if not kept:
        reasons = [*filter(None, read.errors), *(f"{name} {why}." for name, why in left_out), "there are none at all."]
        raise DataError(f"{found.name} has no pictures that can be used. The first: {reasons[0]}")
    parts = _split(found, kept, names, held_out, seed)
    if balanced:
        parts, extra = zip(*(_balanced(part, found, seed) for part in parts), strict=True)
        left_out += [(found.pictures[i].name, "its class has more pictures than the smallest one") for part in extra for i in part]
    channels = image_channels or _channels(read.pixels[kept])
    sets = [_image_set(found, read, sorted(part), names, channels) for part in parts]
    return OwnPictures(*sets, pd.DataFrame(left_out, columns=["picture", "why"]), int(np.median(read.sides[kept])))


def _given_names(class_names: Sequence[str], found: PictureList) -> tuple[str, ...]:
    check_kind("class_names", class_names, (list, tuple), "a list of class names")
    class_names = [str(name) for name in class_names]  # labels that are numbers are words here, too
    spelt = {name: as_spelt(name, class_names) for name in found.class_names}
    found.pictures = [replace(picture, label=spelt[picture.label]) for picture in found.pictures]
    for name in spelt.values():
        if name not in class_names:
            known = ", ".join(map(str, class_names))
            raise DataError(f"{found.name} has pictures of {brief(name)}, which is none of the classes {known}.")
    return tuple(class_names)


def _readable_once(found: PictureList, read: PicturesRead) -> dict[int, str]:
    """Why each picture is left out; "" for those that stay. Of copies, the first stays, before one of the test split."""
    order = sorted(range(len(found.pictures)), key=lambda i: found.pictures[i].split == "test")
    why, first, classes = {}, {}, {}
    for i in order:
        classes.setdefault(read.hashes[i].tobytes(), set()).add(found.pictures[i].label)
    for i in order:
        picture, key = found.pictures[i], read.hashes[i].tobytes()
        if read.errors[i]:
            why[i] = _in_short(picture, read.errors[i])
        elif len(classes[key]) > 1:
            why[i] = f"is in several classes: {', '.join(sorted(classes[key]))}"
        else:
            why[i] = "is there already under another name" if key in first else ""
            first.setdefault(key, picture.name)
    return dict(sorted(why.items()))


def _in_short(picture: Picture, error: str) -> str:
    """The same words for the same kind of mistake, so that a report can count them."""
    if error.endswith(" is not there."):
        return "is not there"
    return "is too large" if "million pixels" in error else "cannot be read as a picture"


def _split(found: PictureList, kept: list[int], names: tuple[str, ...], held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Training and test pictures: the source's own, or, if it holds none out, a share of each class."""
    if any(found.pictures[i].split == "test" for i in kept):
        return tuple([i for i in kept if (found.pictures[i].split == "test") == test] for test in (False, True))
    train, test = [], []
    for name in names:
        own = _shuffled([i for i in kept if found.pictures[i].label == name], seed, f"split of {name}")
        count = min(max(1, round(held_out * len(own))), len(own) - 1) if held_out and own else 0
        train, test = train + own[count:], test + own[:count]
    return train, test


def _balanced(part: list[int], found: PictureList, seed: int) -> tuple[list[int], list[int]]:
    """As many of each class that is there, and the rest."""
    counts = Counter(found.pictures[i].label for i in part)
    least, kept = min(counts.values(), default=0), []
    for name in counts:
        kept += _shuffled([i for i in part if found.pictures[i].label == name], seed, f"balance of {name}")[:least]
    return kept, sorted(set(part) - set(kept))


def _shuffled(items: list[int], seed: int, purpose: str) -> list[int]:
    order = torch.randperm(len(items), generator=step_generator(seed, 0, purpose))
    return [sorted(items)[k] for k in order]


def _channels(pixels: np.ndarray) -> int:
    return 1 if (pixels == pixels[:, :1]).all() else 3


def _image_set(found: PictureList, read: PicturesRead, items: list[int], names: tuple[str, ...], channels: int) -> ImageSet:
    pixels = read.pixels[items] if channels == 3 else _grey(read.pixels[items])
    labels = np.array([names.index(found.pictures[i].label) for i in items], dtype=np.int64)
    hashes = np.ascontiguousarray(read.hashes[items]).view("V8").reshape(-1)
    return replace(from_uint8(found.name, pixels, labels, names), item_hashes=hashes)


def _grey(pixels: np.ndarray) -> np.ndarray:
    """ITU-R 601, as Pillow's "L": N x 3 x H x W to N x 1 x H x W."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    return np.round(np.tensordot(weights, pixels, (0, 1))).astype(np.uint8)[:, None]
