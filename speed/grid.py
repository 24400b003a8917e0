"""What engines cost: 1 against 2 workers on the same grid, what a scheduler adds to a cell, and what a dead worker costs.

    python speed/grid.py workers [--engine loky] [--models 8]     ratio of wall times; the aim is 1.8
    python speed/grid.py overhead [--cells 500]                   milliseconds a cell, of cells that do nothing
    python speed/grid.py death [--cells 10000]                    a dask worker is killed halfway; are all cells done?

Run it on an idle machine: two workers on a busy core measure the other load.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

from dimum_core.benchmark import check_plan, read_results, run
from dimum_core.benchmark.engines import ENGINES, run_tasks

CONTENT = {
    "name": "grid", "checkpoint": "digits", "data": "digits", "targets": ["3"], "methods": ["random-label"], "budgets": [20],
    "controls": [], "attack_rates": [1e-4, 3e-4, 1e-3], "attack_steps": 40, "points": 3,
}


def seconds(plan, engine: str, workers: int, folder: Path) -> float:
    started = time.perf_counter()
    done = run(plan, folder, engine=engine, workers=workers, progress=False)
    assert done.failed == 0 and done.reused == 0
    return time.perf_counter() - started


def compare_workers(engine: str, models: int) -> None:
    """The same models and attacks with one worker and with two, each into an empty folder; the tables must be equal."""
    plan = check_plan({**CONTENT, "seeds": list(range(models))})
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        first = check_plan({**CONTENT, "seeds": [10**6, 10**6 + 1]})
        seconds(first, engine, 2, Path(two) / "warm")  # loky's processes start here, and stay
        times = [seconds(plan, engine, workers, Path(folder)) for workers, folder in ((1, one), (2, two))]
        tables = [read_results(folder).drop(columns=["seconds", "unlearning_seconds"]) for folder in (one, two)]
    print(
        f"{engine}, {models} models with 3 attacks each: {times[0]:.1f} s with 1 worker, {times[1]:.1f} s with 2, "
        f"ratio {times[0] / times[1]:.2f}; tables {'equal' if tables[0].equals(tables[1]) else 'DIFFER'}"
    )


def nothing(number: int) -> int:
    return number


def measure_overhead(cells: int) -> None:
    from dask.distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        for engine in ENGINES:
            scheduler = cluster.scheduler_address if engine == "dask" else None
            list(run_tasks(engine, nothing, [(0,)], 2, scheduler))  # workers start, and stay
            started = time.perf_counter()
            done = [result for _, result in run_tasks(engine, nothing, [(number,) for number in range(cells)], 2, scheduler)]
            taken = time.perf_counter() - started
            assert sorted(done) == list(range(cells))
            print(f"{engine}: {1000 * taken / cells:.2f} ms a cell, of {cells} cells that do nothing, 2 workers")


def measure_death(cells: int) -> None:
    """The same cells on two dask workers, once untroubled, and once with a worker killed (SIGKILL) when half of them are done."""
    from dask.distributed import LocalCluster

    taken = {}
    for killed in (False, True):
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            list(run_tasks("dask", nothing, [(0,)], 2, cluster.scheduler_address))
            started, done = time.perf_counter(), []
            for _, result in run_tasks("dask", nothing, [(number,) for number in range(cells)], 2, cluster.scheduler_address):
                done.append(result)
                if killed and len(done) == cells // 2:
                    os.kill(cluster.workers[0].pid, signal.SIGKILL)
            taken[killed] = time.perf_counter() - started
            assert sorted(done) == list(range(cells)), "a cell was lost or done twice"
    print(
        f"dask, {cells} cells that do nothing: {taken[False]:.1f} s untroubled, {taken[True]:.1f} s with a worker killed halfway; "
        "every cell reported once both times"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("workers", "overhead", "death"))
    parser.add_argument("--engine", choices=("loky", "dask"), default="loky")
    parser.add_argument("--models", type=int, default=8)
    parser.add_argument("--cells", type=int, default=500)
    args = parser.parse_args()
    if args.what == "workers":
        compare_workers(args.engine, args.models)
    elif args.what == "overhead":
        measure_overhead(args.cells)
    else:
        measure_death(args.cells)


if __name__ == "__main__":
    main()
