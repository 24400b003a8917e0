"""What grows with what: seconds, and memory, against the amount of work; the exponent is 1 where a cost is linear.

    python speed/scaling.py

Processor time of this process on one thread, the least of three runs, so that other work on the machine counts little; memory is
the peak that numpy asks for. The exponent is the slope of a straight line through the logarithms.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from dimum_core import load_dataset, load_pipeline, unlearn
from dimum_core.benchmark import read_results
from dimum_core.benchmark.store import write_cell
from dimum_core.evaluation import draw_samples
from dimum_core.judges import find_judge
from dimum_core.metrics import frechet_distance, kernel_distance, precision_recall

PIPE, DATA = load_pipeline("digits"), load_dataset("digits")


def features(count: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((count, 64)), generator.standard_normal((count, 64))


def drawn(count: int) -> None:
    draw_samples(PIPE, ["3"] * count, seed=time.perf_counter_ns() % 2**31, num_inference_steps=5, batch_size=50, progress=False)


def judged(count: int) -> None:
    find_judge(PIPE).judge(DATA.train.images[:1].expand(count, -1, -1, -1))


def forgotten(steps: int) -> None:
    unlearn(PIPE, "random-label", target="3", data=DATA, steps=steps, batch_size=16, progress=False)


def read(count: int) -> None:
    """A results folder with so many cells, as many models as attacks."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cells").mkdir()
        for number in range(count // 2):
            about = {"label": "a", "seed": number, "target": "3"}
            write_cell(folder, f"{2 * number:020x}", {"config": about, "measured": {"unlearning_steps": 1}, "provenance": {}})
            row = dict.fromkeys(("step", "target accuracy", "target low", "target high", "retained accuracy", "distance"), 0.0)
            write_cell(folder, f"{2 * number + 1:020x}", {
                "config": {"model": f"{2 * number:020x}", "attack_rate": 1e-4}, "curve": [row], "seconds": 1.0, "provenance": {},
            })
        assert len(read_results(folder)) == count // 2


def compared(count: int) -> None:
    samples, reference = features(count)
    precision_recall(reference=reference, samples=samples)


Work = dict[str, tuple[Callable[[int], object], tuple[int, ...]]]

ON_TENSORS: Work = {
    "samples drawn": (drawn, (50, 100, 200)),
    "images judged": (judged, (1_000, 2_000, 4_000)),
    "steps of unlearning": (forgotten, (4, 8, 16)),
}
ON_ARRAYS: Work = {
    "cells written and read": (read, (500, 1_000, 2_000)),
    "Frechet distance, items": (lambda n: frechet_distance(*features(n)), (5_000, 10_000, 20_000)),
    "kernel distance, items": (lambda n: kernel_distance(*features(n)), (1_000, 2_000, 4_000)),
    "precision and recall, items": (compared, (2_000, 4_000, 8_000)),
}


def seconds(work: Callable[[int], object], amount: int) -> float:
    def once() -> float:
        started = time.process_time()
        work(amount)
        return time.process_time() - started

    return min(once() for _ in range(3))


def peak_megabytes(work: Callable[[int], object], amount: int) -> float:
    tracemalloc.start()
    work(amount)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 1e6


def slope(amounts: tuple[int, ...], costs: list[float]) -> float:
    return float(np.polyfit(np.log(amounts), np.log(costs), 1)[0])


def row(name: str, work: Callable[[int], object], amounts: tuple[int, ...], memory: bool) -> str:
    work(amounts[0])  # warm up
    cells = [name, ", ".join(f"{amount:,}" for amount in amounts)]
    for measure in (seconds, peak_megabytes) if memory else (seconds,):
        costs = [measure(work, amount) for amount in amounts]
        cells += [", ".join(f"{cost:.3g}" for cost in costs), f"{slope(amounts, costs):.2f}"]
    return "| " + " | ".join(cells) + (" |" if memory else " | | |")


def main() -> None:
    torch.set_num_threads(1)
    print("| work | amounts | seconds | exponent | peak MB | exponent |\n|---|---|---|---|---|---|")
    for group, memory in ((ON_TENSORS, False), (ON_ARRAYS, True)):
        for name, (work, amounts) in group.items():
            print(row(name, work, amounts, memory), flush=True)


if __name__ == "__main__":
    main()
