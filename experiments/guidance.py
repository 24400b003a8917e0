"""Guidance in every step, between two levels of noise only, or rescaled: what is gained in right classes, and lost in variety?

    python experiments/guidance.py [--checkpoint cifar10-small] [--kinds everywhere ...] [--scales 4 6] [--per-class 50] [--seed 11]
        [--out data/results/guidance.csv]

In an interval: Kynkaanniemi et al. 2024 (arXiv 2404.07724) guide only between two levels of noise. The model draws without guidance
elsewhere. Rescaled: Lin et al. 2023 (arXiv 2305.08891, equations 15 and 16) give the guided noise the deviation of the unguided
one, to 0.7. Both judges look at the samples, and recall and distances are against held-out images. Prints the table; rows that the
file has already are not computed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from rows import read_rows, write_rows
from torch import Tensor
from two_judges import JUDGES

from dimum_core import load_pipeline
from dimum_core.evaluation import evaluate
from dimum_core.fitting import default_data
from dimum_core.judges import load_judge
from dimum_core.metrics import wilson_interval
from dimum_core.models.cards import provenance
from dimum_core.models.diffusion import TIMESTEPS
from dimum_core.models.history import with_unet
from dimum_core.models.sampling import ClassConditionalPipeline

KINDS = {  # timesteps that are guided, and how far the deviation is given back
    "everywhere": (TIMESTEPS, 0.0), "t < 600": (range(600), 0.0), "150 <= t < 600": (range(150, 600), 0.0),
    "150 <= t < 800": (range(150, 800), 0.0), "rescaled": (TIMESTEPS, 0.7),
}
GRID = [("everywhere", scale) for scale in (2.0, 3.0, 4.0, 5.0)] + [(kind, scale) for kind in [*KINDS][1:] for scale in (4.0, 6.0)]


def guided(pipe: ClassConditionalPipeline, kind: str) -> ClassConditionalPipeline:
    """The pipeline with guidance of one of KINDS."""
    steps, rescale = KINDS[kind]

    class Guided(ClassConditionalPipeline):
        def predict_noise(self, x_t: Tensor, t: Tensor, labels: Tensor, guidance_scale: float) -> Tensor:
            guides = steps.start <= float(t) < steps.stop
            eps = super().predict_noise(x_t, t, labels, guidance_scale if guides else 1.0)
            if not guides or not rescale:
                return eps
            return rescale_noise_cfg(eps, super().predict_noise(x_t, t, labels, 1.0), rescale)

    copy = with_unet(pipe, pipe.unet)
    copy.__class__ = Guided  # the parts of a pipeline, sampled in another way
    return copy


def measured(pipe, kind: str, scale: float, per_class: int, seed: int) -> dict:
    """What both judges see in as many samples of each class, and how varied these are."""
    first, second = (load_judge(name) for name in JUDGES.values())
    seen = evaluate(
        guided(pipe, kind), data=default_data(pipe), judge=first, per_class=per_class, guidance_scale=scale, seed=seed,
        progress=False,
    )
    right, kernel = seen.table.loc["accuracy"], seen.table.loc["kernel distance"]
    labels = pipe.label_tensor([*range(len(pipe.class_names))] * per_class)
    other = wilson_interval(int((second.judge(seen.images).labels == labels).sum()), len(labels))
    return {
        "first": right["value"], "first low": right["low"], "first high": right["high"], "second": other.value,
        "second low": other.low, "second high": other.high, "worst class": seen.per_class["value"].min(),
        "recall": seen["recall"], "precision": seen["precision"], "kernel distance": kernel["value"], "kernel low": kernel["low"],
        "kernel high": kernel["high"], "Frechet distance": seen["Frechet distance"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="cifar10-small")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="default: a grid of all")
    parser.add_argument("--scales", nargs="+", type=float, default=[4.0])
    parser.add_argument("--per-class", type=int, default=50)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--out", type=Path, default=Path("data/results/guidance.csv"))
    args = parser.parse_args()
    pipe, rows = load_pipeline(args.checkpoint), read_rows(args.out)
    for kind, scale in [(kind, scale) for kind in args.kinds for scale in args.scales] if args.kinds else GRID:
        cell = {"checkpoint": args.checkpoint, "guidance": kind, "scale": scale, "seed": args.seed, "per class": args.per_class}
        if not any(cell.items() <= row.items() for row in rows):
            rows.append(cell | measured(pipe, kind, scale, args.per_class, args.seed) | provenance())
            write_rows(args.out, rows)
    shown = ["guidance", "scale", "seed", "per class", "first", "second", "worst class", "recall", "kernel distance"]
    print(pd.DataFrame(rows)[shown].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
