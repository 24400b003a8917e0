"""What lasts: every method against DiMRA, over targets, seeds, unlearning strengths and attacker learning rates.

    python benchmarks/forgetting.py run digits          hours of cells into data/results/forgetting-digits, each written once
    python benchmarks/forgetting.py report digits       the table, from what has been computed so far

Two strengths. matched: each method stops as soon as its unlearning accuracy, checked every few steps on samples of its own,
reaches 0.9, so all have forgotten as much. budget: every method takes the same number of steps. Then DiMRA on the whole
retained set, at each learning rate from the same unlearned model. The original and the retrained model are attacked beside them.
A cell is one (method, target, seed, strength); a killed run goes on where it stopped. `--part 1/2` and `--part 2/2` share it.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch.nn.utils import parameters_to_vector

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.attacks import auxiliary_set, few_shot
from dimum_core.data import DATA_FOLDER
from dimum_core.metrics import area_under_recovery, best_attacks, steps_to_recovery, t_interval
from dimum_core.training import write_atomically

METHODS = {
    "finetune": {}, "negative-gradient": {}, "random-label": {}, "salun": {}, "selective-amnesia": {}, "esd": {}, "erasediff": {},
    "sfr-on": {}, "concept-ablation": {}, "scissorhands": {}, "munba": {}, "sharpness-aware": {},
    **{f"dimum ({kind})": {"alternative": kind} for kind in ("class", "mixed", "images", "generated", "noise")},
}
CONTROLS = ("original", "retrained")
KEYS = ["strength", "auxiliary", "method", "target"]


@dataclass(frozen=True)
class Plan:
    checkpoint: str
    data: str
    targets: dict[str, str]  # and the checkpoint retrained without each
    seeds: tuple[int, ...]
    learning_rate: float
    most_steps: int  # of the matched strength
    check_every: int
    budget: int
    strengths: tuple[str, ...]
    attack_steps: int
    attack_rates: tuple[float, ...]
    samples: int
    methods: tuple[str, ...] = tuple(METHODS)
    auxiliaries: tuple[str, ...] = ("retain",)


PLANS = {
    "digits": Plan(
        "digits", "digits", {"3": "digits-without-3", "7": "digits-without-7"}, (0, 1, 2), 1e-4, 75, 3, 60,
        ("matched", "budget"), 40, (3e-5, 3e-4, 3e-3), 32,
    ),
    "digits-ladder": Plan(  # what must the attacker own?
        "digits", "digits", {"3": "digits-without-3", "7": "digits-without-7"}, (0, 1, 2), 1e-4, 75, 3, 60, ("matched",), 40,
        (3e-4,), 32, ("esd", "random-label", "dimum (class)"),
        (
            "retain", "retain 10 %", "retain 1 %", "synthetic by the original", "synthetic by itself", "public", "noise",
            "8 of target",
        ),
    ),
    "cifar10-small": Plan(
        "cifar10-small", "cifar10-mini", {"automobile": "cifar10-small-without-automobile", "horse": ""}, (0, 1, 2),
        1e-4, 60, 6, 60, ("matched",), 40, (1e-4,), 32,
        (
            "random-label", "salun", "selective-amnesia", "esd", "erasediff", "concept-ablation", "dimum (class)", "dimum (mixed)",
            "dimum (images)",
        ),
    ),
}


def cells(plan: Plan) -> list[tuple[str, str, int, str]]:
    """Seed after seed, so that a run cut short has whole seeds."""
    grid = [
        (method, target, seed, strength)
        for seed in plan.seeds for strength in plan.strengths for target in plan.targets for method in (*CONTROLS, *plan.methods)
    ]
    return [c for c in grid if c[0] not in CONTROLS or (c[3] == plan.strengths[0] and (c[0] == "original" or plan.targets[c[1]]))]


def unlearned(plan: Plan, pipe, data, method: str, target: str, seed: int, strength: str):
    if method == "original":
        return pipe, 0, 0.0
    if method == "retrained":
        return load_pipeline(plan.targets[target]), 0, 0.0
    matched = strength == "matched"
    forgetful = unlearn(
        pipe, method.split(" (")[0], target=target, data=data, seed=seed, learning_rate=plan.learning_rate, batch_size=64,
        steps=plan.most_steps if matched else plan.budget, until=0.9 if matched else None, evaluate_every=plan.check_every,
        progress=False, **METHODS[method],
    )
    return forgetful, forgetful.unlearning["steps"], forgetful.unlearning["seconds"]


def auxiliary(name: str, data, target: str, original, forgetful, seed: int):
    kind, _, rest = name.partition(" ")
    if rest.endswith("%"):
        return auxiliary_set(kind, data, target, share=float(rest.split()[0]) / 100, seed=seed)
    return auxiliary_set(kind, data, target, pipe=forgetful if rest == "by itself" else original, seed=seed)


def run_cell(plan: Plan, method: str, target: str, seed: int, strength: str) -> pd.DataFrame:
    pipe, data = load_pipeline(plan.checkpoint), load_dataset(plan.data)
    forgetful, steps, seconds = unlearned(plan, pipe, data, method, target, seed, strength)
    before, after = (parameters_to_vector(p.unet.parameters()).detach() for p in (pipe, forgetful))
    settings = {
        "target": target, "steps": plan.attack_steps, "batch_size": 64, "seed": 1000 + seed, "samples": plan.samples,
        "evaluate_every": plan.attack_steps // 2, "progress": False,
    }
    curves = []
    for name in plan.auxiliaries:
        for rate in plan.attack_rates:
            if name == "8 of target":
                attack = few_shot(forgetful, data, count=8, learning_rate=rate, **settings)
            else:
                attack = relearn(forgetful, auxiliary(name, data, target, pipe, forgetful, seed), learning_rate=rate, **settings)
            curves.append(attack.curve.assign(attack_rate=rate, auxiliary=name))
    return pd.concat(curves).assign(
        method=method, target=target, seed=seed, strength=strength, unlearning_steps=steps, unlearning_seconds=round(seconds, 1),
        unlearning_distance=float((after - before).norm()),
    )


def run(name: str, part: tuple[int, int]) -> None:
    plan, folder = PLANS[name], DATA_FOLDER / "results" / f"forgetting-{name}"
    mine = cells(plan)[part[0] - 1::part[1]]
    for number, cell in enumerate(mine, start=1):
        path = folder / ("_".join(map(str, cell)).replace(" ", "").replace("(", "-").replace(")", "") + ".csv")
        if path.exists():
            continue
        started = time.perf_counter()
        write_atomically(path, run_cell(plan, *cell).to_csv(index=False).encode())
        print(f"[{number}/{len(mine)}] {' '.join(map(str, cell))}: {time.perf_counter() - started:.0f} s", flush=True)


def load_results(name: str) -> pd.DataFrame:
    """One row an evaluation of a recovery curve."""
    single = DATA_FOLDER / "results" / f"forgetting-{name}.csv"
    files = sorted((DATA_FOLDER / "results" / f"forgetting-{name}").glob("*.csv"))
    rows = pd.concat(map(pd.read_csv, files), ignore_index=True) if files else pd.read_csv(single)
    return rows if "auxiliary" in rows else rows.assign(auxiliary="retain")


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a defence and seed, at the learning rate that is best for the attacker on the other seeds."""
    original = rows[(rows.method == "original") & (rows.step == 0)].groupby("target")["target accuracy"].mean()
    runs = []
    for (*names, rate), curve in rows.groupby([*KEYS, "seed", "attack_rate"]):
        curve = curve.sort_values("step")
        half = steps_to_recovery(curve["step"], curve["target accuracy"], original[names[KEYS.index("target")]] / 2)
        first, last = curve.iloc[0], curve.iloc[-1]
        runs.append(dict(zip([*KEYS, "seed"], names, strict=True)) | {
            "attack_rate": rate, "UA": 1 - first["target accuracy"], "RA": first["retained accuracy"],
            "steps": first["unlearning_steps"], "distance": first["unlearning_distance"], "recovered": last["target accuracy"],
            "RA after": last["retained accuracy"], "area": area_under_recovery(curve["step"], curve["target accuracy"]),
            "half": half.steps, "censored": half.censored,
        })
    table = pd.DataFrame(runs)
    return best_attacks(table, KEYS, ["attack_rate"], "area") if table["seed"].nunique() > 1 else table


def report(name: str) -> pd.DataFrame:
    """One row a (strength, auxiliary, method): mean over targets and seeds with Student's 95 % interval."""
    lines = []
    for (strength, auxiliary, method), group in summarise(load_results(name)).groupby(["strength", "auxiliary", "method"]):
        line = {"strength": strength, "auxiliary": auxiliary, "method": method, "runs": len(group)}
        line["steps"] = f"{group['steps'].mean():.0f}"
        for column in ("UA", "RA", "distance", "area", "recovered", "RA after"):
            line[column] = with_interval(group[column], digits=1 if column == "distance" else 2)
        late = int(group["censored"].sum())
        line["half recovery"] = f"> {group['half'].max():.0f}" if late > len(group) / 2 else f"{group['half'].median():.0f}"
        lines.append((strength, group["area"].mean(), line))
    return pd.DataFrame([line for *_, line in sorted(lines, key=lambda item: item[:2])])


def with_interval(values: pd.Series, digits: int) -> str:
    if len(values) < 2:
        return f"{values.mean():.{digits}f}"
    interval = t_interval(values)
    return f"{interval.value:.{digits}f} ± {interval.high - interval.value:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report", "pack"])
    parser.add_argument("plan", choices=PLANS)
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.command == "run":
        run(args.plan, tuple(map(int, args.part.split("/"))))
    elif args.command == "pack":  # the cells as the one file that the repository carries
        path = Path(DATA_FOLDER / "results" / f"forgetting-{args.plan}.csv")
        write_atomically(path, load_results(args.plan).to_csv(index=False, float_format="%.5g").encode())
    print(report(args.plan).to_string(index=False))


if __name__ == "__main__":
    main()
