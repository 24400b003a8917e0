"""Quality against seconds: what each part of a training recipe buys, when all recipes may take the same time.

    python experiments/recipes.py [--preset digits] [--seconds 45 90 180] [--recipes preset ...] [--out data/results/recipes.csv]
    python experiments/recipes.py --preset cifar10-small --seconds 900 --per-class 50

Every recipe differs from the preset's in one thing. It is timed first and gets the number of steps that fit into each budget, from
scratch, with its warm-up and its decay ending there; so nothing is charged for another's schedule. Seconds are processor seconds of
one thread, which other work on the machine changes little. What is made once for all trainings is not charged either: the latents
of all images, and an autoencoder, which is trained if --autoencoders has none of that many channels. Rows that the file has already
are not computed again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch
from rows import read_rows, write_rows
from torch import Tensor, nn

from dimum_core import TrainConfig, load_dataset, train
from dimum_core.autoencoder import get_autoencoder_preset, load_autoencoder, train_autoencoder
from dimum_core.errors import SettingError
from dimum_core.evaluation import evaluate
from dimum_core.judges import find_judge
from dimum_core.models.cards import provenance
from dimum_core.models.codec import Codec
from dimum_core.models.conditions import conditions_of
from dimum_core.models.denoiser import Preset, get_preset
from dimum_core.pretraining import DenoisingObjective, encoded_both_ways, new_model

TABLES = {"digits": "recipes.csv", "cifar10-small": "photograph_recipes.csv"}  # preset -> the shipped rows


class MinSNR(DenoisingObjective):
    """L_den with each timestep weighted by min(SNR, 5) / SNR, SNR = abar / (1 - abar) (Hang et al. 2023, arXiv 2303.09556)."""

    def __call__(self, model: nn.Module, seed: int, step: int) -> Tensor:
        errors, t = self.errors(model, seed, step)
        abar = self.conditions.alphas_cumprod[t.cpu()]
        weight = (5 * (1 - abar) / abar).clamp(max=1).to(errors)
        return (weight * errors.flatten(1).mean(1)).mean()


def recipes(preset: Preset, autoencoders: Path) -> dict[str, tuple[Preset, type]]:
    """Name -> sizes and settings, and the loss."""
    def with_(**settings) -> Preset:
        return replace(preset, training=replace(preset.training, **settings))

    decay, codecs = preset.training.decay, {"unfolded images": {"patch_size": 1}}
    if preset.autoencoder:
        codecs = {f"latents of {n} channels": {"autoencoder": str(autoencoders / str(n))} for n in (4, 16)}
        codecs["pixels folded 4 x 4, no autoencoder"] = {"autoencoder": "", "patch_size": 4}
    return {
        "preset": (preset, DenoisingObjective),
        "a quarter of the batch": (with_(batch_size=preset.training.batch_size // 4), DenoisingObjective),
        "no decay" if decay else "cosine decay": (with_(decay=not decay), DenoisingObjective),
        **{name: (replace(preset, **sizes), DenoisingObjective) for name, sizes in codecs.items()},
        "half the width": (replace(preset, channels=tuple(c // 2 for c in preset.channels)), DenoisingObjective),
        "min-SNR weights": (preset, MinSNR),
        "an average over 100 steps": (with_(ema_decay=0.99), DenoisingObjective),
        "no average of weights": (with_(ema_decay=0.0), DenoisingObjective),
        "a third of the learning rate": (with_(learning_rate=preset.training.learning_rate / 3), DenoisingObjective),
    }


def made(autoencoder: str, like: str) -> None:
    """Train an autoencoder as the one of the preset was, but with as many latent channels as its folder's name says."""
    if autoencoder in ("", like) or (Path(autoencoder) / "card.json").exists():
        return
    sizes = replace(get_autoencoder_preset(like), latent_channels=int(Path(autoencoder).name))
    train_autoencoder(sizes, Path(autoencoder), resume=Path(autoencoder).exists(), progress=False)


@lru_cache(maxsize=1)
def latents(preset: Preset) -> tuple[Tensor, Tensor] | None:
    """Those of all images and of their mirror images, for a preset with an autoencoder."""
    if not preset.autoencoder:
        return None
    codec = Codec(preset.patch_size, load_autoencoder(preset.autoencoder))
    return encoded_both_ways(codec, load_dataset(preset.dataset, preset.image_size).train)


def trained(preset: Preset, loss: type, data, steps: int):
    """The pipeline after `steps`, and the processor seconds that they took."""
    model, pipe = new_model(preset, data, preset.training.seed)
    config: TrainConfig = replace(preset.training, steps=steps, warmup_steps=min(preset.training.warmup_steps, steps // 5))
    conditions = conditions_of(pipe, text_trains=preset.text_width > 0)
    objective = loss(data, config.batch_size, conditions, preset.label_dropout, preset.flip, encoded=latents(preset))
    started = time.process_time()
    train(model, objective, config, progress=False)
    return pipe, time.process_time() - started


def measured(pipe, data, per_class: int) -> dict:
    """The share of samples of the right class and the kernel distance, with their intervals."""
    table = evaluate(pipe, data=data, judge=find_judge(pipe), per_class=per_class, num_inference_steps=20, progress=False).table
    right, kernel, recall = (table.loc[name] for name in ("accuracy", "kernel distance", "recall"))
    return {
        "right class": right["value"], "low": right["low"], "high": right["high"],
        "kernel distance": kernel["value"], "kernel low": kernel["low"], "kernel high": kernel["high"], "recall": recall["value"],
        "samples": int(right["n"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--seconds", type=int, nargs="+", default=[45, 90, 180])
    parser.add_argument("--recipes", nargs="+")
    parser.add_argument("--autoencoders", type=Path, default=Path("build/autoencoders"), help="folder of those of other channels")
    parser.add_argument("--per-class", type=int, default=30)
    parser.add_argument("--out", type=Path, help="table of the rows (default: the shipped one of the preset)")
    args = parser.parse_args()
    args.out = args.out or Path("data/results") / TABLES.get(args.preset, f"{args.preset}-recipes.csv")
    torch.set_num_threads(1)
    preset = get_preset(args.preset)
    data = load_dataset(preset.dataset, preset.image_size)
    contest = recipes(preset, args.autoencoders)
    contest = {name: contest[name] for name in args.recipes or contest}
    rows, samples = read_rows(args.out), args.per_class * len(data.class_names)
    if other := {row["samples"] for row in rows} - {samples}:
        raise SettingError(f"{args.out} has rows of {other.pop()} samples, not {samples}: give another --out, or that --per-class.")
    done = {(row["recipe"], row["budget"]) for row in rows}
    for name, (sizes, loss) in contest.items():
        missing = [budget for budget in args.seconds if (name, budget) not in done]
        if not missing:
            continue
        made(sizes.autoencoder, preset.autoencoder)
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
