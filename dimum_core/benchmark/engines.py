"""Engines: who runs the tasks. Each takes arguments of `run_task`, and yields (task, what it returned) as they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..errors import DimumError, UnknownName

Tasks = list[tuple]


class EngineError(DimumError, RuntimeError):
    """An engine that cannot start, or lost a worker."""


def run_tasks(engine: str, function: Callable, tasks: Tasks, workers: int, scheduler: str | None = None) -> Iterator[tuple]:
    """function(*task) for every task, by `engine`; yields (task, result) in the order in which they are done."""
    if engine not in ENGINES:
        raise UnknownName("engine", engine, ENGINES)
    if scheduler and engine != "dask":
        raise EngineError(f"A scheduler's address is for the engine dask, not for {engine}: take --engine dask, or leave it out.")
    if not tasks:
        return
    for number, result in ENGINES[engine](function, tasks, workers, scheduler):
        yield tasks[number], result


def _numbered(function: Callable, number: int, task: tuple) -> tuple:
    return number, function(*task)


def _serial(function, tasks: Tasks, workers: int, scheduler: str | None):
    return (_numbered(function, number, task) for number, task in enumerate(tasks))


def _loky(function, tasks: Tasks, workers: int, scheduler: str | None):
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    jobs = (delayed(_numbered)(function, number, task) for number, task in enumerate(tasks))
    try:
        # one task at a time to a worker: they take minutes, and differ
        yield from Parallel(n_jobs=workers, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")(jobs)
    except TerminatedWorkerError as error:
        raise EngineError(
            "A worker process died, perhaps for want of memory. What was finished is kept: run it again, with fewer workers."
        ) from error
    except OSError as error:  # of the semaphores and pipes between processes: a task writes its own errors down
        reason = error.strerror or error
        raise EngineError(
            f"Worker processes could not be started ({reason}): free some space, in shared memory too, or take --engine serial."
        ) from error


def _dask(function, tasks: Tasks, workers: int, scheduler: str | None):
    try:
        from dask.distributed import KilledWorker, as_completed
    except ImportError as error:
        raise EngineError("The engine dask needs dask.distributed: pip install -e '.[cluster]'.") from error
    with _cluster(workers, scheduler) as address, _client(address) as client:
        # map and as_completed, not the joblib backend; impure, for a result is on disk and not in its arguments
        futures = client.map(_numbered, *zip(*[(function, *numbered) for numbered in enumerate(tasks)], strict=True), pure=False)
        try:
            for future, result in as_completed(futures, with_results=True):
                future.release()
                yield result
        except KilledWorker as error:
            raise EngineError("A task has killed several workers in turn. What was finished is kept: run it again.") from error


def _cluster(workers: int, scheduler: str | None):
    import contextlib

    from dask.distributed import LocalCluster

    if scheduler:
        return contextlib.nullcontext(scheduler)
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)


def _client(address):
    from dask.distributed import Client

    client = Client.__new__(Client)  # in hand although its start fails: one left to garbage collection can stop the process
    try:
        client.__init__(address)
    except (OSError, ValueError, TypeError) as error:  # the last: a tls:// address without certificates
        client.close()
        raise EngineError(
            f"No dask scheduler answers at {address} ({error}): give the address that it prints as it starts, tcp://HOST:PORT."
        ) from error
    return client


ENGINES = {"serial": _serial, "loky": _loky, "dask": _dask}
