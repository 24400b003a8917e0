"""Draw docs/story.png, the README's strip: a digit before, forgotten by two methods, and after the same attack.

    python tools/make/strip.py        some minutes on one thread; prints the judge's counts, which stand beside the rows

Both methods stop at an unlearning accuracy of 0.9, and the attacker's rate is the one that recovers most in the grid of digits.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from film import COUNT, METHODS, STEPS, TARGET, attack

from dimum_core import load_dataset, load_pipeline, unlearn
from dimum_core.evaluation import draw_samples
from dimum_core.judges import load_judge
from dimum_core.models.fresh_noise import FRESH_STEPS, with_fresh_noise
from dimum_core.plots import image_rows, use_style

OUT = Path(__file__).resolve().parent.parent.parent / "docs" / "story.png"
SHOWN = 12  # of the film's samples


def rows_of_images(seed: int = 0) -> dict:
    """Row title -> samples of the target: the original's, and each method's before and after the attack."""
    pipe, data = load_pipeline("digits"), load_dataset("digits")

    def attacked(model):
        return attack(model, data, seed, samples=4, every=STEPS).pipeline

    models = {"before": pipe}
    for name, settings in METHODS.items():
        forgot = unlearn(pipe, target=TARGET, data=data, steps=75, until=0.9, seed=seed, progress=False, **settings)
        models |= {f"{name}: forgotten": forgot, f"{name}: attacked": attacked(forgot)}
    models["never saw a 3: attacked"] = attacked(load_pipeline(f"digits-without-{TARGET}"))
    fresh = {"seed": seed, "num_inference_steps": FRESH_STEPS, "progress": False}  # as the film and every measurement
    return {title: draw_samples(with_fresh_noise(model), [TARGET] * COUNT, **fresh) for title, model in models.items()}


def main() -> None:
    use_style()
    judge, number = load_judge("digits-judge"), load_pipeline("digits").class_names.index(TARGET)
    rows = {}
    for title, images in rows_of_images().items():
        seen = int((judge.judge(images).labels == number).sum())
        print(f"{title}: {seen} of {COUNT}", flush=True)
        rows[f"{title}\n{seen} of {COUNT} are a {TARGET}"] = images[:SHOWN]
    with mpl.rc_context({"figure.dpi": 110}):
        image_rows(rows).savefig(OUT, bbox_inches="tight")


if __name__ == "__main__":
    main()
