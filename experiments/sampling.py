"""Quality against the number of network evaluations, from 1,000 DDPM steps down, and against the guidance scale.

    python experiments/sampling.py [--checkpoint cifar10-small] [--per-class 50] [--quick]

Judged on right class and kernel distance to held-out images. Prints a table and, with --out, writes it as CSV.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from rows import write_rows

from dimum_core import load_pipeline
from dimum_core.evaluation import evaluate
from dimum_core.fitting import default_data
from dimum_core.models.cards import provenance

CONTEST = [
    ("DDPM", DDPMScheduler, 1000), ("DDPM", DDPMScheduler, 100), ("DDPM", DDPMScheduler, 20),
    ("DDIM", DDIMScheduler, 100), ("DDIM", DDIMScheduler, 20), ("DDIM", DDIMScheduler, 10),
    ("UniPC", UniPCMultistepScheduler, 20), ("UniPC", UniPCMultistepScheduler, 10), ("UniPC", UniPCMultistepScheduler, 5),
    ("DPM-Solver++", DPMSolverMultistepScheduler, 20), ("DPM-Solver++", DPMSolverMultistepScheduler, 10),
    ("DPM-Solver++", DPMSolverMultistepScheduler, 5),
]


def measure(pipe, data, scheduler, steps: int, per_class: int, scale: float) -> dict:
    solver = scheduler.from_config(pipe.scheduler.config)
    started = time.perf_counter()
    measured = evaluate(
        pipe, data=data, per_class=per_class, num_inference_steps=steps, guidance_scale=scale, scheduler=solver
    )
    accuracy, kernel = measured.table.loc["accuracy"], measured.table.loc["kernel distance"]
    return {
        "guidance scale": scale, "evaluations": steps * (1 if scale == 1 else 2), "right class": accuracy["value"],
        "low": accuracy["low"], "high": accuracy["high"], "kernel distance": kernel["value"], "kernel low": kernel["low"],
        "kernel high": kernel["high"], "recall": measured["recall"], "samples": int(accuracy["n"]),
        "seconds": time.perf_counter() - started,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="cifar10-small")
    parser.add_argument("--per-class", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="leave out what takes 100 steps and more")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    pipe = load_pipeline(args.checkpoint)
    data, scale = default_data(pipe), pipe.config.guidance_scale
    contest = [entry for entry in CONTEST if entry[2] < 100 or not args.quick]
    rows = []
    for name, scheduler, steps in contest:
        rows.append({"solver": name, "steps": steps, **measure(pipe, data, scheduler, steps, args.per_class, scale)})
    for other in (s for s in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0) if s != scale):  # drawn again, it would be remembered at once
        measured = measure(pipe, data, DPMSolverMultistepScheduler, 20, args.per_class, other)
        rows.append({"solver": "DPM-Solver++", "steps": 20, **measured})
    table = pd.DataFrame(rows)
    table["time ratio"] = table["seconds"].max() / table["seconds"]
    print(table.round(3).to_string(index=False))
    if args.out:
        write_rows(args.out, table.assign(**provenance()))


if __name__ == "__main__":
    main()
