"""Reading a plan: from YAML or a mapping, checked as a whole before anything is computed, every mistake named."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from ..checking import check_kind
from ..data import DATASETS, Dataset, load_dataset
from ..data.targets import find_target, is_target
from ..errors import DimumError, TrainingError
from ..fitting import data_for
from ..judges import judge_for, load_judge
from ..models.cards import read_card
from ..models.checkpoints import find_checkpoint, load_pipeline, shipped_checkpoints
from ..models.history import history_of
from ..models.networks import network_of, same_layout
from ..models.sampling import ClassConditionalPipeline
from ..unlearning import get_method, load_plugin
from ..unlearning.run import check_fits
from .plan import CHECKPOINT, Plan, filled_in, settings_of, strengths
from .settings import (
    LISTS,
    as_list,
    check_budget,
    check_labels,
    check_method,
    check_snapshots,
    check_values,
    sentence,
    unknown_setting,
)

GRID = ("targets", "methods", "budgets", "seeds", "attack_rates", "optimizers", "auxiliaries")  # dimensions that need an entry


class PlanError(DimumError, ValueError):
    """A plan that cannot be run; the message lists everything that is wrong with it."""


def load_plan(path: str | Path) -> Plan:
    """A plan from a YAML file; PlanError lists everything that is wrong with it, not only the first mistake."""
    check_kind("path", path, (str, os.PathLike), "a YAML file")
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise PlanError(f"{path} is not in UTF-8: have your editor save it so.") from error
    except (OSError, ValueError) as error:  # a ValueError: no name of a file
        raise PlanError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise PlanError(f"{path} should be a mapping of settings such as checkpoint and methods.")
    content = _from_folder(content, path.parent.resolve())
    for plugin in content.get("plugins", []):
        load_plugin(Path(plugin))
    return check_plan({"name": path.stem, **content}, str(path))


def _from_folder(content: dict, folder: Path) -> dict:
    """Files that a plan names are looked for beside it, from wherever it is run."""
    content = dict(content)
    for name in {CHECKPOINT, "judge"} & set(content):
        content[name] = _model_from(folder, content[name])
    if isinstance(content.get("data"), str) and content["data"] not in DATASETS:
        content["data"] = str(folder / content["data"])
    if isinstance(content.get("targets"), dict):
        content["targets"] = {target: _model_from(folder, retrained) for target, retrained in content["targets"].items()}
    if "plugins" in content:
        content["plugins"] = [_beside(folder, "plugin", str(plugin)) for plugin in as_list(content["plugins"])]
    if "methods" in content:
        content["methods"] = [_entry_from(folder, entry) for entry in as_list(content["methods"])]
    return content


def _model_from(folder: Path, name):
    """The plan's own model, or one retrained for it: a folder, from the plan's on, or the name of a shipped one."""
    if not isinstance(name, str) or (name in shipped_checkpoints() and not os.path.isdir(folder / name)):
        return name
    return str(folder / name)


def _entry_from(folder: Path, entry):
    if not isinstance(entry, dict) or CHECKPOINT not in entry:
        return entry
    return {**entry, CHECKPOINT: _beside(folder, CHECKPOINT, str(entry[CHECKPOINT]))}


def _beside(folder: Path, kind: str, name: str) -> str:
    """Plugins, and models entered as methods, must lie beside the plan, so that somebody else's plan runs only what came with it.

    Its checkpoint, judge, retrained models and data may lie elsewhere.
    """
    path = Path(os.path.realpath(folder / name))
    if not path.is_relative_to(folder):
        raise PlanError(f"The {kind} {name!r} lies outside the plan's folder {folder}: put it beside the plan.")
    return str(path)


def check_plan(content: dict, where: str = "the plan") -> Plan:
    """A plan from a mapping."""
    check_kind("a plan", content, dict, "a mapping of settings such as checkpoint and methods")
    wrong: list[str] = []
    values = _named_settings(content, wrong)
    pipe, data = _check_model(values, wrong)
    values["targets"] = _check_targets(values.get("targets"), pipe, data, wrong)
    for name, check in (("methods", check_method), ("budgets", check_budget)):
        entries = [check(entry, wrong) for entry in as_list(values.get(name, []))]
        values[name] = tuple(entry for entry in entries if entry is not None)
    check_values(values, wrong)
    for name in GRID:
        if name in content and not values[name] and not content[name]:  # else what was in it has been found wrong
            wrong.append(f"{name} is empty")
    check_labels(values, wrong)
    check_snapshots(values, wrong)
    if not wrong:
        plan = Plan(**values)
        _check_entries(plan, pipe, wrong)
    if wrong:
        raise PlanError(f"{where} has {len(wrong)} mistake{'s' * (len(wrong) > 1)}: " + "; ".join(wrong) + ".")
    return plan


def _named_settings(content: dict, wrong: list[str]) -> dict:
    """The settings that are given, with tuples for lists."""
    known = {field.name: field for field in dataclasses.fields(Plan)}
    if not isinstance(content.get("name", ""), str):
        wrong.append(f"name should be a word, not {content['name']!r}")
    wrong += [unknown_setting(name, value) for name, value in content.items() if name not in known]
    for name, field in known.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in content:
            wrong.append(f"{name} is missing")
    return {name: tuple(as_list(value)) if name in LISTS else value for name, value in content.items() if name in known}


def _check_model(values: dict, wrong: list[str]) -> tuple[ClassConditionalPipeline | None, Dataset | None]:
    """The pipeline that unlearns and its data, each None if it cannot be loaded."""
    pipe = _loaded(_load_model, values[CHECKPOINT], wrong) if CHECKPOINT in values else None
    data = None
    if "data" in values and (pipe or not os.path.exists(str(values["data"]))):  # pictures are read at the size of a pipeline
        data = _loaded(lambda name: data_for(pipe, name) if pipe else load_dataset(name), values["data"], wrong)
    if pipe and data and data.class_names != pipe.class_names:
        wrong.append(f"{values['data']} has other classes than {values[CHECKPOINT]}")
    given = values.get("judge")
    judge = _loaded(load_judge, given, wrong) if given else None
    try:
        if pipe and (judge or not given):
            judge_for(pipe, judge)
    except DimumError as error:
        wrong.append(f"judge {given or 'is missing'}: {sentence(error)}")
    return pipe, data


def _load_model(name: str) -> ClassConditionalPipeline:
    """A pipeline that names its classes, by which a plan's targets and the judge's verdicts are numbered."""
    pipe = load_pipeline(name)
    if not hasattr(pipe, "class_names"):
        raise PlanError(
            f"{name} is a {type(pipe).__name__}, and a plan takes models that name their classes: use unlearn and relearn in "
            "Python, or experiments/unlearn_canvas.py."
        )
    return pipe


def _loaded(load: Callable, name, wrong: list[str]):
    try:
        return load(str(name))
    except DimumError as error:
        wrong.append(sentence(error))
        return None


def _check_targets(
    targets, pipe: ClassConditionalPipeline | None, data: Dataset | None, wrong: list[str]
) -> dict[str, str | None]:
    if not isinstance(targets, dict):
        targets = dict.fromkeys(map(str, as_list([] if targets is None else targets)))
    targets = {str(target): retrained for target, retrained in targets.items()}
    wrong += [f"{target!r} is no class of the checkpoint" for target in targets if pipe and not is_target(target, pipe.class_names)]
    for target, retrained in targets.items():
        model = _loaded(_load_model, retrained, wrong) if retrained else None
        if not (pipe and model):
            continue
        if not _alike(pipe, model):
            wrong.append(f"{retrained} has other classes, another size or another network than the checkpoint")
        elif data and is_target(target, data.class_names) and _knows(model, data, target):
            wrong.append(f"{retrained} was not trained without {target!r}, so it is no control: train one with --without {target}")
    return targets


def _knows(model: ClassConditionalPipeline, data: Dataset, target: str) -> bool:
    """Whether a model's history says that it was shown the target, or that what it was never shown is something else."""
    history, labels = history_of(model), find_target(target, data.class_names).labels
    without = [label for each in history.forgotten for label in each.target.labels]
    seen = np.isin(data.train.only(target).item_hashes, history.item_hashes).any()
    return bool(seen or (without and not set(labels) <= set(without)))


def _alike(pipe: ClassConditionalPipeline, model: ClassConditionalPipeline) -> bool:
    same = (model.class_names, model.image_shape) == (pipe.class_names, pipe.image_shape)
    return same and same_layout(network_of(model), network_of(pipe))


def _check_entries(plan: Plan, pipe: ClassConditionalPipeline, wrong: list[str]) -> None:
    """Methods must fit the checkpoint. So must models that were unlearned elsewhere, with a card that keeps to the budget."""
    for entry in plan.methods:
        if entry["method"] != CHECKPOINT:
            try:
                check_fits(get_method(entry["method"], **settings_of(entry)), pipe)
            except TrainingError as error:
                wrong.append(sentence(error))
            continue
        if "{target}" not in entry[CHECKPOINT] and len(plan.targets) > 1:
            wrong.append(f"{entry['label']} is one checkpoint for {len(plan.targets)} targets: put {{target}} into its path")
            continue
        for folder in sorted({filled_in(entry[CHECKPOINT], t, s) for t in plan.targets for s in plan.seeds}):
            _check_entry(plan, folder, pipe, wrong)


def _check_entry(plan: Plan, folder: str, pipe: ClassConditionalPipeline, wrong: list[str]) -> None:
    model = _loaded(_load_model, folder, wrong)
    steps = _loaded(card_steps, folder, wrong) if model else None
    if steps is None:
        return
    if not _alike(pipe, model):
        wrong.append(f"{folder} has other classes or another size than {plan.checkpoint}")
    wrong += [
        f"{folder} took {steps} steps by its card, more than the {most} of the budget {budget['label']!r}"
        for budget in (strengths(budget)[0] for budget in plan.budgets) if steps > (most := budget.get("at", budget["steps"]))
    ]


def card_steps(folder: str) -> int:
    """The steps of unlearning that a checkpoint's card states."""
    training = read_card(find_checkpoint(folder)).get("training", {})
    if not isinstance(training.get("steps"), int):
        raise PlanError(f"The card of {folder} does not say how many steps of unlearning it took: add training.steps.")
    return training["steps"]
