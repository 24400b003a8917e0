"""Run a plan: each task is one unlearned model with all the attacks on it that are not done yet."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils import parameters_to_vector
from tqdm.auto import tqdm

from ..attacks import auxiliary_set, few_shot, relearn
from ..checkpoints import load_pipeline, provenance
from ..data import load_dataset
from ..errors import DimumError, UnknownName
from ..unlearning import unlearn
from . import store
from .plan import Plan, cell_id

ENGINES = ("serial", "loky", "dask")


@dataclass(frozen=True)
class Summary:
    """What a run did: cells computed now, cells that were there already, and cells that failed."""

    computed: int
    reused: int
    failed: int


def run(
    plan: Plan, out: str | Path, *, engine: str = "loky", workers: int = 1, threads: int = 1, scheduler: str | None = None,
    progress: bool = True,
) -> Summary:
    """Compute what a results folder lacks of a plan. Kill it at any time and run it again: finished cells are kept.

    engine: "serial" in this process, "loky" joblib's processes on this machine, "dask" a dask.distributed cluster (`scheduler`: its
        address; none starts one here). All give the same results, bit for bit, on CPUs of one kind.
    workers, threads: processes, and torch threads in each.
    """
    if engine not in ENGINES:
        raise UnknownName("engine", engine, ENGINES)
    out = Path(out).resolve()
    store.prepare(out)
    tasks, reused = [], 0
    for model in plan.models():
        attacks = [attack for attack in plan.attacks(model) if not store.is_done(out, cell_id(attack))]
        reused += len(plan.attacks(model)) - len(attacks)
        if attacks or not store.is_done(out, cell_id(model)):
            tasks.append((plan, model, attacks, out, threads))
    counted = _ENGINES[engine](tasks, workers, scheduler)
    counts = list(tqdm(counted, total=len(tasks), desc=plan.name, unit="model", disable=not progress))
    return Summary(sum(done for done, _ in counts), reused, sum(failed for _, failed in counts))


def _serial(tasks, workers, scheduler):
    return (run_task(*task) for task in tasks)


def _loky(tasks, workers, scheduler):
    from joblib import Parallel, delayed

    return Parallel(n_jobs=workers, return_as="generator_unordered")(delayed(run_task)(*task) for task in tasks)


def _dask(tasks, workers, scheduler):
    try:
        from dask.distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise DimumError("The engine dask needs dask.distributed: pip install 'dimum[cluster]'.") from error
    cluster = None if scheduler else LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
    with Client(scheduler or cluster) as client:
        yield from (future.result() for future in as_completed([client.submit(run_task, *task, pure=False) for task in tasks]))
    if cluster:
        cluster.close()


_ENGINES = {"serial": _serial, "loky": _loky, "dask": _dask}


def run_task(plan: Plan, model: dict, attacks: list[dict], out: Path, threads: int) -> tuple[int, int]:
    """One unlearned model and its attacks; returns how many cells were computed and how many failed.

    A failure is written down with its traceback, and does not stop the rest.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _run_task(plan, model, attacks, out)
    finally:
        torch.set_num_threads(before)


def _run_task(plan: Plan, model: dict, attacks: list[dict], out: Path) -> tuple[int, int]:
    done = failed = 0
    try:
        original, data = load_pipeline(plan.checkpoint), load_dataset(plan.data)
        pipe = unlearned_model(plan, model, original, data, out)
    except Exception:
        store.record_failure(out, cell_id(model), model, traceback.format_exc())
        return 0, len(attacks)
    store.forget_failure(out, cell_id(model))
    for attack in attacks:
        try:
            started = time.perf_counter()
            curve = attacked(attack, model, pipe, original, data)
            seconds = round(time.perf_counter() - started, 2)
            result = {"config": attack, "curve": curve, "seconds": seconds, "provenance": provenance()}
            store.write_cell(out, cell_id(attack), result)
            store.forget_failure(out, cell_id(attack))
            done += 1
        except Exception:
            store.record_failure(out, cell_id(attack), attack, traceback.format_exc())
            failed += 1
    if not failed:
        _weights(out, model).unlink(missing_ok=True)
    return done, failed


def _weights(out: Path, model: dict) -> Path:
    return out / "weights" / f"{cell_id(model)}.safetensors"


def unlearned_model(plan: Plan, model: dict, original, data, out: Path):
    """The unlearned pipeline: computed, or loaded if an earlier run was killed before its attacks were done."""
    if model["method"] == "original":
        pipe, about = original, {"unlearning_steps": 0, "unlearning_seconds": 0.0}
    elif model["method"] == "retrained":
        pipe, about = load_pipeline(plan.targets[model["target"]]), {"unlearning_steps": 0, "unlearning_seconds": 0.0}
    elif store.is_done(out, cell_id(model)) and _weights(out, model).is_file():
        pipe = load_pipeline(plan.checkpoint)
        pipe.unet.load_state_dict(load_file(_weights(out, model)))
        return pipe
    else:
        pipe = unlearn(
            original, model["method"], target=model["target"], data=data, steps=model["steps"], until=model["until"],
            learning_rate=model["learning_rate"], batch_size=model["batch_size"], evaluate_every=model["check_every"],
            seed=model["seed"], progress=False, **model["hyperparameters"],
        )
        about = {"unlearning_steps": pipe.unlearning["steps"], "unlearning_seconds": round(pipe.unlearning["seconds"], 2)}
        _weights(out, model).parent.mkdir(exist_ok=True)
        aside = _weights(out, model).with_suffix(".tmp")
        save_file({k: v.contiguous() for k, v in pipe.unet.state_dict().items()}, aside)
        aside.replace(_weights(out, model))
    moved = (parameters_to_vector(pipe.unet.parameters()) - parameters_to_vector(original.unet.parameters())).detach().norm()
    if not store.is_done(out, cell_id(model)):
        measured = {**about, "unlearning_distance": float(moved)}
        store.write_cell(out, cell_id(model), {"config": model, "measured": measured, "provenance": provenance()})
    return pipe


def attacked(attack: dict, model: dict, pipe, original, data) -> list[dict]:
    """The recovery curve of one attack, as rows."""
    settings = {
        "steps": attack["attack_steps"], "learning_rate": attack["attack_rate"], "optimizer": attack["optimizer"],
        "batch_size": attack["attack_batch_size"], "seed": attack["attack_seed"], "samples": attack["samples"],
        "evaluate_every": max(1, attack["attack_steps"] // attack["evaluations"]), "progress": False,
    }
    target, (kind, _, rest) = model["target"], attack["auxiliary"].partition(" ")
    if kind == "few-shot":
        return few_shot(pipe, data, target, int(rest), **settings).curve.to_dict("records")
    auxiliary = auxiliary_set(
        kind, data, target, pipe=pipe if rest == "by itself" else original, seed=model["seed"],
        share=float(rest.split()[0]) / 100 if rest.endswith("%") else 1.0,
    )
    curve = relearn(pipe, auxiliary, target=target, forget=data.train.only(target), **settings).curve
    return curve.to_dict("records")
