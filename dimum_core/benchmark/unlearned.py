"""The unlearned models of a plan: computed once, kept while attacks on them are missing."""

from __future__ import annotations

import copy
import time
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch.nn.utils import parameters_to_vector

from ..files import write_atomically
from ..models.cards import provenance, read_card
from ..models.checkpoints import find_checkpoint, load_pipeline
from ..models.history import with_unet
from ..models.sampling import ClassConditionalPipeline
from ..unlearning import unlearn
from . import store
from .nfe import counted
from .plan import CHECKPOINT, CONTROLS, Plan, cell_id


def obtain_model(
    plan: Plan, model: dict, original: ClassConditionalPipeline, data, judge, out: Path
) -> ClassConditionalPipeline:
    """A model of the plan, its cell written: computed, given, or kept by a run that was killed before its attacks were done."""
    if model["method"] in (*CONTROLS, CHECKPOINT):
        pipe = original if model["method"] == "original" else load_pipeline(plan.folder(model))
        _write(model, pipe, original, _known_cost(plan, model), out)
        return pipe
    if (pipe := _kept(plan, model, out)) is not None:
        return pipe
    siblings = plan.snapshots(model)
    with store.claim(out, cell_id({**siblings[-1], "at": None}), wait=True):  # one run makes them all
        if (pipe := _kept(plan, model, out)) is not None:
            return pipe
        return _unlearned(plan, model, siblings, original, data, judge, out)


def _write(model: dict, pipe: ClassConditionalPipeline, original: ClassConditionalPipeline, cost: dict, out: Path) -> None:
    now, before = (parameters_to_vector(each.unet.parameters()).detach().cpu() for each in (pipe, original))  # one may be training
    measured = {**cost, "unlearning_distance": float((now - before).norm())}
    store.write_cell(out, cell_id(model), {"config": model, "measured": measured, "provenance": provenance()})


def _known_cost(plan: Plan, model: dict) -> dict:
    """The cost of a model that was unlearned elsewhere, from its card."""
    if model["method"] in CONTROLS:
        return {"unlearning_steps": 0, "unlearning_seconds": 0.0, "unlearning_nfes": 0}
    training = read_card(find_checkpoint(plan.folder(model)))["training"]
    return {f"unlearning_{key}": training.get(key) for key in ("steps", "seconds", "nfes")}


def _unlearned(
    plan: Plan, model: dict, siblings: list[dict], original: ClassConditionalPipeline, data, judge, out: Path
) -> ClassConditionalPipeline:
    """Unlearn, and keep the model; of a run that is kept at several of its steps, every one that is not done, or lacks attacks."""
    at = {sibling["at"]: sibling for sibling in siblings if "at" in sibling}
    started = time.monotonic()

    def keep(step: int, forgetful: ClassConditionalPipeline) -> dict:
        sibling = at.get(step)
        cells = [sibling, *plan.attacks(sibling)] if sibling else []
        if sibling and (sibling == model or not all(store.is_done(out, cell_id(each)) for each in cells)):
            _keep(forgetful, sibling, out)
            _write(sibling, forgetful, original, _cost(step, time.monotonic() - started, seen), out)
        return {}

    with counted(original.unet) as seen:
        pipe = unlearn(
            original, model["method"], target=model["target"], data=data, steps=model["steps"],
            until=model["until"], learning_rate=model["learning_rate"], batch_size=model["batch_size"], evaluate=keep,
            evaluate_every=sorted(at) or model["check_every"], seed=model["seed"], judge=judge, progress=False,
            **model["hyperparameters"],
        )
    if at:
        return _with_weights(original, model, out)
    _keep(pipe, model, out)
    _write(model, pipe, original, _cost(pipe.unlearning["steps"], pipe.unlearning["seconds"], seen), out)
    return pipe


def _cost(steps: int, seconds: float, seen: dict[str, int]) -> dict:
    return {"unlearning_steps": steps, "unlearning_seconds": round(seconds, 2), "unlearning_nfes": seen["training"]}


def _weights(out: Path, model: dict) -> Path:
    return out / "weights" / f"{cell_id(model)}.safetensors"


def _kept(plan: Plan, model: dict, out: Path) -> ClassConditionalPipeline | None:
    """The model of a run that was killed, if it is whole and nobody has taken it away meanwhile."""
    if not store.is_done(out, cell_id(model)):
        return None
    try:
        return _with_weights(load_pipeline(plan.checkpoint), model, out)
    except (FileNotFoundError, SafetensorError):
        return None


def _with_weights(pipe: ClassConditionalPipeline, model: dict, out: Path) -> ClassConditionalPipeline:
    """A pipeline like this one with the weights that were kept of a model."""
    forgetful = with_unet(pipe, copy.deepcopy(pipe.unet))
    forgetful.unet.load_state_dict(load_file(_weights(out, model)))
    return forgetful


def _keep(pipe: ClassConditionalPipeline, model: dict, out: Path) -> None:
    write_atomically(_weights(out, model), save({key: value.contiguous() for key, value in pipe.unet.state_dict().items()}))


def forget_weights(out: Path, model: dict) -> None:
    """Once every attack on a model is done, its weights are no longer needed."""
    weights = _weights(out, model)
    weights.unlink(missing_ok=True)
    for aside in weights.parent.glob(f".{weights.name}.*.tmp"):
        aside.unlink(missing_ok=True)  # of a run that was killed while it wrote
