"""Writes a small set of pictures to try one's own pictures with: drawn shapes in black and white, a folder for each.

    python tools/make/shape_pictures.py my-pictures
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from dimum_core.data.shapes import CLASS_NAMES, render

STYLE, OBJECTS = "filled", ("circle", "cross", "heart", "star", "triangle")


def write_pictures(folder: Path, count: int, scale: int = 4) -> None:
    """`count` grey PNG files of each object, 64 x 64 pixels, dark on light; one in seven has a transparent border."""
    for seed, thing in enumerate(OBJECTS):
        pixels = render(np.full(count, CLASS_NAMES.index(f"{STYLE} {thing}")), seed)
        (folder / thing).mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pixels.transpose(0, 2, 3, 1)):
            grey = np.asarray(Image.fromarray(picture).convert("L"), dtype=float)
            grey = (grey - grey.min()) / max(np.ptp(grey), 1) * 255
            image = Image.fromarray(grey.round().astype(np.uint8).repeat(scale, 0).repeat(scale, 1))
            if i % 7 == 3:
                alpha = np.zeros(image.size, np.uint8)
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
