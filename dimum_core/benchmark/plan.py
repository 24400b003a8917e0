"""Plans: what a benchmark runs, as a grid of models and attacks, and what names a cell."""

from __future__ import annotations

import ast
import hashlib
import inspect
import itertools
import json
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import decode_source
from pathlib import Path

from ..fitting import data_for
from ..judges import PairJudge, find_judge
from ..models.checkpoints import find_checkpoint, load_pipeline
from ..models.fresh_noise import FRESH_STEPS
from ..training import STATE_FILE
from ..unlearning import METHODS, Method

CONTROLS = ("original", "retrained")
INDEX = "model_index.json"  # of a pipeline: its guidance scale, the names of its classes, how it folds pixels
SAMPLER = f"Euler ancestral, {FRESH_STEPS} steps"  # what `relearn` measures with
# settings of pipelines, and judges, of the shipped results, whose cells were named before these counted, and keep their names
UNNAMED = ("63a5c835790bdde5ea76", "f1396a2dc47bc7c48411", "b75ccdd5da2479f9ae1e", "a174fc7ccf976e68f1a9")
CHECKPOINT = "checkpoint"  # the method of a model that was unlearned elsewhere


@dataclass(frozen=True)
class Plan:
    """A grid. Each field is as in the YAML file; a list is a dimension of the grid.

    checkpoint, data: the model that unlearns, and the data set: its name, or a folder or a table of your own pictures.
    judge: of what a sample shows; default, the shipped one that fits the checkpoint.
    targets: what to forget, with the checkpoint retrained without it (or null) for the control.
    methods: names; mappings with `method`, hyper-parameters, and optionally a `label`; or, for models unlearned elsewhere, mappings
        with `checkpoint`, a folder in whose name {target} and {seed} are filled in, and a `label`.
    controls: of original and retrained.
    budgets: mappings with `steps`, and optionally `until` (stop at this unlearning accuracy) and a `label`; or with `snapshots`:
        one run of unlearning is then attacked as it is after each of these numbers of its steps.
    attack_rates, attack_steps, optimizers, auxiliaries: the attacker's choices; "retain 10 %" is a share of a set.
    points: of a recovery curve, at equal distances; the first is before the attack, the last after its last step. Or a list: the
        steps after which it is measured, beside those two.
    samples: of the target, and as many of the rest, at each of these points.
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
    points: int | tuple[int, ...] = 3
    samples: int = 32
    plugins: tuple[str, ...] = field(default=())
    judge: str | None = None

    def models(self) -> list[dict]:
        """The unlearned models and controls, seed after seed, so that a run cut short has whole seeds; each a JSON object."""
        models = []
        unlearned = [entry for entry in self.methods if entry["method"] != CHECKPOINT]
        codes = {entry["label"]: source_digest(entry["method"], settings_of(entry)) for entry in unlearned}
        known = {"checkpoint": checkpoint_digest(self.checkpoint), "data": data_digest(self.data, self.checkpoint)}
        judge = judge_digest(self.judge, self.checkpoint)
        known |= {"judge": judge} if judge not in UNNAMED else {}
        for seed, target in itertools.product(self.seeds, self.targets):
            common = {**known, "target": target, "seed": seed}
            for control in self.controls:
                if control == "original" or self.targets[target]:
                    models.append(self._model(control, common, codes))
            for method, budget in itertools.product(self.methods, self.budgets):
                models += [self._model(method, common, codes, strength) for strength in strengths(budget)]
        return models

    def _model(self, method, common: dict, codes: dict[str, str], budget: dict | None = None) -> dict:
        target, seed = common["target"], common["seed"]
        if budget is None:
            source = checkpoint_digest(self.targets[target]) if method == "retrained" else None
            return {**common, "label": method, "method": method, "weights": source, "budget": "none"}
        name, label = method["method"], method["label"]
        if name == CHECKPOINT:
            source = checkpoint_digest(filled_in(method["checkpoint"], target, seed))
            return {**common, "label": label, "method": name, "weights": source, "budget": budget["label"]}
        return {
            **common, "label": label, "method": name, "hyperparameters": settings_of(method), "code": codes[label],
            "budget": budget["label"], "steps": budget["steps"], "until": budget.get("until"), "learning_rate": self.learning_rate,
            "batch_size": self.batch_size, "check_every": self.check_every,
            **({"at": budget["at"]} if "at" in budget else {}),
        }

    def attacks(self, model: dict) -> list[dict]:
        """The attacks on one model; each a JSON object."""
        grid = itertools.product(self.auxiliaries, self.optimizers, self.attack_rates)
        return [
            {
                "model": cell_id(model), "auxiliary": auxiliary, "optimizer": optimizer, "attack_rate": rate,
                "attack_steps": self.attack_steps, "attack_seed": 1000 + model["seed"], "samples": self.samples,
                "points": self.points, "attack_batch_size": self.batch_size, "sampler": SAMPLER,
            }
            for auxiliary, optimizer, rate in grid
        ]

    def snapshots(self, model: dict) -> list[dict]:
        """All models that one run of unlearning gives: itself, or itself and the same after other numbers of steps."""
        for budget in self.budgets:
            among = [{**model, "budget": each["label"], "at": each.get("at")} for each in strengths(budget)]
            if "at" in model and model in among:
                return among
        return [model]

    def folder(self, model: dict) -> str:
        """Where the weights of a model lie that is not unlearned here."""
        if model["method"] == "original":
            return self.checkpoint
        if model["method"] == "retrained":
            return self.targets[model["target"]]
        entry = next(entry for entry in self.methods if entry["label"] == model["label"])
        return filled_in(entry["checkpoint"], model["target"], model["seed"])


def strengths(budget: dict) -> list[dict]:
    """A budget as it is, or one for each of its snapshots, `at` so many of its steps."""
    if not budget.get("snapshots"):
        return [budget]
    return [{**budget, "at": at, "label": f"{at} of {budget['label']}"} for at in budget["snapshots"]]


def measured_after(attack: dict) -> int | list[int]:
    """The steps between two points of an attack's curve, or the steps after which there is one."""
    points = attack["points"]
    return list(points) if isinstance(points, (list, tuple)) else max(1, attack["attack_steps"] // (points - 1))


def settings_of(entry: dict) -> dict:
    """The hyper-parameters in an entry of `methods`."""
    return {str(key): value for key, value in entry.items() if key not in ("method", "label")}


def filled_in(folder: str, target: str, seed: int) -> str:
    return folder.replace("{target}", target).replace("{seed}", str(seed))


def cell_id(config: dict) -> str:
    """What determines a cell, as a name: a hash of canonical JSON (never of tensors, whose hashes are unstable)."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def checkpoint_digest(checkpoint: str) -> str:
    """Hash of a checkpoint's files (its cards aside, and the state of a training that was kept beside them)."""
    folder = find_checkpoint(checkpoint).absolute()
    files = sorted(p for p in folder.rglob("*") if p.suffix == ".safetensors" or p.name.endswith(("config.json", INDEX)))
    stats = ((path, path.stat()) for path in files if path.name != STATE_FILE)
    return _digest(folder, tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats))


@lru_cache(maxsize=32)
def _digest(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    """Kept for as long as the files have the same sizes and times: one that is saved again is another checkpoint."""
    digest = hashlib.blake2b(digest_size=10)
    for path, _, _ in files:
        content = path.read_bytes()
        if path.name == INDEX:
            settings = cell_id({name: value for name, value in json.loads(content).items() if not name.startswith("_")})
            if settings in UNNAMED:
                continue
            content = settings.encode()  # whatever version of diffusers wrote it
        digest.update(path.relative_to(folder).as_posix().encode(errors="surrogateescape") + content)
    return digest.hexdigest()


def judge_digest(judge: str | None, checkpoint: str) -> str:
    """Hash of a judge's files; by default of the shipped judge, or the two, of what the checkpoint draws."""
    if judge:
        return checkpoint_digest(judge)
    found = find_judge(load_pipeline(checkpoint))
    parts = (found.style, found.object) if isinstance(found, PairJudge) else (found,)
    return " ".join(checkpoint_digest(str(part.config["_name_or_path"])) for part in parts)


def data_digest(data: str, checkpoint: str) -> str:
    """Hash of a data set, as it is at the size of the checkpoint's images if it is of your own pictures."""
    loaded = data_for(load_pipeline(checkpoint), data)
    return hashlib.blake2b((loaded.train.digest + loaded.test.digest).encode(), digest_size=10).hexdigest()


def source_digest(method: str, hyperparameters: dict) -> str:
    """Hash of the code that defines a method, docstrings and imports aside: of its file and those of the methods that it builds on.

    So results of an older version are not mistaken for its own. What all methods share (`base`, `run`) does not count.
    """
    digest = hashlib.blake2b(digest_size=10)
    files, each = set(), METHODS[method](**hyperparameters)
    while each is not None:
        files |= _method_files(type(each))
        each = getattr(each, "under", None)
    for path in sorted(files, key=lambda path: path.name):
        digest.update(code_of(decode_source(path.read_bytes())).encode())
    return digest.hexdigest()


def _method_files(method: type) -> set[Path]:
    """The file of a method's class, those of the methods that it inherits from, and those of the methods that these import from."""
    homes = {known.__module__.rpartition(".")[2]: Path(inspect.getfile(known)) for known in METHODS.values()}
    files: set[Path] = set()
    unread = [Path(inspect.getfile(kind)) for kind in method.__mro__ if kind not in Method.__mro__]
    while unread:
        path = unread.pop()
        if path not in files:
            files.add(path)
            imports = (node for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ImportFrom))
            unread += [homes[name] for name in ((node.module or "").rpartition(".")[2] for node in imports) if name in homes]
    return files


def code_of(source: str) -> str:
    """A module's text without docstrings, imports and empty lines: what is said of a method may change, and so may the places of
    what it uses, and its results stay what they are."""
    lines, aside = source.splitlines(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node, clean=False) is not None:
            node = node.body[0]
        elif not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        before, after = lines[node.lineno - 1][: node.col_offset], lines[node.end_lineno - 1][node.end_col_offset :]
        if not before.strip() and ";" not in after:  # on lines of its own
            aside |= set(range(node.lineno - 1, node.end_lineno))
    return "\n".join(line for number, line in enumerate(lines) if number not in aside and line.strip())
