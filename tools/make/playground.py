"""Compute the playground of the site, docs/playground.json and docs/playground.png: targets, methods, budgets and attacks.

    python tools/make/playground.py        some minutes on one thread; what is done is kept in build/playground, so it can go on
    python tools/make/playground.py 3      some of the targets alone

A row of the picture has the samples of one state, from the same noise in all states of a target. Of each state is
told its row, how many of COUNT samples the judge takes for the target, which of those shown are among them, and how many of COUNT
samples of the other classes it takes for what was asked.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import joblib
import torch
from film import METHODS as FILMED
from film import strip
from PIL import Image

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.judges import load_judge
from dimum_core.models.history import history_of

ROOT = Path(__file__).resolve().parent.parent.parent
OUT, KEPT = ROOT / "docs", joblib.Memory(ROOT / "build" / "playground", verbose=0)
DATA, TARGETS, COUNT, SHOWN, SEED = "digits", ("3", "7", "0"), 24, 8, 0
METHODS = {**FILMED, "random labels": {"method": "random-label"}}
BUDGETS = {"until it seems gone": {"steps": 75, "until": 0.9, "evaluate_every": 3}, "for 60 steps": {"steps": 60}}
RATES, STEPS = (1e-4, 3e-4), (0, 4, 12, 40)


def attack(model, target: str, rate: float, steps: tuple[int, ...] = STEPS) -> list[dict]:
    """The states of a model along the attack, the one before it first."""
    data, judge = load_dataset(DATA), load_judge(f"{DATA}-judge")
    run = relearn(model, data.without(target), target=target, steps=steps[-1], learning_rate=rate, samples=COUNT,
                  evaluate_every=steps[1:], seed=SEED, progress=False)
    rows = run.curve.set_index("step")
    return [{
        "seen": round(rows.loc[step, "target accuracy"] * COUNT), "kept": round(rows.loc[step, "retained accuracy"] * COUNT),
        "marks": (judge.judge(images).labels == data.train.class_names.index(target)).int().tolist(), "images": images,
    } for step, images in run.strips.items()]


@KEPT.cache
def part(target: str, method: str, settings: dict, budget: dict, rates: tuple[float, ...]) -> dict:
    """One model: how many steps it unlearned for, and its states along an attack at each rate."""
    model = unlearn(load_pipeline(DATA), target=target, data=load_dataset(DATA), seed=SEED, progress=False, **settings, **budget)
    return {"trained": int(history_of(model).record["steps"]), "attacks": [attack(model, target, rate) for rate in rates]}


@KEPT.cache
def control(name: str, target: str, rates: tuple[float, ...], steps: tuple[int, ...] = STEPS) -> dict:
    """A model as it is: the original, or one that never saw the target."""
    return {"trained": 0, "attacks": [attack(load_pipeline(name), target, rate, steps) for rate in rates]}


class Sheet:
    """The picture of all states, and the states without their images."""

    def __init__(self):
        self.rows: list[torch.Tensor] = []

    def put(self, model: dict) -> dict:
        return model | {"attacks": [[self.state(state) for state in states] for states in model["attacks"]]}

    def state(self, state: dict) -> dict:
        row = strip(state["images"])
        number = next((k for k, other in enumerate(self.rows) if torch.equal(row, other)), len(self.rows))
        if number == len(self.rows):  # an attack begins where the other one does
            self.rows.append(row)
        return {"row": number} | {name: value for name, value in state.items() if name != "images"}


def main(targets: list[str]) -> None:
    sheet, about = Sheet(), {"data": DATA, "count": COUNT, "shown": SHOWN, "seed": SEED, "methods": list(METHODS),
                             "budgets": list(BUDGETS), "rates": RATES, "steps": STEPS, "called": {},
                             "targets": [], "original": {}, "retrained": {}, "models": []}
    for target in targets or TARGETS:
        about["targets"].append(target)
        about["called"][target] = f"a {target}"
        about["original"][target] = sheet.state(control(DATA, target, RATES[:1], (0, 1))["attacks"][0][0])
        about["retrained"][target] = sheet.put(control(f"{DATA}-without-{target}", target, RATES))
        for method, budget in itertools.product(METHODS, BUDGETS):
            made = sheet.put(part(target, method, METHODS[method], BUDGETS[budget], RATES))
            about["models"].append({"target": target, "method": method, "budget": budget, **made})
            seen = [[state["seen"] for state in states] for states in made["attacks"]]
            print(target, method, budget, made["trained"], *seen, "kept", made["attacks"][0][0]["kept"], flush=True)
        keep(sheet, about)


def keep(sheet: Sheet, about: dict) -> None:
    """What is whole so far: a page with fewer targets is a page, too."""
    Image.fromarray(torch.cat(sheet.rows).numpy()).save(OUT / "playground.png", optimize=True)
    (OUT / "playground.json").write_text(json.dumps(about, separators=(",", ":")) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
