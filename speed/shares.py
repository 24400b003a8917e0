"""Where the time goes: shares of processor time in a training step, an unlearning with its evaluation, an attack with its curve.

    python speed/shares.py [--checkpoint cifar10-small]

By Python's own profiler, on one thread and in processor time, so that other work on the machine shifts little. Shares of a job do
not overlap; the profiler itself makes many small Python calls look somewhat dearer than they are.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable

import pandas as pd
import torch

from dimum_core import evaluate, load_pipeline, relearn, unlearn
from dimum_core.fitting import default_data
from dimum_core.models.cards import read_card
from dimum_core.models.checkpoints import find_checkpoint
from dimum_core.pretraining import train_base

# Functions that do not call one another: (end of the file's name, function)
PARTS = {
    "backward passes": ("autograd/graph.py", "_engine_run_backward"),
    "forward passes of the loss": ("pretraining.py", "__call__"),
    "forward passes of the method's loss": ("unlearning/run.py", "__call__"),
    "optimiser": ("amp/grad_scaler.py", "step"),
    "moving average": ("training_utils.py", "step"),
    "clipping": ("clip_grad.py", "clip_grad_norm_"),
    "the method's trace": ("unlearning/run.py", "traced"),
    "samples to measure on": ("evaluation.py", "draw_samples"),
    "the judge": ("judges/classifier.py", "judge"),
}


def jobs(checkpoint: str) -> dict[str, Callable]:
    """One after the other; each with what it needs already loaded."""
    pipe = load_pipeline(checkpoint)
    data = default_data(pipe)
    preset, target = read_card(find_checkpoint(checkpoint))["preset"], data.class_names[3]
    settings = {"target": target, "data": data, "progress": False}
    images = data.train.resized(pipe.image_shape[-1])
    return {
        "20 steps of training": lambda: train_base(preset, data=images, steps=20, progress=False),
        "DiMUM, 40 steps, and its evaluation": lambda: evaluate(
            unlearn(pipe, "dimum", steps=40, **settings), target=target, per_class=20, progress=False
        ),
        "DiMRA, 45 steps, with its curve": lambda: relearn(
            pipe, data.train.without(target), target=target, steps=45, evaluate_every=15, samples=24, progress=False
        ),
    }


def shares(job: Callable) -> dict[str, float]:
    profile, started = cProfile.Profile(time.process_time), time.process_time()
    profile.runcall(job)
    total = time.process_time() - started
    spent = dict.fromkeys(PARTS, 0.0)
    for (file, _, function), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():
        for part, (end, name) in PARTS.items():
            if function == name and file.endswith(end):
                spent[part] = max(spent[part], cumulative)
    found = {part: seconds / total for part, seconds in spent.items()}
    return found | {"all the rest": 1 - sum(found.values()), "seconds": total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="cifar10-small")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = pd.DataFrame({name: shares(job) for name, job in jobs(args.checkpoint).items()})
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
