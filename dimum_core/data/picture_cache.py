"""All pictures of a list at one size, read once: kept beside them as plain arrays, for as long as no file has changed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError, FileError
from ..files import write_atomically
from .picture_files import square
from .picture_lists import Picture, PictureList

FORMAT = 2  # counts up when pictures are read otherwise


@dataclass(frozen=True)
class PicturesRead:
    """N pictures at one size.

    pixels: uint8, N x 3 x size x size. hashes: uint8, N x 8, of the whole pictures, whatever the size. sides: int64, N; the shorter
    side of each as it was. errors: what went wrong, "" where nothing did; the other fields mean nothing there.
    """

    pixels: np.ndarray
    hashes: np.ndarray
    sides: np.ndarray
    errors: np.ndarray


def read_pictures(found: PictureList, size: int) -> PicturesRead:
    """Read all pictures of a list, or take them from the cache, if the files are still the same.

    The cache is a file of arrays in `.dimum` beside a table, or in a folder of pictures; where nobody may write, or the disk is
    full, there is none.
    """
    path = None if found.source is None else _cache_file(found.source, size)
    if path is None:
        return _read(found.pictures, size)
    digest = _digest(found.pictures, size)
    kept = _kept(path, digest)
    if kept is None:
        kept = _read(found.pictures, size)
        if os.access(path.parent.parent, os.W_OK):
            buffer = io.BytesIO()
            np.savez(buffer, digest=np.array(digest), **asdict(kept))
            with contextlib.suppress(FileError):
                write_atomically(path, buffer.getvalue())
    return kept


def _cache_file(source: Path, size: int) -> Path:
    place = source if source.is_dir() else source.parent
    return place / ".dimum" / f"{source.resolve().name}-{size}.npz"


def _digest(pictures: list[Picture], size: int) -> str:
    """Of the names of all files, and of what changes when one is written or may be read by others."""
    digest = hashlib.blake2b(f"{FORMAT} {size}".encode(), digest_size=16)
    for picture in pictures:
        digest.update(picture.name.encode("utf-8", "surrogateescape") + b"\0" + _state(picture.path).encode())
    return digest.hexdigest()


def _state(path: Path) -> str:
    """Size and times of a file, which are known without reading it; "" if there is none."""
    try:
        stat = path.stat()
    except (OSError, ValueError):  # the latter: what can be no name of a file
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _kept(path: Path, digest: str) -> PicturesRead | None:
    """What the cache has, unless it is of other files or damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as pack:
            if str(pack["digest"]) != digest:
                return None
            return PicturesRead(*(pack[name] for name in ("pixels", "hashes", "sides", "errors")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def _read(pictures: list[Picture], size: int) -> PicturesRead:
    pixels = np.zeros((len(pictures), 3, size, size), np.uint8)
    hashes, sides, errors = np.zeros((len(pictures), 8), np.uint8), np.zeros(len(pictures), np.int64), [""] * len(pictures)
    for i, picture in enumerate(pictures):
        try:
            image = picture.read()
        except DataError as error:
            errors[i] = " ".join(str(error).split())
            continue
        content = f"{image.size}".encode() + image.tobytes()
        hashes[i] = np.frombuffer(hashlib.blake2b(content, digest_size=8).digest(), np.uint8)
        pixels[i], sides[i] = square(image, size), min(image.size)
    return PicturesRead(pixels, hashes, sides, np.array(errors, dtype=str))
