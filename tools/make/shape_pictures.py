"""Writes a small set of pictures to try one's own pictures with: drawn shapes, a folder for each.

    python tools/make/shape_pictures.py my-pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from dimum_core.data.shapes import CLASS_NAMES, render

STYLE, OBJECTS = "filled", ("circle", "cross", "heart", "star", "triangle")


def write_pictures(folder: Path, count: int, seed: int = 0, scale: int = 4) -> None:
    """`count` PNG files of each object, 64 x 64 pixels; one in seven has a transparent border."""
    for k, thing in enumerate(OBJECTS):
        pixels = render(np.full(count, CLASS_NAMES.index(f"{STYLE} {thing}")), seed * len(OBJECTS) + k)
        (folder / thing).mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pixels.transpose(0, 2, 3, 1).repeat(scale, 1).repeat(scale, 2)):
            image = Image.fromarray(picture)
            if i % 7 == 3:
                alpha = np.zeros(picture.shape[:2], np.uint8)
                alpha[scale:-scale, scale:-scale] = 255
                image.putalpha(Image.fromarray(alpha))
            image.save(folder / thing / f"{i:03}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=240, help="pictures of each shape (default: 240)")
    arguments = parser.parse_args()
    write_pictures(arguments.folder, arguments.count)
    print(f"{arguments.folder}: {arguments.count} pictures of each of {', '.join(OBJECTS)}")


if __name__ == "__main__":
    main()
