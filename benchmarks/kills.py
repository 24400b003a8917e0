"""kill -9 at random points of a grid, again and again, until it is done; then its table against that of an unbroken run.

    python benchmarks/kills.py [--kills 12] [--engine serial] [--seed 0]

Exits with 1 if the tables differ in a single bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dimum_core.benchmark import load_plan, read_results, run

PLAN = """
checkpoint: digits
data: digits
targets: {"3": digits-without-3, "7": digits-without-7}
methods: [random-label, salun, {method: dimum, alternative: mixed, count: 8}]
budgets: [3]
seeds: [0, 1]
batch_size: 8
attack_steps: 2
evaluations: 1
samples: 2
"""


def killed_run(plan: Path, out: Path, engine: str, after: float) -> bool:
    """Start a run, and kill it with all its workers so many seconds after its first new cell; true if it was done before."""
    before = cells(out)
    command = f"-m dimum_core.cli benchmark run {plan} --out {out} --engine {engine} --workers 2".split()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *command], start_new_session=True, **quiet)
    while process.poll() is None and cells(out) == before:
        time.sleep(0.01)
    time.sleep(after)
    if process.poll() is not None:
        return True
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return False


def cells(out: Path) -> int:
    return len(list((out / "cells").glob("[0-9a-f]*")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--engine", choices=("serial", "loky"), default="serial")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        plan, broken, unbroken = Path(folder) / "plan.yaml", Path(folder) / "broken", Path(folder) / "unbroken"
        plan.write_text(PLAN)
        for number in range(1, args.kills + 1):
            done = killed_run(plan, broken, args.engine, chance.uniform(0, 2))
            print(f"kill {number}: {cells(broken)} cells are there", flush=True)
            if done:
                break
        print(run(load_plan(plan), broken, engine="serial", progress=False))
        run(load_plan(plan), unbroken, engine="serial", progress=False)
        tables = [read_results(out).drop(columns=["seconds", "unlearning_seconds"]) for out in (broken, unbroken)]
    equal = tables[0].equals(tables[1])
    print(f"{len(tables[0])} rows, {'bit-equal' if equal else 'DIFFERENT'}")
    sys.exit(not equal)


if __name__ == "__main__":
    main()
