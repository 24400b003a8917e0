"""Who pays for the forgetting? What each class draws before it, after it and after the attack; near and far classes apart.

    python experiments/who_pays.py digits [--per-class 50] [--workers 2] [--out data/results/who_pays-digits.csv]
    python experiments/who_pays.py photographs [--per-class 24] [--out data/results/who_pays-photographs.csv]

Each method forgets one class until UA is 0.9 and is attacked once, as in `fresh_noise.py`. Each model is then asked for every
class. The file counts, for each model, how often a class was drawn when another was asked for; beside it stand the network
evaluations of the unlearning, and how far the class asked for is from the target. Prints for each method what the near and the
far classes lost, and which class lost most.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import pandas as pd
from evaluation import METHODS, attacked, side_by_side, unlearned
from joblib import delayed
from rows import write_rows

from dimum_core import load_dataset, load_pipeline
from dimum_core.benchmark.nfe import counted
from dimum_core.interference import bill, interference, nearness
from dimum_core.judges import find_judge
from dimum_core.models.fresh_noise import FRESH_STEPS, with_fresh_noise

WORLDS = {  # checkpoint, data, target, learning rate of the attack, samples a class, methods
    "digits": ("digits", "digits", "3", 3e-4, 50, list(METHODS)),
    "photographs": ("cifar10-small", "cifar10-mini", "automobile", 1e-4, 24, ["esd", "random-label", "erasediff", "dimum (class)"]),
}


def counts(pipe, per_class: int, **about) -> list[dict]:
    """A row for each class asked for and each class drawn, of samples of fresh noise, which starts alike for every model."""
    table = interference(with_fresh_noise(pipe), per_class=per_class, num_inference_steps=FRESH_STEPS, progress=False)
    return [{**about, "asked": asked, "drawn": drawn, "count": table.loc[asked, drawn]} for asked in table.index for drawn in table]


def measure(world: str, method: str, per_class: int, seed: int) -> list[dict]:
    """`counts` of one method's model before and after the attack, or of the original."""
    checkpoint, data, target, rate, _, _ = WORLDS[world]
    data, pipe = load_dataset(data), load_pipeline(checkpoint)
    if method == "original":
        return counts(pipe, per_class, method=method, when="before")
    with counted(pipe.unet) as evaluations:
        pipe = unlearned(pipe, method, data, target, seed)
    found = {"unlearned": pipe, "attacked": attacked(pipe, data, target, seed, learning_rate=rate)}
    about = {"method": method, "passes": evaluations["training"]}
    return [row for when, model in found.items() for row in counts(model, per_class, when=when, **about)]


def matrices(rows: pd.DataFrame, when: str) -> dict[str, pd.DataFrame]:
    """For each method the counts of one moment: a row for each class asked for, a column for each drawn."""
    rows = rows[rows["when"] == when]
    return {
        method: group.pivot(index="asked", columns="drawn", values="count")[list(group["drawn"].unique())]
        for method, group in rows.groupby("method", sort=False)
    }


def bills(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What each method cost the other classes by the end of the unlearning, and by the end of the attack."""
    distances = rows.groupby("asked")["distance"].first().dropna().sort_values()
    costs = rows.dropna(subset="passes").groupby("method")[["passes"]].first().to_dict("index")
    before = matrices(rows, "before")["original"]
    return {when: bill(before, matrices(rows, when), distances, costs) for when in ("unlearned", "attacked")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("world", choices=WORLDS)
    parser.add_argument("--per-class", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    checkpoint, data, target, _, per_class, methods = WORLDS[args.world]
    job = delayed(partial(measure, args.world, per_class=args.per_class or per_class, seed=args.seed))
    table = side_by_side((job(method) for method in ["original", *methods]), args.workers)
    distances = nearness(load_dataset(data).test, target, find_judge(load_pipeline(checkpoint)))
    table["distance"] = table["asked"].map(distances)
    if args.out:
        write_rows(args.out, table)
    print("from near to far:", ", ".join(distances.index))
    for when, lost in bills(table).items():
        print(f"\n{when}\n{lost.round(2).to_string()}")


if __name__ == "__main__":
    main()
