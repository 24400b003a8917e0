"""Do fewer network evaluations tell the same story? UA and recovery of unlearned digits models, from 1,000 DDPM steps down.

    python benchmarks/evaluation.py [--samples 60] [--seed 0] [--out data/results/evaluation.csv]

Each method forgets a digit until UA is 0.9, and is attacked once; both models are then measured by each sampler. Prints, against
2,000 evaluations an image (1,000 steps, with guidance): the largest difference of a share, and Kendall's tau of the methods' ranks.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from scipy.stats import kendalltau

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.evaluation import draw_samples, find_judge
from dimum_core.metrics import wilson_interval
from dimum_core.targets import find_target

TARGET = "3"
ATTACK = {"steps": 30, "learning_rate": 3e-4, "samples": 1, "evaluate_every": 30, "progress": False}
METHODS = {
    "esd": {}, "random-label": {}, "salun": {}, "concept-ablation": {}, "dimum": {"alternative": "generated"},
}
SAMPLERS = (
    ("DDPM", DDPMScheduler, 1000), ("DDIM", DDIMScheduler, 50), ("DPM-Solver++", DPMSolverMultistepScheduler, 20),
    ("DPM-Solver++", DPMSolverMultistepScheduler, 10), ("DPM-Solver++", DPMSolverMultistepScheduler, 5),
)


def models(seed: int) -> dict[tuple[str, str], object]:
    """Unlearned and attacked, and the same of the two controls."""
    original, data = load_pipeline("digits"), load_dataset("digits")
    found = {"original": original, "retrained": load_pipeline("digits-without-3")}
    for method, settings in METHODS.items():
        found[method] = unlearn(
            original, method, target=TARGET, data=data, steps=60, until=0.9, evaluate_every=3, seed=seed, progress=False, **settings
        )
    pairs = {}
    for method, pipe in found.items():
        pairs[method, "before"] = pipe
        pairs[method, "after"] = relearn(
            pipe, data.train.without(TARGET), target=TARGET, seed=seed + 1000, **ATTACK
        ).pipeline
    return pairs


def measure(pipe, scheduler, steps: int, samples: int, seed: int) -> dict:
    """The share of samples of the target's condition that show it."""
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    started = time.process_time()
    images = draw_samples(pipe, [TARGET] * samples, num_inference_steps=steps, seed=seed, progress=False)
    seconds = time.process_time() - started
    shown = int(find_judge(pipe).judge(images).shows(find_target(TARGET, pipe.class_names)).sum())
    share = wilson_interval(shown, samples)
    return {"share": share.value, "low": share.low, "high": share.high, "samples": samples, "CPU seconds": seconds}


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each sampler: how far its shares and ranks are from those of the first."""
    shares = rows.pivot_table(index=["method", "when"], columns="evaluations", values="share")
    full = shares.columns.max()
    after = shares.xs("after", level="when").drop(["original", "retrained"])
    lines = {}
    for evaluations in sorted(shares.columns, reverse=True):
        apart = (shares[evaluations] - shares[full]).abs()
        lines[evaluations] = {
            "fewer": full / evaluations,
            "CPU seconds an image": rows[rows.evaluations == evaluations].eval("`CPU seconds` / samples").mean(),
            "largest difference": apart.max(), "mean difference": apart.mean(),
            "Kendall's tau after the attack": kendalltau(after[evaluations], after[full]).statistic,
        }
    return pd.DataFrame(lines).T.rename_axis("evaluations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        {"method": method, "when": when, "sampler": name, "evaluations": 2 * steps}
        | measure(pipe, scheduler, steps, args.samples, args.seed)
        for (method, when), pipe in models(args.seed).items()
        for name, scheduler, steps in SAMPLERS
    ]
    table = pd.DataFrame(rows)
    print(table.pivot_table(index=["method", "when"], columns="evaluations", values="share", sort=False).round(2).to_string())
    print(compared(table).round(3).to_string())
    if args.out:
        table.to_csv(args.out, index=False, float_format="%.4f")


if __name__ == "__main__":
    main()
