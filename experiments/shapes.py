"""What is forgotten, what is kept and what comes back, of a style, an object and a combination of `shapes`.

    python experiments/shapes.py [--seeds 0 1] [--methods dimum uce ...] [--out data/results/shapes.csv]

One row for each method, target and seed: UA, IRA and CRA after unlearning, and the accuracy on the target after DiMRA on the
retained data, each with its 95 % interval. Rows that the file has already are not computed again, so it may be killed at any time.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rows import read_rows, write_rows

from dimum_core import evaluate, load_dataset, load_pipeline, relearn, unlearn
from dimum_core.models.cards import provenance

TARGETS = ("hatched", "star", "filled square")
RETRAINED = {"hatched": "shapes-without-hatched"}  # target -> the model that never saw it; for others, plans/features.yaml
METHODS = {
    "original": {},
    "retrained": {},
    "finetune": {"steps": 60},
    "esd-x": {"steps": 30, "learning_rate": 3e-4},
    "uce": {},
    "concept-ablation": {"steps": 60},
    "random-label": {"steps": 60},
    "dimum": {"steps": 60},
}
UNLEARNING = {"batch_size": 48, "learning_rate": 3e-4, "progress": False}
ATTACK = {"steps": 60, "batch_size": 48, "learning_rate": 3e-4, "samples": 60, "evaluate_every": 60}
PER_CLASS = 5


def row(pipe, data, target: str, method: str, seed: int) -> dict:
    """One line of the table."""
    model = obtain(pipe, data, target, method, seed)
    measured = evaluate(model, target=target, per_class=PER_CLASS, seed=seed, progress=False).table
    curve = relearn(model, data.without(target), target=target, seed=seed, progress=False, **ATTACK).curve
    found = {"target": target, "method": method, "seed": seed}
    for metric in ("UA", "IRA", "CRA"):
        value, low, high, n = measured.loc[metric, ["value", "low", "high", "n"]]
        found |= {metric: value, f"{metric} low": low, f"{metric} high": high, f"{metric} n": int(n)}
    for name, line in (("before attack", curve.iloc[0]), ("after attack", curve.iloc[-1])):
        found |= {name: line["target accuracy"], f"{name} low": line["target low"], f"{name} high": line["target high"]}
    return found | {"retained after attack": curve["retained accuracy"].iloc[-1]} | provenance()


def obtain(pipe, data, target: str, method: str, seed: int):
    """What is attacked: a control, or the model unlearned by a method."""
    if method == "original":
        return pipe
    if method == "retrained":
        return load_pipeline(RETRAINED[target])
    return unlearn(pipe, method, target=target, data=data, seed=seed, **UNLEARNING | METHODS[method])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="shapes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--out", type=Path, default=Path("data/results/shapes.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = read_rows(args.out)
    done = {(r["target"], r["method"], r["seed"]) for r in rows}
    pipe, data = load_pipeline(args.checkpoint), load_dataset("shapes")
    for cell in ((t, m, s) for s in args.seeds for t in args.targets for m in args.methods):
        if cell not in done and (cell[1] != "retrained" or cell[0] in RETRAINED):
            rows.append(row(pipe, data, *cell))
            write_rows(args.out, rows)
            print(*cell, *(f"{k} {rows[-1][k]:.2f}" for k in ("UA", "IRA", "CRA", "before attack", "after attack")), flush=True)


if __name__ == "__main__":
    main()
