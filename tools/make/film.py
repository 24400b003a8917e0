"""Compute the film of the landing page, docs/film.png and docs/film.json: a digit is forgotten by two methods, then attacked.

    python tools/make/film.py        some minutes on one thread; prints the judge's counts

A row of the picture is a frame; in it stand the samples of each method, one beside the other, from the same noise in all frames.
Both methods stop at an unlearning accuracy of 0.9, and the attacker's rate is the one that recovers most in the grid of digits.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from PIL import Image

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.evaluation import draw_samples
from dimum_core.judges import load_judge
from dimum_core.models.fresh_noise import FRESH_STEPS, with_fresh_noise

OUT = Path(__file__).resolve().parent.parent.parent / "docs"
TARGET, COUNT, SHOWN, EVERY, STEPS = "3", 24, 8, 4, 40
METHODS = {"ESD": {"method": "esd"}, "DiMUM": {"method": "dimum", "alternative": "generated"}}


class Camera:
    """Takes frames while a model forgets: (phase, step, what the judge counts, images), with the noise of `relearn`."""

    def __init__(self, names: list[str], seed: int):
        others = [name for name in names if name != TARGET]
        self.labels, self.seed = [TARGET] * COUNT + [others[k % len(others)] for k in range(COUNT)], seed
        self.judge, self.number, self.frames = load_judge("digits-judge"), names.index(TARGET), []

    def __call__(self, step: int, pipe) -> dict:
        images = draw_samples(with_fresh_noise(pipe), self.labels, seed=self.seed, batch_size=2 * COUNT, progress=False,
                              num_inference_steps=FRESH_STEPS)[:COUNT]
        seen = int((self.judge.judge(images).labels == self.number).sum())
        self.frames.append(("forget", step, seen, images[:SHOWN]))
        return {}


def attack(model, data, seed: int, samples: int = COUNT, every: int = EVERY):
    return relearn(
        model, data.without(TARGET), target=TARGET, steps=STEPS, learning_rate=3e-4, samples=samples, evaluate_every=every,
        seed=seed, progress=False,
    )


def filmed(settings: dict, seed: int = 0) -> list[tuple]:
    """The frames of one method: forgetting until UA 0.9, then the attack."""
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    camera = Camera(list(pipe.class_names), seed)
    camera(0, pipe)
    model = unlearn(pipe, target=TARGET, data=data, steps=76, until=0.9, evaluate_every=EVERY, evaluate=camera, seed=seed,
                    progress=False, **settings)
    run = attack(model, data, seed)
    if not torch.equal(camera.frames[-1][3], run.strips[0]):
        raise SystemExit("The attack's first frame is not the last of the forgetting: the noise differs, and the film would jump.")
    seen = {int(row["step"]): round(row["target accuracy"] * COUNT) for _, row in run.curve.iterrows()}
    return camera.frames + [("attack", step, seen[step], images) for step, images in run.strips.items() if step]


def strip(images: torch.Tensor) -> torch.Tensor:
    """Images N x 1 x H x W in [-1, 1] beside each other, as bytes, H x NW."""
    return torch.cat(list(((images[:, 0].clamp(-1, 1) + 1) * 127.5).round().byte()), dim=1)


def aligned(films: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
    """The attack begins in the same frame everywhere: who has forgotten earlier waits."""
    forgetting = {name: [frame for frame in frames if frame[0] == "forget"] for name, frames in films.items()}
    longest = max(map(len, forgetting.values()))
    return {name: [*part, *[part[-1]] * (longest - len(part)), *films[name][len(part):]] for name, part in forgetting.items()}


def main() -> None:
    films = aligned({name: filmed(settings) for name, settings in METHODS.items()})
    control = attack(load_pipeline(f"digits-without-{TARGET}"), load_dataset("digits"), 0)
    rows = [torch.cat([strip(images) for *_, images in row], dim=1) for row in zip(*films.values(), strict=True)]
    Image.fromarray(torch.cat(rows).numpy()).save(OUT / "film.png", optimize=True)
    about = {"target": TARGET, "count": COUNT, "shown": SHOWN, "control": round(control.curve["target accuracy"].iloc[-1] * COUNT),
             "methods": {name: [frame[:3] for frame in frames] for name, frames in films.items()}}
    (OUT / "film.json").write_text(json.dumps(about) + "\n", "utf-8")
    print(json.dumps(about))


if __name__ == "__main__":
    main()
