"""Grading capstones: each student's method unlearns in a fenced process, on seeds drawn after the hand-in; the rest happens here.

    grade_capstones(Path("capstones"), Path("marks"))    marks.csv, a page for each student, leaderboard.csv and leaderboard.png

Only the one file with the method is run, and only its final weights come back. UA, RA, the attack, the look
behind the name and the score are measured here, from the weights, so that nothing the file does can touch them.
"""

from __future__ import annotations

import copy
import json
import secrets
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
import yaml
from diffusers import DiffusionPipeline
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ..answering import wire
from ..benchmark import load_plan, read_results, run
from ..benchmark.plan import cell_id
from ..benchmark.store import failures
from ..checking import check_number, check_whole
from ..data import DATA_FOLDER, Dataset, load_dataset
from ..data.targets import find_target
from ..errors import DimumError
from ..evaluation import draw_samples
from ..files import check_writable, write_atomically
from ..judges import find_judge
from ..metrics import Interval, wilson_interval
from ..models.cards import CARD_FILE, read_card
from ..models.checkpoints import CHECKPOINT_FOLDER, load_pipeline, save_checkpoint
from ..models.fresh_noise import FRESH_STEPS, with_fresh_noise
from ..models.history import with_unet
from ..plots import ranked_runs
from .capstone import RIVAL, WORTH, Evidence, behind_the_name, points, scores
from .checks import identity
from .hand_ins import UNREADABLE, submissions
from .marks import Mark, Result, book, no_formula
from .students import SECRET, needed_to_run, readable_paths, student_process
from .variants import variant

PROTOCOL = DATA_FOLDER.parent / "plans" / "capstone.yaml"
SEEDS, FROM, TO = 3, 1_000, 1_000_000  # how many are drawn for a class, and from where: those below are for tuning
HANDED_IN = "a folder for each student, named after them, with their mine.py"
LARGEST = 20_000  # bytes of a method: too few to carry weights that were trained at home
SLACK, SPARE = 3, 20.0  # processor time: so many times what the rival takes for the whole budget, and seconds beside
WALL = 20  # wall time beyond that processor time, for machines with other work
LOOK = {"learning_rate": 3e-4, "samples": 8}  # of the attack behind the name


@dataclass
class Handed:
    """A student's method and what became of it: `models` has, by seed, the folder of the unlearned model."""

    student: str
    source: str = ""
    note: str = ""
    models: dict[int, Path] = field(default_factory=dict)
    passes: int = 0

    @property
    def target(self) -> str:
        return variant(self.student).digit

    @property
    def label(self) -> str:
        """In plans and names of folders: students' own names may be anything."""
        return f"student-{identity(self.student, 'capstone'):016x}"


def read(student: str, files: list[Path]) -> Handed:
    """The one file with a method among what was handed in, or a note on why there is none."""
    methods = [file for file in files if file.suffix == ".py"]
    mine = [file for file in methods if file.name == "mine.py"] or methods
    if len(mine) != 1:
        return Handed(student, note=f"one Python file with a method was expected, mine.py; there are {len(mine)}")
    try:
        if mine[0].is_symlink() or not mine[0].is_file():
            raise ValueError("it is not a plain file")
        if mine[0].stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST:,} bytes: a method is code, not weights")
        return Handed(student, mine[0].read_text(encoding="utf-8-sig"))
    except UNREADABLE as error:
        return Handed(student, note=f"{mine[0].name} cannot be taken: {error}")


def grade_capstones(folder: Path, out: Path, protocol: dict | None = None, count: int = 100, memory: float = 2.0) -> list[Result]:
    """Grade every capstone below `folder`. It takes minutes for each student, and a killed run goes on with the seeds that it drew.

    protocol: default, plans/capstone.yaml. count: samples for each share of the look behind the name. memory: GB beyond torch's.
    """
    if sys.platform == "win32":
        raise DimumError("Grading needs Linux or macOS, where students' code can be fenced in: on Windows, run it in WSL.")
    check_number("memory", memory, 0, 1e6, above=True)
    handed = [read(student, files) for student, files in submissions(folder, HANDED_IN).items()]
    names = {hand.label: hand.student for hand in handed}
    for hand in handed:
        if names[hand.label] != hand.student:
            raise DimumError(f"The folders {hand.student} and {names[hand.label]} are of one student: keep one of the two.")
    if out.resolve() in (folder.resolve(), *folder.resolve().parents) or out.resolve().is_relative_to(folder.resolve()):
        raise DimumError(f"The marks need a folder of their own, not {out}: there they would be taken for hand-ins, or cover them.")
    check_writable(out)
    protocol = {**(protocol or yaml.safe_load(PROTOCOL.read_text("utf-8"))), "seeds": drawn_seeds(out)}
    original, data = load_pipeline(protocol["checkpoint"]), load_dataset(protocol["data"])
    sandbox = Sandbox(protocol, original, out, int(memory * 1e9), (folder, out))
    for hand in handed:
        if hand.source:
            sandbox.unlearn(hand)
    boards = [board_of(target, handed, protocol, out) for target in sorted({hand.target for hand in handed if hand.models})]
    board = pd.concat(boards, ignore_index=True) if boards else pd.DataFrame(columns=["label", "target", "score"])
    results = []
    with book(out, list(WORTH)) as enter:
        for hand in handed:
            results.append(judged(hand, board, original, data, protocol, count))
            enter(results[-1])
    write_leaderboard(board, handed, results, out)
    return results


def drawn_seeds(out: Path) -> list[int]:
    """Seeds for a class, drawn once, after everybody has handed in; a run that was killed goes on with its own."""
    path = out / "seeds.json"
    if not path.exists():
        write_atomically(path, json.dumps(sorted(FROM + secrets.randbelow(TO - FROM) for _ in range(SEEDS))).encode())
    return json.loads(path.read_text("utf-8"))


@dataclass
class Sandbox:
    """Where methods unlearn: a process for each seed, with nothing in reach but the original and the data."""

    protocol: dict
    original: DiffusionPipeline
    out: Path
    memory: int
    secret: tuple[Path, ...]

    def unlearn(self, hand: Handed) -> None:
        """Fill in `models` and `passes`, or the note."""
        for seed in self.protocol["seeds"]:
            folder = self.out / "models" / hand.label / str(seed)
            about = {"title": f"{hand.label}, seed {seed}", "summary": f"A capstone; forgets {hand.target}.", "method": hand.source}
            if not (folder / CARD_FILE).exists() or not about.items() <= read_card(folder).items():
                allowance = self.allowance
                try:
                    model, training = self._ordered(hand.target, seed, {"source": hand.source}, allowance)
                except (DimumError, wire.WireError) as error:
                    limit = f"; it may take {allowance:.0f} s of processor time" if isinstance(error, wire.WireError) else ""
                    hand.note, hand.models = f"seed {seed}: {error}{limit}", {}
                    return
                save_checkpoint(model, folder, about | {"training": training})
            hand.models[seed] = folder
            hand.passes = max(hand.passes, read_card(folder)["training"]["nfes"])

    @cached_property
    def allowance(self) -> float:
        """Processor seconds for one seed, from what the rival takes on this machine for the whole budget."""
        rival = {key: value for key, value in self.protocol["methods"][0].items() if key != "label"}
        method = {"method": rival.pop("method"), "hyperparameters": rival}
        slow = {"learning_rate": 1e-9}  # it never reaches its goal, so it takes every step and every look
        return SLACK * self._ordered(self.protocol["targets"][0], FROM, method, 0.0, slow)[1]["seconds"] + SPARE

    def _ordered(self, target: str, seed: int, method: dict, processor: float, settings: dict | None = None) -> tuple:
        """The model and the cost that a process sends back; DimumError with what it says went wrong."""
        budget = self.protocol["budgets"][0]
        hidden = [*SECRET, *(str(path.absolute()) for path in self.secret if not needed_to_run(path))]
        hidden += [str(CHECKPOINT_FOLDER), str(DATA_FOLDER / "results")]  # a retrained model is there, and what others did
        order = {
            **method, "student": "", "questions": wire.encode({}), "seconds": 0, "reading": 0, "memory": self.memory,
            "secret": hidden, "readable": readable_paths(hidden), "processor": processor, "checkpoint": self.protocol["checkpoint"],
            "data": self.protocol["data"], "settings": {
                "target": target, "seed": seed, "steps": budget["steps"], "until": budget.get("until"), "progress": False,
                "evaluate_every": self.protocol.get("check_every", 5), "learning_rate": self.protocol.get("learning_rate", 1e-4),
            } | (settings or {}),
        }
        with student_process(order, WALL * (processor or 60 * WALL)) as line:
            reply = line.receive()
        if "error" in reply:
            raise DimumError(str(reply["error"]))
        try:  # the method may have sent anything, and a card with more steps than the budget would be refused later, for all
            check_whole("steps", reply["steps"], 0, budget["steps"])
            check_whole("passes", reply["passes"], 0, 2**62)
            check_number("seconds", reply["seconds"], 0)
            training = {"steps": reply["steps"], "nfes": reply["passes"], "seconds": float(reply["seconds"])}
            weights = wire.decode(reply["weights"])
        except UNREADABLE as error:
            raise DimumError(f"what it sent cannot be read: {type(error).__name__}: {error}") from error
        return self._with_weights(weights), training

    def _with_weights(self, values) -> DiffusionPipeline:
        there = parameters_to_vector(self.original.unet.parameters())
        if not isinstance(values, torch.Tensor) or values.shape != there.shape or not torch.isfinite(values).all():
            raise DimumError("the weights that it ended with are not those of this network, or not finite")
        unet = copy.deepcopy(self.original.unet)
        vector_to_parameters(values.to(there), unet.parameters())
        return with_unet(self.original, unet)


def board_of(target: str, handed: list[Handed], protocol: dict, out: Path) -> pd.DataFrame:
    """Scores of all who forget this digit, of the rival and of the original, under the same seeds."""
    methods = [protocol["methods"][0]]
    methods += [
        {"checkpoint": f"models/{hand.label}/{{seed}}", "label": hand.label}
        for hand in handed if hand.models and hand.target == target
    ]
    path = out / f"plan-{target}.yaml"
    write_atomically(path, yaml.safe_dump(protocol | {"targets": [target], "methods": methods}).encode("utf-8"))
    plan, results = load_plan(path), out / f"results-{target}"
    run(plan, results, engine="serial", progress=False)
    cells = [(model["label"], cell_id(each)) for model in plan.models() for each in (model, *plan.attacks(model))]
    broken = {path.stem for path in failures(results)}
    failed = {label for label, cell in cells if cell in broken}
    for hand in handed:
        if hand.label in failed:
            hand.note, hand.models = "an attack on its model ended in an error, so it could not be measured", {}
    if failed - {hand.label for hand in handed}:
        raise DimumError(f"Attacks on {' and '.join(sorted(failed))} failed; {results / 'failures'} says why.")
    asked = [cell for label, cell in cells if label not in failed]
    rows = read_results(results)
    return scores(rows[rows["cell"].isin(asked)])  # of these hand-ins: an earlier version may have left its own


def judged(hand: Handed, board: pd.DataFrame, original, data: Dataset, protocol: dict, count: int) -> Result:
    """A student's marks on the computed parts."""
    if not hand.models:
        return Result(hand.student, [Mark(part, 0.0, float(worth), "not computed") for part, worth in WORTH.items()], hand.note)
    same = board[board["target"] == hand.target]
    own, rival = same[same["label"] == hand.label], same[same["label"] == RIVAL]
    found = Evidence(
        UA=own["UA"].mean(), RA=own["RA"].mean(), original_RA=same.loc[same["label"] == "original", "RA"].mean(),
        ahead=own["score"].mean() - rival["score"].mean(), passes=hand.passes,
        looked=looked_at(hand, original, data, protocol, count),
    )
    return Result(hand.student, points(found), hand.note)


def looked_at(hand: Handed, original, data: Dataset, protocol: dict, count: int) -> dict[str, Interval]:
    """UA over all seeds for each way of asking, from `count` samples for each seed."""
    judge, wanted, forgotten = find_judge(original), find_target(hand.target, original.class_names), {}
    for seed, folder in hand.models.items():
        attack = {"steps": protocol["attack_steps"], "evaluate_every": protocol["attack_steps"], "seed": seed, **LOOK}
        ways = behind_the_name(load_pipeline(str(folder)), original, data, hand.target, **attack)
        for way, model in ways.items():
            images = draw_samples(
                with_fresh_noise(model), [hand.target] * count, seed=seed, num_inference_steps=FRESH_STEPS, progress=False
            )
            forgotten[way] = forgotten.get(way, 0) + int((~judge.judge(images).shows(wanted)).sum())
    return {way: wilson_interval(number, count * len(hand.models)) for way, number in forgotten.items()}


def write_leaderboard(board: pd.DataFrame, handed: list[Handed], results: list[Result], out: Path) -> None:
    """leaderboard.csv and its picture: first those whose work counts, by their lead over the rival on their own digit."""
    names = {hand.label: no_formula(hand.student) for hand in handed}
    earned = {hand.label: result.points for hand, result in zip(handed, results, strict=True)}
    if board.empty:
        return
    table = board.groupby(["target", "label"], as_index=False)[["score", "UA", "RA", "area", "RA after", "steps"]].mean()
    table["ahead"] = table["score"] - table["target"].map(table[table["label"] == RIVAL].set_index("target")["score"])
    table["passes"] = table["label"].map({hand.label: hand.passes for hand in handed})
    table["points"] = table["label"].map(earned)
    table = table.assign(counts=table["points"].fillna(1) > 0).sort_values(["counts", "ahead"], ascending=False)
    table["label"] = table["label"].replace(names)
    write_atomically(out / "leaderboard.csv", table.drop(columns="counts").round(2).to_csv(index=False).encode("utf-8"))
    groups = board.groupby(["target", "label"])
    runs_of = {f"{names.get(label, label)} (digit {target})": group["score"] for (target, label), group in groups}
    figure, ax = plt.subplots(figsize=(7.4, 0.8 + 0.25 * len(runs_of)))
    ranked_runs(ax, runs_of)
    ax.set(title="The class, on the judged seeds: means (dots), seeds (strokes)", xlabel="score", xlim=(-3, 103))
    figure.savefig(out / "leaderboard.png", dpi=120, bbox_inches="tight")
    plt.close(figure)
