"""Make data/cifar10-mini/images.npz: a balanced part of CIFAR-10, small enough to travel with the repository.

    python tools/make/cifar10_mini.py [--items FILE]

Which images belong to it is a list of their digests, in data/cifar10-mini/items.npz: so the pack comes out the same from every
copy of CIFAR-10, whatever the order of its files, and an image whose pixels differ by one bit is missed. Lossless WebP keeps them
in 21 MB.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from dimum_core.data import DATA_FOLDER, from_uint8
from dimum_core.data.cifar10 import read_cifar10

FOLDER = DATA_FOLDER / "cifar10-mini"
WEBP = {"format": "WEBP", "lossless": True, "quality": 100, "method": 6, "exact": True}


def as_webp(pixels: np.ndarray) -> bytes:
    """pixels: uint8, 3 x H x W."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, **WEBP)
    return buffer.getvalue()


def pack_split(pixels: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...], items: np.ndarray) -> dict[str, np.ndarray]:
    """The images whose digests are `items`, in that order; SystemExit if one is not there."""
    digests = from_uint8("cifar10", pixels, labels, class_names).item_hashes
    place = {digest.tobytes(): index for index, digest in enumerate(digests)}
    missing = sum(item.tobytes() not in place for item in items)
    if missing:
        raise SystemExit(f"{missing} of {len(items)} images are not in this copy of CIFAR-10: their pixels differ.")
    chosen = np.array([place[item.tobytes()] for item in items])
    files = [as_webp(image) for image in pixels[chosen]]
    return {
        "bytes": np.frombuffer(b"".join(files), dtype=np.uint8),
        "sizes": np.array([len(file) for file in files], dtype=np.int32),
        "labels": labels[chosen].astype(np.int8),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=Path, default=FOLDER / "items.npz", help="digests of the images, `train` and `test`")
    args = parser.parse_args()
    arrays = read_cifar10()
    pack = {"class_names": np.array(arrays["class_names"])}
    with np.load(args.items, allow_pickle=False) as items:
        for split in ("train", "test"):
            parts = pack_split(*arrays[split], arrays["class_names"], items[split])
            pack |= {f"{split}_{key}": value for key, value in parts.items()}
    np.savez(FOLDER / "images.npz", **pack)
    print(f"{FOLDER / 'images.npz'}: {(FOLDER / 'images.npz').stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
