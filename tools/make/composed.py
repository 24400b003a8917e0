"""Draw docs/combination.png: a combination of style and object, forgotten and attacked, and by a model that never saw it.

    python tools/make/composed.py        some minutes on one thread; prints the judges' counts

The settings are those of plans/combination.yaml, at 60 steps. Every row has the same noise.
"""

from __future__ import annotations

from undone import SEED, drawn, save

from dimum_core import load_dataset, load_pipeline, relearn, unlearn

TARGET = "filled square"


def main() -> None:
    data, original = load_dataset("shapes"), load_pipeline("shapes")
    settings = {"target": TARGET, "learning_rate": 3e-4, "seed": SEED}
    model = unlearn(original, "random-label", data=data, steps=60, **settings)
    attack = relearn(model, data.without(TARGET), steps=300, evaluate_every=300, samples=8, **settings)
    models = {
        "before": original, "random label: forgotten": model, "random label: attacked": attack.pipeline,
        "never saw one": load_pipeline("shapes-without-filled-square"),
    }
    save({title: drawn(pipe, TARGET) for title, pipe in models.items()}, original, TARGET, "combination")


if __name__ == "__main__":
    main()
