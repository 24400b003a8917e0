"""Does a second judge, of another architecture, see what the first sees?

    python experiments/two_judges.py [--per-class 100] [--out data/results/two_judges.csv]

The first judge is the airbench network (whitened, wide, SGD), the second a residual one (AdamW). Both look at the 10,000 held-out
photographs, at samples of each shipped photograph model, and at samples of the forgotten class after 60 steps of unlearning by ESD
and by DiMUM (class), before and after an attack of 300 steps. Of each group the file has the share that shows what was asked for by
each judge ("none of these" is wrong), and the share of which both say the same. For the label of a class that a model never saw,
the right answer is still that class. Prints the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from evaluation import attacked, unlearned
from rows import write_rows
from torch import Tensor

from dimum_core import load_dataset, load_pipeline
from dimum_core.evaluation import draw_samples
from dimum_core.judges import load_judge
from dimum_core.metrics import wilson_interval
from dimum_core.models.cards import provenance, read_card
from dimum_core.models.checkpoints import CHECKPOINT_FOLDER, shipped_checkpoints
from dimum_core.models.fresh_noise import FRESH_STEPS, with_fresh_noise

JUDGES = {"first": "cifar10-judge", "second": "cifar10-second-judge"}
BASE, TARGET = "cifar10-small", "automobile"
ATTACK = {"steps": 300, "learning_rate": 1e-4, "evaluate_every": 300}


def drawn(pipe, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Samples of fresh noise for these labels, with the labels."""
    return draw_samples(with_fresh_noise(pipe), labels, seed=seed, num_inference_steps=FRESH_STEPS, progress=False), labels


def groups(per_class: int, seed: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """What the judges look at: a name, pictures N x C x H x W, and what each was asked to show."""
    test = load_dataset("cifar10").test
    yield "held-out photographs", test.images, test.labels
    for name in shipped_checkpoints():
        if not name.startswith(BASE):
            continue
        pipe, all_labels = load_pipeline(name), torch.arange(len(test.class_names)).repeat_interleave(per_class)
        lacking = read_card(CHECKPOINT_FOLDER / name).get("without")
        lacks = all_labels == (-1 if lacking is None else test.class_index(lacking))
        images, labels = drawn(pipe, all_labels, seed)
        yield f"{name}: the classes it saw", images[~lacks], labels[~lacks]
        if lacks.any():
            yield f"{name}: the class it did not see", images[lacks], labels[lacks]
    data, asked = load_dataset("cifar10-mini"), torch.full((per_class,), test.class_index(TARGET))
    for method in ("esd", "dimum (class)"):
        pipe = unlearned(load_pipeline(BASE), method, data, TARGET, seed, until=None, evaluate_every=None)
        yield f"{TARGET}, unlearned by {method}", *drawn(pipe, asked, seed)
        yield f"{TARGET}, unlearned by {method} and attacked", *drawn(attacked(pipe, data, TARGET, seed, **ATTACK), asked, seed)


def compared(name: str, images: Tensor, labels: Tensor, judges: dict) -> dict:
    """How many of these pictures each judge says show what was asked for, and of how many both say the same, with intervals."""
    said, count = {which: judge.judge(images).labels for which, judge in judges.items()}, len(images)
    hits = {which: labels == seen for which, seen in said.items()} | {"agree": said["first"] == said["second"]}
    row = {"pictures": name, "n": count}
    for which, each in hits.items():
        share = wilson_interval(int(each.sum()), count)
        row |= {which: share.value, f"{which} low": share.low, f"{which} high": share.high}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    judges = {which: load_judge(name) for which, name in JUDGES.items()}
    rows = [compared(*group, judges) for group in groups(args.per_class, args.seed)]
    if args.out:
        write_rows(args.out, [row | provenance() for row in rows])
    print(pd.DataFrame(rows)[["pictures", "n", "first", "second", "agree"]].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
