"""Draw docs/undone.png: a class of photographs after 240 steps of unlearning by two methods, and after 300 steps of attack on each.

    python tools/make/undone.py        a quarter of an hour on one thread; prints the judge's counts

The settings are those of plans/photographs-lengths.yaml. Every row has the same noise: what comes back comes back in its place.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
from torch import Tensor

from dimum_core import load_dataset, load_pipeline
from dimum_core.evaluation import draw_samples
from dimum_core.judges import find_judge
from dimum_core.models.fresh_noise import FRESH_STEPS, with_fresh_noise
from dimum_core.plots import image_rows, use_style

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "experiments"))
from evaluation import attacked, unlearned  # noqa: E402 (a script of another folder, not a package)

TARGET, COUNT, SHOWN, SEED = "automobile", 24, 8, 0
METHODS = {"ESD": "esd", "DiMUM": "dimum (class)"}
FORGETTING = {"steps": 240, "until": None, "evaluate_every": None}
ATTACK = {"steps": 300, "learning_rate": 1e-4, "evaluate_every": 300}


def drawn(pipe, target: str = TARGET) -> Tensor:
    """COUNT samples of the target from fresh noise, the same for every model."""
    return draw_samples(with_fresh_noise(pipe), [target] * COUNT, seed=SEED, num_inference_steps=FRESH_STEPS, progress=False)


def rows() -> dict[str, Tensor]:
    """Row title -> COUNT samples of the target, N x C x H x W."""
    data, original = load_dataset("cifar10-mini"), load_pipeline("cifar10-small")
    never = load_pipeline(f"cifar10-small-without-{TARGET}")
    found = {"before": drawn(original)}
    for name, method in METHODS.items():
        model = unlearned(original, method, data, TARGET, SEED, **FORGETTING)
        found |= {f"{name}: forgotten": drawn(model), f"{name}: attacked": drawn(attacked(model, data, TARGET, SEED, **ATTACK))}
    return found | {"never saw one: attacked": drawn(attacked(never, data, TARGET, SEED, **ATTACK))}


def save(found: dict[str, Tensor], pipe, target: str, name: str) -> None:
    """Write the first samples of each row to docs/NAME.png, with the judge's count of all in its title, and print the counts."""
    use_style()
    judge, wanted, titled = find_judge(pipe), pipe.class_names.index(target), {}
    for title, images in found.items():
        count = f"{int((judge.judge(images).labels == wanted).sum())} of {COUNT} {target}s"
        print(f"{title}: {count}", flush=True)
        titled[f"{title}\n{count}"] = images[:SHOWN]
    with mpl.rc_context({"figure.dpi": 110}):
        image_rows(titled).savefig(ROOT / "docs" / f"{name}.png", bbox_inches="tight")


def main() -> None:
    save(rows(), load_pipeline("cifar10-small"), TARGET, "undone")


if __name__ == "__main__":
    main()
