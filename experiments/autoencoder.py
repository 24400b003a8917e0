"""Does the autoencoder betray what the denoiser has forgotten? Reconstructions by one that never saw an automobile.

    dimum train cifar10-autoencoder --without automobile --out RUN
    python experiments/autoencoder.py RUN [--out data/results/autoencoder.csv]

Unlearning changes the denoiser and leaves the autoencoder beside it as it was. Beside the shipped one stands the same network,
trained as long without the class. For each class of the 10,000 test images the table has, by each of the two, the mean PSNR of the
reconstructions and the share that the judge names rightly. Photographs themselves are the third row of each class.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from rows import write_rows
from torch import Tensor

from dimum_core import load_dataset
from dimum_core.autoencoder import get_autoencoder_preset, load_autoencoder, psnr, reconstructed
from dimum_core.judges import load_judge
from dimum_core.metrics import t_interval, wilson_interval
from dimum_core.models.cards import provenance, read_card
from dimum_core.models.codec import Codec

SHIPPED = "cifar10-autoencoder"


def rows(name: str, images: Tensor, pictures: Tensor, labels: Tensor, class_names, judge) -> list[dict]:
    """A row for each class: how near `pictures` are to `images`, N x C x H x W each, and how many the judge names rightly."""
    right, near, found = judge.judge(pictures).labels == labels, psnr(images, pictures), []
    for label, shown in enumerate(class_names):
        among = labels == label
        named = wilson_interval(int(right[among].sum()), int(among.sum()))
        row = {"pictures": name, "class": shown, "n": named.n, "named": named.value, "low": named.low, "high": named.high}
        if pictures is not images:
            decibels = t_interval(near[among])
            row |= {"PSNR": decibels.value, "PSNR low": decibels.low, "PSNR high": decibels.high}
        found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="an autoencoder that was trained without a class")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    test, judge = load_dataset(args.data).test, load_judge("cifar10-judge")
    found = rows("photographs", test.images, test.images, test.labels, test.class_names, judge)
    for name, folder in {SHIPPED: SHIPPED, f"without {read_card(args.run)['without']}": args.run}.items():
        codec = Codec(get_autoencoder_preset(SHIPPED).patch_size, load_autoencoder(folder))
        found += rows(name, test.images, reconstructed(codec, test.images), test.labels, test.class_names, judge)
    table = pd.DataFrame(found)
    if args.out:
        write_rows(args.out, table.assign(**provenance()))
    print(table.pivot(index="class", columns="pictures", values=["named", "PSNR"]).round(3).to_string())


if __name__ == "__main__":
    main()
