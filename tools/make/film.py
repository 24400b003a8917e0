"""Compute the films of the landing page and of chapter 00: a class is forgotten by two methods, then the models are attacked.

    python tools/make/film.py                 both; some 25 minutes on one thread; prints the judge's counts
    python tools/make/film.py photographs     one of them: data/frames/film-photographs.webp and .json

A row of the picture is a frame; in it stand the samples of each method and of a model that never saw the class, one beside the
other, from the same noise in all frames. The digits stop at an unlearning accuracy of 0.9, and their attacker's rate is the one
that recovers most in the grid of digits. The photographs have the steps and the rates of chapter 00.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import torch
from PIL import Image

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.evaluation import draw_samples
from dimum_core.judges import find_judge
from dimum_core.models.fresh_noise import FRESH_STEPS, with_fresh_noise
from dimum_core.widgets import FRAMES_FOLDER

TARGET, COUNT, SHOWN, EVERY, STEPS = "3", 24, 8, 4, 40
METHODS = {"ESD": {"method": "esd"}, "DiMUM": {"method": "dimum", "alternative": "generated"}}


@dataclass(frozen=True)
class Story:
    """What a film shows: a checkpoint and its data, the target and how it is called, each method's settings, the attack's rate, the
    steps between two frames of forgetting, and the picture's name."""

    checkpoint: str
    data: str
    target: str
    called: str
    methods: dict[str, dict]
    rate: float
    every: int
    picture: str


UNTIL, SLOWER = {"steps": 76, "until": 0.9}, {"learning_rate": 2e-4}
STORIES = {
    "digits": Story("digits", "digits", TARGET, f"a {TARGET}", {name: settings | UNTIL for name, settings in METHODS.items()}, 3e-4,
                    EVERY, "film.png"),
    "photographs": Story("cifar10-small", "cifar10-mini", "automobile", "an automobile",
                         {"ESD": {"method": "esd", "steps": 10} | SLOWER,
                          "DiMUM": {"method": "dimum", "alternative": "class", "steps": 30} | SLOWER}, 1e-4, 5,
                         "film-photographs.webp"),
}


class Camera:
    """Takes frames while a model forgets: (phase, step, samples of the target, others that are right, images), with the noise of
    `relearn`."""

    def __init__(self, pipe, target: str, seed: int):
        others = [name for name in pipe.class_names if name != target]
        self.labels, self.seed = [target] * COUNT + [others[k % len(others)] for k in range(COUNT)], seed
        self.judge, self.wanted, self.frames = find_judge(pipe), torch.tensor(list(map(pipe.class_names.index, self.labels))), []

    def __call__(self, step: int, pipe) -> dict:
        images = draw_samples(with_fresh_noise(pipe), self.labels, seed=self.seed, batch_size=2 * COUNT, progress=False,
                              num_inference_steps=FRESH_STEPS)
        right = self.judge.judge(images).labels == self.wanted
        self.frames.append(("forget", step, int(right[:COUNT].sum()), int(right[COUNT:].sum()), images[:SHOWN]))
        return {}


def attack(model, data, seed: int, samples: int = COUNT, every: int = EVERY, target: str = TARGET, rate: float = 3e-4):
    return relearn(
        model, data.without(target), target=target, steps=STEPS, learning_rate=rate, samples=samples, evaluate_every=every,
        seed=seed, progress=False,
    )


def attacked(model, story: Story, seed: int) -> list[tuple]:
    """The frames of the attack, with one before it."""
    run = attack(model, load_dataset(story.data), seed, target=story.target, rate=story.rate)
    rows = run.curve.set_index("step")
    counted = {step: [round(rows.loc[step, f"{kind} accuracy"] * COUNT) for kind in ("target", "retained")] for step in run.strips}
    return [("attack" if step else "forget", step, *counted[step], images) for step, images in run.strips.items()]


def filmed(story: Story, settings: dict, seed: int = 0) -> list[tuple]:
    """The frames of one method: forgetting, then the attack."""
    pipe, data = load_pipeline(story.checkpoint), load_dataset(story.data)
    camera = Camera(pipe, story.target, seed)
    camera(0, pipe)
    model = unlearn(pipe, target=story.target, data=data, evaluate_every=story.every, evaluate=camera, seed=seed, progress=False,
                    **settings)
    before, *rest = attacked(model, story, seed)
    if not torch.equal(camera.frames[-1][-1], before[-1]):
        raise SystemExit("The attack's first frame is not the last of the forgetting: the noise differs, and the film would jump.")
    return camera.frames + rest


def strip(images: torch.Tensor) -> torch.Tensor:
    """Images N x C x H x W in [-1, 1] beside each other, as bytes: H x NW, or H x NW x 3 in colour."""
    beside = torch.cat(list(((images.clamp(-1, 1) + 1) * 127.5).round().byte()), dim=2)
    return beside[0] if len(beside) == 1 else beside.movedim(0, 2)


def aligned(films: dict[str, list[tuple]]) -> dict[str, list[tuple]]:
    """The attack begins in the same frame everywhere: who has forgotten earlier, or had nothing to forget, waits."""
    forgetting = {name: [frame for frame in frames if frame[0] == "forget"] for name, frames in films.items()}
    longest = max(map(len, forgetting.values()))
    return {name: [*part, *[part[-1]] * (longest - len(part)), *films[name][len(part):]] for name, part in forgetting.items()}


def make(story: Story) -> None:
    retrained = attacked(load_pipeline(f"{story.checkpoint}-without-{story.target}"), story, 0)
    films = aligned({name: filmed(story, settings) for name, settings in story.methods.items()} | {"retrained": retrained})
    rows = [torch.cat([strip(frame[-1]) for frame in row], dim=1) for row in zip(*films.values(), strict=True)]
    Image.fromarray(torch.cat(rows).numpy()).save(FRAMES_FOLDER / story.picture, optimize=True, quality=80, method=6)
    told = {name: [frame[:-1] for frame in frames] for name, frames in films.items()}
    about = {"picture": story.picture, "target": story.target, "called": story.called, "count": COUNT, "shown": SHOWN,
             "retrained": told.pop("retrained"), "methods": told}
    (FRAMES_FOLDER / story.picture).with_suffix(".json").write_text(json.dumps(about) + "\n", "utf-8")
    print(json.dumps(about), flush=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or STORIES:
        make(STORIES[name])
