"""Compute the pictures that the course's sliders go through, and keep them in data/frames/.

    python tools/make/frames.py                        all of them; some minutes on two cores
    python tools/make/frames.py denoising guidance     some of them
"""

from __future__ import annotations

import os
import sys

import joblib
import numpy as np
import torch

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.evaluation import draw_samples
from dimum_core.models.sampling import step_arguments
from dimum_core.widgets import FRAMES_FOLDER

NAMES = ["airplane", "automobile", "cat", "frog", "horse", "ship"]


def as_bytes(images: torch.Tensor) -> np.ndarray:
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def denoising(seed: int = 1) -> dict:
    """Every step of the default solver: the samples, and the image that the model guesses from them, with guidance."""
    pipe = load_pipeline("cifar10-small")
    labels, null = pipe.label_tensor(NAMES), pipe.label_tensor([None] * len(NAMES))
    pipe.scheduler.set_timesteps(20)
    shape = (len(NAMES), pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2)
    x_t = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    samples, guesses = [], []
    abar = pipe.scheduler.alphas_cumprod
    with torch.no_grad():
        for t in pipe.scheduler.timesteps:
            conditional, nothing = (pipe.unet(x_t, t, class_labels=c).sample for c in (labels, null))
            eps = nothing + pipe.config.guidance_scale * (conditional - nothing)
            samples.append(as_bytes(pipe.decode(x_t)))
            guesses.append(as_bytes(pipe.decode((x_t - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt())))
            x_t = pipe.scheduler.step(eps, t, x_t, **step_arguments(pipe.scheduler, None)).prev_sample
    return {"names": NAMES, "t": pipe.scheduler.timesteps.tolist(), "samples": np.stack(samples), "guesses": np.stack(guesses)}


def guidance(scales=(0.0, 1.0, 2.0, 3.0, 5.0, 8.0), steps=(5, 10, 20), seed: int = 1) -> dict:
    pipe = load_pipeline("cifar10-small")
    drawn = [[as_bytes(draw_samples(pipe, NAMES, seed=seed, guidance_scale=s, num_inference_steps=k, progress=False))
              for k in steps] for s in scales]
    return {"names": NAMES, "scales": scales, "steps": steps, "samples": np.array(drawn)}


LAB = {"target": ("3", "7"), "method": ("esd", "random-label", "dimum"), "budget": (12, 48), "attack": (1e-4, 3e-4)}


def lab_part(target: str, method: str, count: int, shown: int, seed: int) -> dict:
    """Before, after and attacked images of one target and method, for every budget and attack, with the judge's shares."""
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    part = {"before": as_bytes(draw_samples(pipe, [target] * shown, seed=seed, progress=False)), "after": [], "attacked": [],
            "accuracy": []}
    for budget in LAB["budget"]:
        model = unlearn(pipe, method, target=target, data=data, steps=budget, learning_rate=1e-4, seed=seed, progress=False)
        part["after"].append(as_bytes(draw_samples(model, [target] * shown, seed=seed, progress=False)))
        for rate in LAB["attack"]:
            run = relearn(model, data.without(target), target=target, steps=45, learning_rate=rate, samples=count, seed=seed,
                          evaluate_every=45, progress=False)
            part["attacked"].append(as_bytes(draw_samples(run.pipeline, [target] * shown, seed=seed, progress=False)))
            part["accuracy"].append(run.curve["target accuracy"].iloc[[0, -1]].to_numpy(np.float32))
    print(target, method, np.round(part["accuracy"], 2).tolist(), flush=True)
    return {name: np.array(values) for name, values in part.items()}


def forget_lab(count: int = 24, shown: int = 8, seed: int = 0) -> dict:
    """Two digits, three methods, two budgets, two attackers; a process for each digit and method, as many at once as there are
    cores, or as DIMUM_WORKERS says."""
    workers = int(os.environ.get("DIMUM_WORKERS", os.cpu_count() or 1))
    parts = joblib.Parallel(n_jobs=workers)(
        joblib.delayed(lab_part)(target, method, count, shown, seed) for target in LAB["target"] for method in LAB["method"]
    )
    shape = [len(options) for options in LAB.values()]
    stacked = {name: np.stack([part[name] for part in parts]) for name in ("after", "attacked", "accuracy")}
    return {
        **LAB, "count": count, "before": np.stack([part["before"] for part in parts[::shape[1]]]),
        "after": stacked["after"].reshape(*shape[:3], shown, 1, 8, 8),
        "attacked": stacked["attacked"].reshape(*shape, shown, 1, 8, 8), "accuracy": stacked["accuracy"].reshape(*shape, 2),
    }


KINDS = {"denoising": denoising, "guidance": guidance, "forget-lab": forget_lab}


def main(wanted: list[str]) -> None:
    FRAMES_FOLDER.mkdir(parents=True, exist_ok=True)
    for name in wanted or KINDS:
        if name not in KINDS:
            raise SystemExit(f"There are no frames {name!r}; there are {', '.join(KINDS)}.")
        path = FRAMES_FOLDER / f"{name}.npz"
        np.savez_compressed(path, **{key: np.asarray(value) for key, value in KINDS[name]().items()})
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
