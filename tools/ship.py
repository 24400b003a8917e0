"""Ship a trained run: choose its guidance scale, measure it, and put it with its card into data/checkpoints.

    python tools/ship.py RUN NAME [--scales 1 1.5 2 3 4 5 7] [--default 3]

The scale of the highest accuracy is chosen on one seed and the quality is measured on another, with 1,000 samples, so that the
card does not report the luck of the choice. The pipeline's default may be a lower scale, which keeps more variety: then the card
has the figures of both. A judge is measured when it is trained, and is only copied.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from dimum_core.data.targets import word_kinds
from dimum_core.evaluation import evaluate
from dimum_core.fitting import default_data
from dimum_core.judges import load_judge
from dimum_core.metrics import wilson_interval
from dimum_core.models.cards import read_card
from dimum_core.models.checkpoints import CHECKPOINT_FOLDER, load_pipeline, save_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--scales", type=float, nargs="+", default=[1, 1.5, 2, 3, 4, 5, 7])
    parser.add_argument("--default", type=float, help="guidance scale of the pipeline (default: the most accurate one)")
    args = parser.parse_args()
    card = read_card(args.run)
    if card["kind"] == "judge":
        save_checkpoint(load_judge(args.run), CHECKPOINT_FOLDER / args.name, card, "float16")
        return
    pipe = load_pipeline(args.run)
    best = choose_scale(pipe, args.scales)
    default = best if args.default is None else args.default
    pipe.register_to_config(guidance_scale=default)
    held_out = card.get("held_out", [])
    card["quality"] = quality(pipe, card["without"], default, held_out)
    if best != default:
        card["quality_at_the_most_accurate_scale"] = quality(pipe, card["without"], best, held_out)
    save_checkpoint(pipe, CHECKPOINT_FOLDER / args.name, card, "float16")
    shutil.copy(args.run / "log.csv", CHECKPOINT_FOLDER / args.name / "log.csv")


def choose_scale(pipe, scales: list[float]) -> float:
    """The scale of the highest accuracy on about 300 samples; of tied ones, the lowest, which keeps most variety."""
    measured = {s: evaluate(pipe, per_class=max(4, 300 // len(pipe.class_names)), guidance_scale=s, seed=1) for s in scales}
    for scale, m in measured.items():
        print(f"scale {scale}: {m['accuracy']:.3f}, none of these {m['none of these']:.3f}", flush=True)
    best = max(m["accuracy"] for m in measured.values())
    return min(s for s, m in measured.items() if m["accuracy"] >= best - 0.005)


def quality(pipe, without: str | None, scale: float, held_out: list[str]) -> dict:
    """1,000 samples on a fresh seed, as the card says it; with held-out combinations, how often each kind is right."""
    each = -(-1000 // len(pipe.class_names))
    measured = evaluate(pipe, target=without, data=default_data(pipe), per_class=each, guidance_scale=scale, seed=2)
    rows = {
        name: f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}], n = {r.n:.0f}" if r.low == r.low else f"{r.value:.3f}, n = {r.n:.0f}"
        for name, r in measured.table.iterrows()
    }
    if held_out:
        rows |= composition(measured, pipe.class_names, held_out)
    per_class = ", ".join(f"{name} {row.value:.2f}" for name, row in measured.per_class.iterrows())
    return rows | {"per class": per_class} | {key: str(value) for key, value in measured.provenance.items()}


def composition(measured, class_names: tuple[str, ...], held_out: list[str]) -> dict:
    """Does the model compose? Right combination, style and object, of combinations that it has seen and of those it has not."""
    objects = len(word_kinds(class_names)[1])
    labels = torch.arange(len(class_names)).repeat(len(measured.images) // len(class_names))
    unseen = torch.isin(labels, torch.tensor([class_names.index(name) for name in held_out]))
    style, thing = measured.verdict.words
    right = {"style": style == labels // objects, "object": thing == labels % objects}
    right["combination"] = right["style"] & right["object"]
    return {
        f"{kind} right, {which}": str(wilson_interval(int(hits[chosen].sum()), int(chosen.sum())))
        for which, chosen in (("combinations in training", ~unseen), ("combinations held out", unseen))
        for kind, hits in right.items()
    }


if __name__ == "__main__":
    main()
