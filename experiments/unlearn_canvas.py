"""UnlearnCanvas on a GPU: one style forgotten by several methods, judged by its protocol, and attacked by DiMRA after it.

    python experiments/unlearn_canvas.py --model FOLDER --data FOLDER --style Van_Gogh --out build/canvas
        [--methods dimum esd-x uce] [--styles ...] [--objects ...] [--scale 1] [--lora-rank 8] [--minutes-only]

--model: a StableDiffusionPipeline's folder, finetuned on the data set (its authors publish one). --data: the official folders,
STYLE/OBJECT/NUMBER.jpg. --styles, --objects: some of the folders, to be quick; default, all of them.
--scale: one number for every count: steps of training, of judges, of the attack, and samples. 1 is the experiment, 0.01 tries it.
--minutes-only: time a few steps and samples, say what the whole will take, and stop.

Writes to OUT: `table.csv`, a row for each method before and after the attack (UA, IRA, CRA with 95 % intervals; the Frechet
distance of the rest on the judges' features, or on Inception's where torch-fidelity is installed; seconds, passes and memory of
unlearning and of the attack), the two judges, and a picture for each row. Rows that are there are not computed again.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from dimum_core import evaluate, load_pipeline, relearn, unlearn
from dimum_core.benchmark.nfe import spent
from dimum_core.data import Dataset, load_unlearn_canvas
from dimum_core.data.targets import find_target
from dimum_core.evaluation import draw_samples
from dimum_core.files import write_atomically
from dimum_core.judges import Judge, PairJudge, load_judge
from dimum_core.judges.presets import judge_preset_for
from dimum_core.judges.training import train_judge
from dimum_core.metrics import fidelity
from dimum_core.metrics.inception import inception_features
from dimum_core.models.conditions import conditions_of, image_size
from dimum_core.models.fresh_noise import FRESH_STEPS
from dimum_core.models.networks import network_of
from dimum_core.pictures import save_picture, tile

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
    """Everything that the rows of the table share."""

    pipe: object
    data: Dataset
    judge: PairJudge | None
    style: str
    out: Path
    scale: float
    lora_rank: int

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


def minutes(run: Experiment, methods: list[str]) -> float:
    """What all rows will take, from one step of training and two samples, timed here; the judges aside."""
    settings = {**LIGHT, "lora_rank": run.lora_rank, "target": run.style, "data": run.data}
    unlearn(run.pipe, "finetune", steps=1, **settings)
    started = time.monotonic()
    unlearn(run.pipe, "finetune", steps=2, **settings)
    step = (time.monotonic() - started) / 2
    started = time.monotonic()
    asked = conditions_of(run.pipe, None, run.data.class_names).asked([0, 1])
    draw_samples(run.pipe, asked, num_inference_steps=FRESH_STEPS, progress=False)
    sample, drawn = (time.monotonic() - started) / 2, len(run.data.class_names) * run.count(PER_CLASS)
    trained = sum(2 * run.count(METHODS[method].get("steps", STEPS)) for method in methods)
    trained += len(methods) * len(ATTACK_RATES) * run.count(ATTACK_STEPS)
    return (trained * step + (1 + len(methods) * (1 + len(ATTACK_RATES))) * drawn * sample) / 60


def measured(run: Experiment, model, name: str) -> dict:
    """UA, IRA and CRA with intervals, and the Frechet distance of the rest to held-out pictures."""
    found = evaluate(
        model, target=run.style, data=run.data, judge=run.judge, per_class=run.count(PER_CLASS), progress=False
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


def rows_of(run: Experiment, method: str, done: set) -> list[dict]:
    """A method's row before the attack, and one for each of the attacker's learning rates."""
    rates = [rate for rate in (0.0, *(() if method == "original" else ATTACK_RATES)) if (method, rate) not in done]
    if not rates:
        return []
    settings = {**LIGHT, "lora_rank": run.lora_rank} | METHODS.get(method, {})
    settings["steps"] = run.count(settings.get("steps", STEPS))
    about = {"style": run.style, "method": method}
    with spent(network_of(run.pipe)) as cost:
        model = run.pipe if method == "original" else unlearn(run.pipe, method, target=run.style, data=run.data, **settings)
    rows = []
    for rate in rates:
        if not rate:
            rows.append(about | {"attack rate": rate, **cost, **measured(run, model, method)})
            continue
        with spent(network_of(model)) as cost:
            attack = relearn(
                model, run.data.without(run.style), target=run.style, judge=run.judge, steps=run.count(ATTACK_STEPS),
                learning_rate=rate, lora_rank=run.lora_rank, samples=run.count(40), **LIGHT,
            )
        attack.curve.to_csv(run.out / f"{method}-curve-{rate:g}.csv", index=False)
        rows.append(about | {"attack rate": rate, **cost, **measured(run, attack.pipeline, f"{method}-attacked-{rate:g}")})
    return rows


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["dimum", "esd-x", "uce"])
    parser.add_argument("--styles", nargs="+")
    parser.add_argument("--objects", nargs="+")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--lora-rank", type=int, default=8)
    parser.add_argument("--minutes-only", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parsed()
    pipe, table = load_pipeline(args.model), args.out / "table.csv"
    data = load_unlearn_canvas(args.data, image_size=image_size(pipe), styles=args.styles, objects=args.objects)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Experiment(pipe, data, None, args.style, args.out, args.scale, args.lora_rank)
    print(f"about {minutes(run, args.methods):.0f} minutes, and the training of two judges", flush=True)
    if args.minutes_only:
        return
    run = replace(run, judge=judges(run))
    rows = pd.read_csv(table).to_dict("records") if table.exists() else []
    for method in ("original", *args.methods):
        done = {(row["method"], row["attack rate"]) for row in rows if row["style"] == args.style}
        rows += rows_of(run, method, done)
        write_atomically(table, pd.DataFrame(rows).to_csv(index=False, float_format="%.4f").encode())
    columns = ["method", "attack rate", "UA", "IRA", "CRA", "Frechet distance of the rest", "seconds", "memory"]
    print(pd.DataFrame(rows)[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
