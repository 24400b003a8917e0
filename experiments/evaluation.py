"""Do fewer network evaluations tell the same story? UA, recovery and distance of unlearned digits models, by several samplers.

    python experiments/evaluation.py [--samples 100] [--seed 0] [--workers 2] [--out data/results/evaluation.csv]

Each method forgets a digit until UA is 0.9, and is attacked once. Both models are then asked for the digit by each sampler, and the
first of them for all others, too: a Frechet distance to held-out digits, on the judge's features. Prints, against 2,000 evaluations
an image (1,000 DDPM steps, with guidance), the difference of the shares, and Kendall's tau of the methods' ranks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler
from joblib import Parallel, delayed, parallel_config
from rows import write_rows
from scipy.stats import kendalltau

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.data.targets import find_target
from dimum_core.evaluation import draw_samples
from dimum_core.judges import find_judge
from dimum_core.metrics import frechet_distance, wilson_interval
from dimum_core.models.cards import provenance

TARGET = "3"
ATTACK = {"steps": 30, "learning_rate": 3e-4, "samples": 1, "evaluate_every": 30, "progress": False}
CONTROLS = {"original": "digits", "retrained": "digits-without-{target}"}
METHODS = {
    "esd": {}, "random-label": {}, "salun": {}, "concept-ablation": {}, "erasediff": {}, "selective-amnesia": {},
    "dimum (class)": {"alternative": "class"}, "dimum (generated)": {"alternative": "generated"},
}
SAMPLERS = (
    ("DDPM", DDPMScheduler, 1000), ("DDIM", DDIMScheduler, 50),
    ("Euler ancestral", EulerAncestralDiscreteScheduler, 25), ("Euler ancestral", EulerAncestralDiscreteScheduler, 10),
    ("DPM-Solver++", DPMSolverMultistepScheduler, 20), ("DPM-Solver++", DPMSolverMultistepScheduler, 10),
    ("DPM-Solver++", DPMSolverMultistepScheduler, 5),
)


def models(method: str, seed: int, target: str = TARGET) -> dict[str, object]:
    """A control or an unlearned model, before and after the attack."""
    data, before = load_dataset("digits"), load_pipeline(CONTROLS.get(method, "digits").format(target=target))
    if method in METHODS:
        before = unlearned(before, method, data, target, seed)
    return {"before": before, "after": attacked(before, data, target, seed)}


def unlearned(pipe, method: str, data, target: str, seed: int, **settings):
    """The pipeline after one of METHODS, to a UA of 0.9 or for 60 steps; settings: what is other than that."""
    forgetting = {"target": target, "data": data, "steps": 60, "until": 0.9, "evaluate_every": 3, "seed": seed}
    return unlearn(pipe, method.split(" ")[0], progress=False, **forgetting | METHODS[method] | settings)


def attacked(pipe, data, target: str, seed: int, **settings):
    """The pipeline after ATTACK on the retained data; settings: what is other than in ATTACK."""
    return relearn(pipe, data.train.without(target), target=target, seed=seed + 1000, **ATTACK | settings).pipeline


def shown(pipe, steps: int, samples: int, seed: int, target: str = TARGET) -> dict:
    """The share of samples of the target's condition that show it."""
    started = time.process_time()
    images = draw_samples(pipe, [target] * samples, num_inference_steps=steps, seed=seed, progress=False)
    seconds = time.process_time() - started
    hits = int(find_judge(pipe).judge(images).shows(find_target(target, pipe.class_names)).sum())
    share = wilson_interval(hits, samples)
    return {"share": share.value, "low": share.low, "high": share.high, "samples": samples, "CPU seconds": seconds}


def distance(pipe, steps: int, samples: int, seed: int) -> float:
    """Of samples of all other classes, as many each, to held-out digits."""
    judge, held_out = find_judge(pipe), load_dataset("digits").test.without(TARGET)
    others = [name for name in pipe.class_names if name != TARGET]
    images = draw_samples(pipe, others * max(1, samples // len(others)), num_inference_steps=steps, seed=seed, progress=False)
    return frechet_distance(judge.judge(images).features, judge.judge(held_out.images).features)


def measure(method: str, samples: int, seed: int) -> list[dict]:
    rows = []
    for when, pipe in models(method, seed).items():
        for about, steps in each_sampler(pipe, SAMPLERS):
            row = {"method": method, "when": when} | about | shown(pipe, steps, samples, seed)
            rows.append(row | ({"Frechet distance": distance(pipe, steps, samples, seed)} if when == "before" else {}))
    return rows


def each_sampler(pipe, samplers) -> Iterator[tuple[dict, int]]:
    """Gives the pipeline one sampler after the other; what to note of each, and its steps."""
    for name, scheduler, steps in samplers:
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
        yield {"sampler": name, "evaluations": 2 * steps}, steps


def side_by_side(jobs, workers: int) -> pd.DataFrame:
    """The rows of all jobs (delayed calls that return lists of rows), each on one thread, with their provenance."""
    torch.set_num_threads(1)
    with parallel_config("loky", inner_max_num_threads=1):
        return pd.DataFrame([row for rows in Parallel(workers)(jobs) for row in rows]).assign(**provenance())


def compared(rows: pd.DataFrame) -> pd.DataFrame:
    """A line for each sampler: how far its shares and ranks are from those of the first."""
    full = rows[rows["evaluations"] == rows["evaluations"].max()].set_index(["method", "when"])
    lines = {}
    for key, group in rows.groupby(["sampler", "evaluations"], sort=False):
        group = group.set_index(["method", "when"])
        apart = (group["share"] - full["share"]).drop(list(CONTROLS), level="method")
        tau = {
            column: kendalltau(*(table.xs(when, level="when").loc[list(METHODS), column] for table in (group, full))).statistic
            for column, when in (("share", "after"), ("Frechet distance", "before"))
        }
        lines[key] = {
            "fewer": full["evaluations"].iloc[0] / key[1],
            "CPU seconds an image": (group["CPU seconds"] / group["samples"]).mean(),
            "shown before, difference": apart.xs("before", level="when").mean(),
            "shown after, difference": apart.xs("after", level="when").mean(), "largest": apart.abs().max(),
            "tau after the attack": tau["share"],
            "Frechet distance": group.xs("before", level="when").loc[list(METHODS), "Frechet distance"].mean(),
            "tau of the distance": tau["Frechet distance"],
        }
    return pd.DataFrame(lines).T.rename_axis(["sampler", "evaluations"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    table = side_by_side((delayed(measure)(method, args.samples, args.seed) for method in (*CONTROLS, *METHODS)), args.workers)
    columns = ["sampler", "evaluations"]
    print(table.pivot_table(index=["method", "when"], columns=columns, values="share", sort=False).round(2).to_string())
    print(compared(table).round(3).T.to_string())
    if args.out:
        write_rows(args.out, table)


if __name__ == "__main__":
    main()
