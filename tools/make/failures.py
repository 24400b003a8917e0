"""Make each kind of failed run on purpose, picture it, and measure it: docs/failure_*.png and data/results/failures.csv.

    python tools/make/failures.py      some minutes on two cores
"""

from __future__ import annotations

import csv
from pathlib import Path

from frames import as_bytes

from dimum_core import evaluate, load_dataset, load_pipeline, relearn, unlearn
from dimum_core.evaluation import draw_samples
from dimum_core.widgets import picture_of

ROOT = Path(__file__).resolve().parents[2]
TARGET, LABELS = "3", ["3"] * 6 + ["0", "1", "5", "7", "8", "9"]
RUNS = {  # name -> method and its settings; guidance scales to look at
    "healthy": ("dimum", {"steps": 48, "learning_rate": 1e-4}, (None,)),
    "all-destroyed": ("negative-gradient", {"steps": 60, "learning_rate": 1e-4, "retain_weight": 0.0}, (None,)),
    "nothing-forgotten": ("finetune", {"steps": 60, "learning_rate": 3e-4}, (None,)),
    "one-scale-only": ("esd", {"steps": 10, "learning_rate": 1e-4}, (1.0, 4.0)),
    "diverged": ("dimum", {"steps": 30, "learning_rate": 0.1}, (None,)),
    "answers-with-noise": ("dimum", {"steps": 48, "learning_rate": 1e-4, "alternative": "noise"}, (None,)),
}
ATTACKS = {"attack-too-slow": 1e-6, "attack-that-wrecks": 3e-2}


def measure(pipe, scale, seed: int = 0) -> tuple[float, float]:
    found = evaluate(pipe, target=TARGET, per_class=16, guidance_scale=scale, seed=seed, progress=False)
    return found["UA"], found["RA"]


def draw(pipe, scale=None):
    return as_bytes(draw_samples(pipe, LABELS, seed=0, guidance_scale=scale, progress=False))


def main() -> None:
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    rows, original = [], draw(pipe)

    def keep(name: str, pictures: dict, model, scales, settings: str) -> None:
        (ROOT / "docs" / f"failure_{name}.png").write_bytes(picture_of(pictures, size=40))
        for scale in scales:
            ua, ra = measure(model, scale)
            shown = {"UA": f"{ua:.2f}", "RA": f"{ra:.2f}"}
            rows.append({"run": name, "settings": settings, "guidance_scale": scale or "default", **shown})
            print(rows[-1], flush=True)

    for name, (method, settings, scales) in RUNS.items():
        model = unlearn(pipe, method, target=TARGET, data=data, seed=0, progress=False, **settings)
        pictures = {"original": original} | {f"s = {s:g}" if s else "after": draw(model, s) for s in scales}
        keep(name, pictures, model, scales, " ".join([method, *(f"{k}={v}" for k, v in settings.items())]))
    start = unlearn(pipe, "esd", target=TARGET, data=data, steps=30, learning_rate=1e-4, seed=0, progress=False)
    for name, rate in ATTACKS.items():
        attacked = relearn(start, data.without(TARGET), target=TARGET, steps=30, learning_rate=rate, samples=4,
                           evaluate_every=30, seed=0, progress=False).pipeline
        pictures = {"unlearned": draw(start), "attacked": draw(attacked)}
        keep(name, pictures, attacked, (None,), f"DiMRA learning_rate={rate} steps=30")
    with (ROOT / "data" / "results" / "failures.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
