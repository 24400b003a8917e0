"""UnlearnCanvas in its official folder layout (Zhang et al. 2024, arXiv 2402.11846): STYLE/OBJECT/NUMBER.jpg."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..checking import check_kind, check_whole
from ..errors import DataError, UnknownName
from .image_set import Dataset, ImageSet, from_uint8
from .picture_files import SUFFIXES, pictures_in, read_square, visible


def load_unlearn_canvas(
    folder: str | Path,
    *,
    image_size: int = 512,
    styles: Sequence[str] | None = None,
    objects: Sequence[str] | None = None,
    per_combination: int = 20,
    held_out: int = 2,
) -> Dataset:
    """Part of UnlearnCanvas as a data set whose class names are "STYLE OBJECT", such as "Van_Gogh Dogs".

    folder: the one with a folder for each style, each with a folder for each object (20 pictures each, named by numbers).
    image_size: pictures are cut square and averaged to this side. At 512, a picture takes 3 MB of memory.
    styles, objects: names of folders; default, all of them, the unstylised photographs (Seed_Images) included.
    per_combination: pictures of each, the first ones by number; the last `held_out` of them are the test split.
    Raises DataError if the folder has another layout, UnknownName for a style or an object that is not there.
    """
    folder = Path(folder)
    check_whole("image_size", image_size)
    check_whole("per_combination", per_combination, 2)
    check_whole("held_out", held_out)
    if not 0 < held_out < per_combination:
        raise DataError(f"held_out must lie between 0 and per_combination ({per_combination}), not at {held_out}.")
    there = _layout(folder)
    styles = _chosen("style", styles, there)
    objects = _chosen("object", objects, sorted({thing for names in there.values() for thing in names}))
    names = tuple(f"{style} {thing}" for style in styles for thing in objects)
    files = [pictures_in(folder / style / thing)[:per_combination] for style in styles for thing in objects]
    short = [name for name, paths in zip(names, files, strict=True) if len(paths) <= held_out]
    if short:
        raise DataError(f"{folder / short[0].replace(' ', '/', 1)} should hold more than {held_out} pictures, and does not.")
    parts = [[paths[:-held_out] for paths in files], [paths[-held_out:] for paths in files]]
    return Dataset(*(_read(part, names, image_size) for part in parts))


def _layout(folder: Path) -> dict[str, list[str]]:
    """Objects by style; DataError unless the folder is two levels of folders with pictures in them."""
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}: UnlearnCanvas is a folder per style, each with a folder for each object.")
    styles = {
        style.name: [thing.name for thing in visible(style) if thing.is_dir() and pictures_in(thing)]
        for style in visible(folder) if style.is_dir()
    }
    styles = {style: objects for style, objects in styles.items() if objects}
    if not styles:
        strange = sorted({path.suffix.lower() for path in folder.glob("*/*/*") if path.is_file()} - set(SUFFIXES) - {""})
        kinds = f" Files in {', '.join(strange)} are not read: {', '.join(SUFFIXES)} are." if strange else ""
        raise DataError(
            f"{folder} is not UnlearnCanvas: it should hold STYLE/OBJECT/NUMBER.jpg, such as Van_Gogh/Dogs/1.jpg.{kinds}"
        )
    strange = next((word for word in (*styles, *itertools.chain(*styles.values())) if " " in word), None)
    if strange:
        raise DataError(f"{folder} has a folder {strange!r}: names of styles and objects have underscores, no spaces.")
    return styles


def _chosen(kind: str, names: Sequence[str] | None, there) -> tuple[str, ...]:
    if names is None:
        return tuple(there)
    check_kind(f"{kind}s", names, (list, tuple), "a list of names of folders")
    if not names:
        raise DataError(f"{kind}s names none: give at least one of {', '.join(there)}, or leave it out for all of them.")
    for name in names:
        if name not in there:
            raise UnknownName(f"{kind} in this folder", name, there)
    return tuple(names)


def _read(files: list[list[Path]], class_names: tuple[str, ...], size: int) -> ImageSet:
    labels = np.repeat(np.arange(len(files)), [len(paths) for paths in files])
    pixels = np.stack([read_square(path, size) for paths in files for path in paths])
    return from_uint8("UnlearnCanvas", pixels, labels, class_names)
