"""The papers' network on one GPU: what a training step costs, and a real training within minutes.

    python speed/gpu.py speed                              # seconds a step: float32, bf16, bf16 and compiled
    python speed/gpu.py train --out build/cifar10 --steps 10000 [--compile]

The `cifar10` preset takes 400,000 steps, as the papers do. `train` takes few: so it warms up for 500 steps, starts at twice the
learning rate and lets it decay to zero. Then it measures 1,000 samples by the judge and draws a picture of them, samples.png.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from dimum_core.data import ImageSet, from_uint8, load_dataset
from dimum_core.evaluation import evaluate
from dimum_core.judges import find_judge
from dimum_core.models.checkpoints import save_checkpoint
from dimum_core.models.conditions import conditions_of
from dimum_core.models.denoiser import Preset, get_preset
from dimum_core.pictures import image_grid, save_picture
from dimum_core.pretraining import DenoisingObjective, base_card, new_model
from dimum_core.training import TrainConfig, train

SHORT = {"warmup_steps": 500, "learning_rate": 4e-4, "decay": True}


def trained(preset: Preset, data: ImageSet, config: TrainConfig, compiled: bool, out: Path | None = None):
    """The package's own loop; the network compiled before it, if it is to be."""
    model, pipe = new_model(preset, data, config.seed)
    if compiled:
        model.compile()
    objective = DenoisingObjective(data, config.batch_size, conditions_of(pipe), preset.label_dropout, preset.flip)
    return pipe, train(model, objective, config, out=out, resume=out is not None, progress=out is not None)


def step_seconds(preset: Preset, precision: str, compiled: bool, steps: int) -> tuple[float, float]:
    """Seconds a step, and seconds before the first, by the difference of a long and a short run."""
    pixels = torch.randint(256, (1000, 3, preset.image_size, preset.image_size), generator=torch.Generator().manual_seed(0))
    data = from_uint8("random", pixels.byte().numpy(), [i % 10 for i in range(1000)], map(str, range(10)))

    def run(count: int) -> float:
        started = time.perf_counter()
        trained(preset, data, replace(preset.training, steps=count, precision=precision), compiled)
        torch.cuda.synchronize()
        return time.perf_counter() - started

    first, short, long = run(1), run(5), run(5 + steps)
    return (long - short) / steps, first


def speed(preset: Preset, steps: int) -> None:
    print(f"{torch.cuda.get_device_name()}: {preset.name}, a step of {preset.training.batch_size} images")
    print("| how | ms a step | against float32 | s before the first step |\n|---|---|---|---|")
    slowest = None
    for name, precision, compiled in (("float32", "fp32", False), ("bf16", "bf16", False), ("bf16, compiled", "bf16", True)):
        each, first = step_seconds(preset, precision, compiled, steps)
        slowest = slowest or each
        print(f"| {name} | {1000 * each:.1f} | {slowest / each:.2f} times as fast | {first:.0f} |", flush=True)


def train_and_measure(preset: Preset, out: Path, steps: int, compiled: bool) -> None:
    data = load_dataset(preset.dataset)
    config = replace(preset.training, steps=steps, **SHORT)
    pipe, result = trained(preset, data.train, config, compiled, out)
    save_checkpoint(pipe, out, base_card(preset, config, data.train, None, result), "float16")
    result.log.to_csv(out / "log.csv", index=False)
    print(f"{steps} steps in {result.seconds:.0f} s, loss {result.log['loss'].iloc[-20:].mean():.4f}", flush=True)
    judge = find_judge(pipe).to("cuda")
    for scale in (1.0, 2.0, 3.0):
        measured = evaluate(pipe, data=data, judge=judge, per_class=100, guidance_scale=scale, progress=False)
        print(f"guidance {scale}\n{measured.table.round(3).to_string()}", flush=True)
    save_picture(image_grid(pipe, rows=6, guidance_scale=2.0), out / "samples.png", scale=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "train"])
    parser.add_argument("--preset", default="cifar10")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this benchmark is for a CUDA device, and there is none here")
    if args.what == "speed":
        speed(get_preset(args.preset), args.steps)
    elif args.out is None:
        parser.error("train needs --out, a folder for the model")
    else:
        train_and_measure(get_preset(args.preset), args.out, args.steps, args.compile)


if __name__ == "__main__":
    main()
