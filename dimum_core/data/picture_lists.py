"""Whose pictures, of which classes: lists of them from a folder by class, a table of paths, arrays, or a `datasets` object."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import DataError, brief
from .picture_files import SUFFIXES, UNREADABLE, pictures_in, read_bytes, read_picture, upright, visible

SPLITS = {"train": "train", "training": "train", "test": "test", "val": "test", "valid": "test", "validation": "test"}
PATH_COLUMNS = ("path", "file", "file_name", "filename", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")
TABLES = (".csv", ".parquet")


@dataclass(frozen=True)
class Picture:
    """One picture of a list.

    name: as a report calls it. split: "train" or "test", if the list says so. read: gives it in RGB, or raises DataError.
    path: of its file, if it has one.
    """

    name: str
    label: str
    split: str | None
    read: Callable[[], Image.Image]
    path: Path | None = None


@dataclass
class PictureList:
    """Pictures by class, and what was left out on the way: (name, why) each.

    source: the folder or the table that they come from, if it is a file.
    """

    name: str
    pictures: list[Picture]
    class_names: tuple[str, ...]
    left_out: list[tuple[str, str]] = field(default_factory=list)
    source: Path | None = None


def list_pictures(source, labels=None) -> PictureList:
    """What `load_images` is given, as a list. labels: of arrays or images. DataError for anything in another layout."""
    splits = isinstance(source, Mapping) and source and all(map(_is_hugging_face, source.values()))
    if labels is not None and (isinstance(source, (str, os.PathLike, pd.DataFrame)) or splits or _is_hugging_face(source)):
        raise DataError("A folder, a table or a datasets object says its labels itself: leave labels out, which are for arrays.")
    if isinstance(source, (str, os.PathLike)):
        if not os.fspath(source):  # which pathlib takes for the current folder
            raise DataError("An empty name is no folder of pictures: give its name, or '.' for the current one.")
        path = Path(source)
        if path.suffix.lower() in TABLES and path.is_file():
            return _of_table(_read_table(path), path.parent, path.stem, path)
        if path.is_dir():
            return _of_folder(path)
        raise DataError(f"There is no folder {path}, nor a table ({' or '.join(TABLES)}) of that name: give one of your pictures.")
    if isinstance(source, pd.DataFrame):
        return _of_table(source, Path(), "table")
    if splits:
        return _of_hugging_face(dict(source))
    if _is_hugging_face(source):
        return _of_hugging_face({"": source})
    return _of_arrays(source, labels)


# Folders --------------------------------------------------------------------------------------------------------------


def _of_folder(folder: Path) -> PictureList:
    """CLASS/picture.png, or train/CLASS/picture.png and test/CLASS/picture.png, as torchvision's ImageFolder has them."""
    parts = {path.name: path for path in visible(folder) if path.is_dir()}
    split = parts and all(name.lower() in SPLITS for name in parts) and any(_classes(path) for path in parts.values())
    halves = [(SPLITS[name.lower()], path) for name, path in parts.items()] if split else [(None, folder)]
    found = PictureList(folder.resolve().name, [], (), source=folder)
    for half, path in halves:
        for child in visible(path):
            _add_class(found, folder, child, half)
    found.class_names = tuple(sorted({picture.label for picture in found.pictures}))
    if not found.pictures:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"{folder} should hold a folder for each class, with its pictures ({kinds}): {_instead(folder)}.")
    return found


def _classes(folder: Path) -> list[Path]:
    return [path for path in visible(folder) if path.is_dir()]


def _add_class(found: PictureList, root: Path, child: Path, split: str | None) -> None:
    """The pictures of one folder, and what else is in it."""
    if not child.is_dir():
        if child.suffix.lower() in SUFFIXES:
            found.left_out.append((_within(child, root), "lies beside the folders of the classes, so it has no class"))
        return
    pictures = pictures_in(child)
    for path in pictures:
        found.pictures.append(Picture(_within(path, root), child.name, split, partial(read_picture, path), path))
    for path in sorted(set(visible(child)) - set(pictures)):
        kind = "is a folder within a class" if path.is_dir() else f"is not a picture ({', '.join(SUFFIXES)} are read)"
        found.left_out.append((_within(path, root), kind))
    if not pictures:
        found.left_out.append((_within(child, root), "has no pictures in it"))


def _within(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def _instead(folder: Path) -> str:
    if any(pictures_in(path) for child in _classes(folder) for path in _classes(child)):
        return "its pictures lie one level deeper; load_unlearn_canvas reads STYLE/OBJECT/PICTURE"
    if pictures_in(folder):
        return "its pictures lie in it without a folder for their class; a table of paths and labels says it, too"
    return "there are none"


# Tables ---------------------------------------------------------------------------------------------------------------


def _read_table(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        table = pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:  # pandas' and pyarrow's own errors are of these kinds
        raise DataError(f"{path} cannot be read as a table ({' '.join(str(error).split())}).") from error
    for column in {*LABEL_COLUMNS} & {*table.columns}:  # 001, None and NA are names of classes; 10 and 9 are numbers
        if table[column].dropna().str.fullmatch(r"(0|-?[1-9]\d*)(\.0+)?").all():
            numbers = [None if pd.isna(value) else int(value.partition(".")[0]) for value in table[column]]
            table[column] = pd.Series(numbers, table.index, object)  # not float64, in which 2^53 and 2^53 + 1 are one class
    return table


def _of_table(table: pd.DataFrame, folder: Path, name: str, source: Path | None = None) -> PictureList:
    """Rows of a path, relative to the table's folder, or of a picture's bytes, and a label; a column `split` says train or test."""
    paths, labels = _column(table, PATH_COLUMNS, name, "the paths"), _column(table, LABEL_COLUMNS, name, "the labels")
    splits = table["split"].map(lambda split: SPLITS.get(str(split).lower())) if "split" in table else None
    if splits is not None and splits.isna().any():
        wrong = brief(table["split"][splits.isna()].iloc[0])
        raise DataError(f"{name}: the column split must say one of {', '.join(SPLITS)}, not {wrong}.")
    found = PictureList(name, [], _names(labels.dropna()), source=source)
    for row, (path, label) in enumerate(zip(paths, labels, strict=True)):
        if pd.isna(path) or pd.isna(label):
            found.left_out.append((f"row {row}", "has no path or no label"))
            continue
        split = None if splits is None else splits.iloc[row]
        content = path.get("bytes") if isinstance(path, Mapping) else path  # as Hugging Face's Parquet files hold pictures
        if isinstance(content, bytes) and content:
            name = f"row {row}"
            found.pictures.append(Picture(name, _said(label), split, partial(read_bytes, content, name)))
            continue
        file = _on_this_system(folder, str(path))
        found.pictures.append(Picture(str(path), _said(label), split, partial(read_picture, file), file))
    if any(picture.path is None for picture in found.pictures):
        found.source = None  # there are no files whose change could be seen
    return found


def _on_this_system(folder: Path, path: str) -> Path:
    """A path of a table, also of one that was made on Windows."""
    file = folder / path
    return folder / path.replace("\\", "/") if "\\" in path and not file.exists() else file


def _column(table: pd.DataFrame, names: Iterable[str], name: str, what: str) -> pd.Series:
    there = [column for column in names if column in table]
    if not there:
        columns = ", ".join(map(str, table.columns))
        raise DataError(f"{name} has no column for {what} ({', '.join(names)}): its columns are {columns}.")
    return table[there[0]]


def _said(label) -> str:
    """3 and 3.0 are the same class: a column of numbers with one value missing is read as fractions."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)


def _names(labels: Iterable) -> tuple[str, ...]:
    """Class names in order: numbers by value, words by letter."""
    values = set(labels)
    numbers = all(isinstance(value, (int, float, np.number)) for value in values)
    return tuple(dict.fromkeys(_said(value) for value in (sorted(values) if numbers else sorted(map(str, values)))))


# Arrays, and what holds images in memory ------------------------------------------------------------------------------


def _of_arrays(images, labels) -> PictureList:
    if labels is None:
        raise DataError("Arrays need their labels, a class name or number for each: load_images(images, labels=labels).")
    try:
        count, said = len(images), [value.item() if hasattr(value, "item") else value for value in labels]
    except (ValueError, RuntimeError) as error:  # numpy's and torch's, of a row of numbers
        raise DataError("Labels are one name or number for each image, and these are rows of numbers: give argmax(1).") from error
    except TypeError as error:
        raise DataError(f"Pictures are a folder, a table, arrays or a datasets object, not {brief(images)}.") from error
    if count != len(said):
        raise DataError(f"{count} images need {count} labels, not {len(said)}.")
    first = getattr(images, "ndim", 0) == 4 and images.shape[1] in (1, 3, 4) and images.shape[3] not in (1, 3, 4)
    found = PictureList("arrays", [], _names(label for label in said if _is_label(label)))
    for i, (image, label) in enumerate(zip(images, said, strict=True)):
        if _is_label(label):
            found.pictures.append(Picture(f"number {i}", _said(label), None, partial(_image_of, image, f"Image {i}", first)))
        else:
            found.left_out.append((f"number {i}", "has no label"))
    return found


def _is_label(value) -> bool:
    return value is not None and value == value  # NaN is not itself


def _image_of(value, name: str, channels_first: bool = False) -> Image.Image:
    """An image of Pillow's, or an array, H x W, H x W x C or C x H x W of uint8, as RGB."""
    if isinstance(value, Image.Image):
        try:
            return upright(value)
        except UNREADABLE as error:  # read when it is asked for
            raise DataError(f"{name} cannot be read as a picture ({error}).") from error
    if isinstance(value, (str, os.PathLike)):
        raise DataError(
            f"{name} is a path: give a folder that has one for each class, or a table, pandas.DataFrame with path and label."
        )
    pixels = np.asarray(value)
    if pixels.dtype != np.uint8:
        instead = "of [0, 1], give (255 * images).round().astype('uint8')"
        raise DataError(f"{name} must be uint8, 0 to 255, not {pixels.dtype}: {instead}.")
    if pixels.ndim == 3 and (channels_first or (pixels.shape[0] in (1, 3, 4) and pixels.shape[2] not in (1, 3, 4))):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)) or not pixels.size:
        raise DataError(f"{name} must be H x W, H x W x C or C x H x W with 1, 3 or 4 channels, not {pixels.shape}.")
    return upright(Image.fromarray(np.ascontiguousarray(pixels)))


def _is_hugging_face(value) -> bool:
    """A `datasets.Dataset`, known by what it has: that library need not be installed."""
    return hasattr(value, "features") and hasattr(value, "column_names") and hasattr(value, "__getitem__")


def _of_hugging_face(splits: dict) -> PictureList:
    """Rows of an image and a class label of the library's own kinds, of the splits whose names say what they are for; if none
    does, of all."""
    known = {split: part for split, part in splits.items() if split.lower() in SPLITS} or splits
    rows = next(iter(known.values()))
    image, label = _feature(rows, "Image", ("image", "img")), _feature(rows, "ClassLabel", LABEL_COLUMNS)
    names = tuple(getattr(rows.features[label], "names", None) or ())
    found, there = PictureList("datasets", [], names), []
    for split in [name for name in splits if name not in known]:
        why = f"is of the split {split}, which is none of {', '.join(SPLITS)}"
        found.left_out += [(f"{split} row {i}", why) for i in range(len(splits[split]))]
    for split, part in known.items():
        for i, value in enumerate(part[label]):
            name = f"{split} row {i}".strip()
            if not _is_label(value) or (names and value not in range(len(names))):  # -1, in many a test split that nobody labelled
                found.left_out.append((name, "has no label"))
                continue
            there.append(value)
            said = names[value] if names else _said(value)
            found.pictures.append(Picture(name, said, SPLITS.get(split.lower()), partial(_row_image, part, i, image)))
    found.class_names = names or _names(there)
    return found


def _feature(rows, kind: str, names: Iterable[str]) -> str:
    """The column of a kind of feature, or else one of these names."""
    there = [name for name, feature in rows.features.items() if type(feature).__name__ == kind]
    there = there or [name for name in names if name in rows.column_names]
    if not there:
        raise DataError(f"The data set has no column of kind {kind}: its columns are {', '.join(rows.column_names)}.")
    return there[0]


def _row_image(rows, i: int, column: str) -> Image.Image:
    try:
        value = rows[i][column]
    except UNREADABLE as error:  # decoded when it is asked for
        raise DataError(f"Row {i} cannot be read as a picture ({error}).") from error
    return _image_of(value, f"Row {i}")
