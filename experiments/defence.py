"""What must forgetting cost until no attacker gets more than from a model that never knew? A search for a defence.

    python experiments/defence.py [--samples 64] [--workers 2] [--out data/results/defence.csv]

Each candidate forgets a 3, and the models after 60 and 240 steps (the last two: 240 and 480) are looked at unattacked and under
five attacks of attackers.csv, with the same means. Their leads are over the two models of that file that never knew the digit:
one that was trained without it, and one that was trained with other digits under its label, as most candidates draw there. A
candidate holds if no lead over either is above 0.05 (a bar that was replaced, see below) and it draws the other digits at least
0.98 times as often right as the original. Its price is its passes of the network, in parts of a new training's. A new training
that ends early is a candidate as well: it cannot remember, and may draw badly.

Which: random label left least of four methods (attackers.csv). Here it trains at the usual rate and at ten times that, on weights
that were disturbed before, with a push away from the old weights, with a simulated attack, with a flat neighbourhood.

Expected, before it ran: none holds after 60 steps. After 240, few-shot training still leads by more than 0.05 over the second
control with every candidate whose weights were not disturbed. A disturbance as large as the weights, repaired at ten times the
usual rate, leads least; it holds no more than the new training of the same price.

Finetuning and DiMUM on disturbed weights were added when the first four had been read: the disturbance had helped, and may do with
fewer passes a step. Of the last two, added after those, we expected: more of a disturbance takes the lead of optimised noise away
(0.16 after 240 steps with 0.05), and by 480 steps, 12 percent of the price of a new training, the other digits are back.

The bar proved to be wrong: a new training of 960 steps fails it, by 0.34 in few-shot training over the second control. Images of a
digit teach a label that has learnt nothing faster than one that draws other digits. So a lead counts over the control whose label
is like the candidate's, and the first bar stays in the table, as "holds over both".

Best of twelve is flattered by luck, so FINALIST is tried once more, on two digits that no choice and no table has used, with two
seeds, by every attack of `dimum audit`, and with the first seed by relearning for ten times as many steps as the unlearning had.
Expected, before it ran: of the leads on both digits together after 480 steps, that of optimised noise is between 0 and 0.15, and
no other is above 0.05. The trained row of the 4 decided the verdict, so a second model was trained without a 4 afterwards (seed
41). It met five of the attacks, and stands in the file, not in the leads. Rows that are there already are not computed again.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import pandas as pd
from attackers import ABOUT, CONTROLS, WITH_ALTERNATIVES, attack_rows, grown, leads, model_of
from joblib import delayed
from rows import read_rows

from dimum_core import load_dataset, load_pipeline, unlearn
from dimum_core.attacks.auditing import AUDITED
from dimum_core.benchmark.nfe import counted
from dimum_core.models.cards import read_card
from dimum_core.models.checkpoints import find_checkpoint
from dimum_core.models.history import with_unet
from dimum_core.pretraining import train_base

SHARP = [each for each in AUDITED if each[0] in ("none", "relearning", "few-shot", "trained-row", "inversion", "initial-noise")]
SEARCHED, NEW, NEW_SEEDS = "3", ["1", "4"], (40, 41)
LENGTHS, LONG_LENGTHS, ANEW_LENGTHS = (60, 240), (240, 480), (240, 480, 960)
FAST = {"learning_rate": 1e-3}  # that of the original's training
ON_RANDOM_LABEL = {"base": "random-label"}
CANDIDATES = {
    "random label": ("random-label", {}),
    "random label, fast": ("random-label", FAST),
    "erasediff, fast": ("erasediff", FAST),
    "random label, disturbed by 0.05": ("weight-distortion", {"sigma": 0.05} | ON_RANDOM_LABEL | FAST),
    "random label, disturbed by 0.1": ("weight-distortion", {"sigma": 0.1} | ON_RANDOM_LABEL | FAST),
    "random label, pushed away": ("weight-distance", {"weight": 100.0} | ON_RANDOM_LABEL | FAST),
    "random label, simulated attack": ("simulated-attack", ON_RANDOM_LABEL | FAST),
    "random label, flat": ("sharpness-aware", FAST),
    "finetuning, disturbed by 0.05": ("weight-distortion", {"sigma": 0.05} | FAST),
    "DiMUM, disturbed by 0.05": ("weight-distortion", {"sigma": 0.05, "base": "dimum alternative=mixed"} | FAST),
    "finetuning, disturbed by 0.07": ("weight-distortion", {"sigma": 0.07} | FAST),
    "finetuning, disturbed by 0.1": ("weight-distortion", {"sigma": 0.1} | FAST),
}
LONG = ["finetuning, disturbed by 0.07", "finetuning, disturbed by 0.1"]  # these are looked at after LONG_LENGTHS
ANEW = "trained anew"
UNTAUGHT = [ANEW, *(name for name in CANDIDATES if name.startswith("finetuning"))]  # nothing is learnt under their label
FINALIST = "finetuning, disturbed by 0.07"
TRAINING = read_card(find_checkpoint("digits"))["training"]  # of the original
BOTH = ["retrained", WITH_ALTERNATIVES]  # the controls that leads are over: an untaught label, and one that draws other digits
KNOWN = Path(__file__).parent.parent / "data" / "results" / "attackers.csv"  # what the same attacks got out of the controls
HOLDS = {"lead": 0.05, "others": 0.98}


def models_of(candidate: str, target: str, seed: int) -> dict[int, tuple]:
    """Steps -> a candidate's pipeline then, or a control's, and the passes that it took."""
    if candidate in CONTROLS:
        return {0: (model_of(candidate, "0 steps", target, seed), 0)}
    if candidate == ANEW:
        return {steps: trained_anew(target, seed, steps) for steps in ANEW_LENGTHS}
    data, pipe, made = load_dataset("digits"), load_pipeline("digits"), {}
    method, settings = CANDIDATES[candidate]
    lengths = LONG_LENGTHS if candidate in LONG else LENGTHS

    def keep(step: int, forgetful) -> dict:
        made[step] = with_unet(forgetful, copy.deepcopy(forgetful.unet)), passes["training"]
        return {}

    with counted(pipe.unet) as passes:
        unlearn(
            pipe, method, target=target, data=data, steps=max(lengths), evaluate=keep, evaluate_every=lengths, seed=seed,
            progress=False, **settings,
        )
    return made


def trained_anew(target: str, seed: int, steps: int) -> tuple:
    """A model that never saw the digit, of so many steps, and its passes."""
    return train_base("digits", without=target, steps=steps, seed=seed, progress=False)[0], steps * TRAINING["batch_size"]


def measure(candidate: str, target: str, seed: int, samples: int) -> list[dict]:
    """A row for each attack on each of a candidate's models, or on a control."""
    return [
        dict(zip(ABOUT, (candidate, f"{steps} steps", target, seed), strict=True)) | {"passes": passes} | row
        for steps, (pipe, passes) in models_of(candidate, target, seed).items()
        for row in attack_rows(pipe, attacks_on(candidate, steps, target, seed), target, samples, seed)
    ]


def attacks_on(candidate: str, steps: int, target: str, seed: int) -> list[tuple[str, dict]]:
    """The sharp ones in the search; on new digits every one, and once the longest."""
    if target == SEARCHED:
        return SHARP
    if candidate == "original":
        return AUDITED[:1]
    longest = [("relearning", {"steps": 10 * steps})] if steps == LONG_LENGTHS[-1] and seed == NEW_SEEDS[0] else []
    return [*AUDITED, *longest]


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """For each model its price, the share of other digits drawn right, its largest lead over each control, and whether it holds.

    rows: of candidates, and for their targets and seeds of the original and the controls.
    worst: the largest lead over the control whose label is like the candidate's.
    """
    made, none = ~rows["method"].isin(CONTROLS), rows["attack"] == "none"
    table = rows[made & none].set_index(ABOUT)[["passes", "others"]]
    table.insert(0, "price", table.pop("passes") / (TRAINING["steps"] * TRAINING["batch_size"]))
    for control in BOTH:
        over = leads(rows, over=control)
        worst = over.loc[over.groupby(ABOUT)["lead"].idxmax()].set_index(ABOUT)[["lead", "low", "high", "attack"]]
        table = table.join(worst.add_suffix(f", {control}"))
    right = rows[none & (rows["method"] == "original")].set_index(["target", "seed"])["others"].rename("right")
    table["kept"] = table["others"] >= HOLDS["others"] * table.join(right, on=["target", "seed"])["right"]
    over = table[[f"lead, {control}" for control in BOTH]]
    untaught = table.index.get_level_values("method").isin(UNTAUGHT)
    table["worst"] = over["lead, retrained"].where(untaught, over[f"lead, {WITH_ALTERNATIVES}"])
    table["holds"] = table["kept"] & (table["worst"] <= HOLDS["lead"])
    table["holds over both"] = table["kept"] & (over <= HOLDS["lead"]).all(axis=1)
    return table


def confirmed(rows: pd.DataFrame) -> pd.DataFrame:
    """The finalist's leads over the retrained models, on all new digits and seeds together: a row for each length and attack."""
    rows = rows[rows["target"].isin(NEW) & ((rows["method"] == FINALIST) | (rows["seed"] == NEW_SEEDS[0]))]
    hits = (rows["share"] * rows["samples"]).round()
    sums = rows.assign(hits=hits).groupby(["method", "length", "attack"], sort=False)[["hits", "samples"]].sum().reset_index()
    return leads(sums.assign(share=sums["hits"] / sums["samples"], target="new", seed=NEW_SEEDS[0]))


def with_controls(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of this script, and what the same attacks got out of the controls of attackers.csv."""
    known = pd.read_csv(KNOWN, dtype={"target": str})
    return pd.concat([rows.astype({"target": str}), known[known["method"].isin(CONTROLS)]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("data/results/defence.csv"))
    args = parser.parse_args()
    rows = read_rows(args.out)
    done = {(row["method"], str(row["target"]), row["seed"]) for row in rows}
    cells = [(candidate, SEARCHED, 0) for candidate in [*CANDIDATES, ANEW]]
    cells += [(control, target, NEW_SEEDS[0]) for control in ("original", "retrained") for target in NEW]
    cells += [(FINALIST, target, seed) for seed in NEW_SEEDS for target in NEW]
    wanted = [cell for cell in cells if cell not in done]
    rows = grown(rows, [delayed(measure)(*each, args.samples) for each in wanted], args.workers, args.out)
    table = with_controls(pd.DataFrame(rows))
    print(frontier(table[table["target"] == SEARCHED]).round(3).sort_values("price").to_string())
    print(f"\n{FINALIST}, on {' and '.join(NEW)}")
    columns = ["length", "attack", "share", "share retrained", "lead", "low", "high"]
    print(confirmed(table)[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
