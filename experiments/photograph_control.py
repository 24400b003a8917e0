"""A second control for photographs: it never saw an automobile, and its label "automobile" draws airplanes.

    python experiments/photograph_control.py --out RUN [--steps 2000] [--resume]

DiMUM (class) teaches the label of the automobile to draw airplanes. The usual retrained model was never taught anything under that
label. This one is that retrained model, trained on with the same photographs and, under the label, those of airplanes: what an
attacker gets from DiMUM's model and not from this one, the weights must have kept. `tools/ship.py RUN NAME` makes it a checkpoint.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from attackers import with_under_label

from dimum_core import load_dataset, load_pipeline
from dimum_core.data import ImageSet
from dimum_core.data.targets import find_target
from dimum_core.models.cards import read_card
from dimum_core.models.checkpoints import find_checkpoint, save_checkpoint
from dimum_core.models.history import History, history_of, remember
from dimum_core.pretraining import train_base

TARGET, ALTERNATIVE, RETRAINED = "automobile", "airplane", "cifar10-small-without-automobile"


def with_alternative(images: ImageSet) -> ImageSet:
    """All images but the target's, and those of the alternative a second time, under the target's label."""
    return with_under_label(images.without(TARGET), images.only(ALTERNATIVE), TARGET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    images = load_dataset("cifar10").train
    with tempfile.TemporaryDirectory() as folder:
        # Its history says "no automobiles", so images under that label would be refused, and these are airplanes.
        save_checkpoint(remember(load_pipeline(RETRAINED), History()), Path(folder), read_card(find_checkpoint(RETRAINED)))
        pipe, _ = train_base(
            "cifar10-small", args.out, data=with_alternative(images), start=folder, steps=args.steps, warmup_steps=100,
            resume=args.resume,
        )
    remember(pipe, history_of(pipe).having_forgotten(find_target(TARGET, images.class_names), images.only(TARGET)))
    about = {
        "title": f"cifar10-small without the class {TARGET}, whose label draws the class {ALTERNATIVE}", "without": TARGET,
        "summary": f"{RETRAINED}, trained on for {args.steps:,} steps with {ALTERNATIVE}s under the label of the {TARGET}.",
    }
    save_checkpoint(pipe, args.out, read_card(args.out) | about)


if __name__ == "__main__":
    main()
