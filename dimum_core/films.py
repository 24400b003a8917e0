"""The films that tools/make/film.py wrote into data/frames/: what they tell, and pieces cut from their pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

FILMS = {"photographs": "film-photographs", "digits": "film"}  # what is shown -> its files


def read_film(folder: Path, name: str) -> dict:
    """picture, target, called, count, shown, and the frames of each method and of the retrained model: (phase, step, samples of the
    target, others that are right)."""
    return json.loads((folder / f"{name}.json").read_text("utf-8"))


def forgotten_at(film: dict) -> int:
    """The last frame before the attack, which is the same for all."""
    return max(k for k, frame in enumerate(next(iter(film["methods"].values()))) if frame[0] == "forget")


def told_of(film: dict) -> dict[str, list]:
    """Title -> frames, of each method and of the retrained model, in the order of the picture's columns."""
    return {**film["methods"], f"never saw {film['called']}": film["retrained"]}


def cut(sheet: Image.Image, film: dict, column: int, row: int) -> Image.Image:
    """The samples of one model in one frame. column: of the methods in turn; the retrained model comes last."""
    width = sheet.width // (len(film["methods"]) + 1)
    tile = width // film["shown"]
    return sheet.crop((column * width, row * tile, (column + 1) * width, (row + 1) * tile))


def tiles(piece: Image.Image) -> np.ndarray:
    """Square tiles that stand beside each other, as uint8, N x 3 x H x W."""
    pixels = np.asarray(piece).transpose(2, 0, 1)
    return np.stack(np.split(pixels, piece.width // piece.height, axis=2))


def said(film: dict, seen: int) -> str:
    return f"{seen} of {film['count']} are {film['called']}"
