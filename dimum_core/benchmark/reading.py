"""Reading a plan: from YAML or a mapping, checked as a whole before anything is computed, every mistake named."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import yaml

from ..attacks import AUXILIARY
from ..checking import check_kind
from ..data import load_dataset
from ..data.targets import is_target
from ..errors import DimumError
from ..models.checkpoints import find_checkpoint, load_pipeline, read_card, shipped_checkpoints
from ..models.sampling import ClassConditionalPipeline
from ..training import OPTIMIZER_STATE
from ..unlearning import get_method, load_plugin
from .plan import CHECKPOINT, CONTROLS, Plan, filled_in

LADDER = (*AUXILIARY, "synthetic by itself", "few-shot")
LISTS = ("seeds", "controls", "attack_rates", "optimizers", "auxiliaries", "plugins")


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
    if isinstance(content.get(CHECKPOINT), str):
        content[CHECKPOINT] = _model_of(folder, content[CHECKPOINT])
    if isinstance(content.get("targets"), dict):
        content["targets"] = {
            target: _model_of(folder, retrained) if isinstance(retrained, str) else retrained
            for target, retrained in content["targets"].items()
        }
    if "plugins" in content:
        content["plugins"] = [_beside(folder, "plugin", str(plugin)) for plugin in _as_list(content["plugins"])]
    if "methods" in content:
        content["methods"] = [
            {**m, CHECKPOINT: _beside(folder, CHECKPOINT, str(m[CHECKPOINT]))} if isinstance(m, dict) and CHECKPOINT in m else m
            for m in _as_list(content["methods"])
        ]
    return content


def _model_of(folder: Path, name: str) -> str:
    """The plan's own model, or one retrained for it: a folder, from the plan's on, or the name of a shipped one."""
    beside = folder / name
    return name if name in shipped_checkpoints() and not os.path.isdir(beside) else str(beside)


def _beside(folder: Path, kind: str, name: str) -> str:
    """What a plan runs or reads has come with it: a plan that was passed on cannot reach for other files."""
    path = Path(os.path.realpath(folder / name))
    if not path.is_relative_to(folder):
        raise PlanError(f"The {kind} {name!r} lies outside the plan's folder {folder}: put it beside the plan.")
    return str(path)


def check_plan(content: dict, where: str = "the plan") -> Plan:
    """A plan from a mapping."""
    check_kind("a plan", content, dict, "a mapping of settings such as checkpoint and methods")
    wrong: list[str] = [] if isinstance(content.get("name", ""), str) else [f"name should be a word, not {content['name']!r}"]
    known = {f.name: f for f in dataclasses.fields(Plan)}
    wrong += [_unknown(key, value) for key, value in content.items() if key not in known]
    needed = [name for name, f in known.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    wrong += [f"{name} is missing" for name in needed if name not in content]
    values = {key: value for key, value in content.items() if key in known}
    for key in LISTS:
        if key in values:
            values[key] = tuple(_as_list(values[key]))
    pipe = _check_model(values, wrong)
    values["targets"] = _check_targets(values.get("targets"), pipe, wrong)
    values["methods"] = tuple(filter(None, (_check_method(m, wrong) for m in _as_list(values.get("methods", [])))))
    values["budgets"] = tuple(filter(None, (_check_budget(b, wrong) for b in _as_list(values.get("budgets", [])))))
    _check_values(values, content, wrong)
    _check_once(values, wrong)
    if not wrong:
        plan = Plan(**values)
        _check_entries(plan, pipe, wrong)
    if wrong:
        raise PlanError(f"{where} has {len(wrong)} mistake{'s' * (len(wrong) > 1)}: " + "; ".join(wrong) + ".")
    return plan


def _unknown(key, value) -> str:
    if key == "evaluations":
        after = value + 1 if _is_number(value, int) else "one more"
        return f"`evaluations: {value}` is called `points: {after}` now, with the point before the attack counted, too"
    return f"unknown setting {key!r}"


def _as_list(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _sentence(error: DimumError) -> str:
    return str(error).rstrip(".")


def _check_model(values: dict, wrong: list[str]) -> ClassConditionalPipeline | None:
    """The pipeline that unlearns, or None if it cannot be loaded."""
    pipe = data = None
    try:
        pipe = load_pipeline(str(values["checkpoint"])) if "checkpoint" in values else None
    except DimumError as error:
        wrong.append(_sentence(error))
    try:
        data = load_dataset(str(values["data"])) if "data" in values else None
    except DimumError as error:
        wrong.append(_sentence(error))
    if pipe and data and data.class_names != pipe.class_names:
        wrong.append(f"{values['data']} has other classes than {values['checkpoint']}")
    return pipe


def _check_targets(targets, pipe: ClassConditionalPipeline | None, wrong: list[str]) -> dict:
    names = _as_list([] if targets is None else targets)
    listed = targets.items() if isinstance(targets, dict) else [(name, None) for name in names]
    targets = {str(name): retrained for name, retrained in listed}
    wrong += [f"{name!r} is no class of the checkpoint" for name in targets if pipe and not is_target(name, pipe.class_names)]
    for retrained in filter(None, targets.values()):
        try:
            found = load_pipeline(str(retrained))
            if pipe and (found.class_names, found.image_shape) != (pipe.class_names, pipe.image_shape):
                wrong.append(f"{retrained} has other classes or another size than the checkpoint")
        except DimumError as error:
            wrong.append(_sentence(error))
    return targets


def _check_method(entry, wrong: list[str]) -> dict | None:
    entry = {"method": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or not ({"method", CHECKPOINT} & set(entry)):
        wrong.append(f"a method is a name, or a mapping with `method` or `checkpoint`, not {entry!r}")
        return None
    if CHECKPOINT in entry:
        if set(entry) != {CHECKPOINT, "label"}:
            wrong.append(f"a method by its checkpoint has `checkpoint` and `label`, and no more, not {entry!r}")
            return None
        return {"method": CHECKPOINT, "label": str(entry["label"]), CHECKPOINT: str(entry[CHECKPOINT])}
    settings = {str(key): value for key, value in entry.items() if key not in ("method", "label")}
    try:
        get_method(str(entry["method"]), **settings)
    except DimumError as error:
        wrong.append(_sentence(error) + "".join(map(_as_number, settings.values())))
        return None
    label = entry.get("label") or " ".join([entry["method"], *(f"{k}={v}" for k, v in settings.items())])
    return {"method": entry["method"], "label": str(label), **settings}


def _check_budget(entry, wrong: list[str]) -> dict | None:
    entry = {"steps": entry} if _is_number(entry, int) else entry
    steps = entry.get("steps") if isinstance(entry, dict) else None
    if not _is_number(steps, int) or steps < 1:
        wrong.append(f"a budget is a number of steps, or a mapping with `steps` of at least 1, not {entry!r}")
        return None
    until = entry.get("until")
    fine = until is None or (_is_number(until) and 0 < until <= 1)
    if set(entry) - {"steps", "until", "label"} or not fine:
        wrong.append(f"a budget has `steps`, `until` (above 0, at most 1) and `label`, not {entry!r}{_as_number(until)}")
        return None
    label = entry.get("label") or (f"{entry['steps']} steps" if until is None else f"until {until:g}")
    return {"steps": entry["steps"], "until": until, "label": str(label)}


def _is_number(value, kind=(int, float)) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)  # to Python, True is 1


def _as_number(value) -> str:
    """How to write a number that YAML takes for a word, such as 1e-4: it wants a point, and a sign before the exponent."""
    parts = re.fullmatch(r"([-+]?\d+)(\.\d*)?e([-+]?)(\d+)", value, re.IGNORECASE) if isinstance(value, str) else None
    if not parts or float(value) % 1 == 0:  # a whole number is written without an exponent
        return ""
    return f" (in YAML that is a word: write {parts[1]}{parts[2] or '.0'}e{parts[3] or '+'}{parts[4]})"


def _check_values(values: dict, content: dict, wrong: list[str]) -> None:
    def expect(key: str, right, meaning: str) -> None:
        for value in values.get(key, ()) if key in LISTS else [values.get(key, getattr(Plan, key))]:
            if not right(value):
                wrong.append(f"{key} should hold {meaning}, not {value!r}{_as_number(value)}")

    whole = lambda least: lambda v: _is_number(v, int) and v >= least  # noqa: E731
    share = lambda v: _is_number(v) and 0 < v < 1  # noqa: E731
    expect("seeds", whole(0), "whole numbers of at least 0")
    for key in ("attack_steps", "batch_size", "samples", "check_every"):  # no dimensions of the grid: no lists
        expect(key, whole(1), "one whole number of at least 1")
    expect("points", whole(2), "one whole number of at least 2")
    expect("learning_rate", share, "one number between 0 and 1")
    expect("attack_rates", share, "numbers between 0 and 1")
    expect("optimizers", lambda v: isinstance(v, str) and v in OPTIMIZER_STATE, " or ".join(OPTIMIZER_STATE))
    expect("controls", lambda v: v in CONTROLS, " or ".join(CONTROLS))
    expect("auxiliaries", is_auxiliary, f"{', '.join(LADDER)}, with a share such as 'retain 10 %', or 'few-shot 8'")
    for key in ("targets", "methods", "budgets", "seeds", "attack_rates", "optimizers", "auxiliaries"):
        if key in values and not values[key] and not content.get(key):  # else what was in it has been found wrong
            wrong.append(f"{key} is empty")


def is_auxiliary(name) -> bool:
    share = re.fullmatch(r"(\w+) (\d+(?:\.\d+)?) %", str(name))
    if share:
        return share[1] in AUXILIARY and 0 < float(share[2]) <= 100
    return str(name) in LADDER[:-1] or re.fullmatch(r"few-shot [1-9]\d*", str(name)) is not None


def _check_once(values: dict, wrong: list[str]) -> None:
    """Combinations that are none: two rows of the same name would be taken for one, and a curve needs steps to be measured at."""
    names = {"methods": [m["label"] for m in values["methods"]], "budgets": [b["label"] for b in values["budgets"]]}
    names |= {key: values[key] for key in LISTS if key in values}
    for key, entries in names.items():
        twice = {str(entry) for entry in entries if list(map(str, entries)).count(str(entry)) > 1}
        wrong += [f"{key} holds {entry!r} twice" + " (tell them apart by `label`)" * (key == "methods") for entry in sorted(twice)]
    wrong += [f"a method cannot be called {label!r}: that is a control" for label in names["methods"] if label in CONTROLS]
    steps, points = values.get("attack_steps", Plan.attack_steps), values.get("points", Plan.points)
    if _is_number(steps, int) and _is_number(points, int) and steps >= 1 and points >= 2 and steps % (points - 1):
        wrong.append(f"{points} points of a curve, at equal distances, take a multiple of {points - 1} attack_steps, not {steps}")


def _check_entries(plan: Plan, pipe: ClassConditionalPipeline, wrong: list[str]) -> None:
    """Models that were unlearned elsewhere: there, alike, with a card that keeps to the budget."""
    for entry in (entry for entry in plan.methods if entry["method"] == CHECKPOINT):
        if "{target}" not in entry[CHECKPOINT] and len(plan.targets) > 1:
            wrong.append(f"{entry['label']} is one checkpoint for {len(plan.targets)} targets: put {{target}} into its path")
            continue
        for folder in sorted({filled_in(entry[CHECKPOINT], t, s) for t in plan.targets for s in plan.seeds}):
            try:
                found, steps = load_pipeline(folder), card_steps(folder)
            except DimumError as error:
                wrong.append(_sentence(error))
                continue
            if (found.class_names, found.image_shape) != (pipe.class_names, pipe.image_shape):
                wrong.append(f"{folder} has other classes or another size than {plan.checkpoint}")
            wrong += [
                f"{folder} took {steps} steps by its card, more than the {budget['steps']} of the budget {budget['label']!r}"
                for budget in plan.budgets if steps > budget["steps"]
            ]


def card_steps(folder: str) -> int:
    """The steps of unlearning that a checkpoint's card states."""
    training = read_card(find_checkpoint(folder)).get("training", {})
    if not isinstance(training.get("steps"), int):
        raise PlanError(f"The card of {folder} does not say how many steps of unlearning it took: add training.steps.")
    return training["steps"]
