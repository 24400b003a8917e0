"""The protocol of UnlearnCanvas for one style, and DiMRA after it: what chapter 10 and experiments/unlearn_canvas.py both run.

Every count (steps of training, of judges, of the attack; samples) is scaled by one number: 1 is the experiment, 0.002 tries it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import torch
from diffusers import DiffusionPipeline
from torch import Tensor
from torch.nn import functional as F

from ..attacks import Relearning, relearn
from ..data import Dataset
from ..data.targets import find_target
from ..evaluation import draw_samples, evaluate
from ..files import write_atomically
from ..judges import Judge, PairJudge, load_judge
from ..judges.presets import judge_preset_for
from ..judges.training import train_judge
from ..metrics import fidelity
from ..metrics.inception import inception_features
from ..models.conditions import conditions_of, image_size
from ..models.fresh_noise import FRESH_STEPS
from ..models.networks import network_of
from ..pictures import save_picture, tile
from ..unlearning import unlearn
from .nfe import spent

METHODS = {  # what differs from the common settings; a closed form takes no steps
    "dimum": {}, "esd-x": {}, "uce": {"steps": 1, "lora_rank": 0}, "concept-ablation": {}, "random-label": {}, "finetune": {},
}
STEPS, ATTACK_STEPS, JUDGE_STEPS, PER_CLASS, BATCH = 400, 1_000, 3_000, 5, 4
LIGHT = {"gradient_checkpointing": True, "batch_size": BATCH, "progress": False}
ATTACK_RATES = (1e-4, 3e-4)


@dataclass(frozen=True)
class Shrinking:
    """A judge of small pictures that looks at large ones, averaged to its size."""

    judge_of_small: Judge

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.judge_of_small.class_names

    @property
    def image_size(self) -> int:
        return self.judge_of_small.image_size

    def judge(self, images: Tensor):
        return self.judge_of_small.judge(F.interpolate(images, size=self.image_size, mode="area"))


@dataclass(frozen=True)
class Experiment:
    """Everything that the rows of a table share. judge: None until `judges` has trained it."""

    pipe: DiffusionPipeline
    data: Dataset
    judge: PairJudge | None
    style: str
    out: Path
    scale: float
    lora_rank: int
    guidance_scale: float | None = None  # the pipeline's own, or diffusers' default for its kind

    def count(self, of: int) -> int:
        return max(2, round(of * self.scale))


def judges(run: Experiment) -> PairJudge:
    """A judge of styles and one of objects, trained on the folders by the project's own command, kept in OUT."""
    both, small = [], run.data.resized(min(image_size(run.pipe), 64))
    for position, kind in enumerate(("styles", "objects")):
        folder = run.out / f"judge-of-{kind}"
        if not (folder / "card.json").exists():
            preset, steps = judge_preset_for(small.train.images.shape[-1]), run.count(JUDGE_STEPS)
            settings = {"steps": steps, "warmup_steps": steps // 10, "batch_size": min(256, len(small.train))}
            train_judge(preset, folder, data=small.relabelled(position), resume=True, **settings)
        both.append(Shrinking(load_judge(folder)))
    return PairJudge(*both)


def cost_of(run: Experiment, methods: Sequence[str], rates: Sequence[float] = ATTACK_RATES) -> tuple[float, float]:
    """Minutes that all rows will take, and GB of memory, from two steps of training and two samples timed here. Judges are extra.

    Memory is the peak of CUDA's tensors, or without CUDA what this process has.
    """
    settings = {**LIGHT, "lora_rank": run.lora_rank, "target": run.style, "data": run.data}
    unlearn(run.pipe, "finetune", steps=1, **settings)
    started = time.monotonic()
    unlearn(run.pipe, "finetune", steps=2, **settings)
    step = (time.monotonic() - started) / 2
    started = time.monotonic()
    asked = conditions_of(run.pipe, None, run.data.class_names).asked([0, 1])
    draw_samples(run.pipe, asked, num_inference_steps=FRESH_STEPS, guidance_scale=run.guidance_scale, progress=False)
    sample, drawn = (time.monotonic() - started) / 2, len(run.data.class_names) * run.count(PER_CLASS)
    trained = sum(2 * run.count(METHODS[method].get("steps", STEPS)) for method in methods)
    trained += len(methods) * len(rates) * run.count(ATTACK_STEPS)
    minutes = (trained * step + (1 + len(methods) * (1 + len(rates))) * drawn * sample) / 60
    used = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else psutil.Process().memory_info().rss
    return minutes, used / 1e9


def measured(run: Experiment, model, name: str) -> dict:
    """UA, IRA and CRA with intervals, and the Frechet distance of the rest to held-out pictures."""
    found = evaluate(
        model, target=run.style, data=run.data, judge=run.judge, per_class=run.count(PER_CLASS),
        guidance_scale=run.guidance_scale, progress=False,
    )
    row = {}
    for metric in ("UA", "IRA", "CRA"):
        value, low, high, n = found.table.loc[metric, ["value", "low", "high", "n"]]
        row |= {metric: value, f"{metric} low": low, f"{metric} high": high, f"{metric} n": int(n)}
    row["Frechet distance of the rest"], row["features"] = found["Frechet distance"], "judges"
    if find_spec("torch_fidelity") is not None:
        others = ~find_target(run.style, run.data.class_names).among(torch.arange(len(run.data.class_names)))
        kept = found.images[others.repeat(run.count(PER_CLASS))]
        rest = [inception_features(x) for x in (kept, run.data.test.without(run.style).images)]
        distances = fidelity(*map(torch.from_numpy, rest), found.provenance | {"extractor": "inception"}).intervals()
        row["Frechet distance of the rest"], row["features"] = distances["Frechet distance"].value, "inception"
    save_picture(tile(found.images[: 2 * len(run.data.class_names)], len(run.data.class_names)), run.out / f"{name}.png", 1)
    return row


def forgotten(run: Experiment, method: str) -> tuple[DiffusionPipeline, dict]:
    """The model after a method of METHODS, and what it cost: seconds, passes, memory in MB."""
    settings = {**LIGHT, "lora_rank": run.lora_rank} | METHODS[method]
    settings["steps"] = run.count(settings.get("steps", STEPS))
    with spent(network_of(run.pipe)) as cost:
        model = unlearn(run.pipe, method, target=run.style, data=run.data, **settings)
    return model, cost


def attacked(run: Experiment, model: DiffusionPipeline, rate: float) -> tuple[Relearning, dict]:
    """DiMRA on all other styles at one learning rate, and what it cost."""
    with spent(network_of(model)) as cost:
        attack = relearn(
            model, run.data.without(run.style), target=run.style, judge=run.judge, steps=run.count(ATTACK_STEPS),
            learning_rate=rate, lora_rank=run.lora_rank, samples=run.count(40), guidance_scale=run.guidance_scale, **LIGHT,
        )
    return attack, cost


def rows_of(run: Experiment, method: str, done: set) -> list[dict]:
    """A method's row before the attack, and one for each of the attacker's learning rates, except those that are done."""
    rates = [rate for rate in (0.0, *(() if method == "original" else ATTACK_RATES)) if (method, rate) not in done]
    if not rates:
        return []
    unchanged = {"seconds": 0.0, "passes": 0, "memory": 0.0}
    model, cost = (run.pipe, unchanged) if method == "original" else forgotten(run, method)
    rows = []
    for rate in rates:
        name = method
        if rate:
            attack, cost = attacked(run, model, rate)
            write_atomically(run.out / f"{method}-curve-{rate:g}.csv", attack.curve.to_csv(index=False).encode("utf-8"))
            name = f"{method}-attacked-{rate:g}"
        about = {"style": run.style, "method": method, "attack rate": rate}
        rows.append(about | cost | measured(run, attack.pipeline if rate else model, name))
    return rows
