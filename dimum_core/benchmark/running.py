"""Run a plan: each task is one unlearned model with all the attacks on it that are not done yet."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from ..attacks import auxiliary_set, few_shot, relearn
from ..fitting import data_for
from ..judges import load_judge
from ..models.cards import provenance
from ..models.checkpoints import load_pipeline
from ..models.conditions import image_size
from ..unlearning import METHODS, load_plugin
from ..unlearning.plugin import module_name
from . import store
from .engines import run_tasks
from .nfe import attack_nfes
from .plan import Plan, cell_id, measured_after, source_digest
from .reading import PlanError
from .unlearned import forget_weights, obtain_model


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
    """Compute what is still missing of a plan in a results folder. Kill it at any time and run it again: finished cells are kept.

    engine: "serial" in this process, "loky" joblib's processes on this machine, "dask" a dask.distributed cluster (`scheduler`: its
        address; none starts one here). All give the same results, bit for bit, on CPUs of one kind.
    workers, threads: processes, and torch threads in each.
    Several runs may share a folder: each takes the models that no other run works on.
    """
    out = Path(out).resolve()
    _load_plugins(plan)  # anew, so that cells are named by what runs, and what is wrong with a plugin is said before any work
    store.prepare(out)
    models = plan.models()
    missing = {cell_id(model): _missing(plan, model, out) for model in models}
    undone = [model for model in models if missing[cell_id(model)] or not store.is_done(out, cell_id(model))]
    tasks = [(plan, model, out, threads) for model in undone]
    counts, elsewhere = [], []
    with tqdm(total=len(tasks), desc=plan.name, unit="model", disable=not progress) as bar:
        for task, count in run_tasks(engine, run_task, tasks, workers, scheduler):
            if count is None:  # another run is at this model
                elsewhere.append(task)
                continue
            counts.append(count)
            bar.update()
        for task in elsewhere:  # wait for the other run, and do what it leaves undone
            counts.append(run_task(*task, wait=True))
            bar.update()
    reused = sum(len(plan.attacks(model)) - len(missing[cell_id(model)]) for model in models)
    return Summary(sum(computed for computed, _ in counts), reused, sum(failed for _, failed in counts))


def _missing(plan: Plan, model: dict, out: Path) -> list[dict]:
    return [attack for attack in plan.attacks(model) if not store.is_done(out, cell_id(attack))]


def run_task(plan: Plan, model: dict, out: Path, threads: int, wait: bool = False) -> tuple[int, int] | None:
    """One unlearned model and its missing attacks; returns how many cells were computed and how many failed.

    A failure is written down with its traceback, and does not stop the rest. Returns None at once if another run works on this
    model, unless it is to `wait`.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with store.claim(out, cell_id(model), wait) as mine, threadpool_limits(threads):
            return _run_task(plan, model, out) if mine else None
    except Exception:  # the lock's too: what escaped would be taken for a failure of the engine
        store.record_failure(out, cell_id(model), model, traceback.format_exc())
        return 0, max(1, len(_missing(plan, model, out)))
    finally:
        torch.set_num_threads(before)


def _run_task(plan: Plan, model: dict, out: Path) -> tuple[int, int]:
    attacks = _missing(plan, model, out)
    if not attacks and store.is_done(out, cell_id(model)):
        return 0, 0
    if "code" in model:
        _load_plugins(plan)
        _check_code(plan, model)
    original, judge = load_pipeline(plan.checkpoint), load_judge(plan.judge) if plan.judge else None
    data = data_for(original, plan.data)
    pipe = obtain_model(plan, model, original, data, judge, out)
    store.forget_failure(out, cell_id(model))
    failed = 0
    for attack in attacks:
        try:
            store.write_cell(out, cell_id(attack), attacked(attack, model, pipe, original, data, judge))
            store.forget_failure(out, cell_id(attack))
        except Exception:
            store.record_failure(out, cell_id(attack), attack, traceback.format_exc())
            failed += 1
    if not failed:
        forget_weights(out, model)
    return len(attacks) - failed, failed


def _load_plugins(plan: Plan) -> None:
    """Done every time: a worker process may not know the methods of a user's file yet, or know them as an older plan had them."""
    for plugin in plan.plugins:
        load_plugin(Path(plugin))


def _check_code(plan: Plan, model: dict) -> None:
    """Refuse to compute a cell with another version of a user's file than the one that it is named by."""
    name = model["method"]
    own = name in METHODS and METHODS[name].__module__ in {module_name(Path(plugin)) for plugin in plan.plugins}
    if own and source_digest(name, model["hyperparameters"]) != model["code"]:
        raise PlanError(f"The file of the method {name!r} has changed since this run began: run the plan again.")


def attacked(attack: dict, model: dict, pipe, original, data, judge) -> dict:
    """The result of one attack: its recovery curve as rows, what it cost, and where it was computed."""
    started, target = time.perf_counter(), model["target"]
    settings = {
        "steps": attack["attack_steps"], "learning_rate": attack["attack_rate"], "optimizer": attack["optimizer"],
        "batch_size": attack["attack_batch_size"], "seed": attack["attack_seed"], "samples": attack["samples"],
        "evaluate_every": measured_after(attack), "judge": judge, "progress": False,
    }
    kind, _, rest = attack["auxiliary"].partition(" ")
    if kind == "few-shot":
        curve = few_shot(pipe, data, target, int(rest), **settings).curve
    else:
        auxiliary = auxiliary_set(
            kind, data.resized(image_size(pipe)), target, pipe=pipe if rest == "by itself" else original, seed=model["seed"],
            share=float(rest.split()[0]) / 100 if rest.endswith("%") else 1.0,
        )
        curve = relearn(pipe, auxiliary, target=target, forget=data.train.only(target), **settings).curve
    rows = curve.to_dict("records")
    rows = [{**row, **attack_nfes(attack, pipe, point, row["step"])} for point, row in enumerate(rows)]
    seconds = round(time.perf_counter() - started, 2)
    return {"config": attack, "curve": rows, "seconds": seconds, "provenance": provenance()}
