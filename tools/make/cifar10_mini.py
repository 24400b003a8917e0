"""Make data/cifar10-mini/images.npz: a balanced part of CIFAR-10, small enough to travel with the repository.

    python tools/make/cifar10_mini.py [--train 1000] [--test 200]

The first images of each class, in the order of the official files; JPEG keeps 12,000 of them under 9 MB.
"""

from __future__ import annotations

import argparse
import io

import numpy as np
from PIL import Image

from dimum_core.data import DATA_FOLDER
from dimum_core.data.cifar10 import read_cifar10

OUT = DATA_FOLDER / "cifar10-mini" / "images.npz"
JPEG = {"format": "JPEG", "quality": 75, "subsampling": 2, "optimize": True}


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    chosen = np.concatenate([np.flatnonzero(labels == label)[:count] for label in range(10)])
    return np.sort(chosen)


def as_jpeg(pixels: np.ndarray) -> bytes:
    """pixels: uint8, 3 x H x W."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, **JPEG)
    return buffer.getvalue()


def pack_split(pixels: np.ndarray, labels: np.ndarray, per_class: int) -> dict[str, np.ndarray]:
    chosen = first_of_each_class(labels, per_class)
    files = [as_jpeg(image) for image in pixels[chosen]]
    return {
        "bytes": np.frombuffer(b"".join(files), dtype=np.uint8),
        "sizes": np.array([len(file) for file in files], dtype=np.int32),
        "labels": labels[chosen].astype(np.int8),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=1000, help="training images of each class")
    parser.add_argument("--test", type=int, default=200, help="held-out images of each class")
    args = parser.parse_args()
    arrays = read_cifar10()
    pack = {"class_names": np.array(arrays["class_names"])}
    for split, per_class in (("train", args.train), ("test", args.test)):
        pack |= {f"{split}_{key}": value for key, value in pack_split(*arrays[split], per_class).items()}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    np.savez(OUT, **pack)
    print(f"{OUT}: {OUT.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
