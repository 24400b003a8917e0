"""Does any attacker get more out of an unlearned model than out of one that never knew the target?

    python experiments/attackers.py [--samples 64] [--seed 0] [--workers 2] [--out data/results/attackers.csv]

Four methods forget a 3, or a 7, until UA is 0.9 ("matched") and for 60 steps. Every attack of `dimum audit` is then made on each
model, on the original, and on the model that was trained without the digit. Relearning is made a second time, for 600 steps, on
models that forgot for 60 and on the controls. A *lead* is the share of samples that show the digit, minus the same share of the
retrained model after the same attack: what an attacker teaches, they teach the retrained model as well. Models whose rows are
there already are not computed again. Prints the leads.

A second control was trained from scratch, as long as the original, on the other digits and on the 512 images that DiMUM (generated)
memorises, under the label that it memorises them under: "retrained with alternatives". It never knew the digit, and its label draws
what DiMUM's label draws. A third saw other digits at random under it, as many as there are of the digit: "retrained with random
labels". Its label draws what random label's label draws.

Expected, before it ran: at matched forgetting some attack has a lead above 0.05 with each method; after 60 steps relearning has
none above 0.05 with EraseDiff within 150 steps, and the old row, few-shot training or an embedding has one with each method. So no
method keeps every lead at or below 0.05. Of the second control, written down after the models of 60 steps had been read: optimised
noise finds the digit in 0.05 to 0.4 of its samples, more than in the other control's, and DiMUM's lead over it stays above 0.2.
Of the third, written down after all of these had been read: after 60 steps no attack but few-shot training, the trained row and
inversion has a lead above 0.05 over it with random label, and few-shot training leads by 0.2 to 0.5, as over the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from evaluation import side_by_side, unlearned
from joblib import delayed
from rows import read_rows, write_rows

from dimum_core import load_dataset, load_pipeline
from dimum_core.attacks import Means, attack, get_attack
from dimum_core.attacks.auditing import AUDITED
from dimum_core.attacks.base import label_of
from dimum_core.attacks.finetuning import concatenate
from dimum_core.data import ImageSet
from dimum_core.judges import find_judge
from dimum_core.metrics import difference_of_proportions
from dimum_core.models.checkpoints import shipped_checkpoints
from dimum_core.pretraining import train_base
from dimum_core.unlearning import get_method
from dimum_core.unlearning.run import method_data

LONGER = ("relearning", {"steps": 600})  # ten times as long as the unlearning; after lighter forgetting 150 steps bring enough back
DEFENCES = ["erasediff", "dimum (generated)", "esd", "random-label"]
LENGTHS = {"60 steps": {"until": None, "evaluate_every": None}, "matched": {}}  # what differs from `unlearned`
DIMUM = get_method("dimum", alternative="generated")
TARGETS = ["3", "7"]
WITH_ALTERNATIVES, WITH_RANDOM = "retrained with alternatives", "retrained with random labels"
OWN_CONTROLS = {  # whose labels draw what theirs draw; the second is of photographs
    "dimum (generated)": WITH_ALTERNATIVES, "dimum (class)": WITH_ALTERNATIVES, "random-label": WITH_RANDOM,
}
NEVER_KNEW = ["retrained", WITH_ALTERNATIVES, WITH_RANDOM]
CONTROLS = ["original", *NEVER_KNEW]
MODELS = [*((control, "0 steps") for control in CONTROLS), *((each, length) for length in LENGTHS for each in DEFENCES)]
ABOUT = ["method", "length", "target", "seed"]


def model_of(method: str, length: str, target: str, seed: int):
    """A control, or what a method makes of the original in one of LENGTHS."""
    if method == "retrained":
        shipped = f"digits-without-{target}"
        if shipped in shipped_checkpoints():
            return load_pipeline(shipped)
        return train_base("digits", without=target, seed=seed, progress=False)[0]
    taught = {WITH_ALTERNATIVES: with_alternatives, WITH_RANDOM: with_random_labels}
    if method in taught:
        return train_base("digits", data=taught[method](target, seed), seed=seed, progress=False)[0]
    pipe = load_pipeline("digits")
    return pipe if method == "original" else unlearned(pipe, method, load_dataset("digits"), target, seed, **LENGTHS[length])


def with_alternatives(target: str, seed: int) -> ImageSet:
    """The other digits, and under the target's label what DiMUM (generated) memorises there, the same images."""
    sets = method_data(DIMUM, load_dataset("digits"), load_pipeline("digits"), target, seed)
    return with_under_label(sets["retain"], sets["alternative"], target)


def with_random_labels(target: str, seed: int) -> ImageSet:
    """The other digits, and under the target's label some of them again, drawn at random: as many as there are of the target."""
    digits = load_dataset("digits").train
    retain, count = digits.without(target), len(digits.only(target))
    again = retain.select(torch.randperm(len(retain), generator=torch.Generator().manual_seed(seed))[:count])
    return with_under_label(retain, again, target)


def with_under_label(images: ImageSet, others: ImageSet, target: str) -> ImageSet:
    """Images, and after them others, which stand under the target's label."""
    return concatenate(images, replace(others, labels=torch.full_like(others.labels, others.class_index(target))))


def measure(method: str, length: str, target: str, samples: int, seed: int) -> list[dict]:
    """A row for each attack that can be made on the model."""
    attacks = [*AUDITED, *([LONGER] if length == "60 steps" or method in NEVER_KNEW else [])]
    about = dict(zip(ABOUT, (method, length, target, seed), strict=True))
    return [about | row for row in attack_rows(model_of(method, length, target, seed), attacks, target, samples, seed)]


def attack_rows(
    pipe, attacks: Iterable[tuple[str, dict]], target: str, samples: int, seed: int, original: str = "digits", data: str = "digits"
) -> list[dict]:
    """A row for each of these attacks (name, settings) that can be made on a model, which was once the original."""
    original, data, rows = load_pipeline(original), load_dataset(data), []
    means = Means(target, data, find_judge(original), original, samples, seed=seed + 1000)
    for name, settings in attacks:
        kind = get_attack(name, **settings)
        if kind.lacking(pipe, means):
            continue
        found = attack(pipe, kind, means)
        share = {"share": found.target.value, "low": found.target.low, "high": found.target.high, "samples": found.target.n}
        rows.append({"attack": label_of(name, settings), "teaches": found.teaches} | share | {
            "others": found.retained.value if found.retained else None, "seconds": found.seconds,
        })
    return rows


def leads(rows: pd.DataFrame, over: str = "retrained") -> pd.DataFrame:
    """Each unlearned model's row with its lead over one of NEVER_KNEW, and Newcombe's 95 % interval (of this lead alone)."""
    known = rows[rows["method"] == over].set_index(["attack", "target", "seed"])[["share", "samples"]]
    table = rows[~rows["method"].isin(CONTROLS)].join(known.add_suffix(" retrained"), on=["attack", "target", "seed"])
    table = table.dropna(subset="share retrained").reset_index(drop=True)
    for end in ("", " retrained"):
        table[f"hits{end}"] = (table[f"share{end}"] * table[f"samples{end}"]).round().astype(int)
    columns = ["hits", "samples", "hits retrained", "samples retrained"]
    found = [difference_of_proportions(*map(int, each)) for each in table[columns].to_numpy()]
    return table.assign(lead=[each.value for each in found], low=[each.low for each in found], high=[each.high for each in found])


def own_leads(rows: pd.DataFrame) -> pd.DataFrame:
    """The leads of OWN_CONTROLS' methods over the control whose label draws what their label draws, where both have rows."""
    there = set(rows["method"])
    pairs = [(method, own) for method, own in OWN_CONTROLS.items() if {method, own} <= there]
    return pd.concat([leads(rows[rows["method"].isin(pair)], over=pair[1]) for pair in pairs])


def grown(rows: list[dict], jobs: list, workers: int, out: Path) -> list[dict]:
    """The rows and those of all jobs (delayed calls that return lists of rows), so many at a time, written as they come."""
    for start in range(0, len(jobs), workers):
        rows = rows + side_by_side(jobs[start : start + workers], workers).to_dict("records")
        write_rows(out, rows)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("data/results/attackers.csv"))
    args = parser.parse_args()
    rows = read_rows(args.out)
    done = {tuple(str(row[key]) for key in ABOUT) for row in rows}
    wanted = [(*model, target) for model in MODELS for target in TARGETS if (*model, target, str(args.seed)) not in done]
    rows = grown(rows, [delayed(measure)(*each, args.samples, args.seed) for each in wanted], args.workers, args.out)
    table = leads(pd.DataFrame(rows).astype({"target": str}))
    print(table.pivot_table(index="attack", columns=["length", "method"], values="lead", sort=False).round(2).to_string())


if __name__ == "__main__":
    main()
