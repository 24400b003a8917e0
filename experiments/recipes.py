"""Quality against seconds: what each part of a training recipe buys, when all recipes may take the same time.

    python experiments/recipes.py [--preset digits] [--seconds 45 90 180] [--recipes preset ...] [--out data/results/recipes.csv]

Every recipe differs from the preset's in one thing. It is timed first and gets the number of steps that fit into each budget, from
scratch, with its warm-up and its decay ending there; so nothing is charged for another's schedule. Seconds are processor seconds of
one thread, which other work on the machine changes little. Rows that the file has already are not computed again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from rows import read_rows, write_rows
from torch import Tensor, nn

from dimum_core import TrainConfig, load_dataset, train
from dimum_core.evaluation import evaluate
from dimum_core.judges import find_judge
from dimum_core.models.cards import provenance
from dimum_core.models.conditions import conditions_of
from dimum_core.models.denoiser import Preset, get_preset
from dimum_core.pretraining import DenoisingObjective, new_model


class MinSNR(DenoisingObjective):
    """L_den with each timestep weighted by min(SNR, 5) / SNR, SNR = abar / (1 - abar) (Hang et al. 2023, arXiv 2303.09556)."""

    def __call__(self, model: nn.Module, seed: int, step: int) -> Tensor:
        errors, t = self.errors(model, seed, step)
        abar = self.conditions.alphas_cumprod[t.cpu()]
        weight = (5 * (1 - abar) / abar).clamp(max=1).to(errors)
        return (weight * errors.flatten(1).mean(1)).mean()


def recipes(preset: Preset) -> dict[str, tuple[Preset, type]]:
    """Name -> sizes and settings, and the loss."""
    def with_(**settings) -> Preset:
        return replace(preset, training=replace(preset.training, **settings))

    return {
        "preset": (preset, DenoisingObjective),
        "a quarter of the batch": (with_(batch_size=preset.training.batch_size // 4), DenoisingObjective),
        "a third of the learning rate": (with_(learning_rate=preset.training.learning_rate / 3), DenoisingObjective),
        "no decay": (with_(decay=False), DenoisingObjective),
        "no average of weights": (with_(ema_decay=0.0), DenoisingObjective),
        **({} if preset.autoencoder else {"unfolded images": (replace(preset, patch_size=1), DenoisingObjective)}),
        "half the width": (replace(preset, channels=tuple(c // 2 for c in preset.channels)), DenoisingObjective),
        "min-SNR weights": (preset, MinSNR),
    }


def trained(preset: Preset, loss: type, data, steps: int):
    """The pipeline after `steps`, and the processor seconds that they took."""
    model, pipe = new_model(preset, data, preset.training.seed)
    config: TrainConfig = replace(preset.training, steps=steps, warmup_steps=min(preset.training.warmup_steps, steps // 5))
    conditions = conditions_of(pipe, text_trains=preset.text_width > 0)
    objective = loss(data, config.batch_size, conditions, preset.label_dropout, preset.flip)
    started = time.process_time()
    train(model, objective, config, progress=False)
    return pipe, time.process_time() - started


def measured(pipe, data, per_class: int) -> dict:
    """The share of samples of the right class and the kernel distance, with their intervals."""
    table = evaluate(pipe, data=data, judge=find_judge(pipe), per_class=per_class, num_inference_steps=20, progress=False).table
    right, kernel = table.loc["accuracy"], table.loc["kernel distance"]
    return {
        "right class": right["value"], "low": right["low"], "high": right["high"],
        "kernel distance": kernel["value"], "kernel low": kernel["low"], "kernel high": kernel["high"], "samples": int(right["n"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--seconds", type=int, nargs="+", default=[45, 90, 180])
    parser.add_argument("--recipes", nargs="+")
    parser.add_argument("--per-class", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("data/results/recipes.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    preset = get_preset(args.preset)
    data = load_dataset(preset.dataset, preset.image_size)
    contest = {name: recipe for name, recipe in recipes(preset).items() if not args.recipes or name in args.recipes}
    rows = read_rows(args.out)
    done = {(row["recipe"], row["budget"]) for row in rows}
    for name, (sizes, loss) in contest.items():
        missing = [budget for budget in args.seconds if (name, budget) not in done]
        if not missing:
            continue
        short, long = (trained(sizes, loss, data.train, steps)[1] for steps in (2, 12))
        for budget in missing:
            steps = max(1, round(budget * 10 / (long - short)))
            pipe, seconds = trained(sizes, loss, data.train, steps)
            row = {"recipe": name, "budget": budget, "steps": steps, "seconds": seconds}
            row |= measured(pipe, data, args.per_class)
            rows.append(row | provenance())
            write_rows(args.out, rows)
            print(pd.DataFrame([row]).round(3).to_string(index=False, header=len(rows) == 1), flush=True)


if __name__ == "__main__":
    main()
