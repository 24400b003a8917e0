"""Plans: what a benchmark runs, read from YAML and checked as a whole before anything is computed."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import itertools
import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml

from ..attacks import AUXILIARY
from ..checkpoints import find_checkpoint, load_pipeline
from ..data import load_dataset
from ..errors import DimumError
from ..training import OPTIMIZER_STATE
from ..unlearning import METHODS, get_method

CONTROLS = ("original", "retrained")
LADDER = (*AUXILIARY, "synthetic by itself", "few-shot")


class PlanError(DimumError, ValueError):
    """A plan that cannot be run; the message lists everything that is wrong with it."""


@dataclass(frozen=True)
class Plan:
    """A grid. Each field is as in the YAML file; a list is a dimension of the grid.

    checkpoint, data: the model that unlearns, and the data set.
    targets: what to forget, with the checkpoint retrained without it (or null) for the control.
    methods: names, or mappings with `method`, hyper-parameters, and optionally a `label`.
    controls: of original and retrained.
    budgets: mappings with `steps`, and optionally `until` (stop at this unlearning accuracy) and a `label`.
    attack_rates, attack_steps, optimizers, auxiliaries: the attacker's choices; "retain 10 %" is a share of a set.
    samples: of the target, and as many of the rest, at each of the `evaluations` of a recovery curve.
    """

    name: str
    checkpoint: str
    data: str
    targets: dict[str, str | None]
    methods: tuple
    budgets: tuple
    seeds: tuple[int, ...] = (0, 1, 2)
    controls: tuple[str, ...] = CONTROLS
    learning_rate: float = 1e-4
    batch_size: int = 64
    check_every: int = 5
    attack_steps: int = 40
    attack_rates: tuple[float, ...] = (3e-5, 3e-4, 3e-3)
    optimizers: tuple[str, ...] = ("adamw",)
    auxiliaries: tuple[str, ...] = ("retain",)
    evaluations: int = 2
    samples: int = 32
    plugins: tuple[str, ...] = field(default=())

    def models(self) -> list[dict]:
        """The unlearned models and controls, seed after seed, so that a run cut short has whole seeds; each a JSON object."""
        found = []
        for seed, target in itertools.product(self.seeds, self.targets):
            for control in self.controls:
                if control == "original" or self.targets[target]:
                    found.append(self._model(control, target, seed))
            for method, budget in itertools.product(self.methods, self.budgets):
                found.append(self._model(method, target, seed, budget))
        return found

    def _model(self, method, target: str, seed: int, budget: dict | None = None) -> dict:
        common = {"checkpoint": checkpoint_digest(self.checkpoint), "data": data_digest(self.data), "target": target, "seed": seed}
        if budget is None:
            source = checkpoint_digest(self.targets[target]) if method == "retrained" else None
            return {**common, "label": method, "method": method, "weights": source, "budget": "none"}
        method, budget = dict(method), dict(budget)
        name, label = method.pop("method"), method.pop("label")
        return {
            **common, "label": label, "method": name, "hyperparameters": method, "code": source_digest(name),
            "budget": budget["label"], "steps": budget["steps"], "until": budget.get("until"), "learning_rate": self.learning_rate,
            "batch_size": self.batch_size, "check_every": self.check_every,
        }

    def attacks(self, model: dict) -> list[dict]:
        """The attacks on one model; each a JSON object."""
        grid = itertools.product(self.auxiliaries, self.optimizers, self.attack_rates)
        return [
            {
                "model": cell_id(model), "auxiliary": auxiliary, "optimizer": optimizer, "attack_rate": rate,
                "attack_steps": self.attack_steps, "attack_seed": 1000 + model["seed"], "samples": self.samples,
                "evaluations": self.evaluations, "attack_batch_size": self.batch_size,
            }
            for auxiliary, optimizer, rate in grid
        ]


def cell_id(config: dict) -> str:
    """What determines a cell, as a name: a hash of canonical JSON (never of tensors, whose hashes are unstable)."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


@lru_cache(maxsize=32)
def checkpoint_digest(checkpoint: str) -> str:
    """Hash of a checkpoint's files (its cards aside)."""
    digest, folder = hashlib.blake2b(digest_size=10), find_checkpoint(checkpoint)
    for path in sorted(p for p in folder.rglob("*") if p.suffix == ".safetensors" or p.name.endswith("config.json")):
        digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def data_digest(data: str) -> str:
    loaded = load_dataset(data)
    return hashlib.blake2b((loaded.train.digest + loaded.test.digest).encode(), digest_size=10).hexdigest()


def source_digest(method: str) -> str:
    """Hash of the file that defines a method, so that results of an older version are not mistaken for its own."""
    return hashlib.blake2b(Path(inspect.getfile(METHODS[method])).read_bytes(), digest_size=10).hexdigest()


# Reading and checking -------------------------------------------------------------------------------------------------


def load_plan(path: str | Path) -> Plan:
    """A plan from a YAML file; PlanError lists everything that is wrong with it, not only the first mistake."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}.") from error
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise PlanError(f"{path} should be a mapping of settings such as checkpoint and methods.")
    for plugin in _as_list(content.get("plugins", [])):
        from ..cli import load_plugin

        load_plugin(path.parent / str(plugin))
    return check_plan({"name": path.stem, **content}, str(path))


def check_plan(content: dict, where: str = "the plan") -> Plan:
    """A plan from a mapping."""
    wrong: list[str] = []
    known = {f.name: f for f in dataclasses.fields(Plan)}
    wrong += [f"unknown setting {key!r}" for key in content if key not in known]
    needed = [name for name, f in known.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]
    wrong += [f"{name} is missing" for name in needed if name not in content]
    values = {key: value for key, value in content.items() if key in known}
    classes = _check_model(values, wrong)
    values["targets"] = _check_targets(values.get("targets"), classes, wrong)
    values["methods"] = tuple(filter(None, (_check_method(m, wrong) for m in _as_list(values.get("methods", [])))))
    values["budgets"] = tuple(filter(None, (_check_budget(b, wrong) for b in _as_list(values.get("budgets", [])))))
    for key in ("seeds", "controls", "attack_rates", "optimizers", "auxiliaries", "plugins"):
        if key in values:
            values[key] = tuple(_as_list(values[key]))
    _check_values(values, wrong)
    if wrong:
        raise PlanError(f"{where} has {len(wrong)} mistake{'s' * (len(wrong) > 1)}: " + "; ".join(wrong) + ".")
    return Plan(**values)


def _as_list(value) -> list:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _check_model(values: dict, wrong: list[str]) -> tuple[str, ...]:
    """The checkpoint's class names, or () if it cannot be loaded."""
    classes = ()
    try:
        if "checkpoint" in values:
            classes = load_pipeline(values["checkpoint"]).class_names
        data_classes = load_dataset(values["data"]).class_names if "data" in values else classes
        if classes and data_classes != classes:
            wrong.append(f"{values['data']} has other classes than {values['checkpoint']}")
    except DimumError as error:
        wrong.append(str(error).rstrip("."))
    return classes


def _check_targets(targets, classes: tuple[str, ...], wrong: list[str]) -> dict:
    targets = targets if isinstance(targets, dict) else dict.fromkeys(_as_list([] if targets is None else targets))
    targets = {str(name): retrained for name, retrained in targets.items()}
    wrong += [f"{name!r} is no class of the checkpoint" for name in targets if classes and name not in classes]
    for retrained in filter(None, targets.values()):
        try:
            find_checkpoint(retrained)
        except DimumError as error:
            wrong.append(str(error).rstrip("."))
    return targets


def _check_method(entry, wrong: list[str]) -> dict | None:
    entry = {"method": entry} if isinstance(entry, str) else entry
    if not isinstance(entry, dict) or "method" not in entry:
        wrong.append(f"a method is a name or a mapping with `method`, not {entry!r}")
        return None
    settings = {key: value for key, value in entry.items() if key not in ("method", "label")}
    try:
        get_method(entry["method"], **settings)
    except DimumError as error:
        wrong.append(str(error).rstrip("."))
        return None
    label = entry.get("label") or " ".join([entry["method"], *(f"{k}={v}" for k, v in settings.items())])
    return {"method": entry["method"], "label": label, **settings}


def _check_budget(entry, wrong: list[str]) -> dict | None:
    entry = {"steps": entry} if isinstance(entry, int) else entry
    if not isinstance(entry, dict) or not isinstance(entry.get("steps"), int) or entry["steps"] < 1:
        wrong.append(f"a budget is a number of steps, or a mapping with `steps` of at least 1, not {entry!r}")
        return None
    until = entry.get("until")
    if set(entry) - {"steps", "until", "label"} or not (until is None or 0 < until <= 1):
        wrong.append(f"a budget has `steps`, `until` (above 0, at most 1) and `label`, not {entry!r}")
        return None
    label = entry.get("label") or (f"{entry['steps']} steps" if until is None else f"until {until:g}")
    return {"steps": entry["steps"], "until": until, "label": label}


def _check_values(values: dict, wrong: list[str]) -> None:
    def expect(key: str, right, meaning: str) -> None:
        for value in _as_list(values.get(key, [])):
            if isinstance(value, bool) or not right(value):
                wrong.append(f"{key} should hold {meaning}, not {value!r}")

    whole = lambda least: lambda v: isinstance(v, int) and v >= least  # noqa: E731
    counts = ("attack_steps", "batch_size", "samples", "evaluations", "check_every")
    for key, least in (("seeds", 0), *((key, 1) for key in counts)):
        expect(key, whole(least), f"whole numbers of at least {least}")
    for key in ("learning_rate", "attack_rates"):
        expect(key, lambda v: isinstance(v, (int, float)) and 0 < v < 1, "numbers between 0 and 1")
    expect("optimizers", lambda v: v in OPTIMIZER_STATE, " or ".join(OPTIMIZER_STATE))
    expect("controls", lambda v: v in CONTROLS, " or ".join(CONTROLS))
    expect("auxiliaries", is_auxiliary, f"{', '.join(LADDER)}, with a share such as 'retain 10 %', or 'few-shot 8'")
    for key in ("targets", "methods", "budgets", "seeds"):
        if key in values and not values[key] and not any(key.rstrip("s") in w for w in wrong):
            wrong.append(f"{key} is empty")


def is_auxiliary(name) -> bool:
    share = re.fullmatch(r"(\w+) (\d+(?:\.\d+)?) %", str(name))
    if share:
        return share[1] in AUXILIARY and 0 < float(share[2]) <= 100
    return str(name) in LADDER[:-1] or re.fullmatch(r"few-shot [1-9]\d*", str(name)) is not None

