"""The unlearned models of a plan: computed once, kept while attacks on them are missing."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch.nn.utils import parameters_to_vector

from ..files import write_atomically
from ..models.cards import provenance, read_card
from ..models.checkpoints import find_checkpoint, load_pipeline
from ..models.sampling import ClassConditionalPipeline
from ..unlearning import unlearn
from . import store
from .nfe import counted
from .plan import CHECKPOINT, CONTROLS, Plan, cell_id


def obtain_model(plan: Plan, model: dict, original: ClassConditionalPipeline, data, out: Path) -> ClassConditionalPipeline:
    """A model of the plan, its cell written: computed, given, or kept by a run that was killed before its attacks were done."""
    from_elsewhere = model["method"] in (*CONTROLS, CHECKPOINT)
    pipe = None if from_elsewhere else _kept(plan, model, out)
    if pipe is not None:
        return pipe
    if model["method"] == "original":
        pipe, cost = original, _known_cost(plan, model)
    elif from_elsewhere:
        pipe, cost = load_pipeline(plan.folder(model)), _known_cost(plan, model)
    else:
        pipe, cost = _unlearned(model, original, data)
        _keep(pipe, model, out)
    moved = parameters_to_vector(pipe.unet.parameters()) - parameters_to_vector(original.unet.parameters())
    measured = {**cost, "unlearning_distance": float(moved.detach().norm())}
    store.write_cell(out, cell_id(model), {"config": model, "measured": measured, "provenance": provenance()})
    return pipe


def _known_cost(plan: Plan, model: dict) -> dict:
    """Of a model that was not unlearned here: a checkpoint's cost, from its card."""
    if model["method"] in CONTROLS:
        return {"unlearning_steps": 0, "unlearning_seconds": 0.0, "unlearning_nfes": 0}
    training = read_card(find_checkpoint(plan.folder(model)))["training"]
    return {f"unlearning_{key}": training.get(key) for key in ("steps", "seconds", "nfes")}


def _unlearned(model: dict, original: ClassConditionalPipeline, data) -> tuple[ClassConditionalPipeline, dict]:
    with counted(original.unet) as seen:
        pipe = unlearn(
            original, model["method"], target=model["target"], data=data, steps=model["steps"], until=model["until"],
            learning_rate=model["learning_rate"], batch_size=model["batch_size"], evaluate_every=model["check_every"],
            seed=model["seed"], progress=False, **model["hyperparameters"],
        )
    return pipe, {
        "unlearning_steps": pipe.unlearning["steps"], "unlearning_seconds": round(pipe.unlearning["seconds"], 2),
        "unlearning_nfes": seen["training"],
    }


def _weights(out: Path, model: dict) -> Path:
    return out / "weights" / f"{cell_id(model)}.safetensors"


def _kept(plan: Plan, model: dict, out: Path) -> ClassConditionalPipeline | None:
    """The model of a run that was killed, if it is whole and nobody has taken it away meanwhile."""
    if not store.is_done(out, cell_id(model)):
        return None
    try:
        weights = load_file(_weights(out, model))
    except (FileNotFoundError, SafetensorError):
        return None
    pipe = load_pipeline(plan.checkpoint)
    pipe.unet.load_state_dict(weights)
    return pipe


def _keep(pipe: ClassConditionalPipeline, model: dict, out: Path) -> None:
    write_atomically(_weights(out, model), save({key: value.contiguous() for key, value in pipe.unet.state_dict().items()}))


def forget_weights(out: Path, model: dict) -> None:
    """Once every attack on a model is done, its weights are of no more use."""
    weights = _weights(out, model)
    weights.unlink(missing_ok=True)
    for aside in weights.parent.glob(f".{weights.name}.*.tmp"):
        aside.unlink(missing_ok=True)  # of a run that was killed while it wrote
