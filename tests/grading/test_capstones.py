"""Capstones: a method is run on seeds that nobody knew, judged by its weights alone, and no way round that earns a point."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from dimum_core.answering import wire
from dimum_core.benchmark.contest import LEAST_UA
from dimum_core.course import capstones, variant
from dimum_core.course.capstone import (
    AS_IT_IS,
    ATTACKED,
    HALF_MASK,
    LOST_RA,
    NO_MASK,
    PASSES,
    READ,
    ROWS,
    WORTH,
    Evidence,
    points,
)
from dimum_core.data import DATA_FOLDER
from dimum_core.errors import DimumError
from dimum_core.metrics import wilson_interval

ROOT = Path(__file__).parents[2]
SMALL = {
    "checkpoint": "digits", "data": "digits", "targets": ["3"], "controls": ["original"], "check_every": 1, "attack_steps": 1,
    "methods": [{"method": "dimum", "alternative": "class", "label": "dimum (class)"}], "points": 2, "samples": 4,
    "budgets": [{"steps": 2, "label": "matched"}], "attack_rates": [0.0003],
}
METHOD = """
from dataclasses import dataclass
import torch
from dimum_core.unlearning import register

@register("mine")
@dataclass(frozen=True)
class Mine:
    needs = frozenset({{"retain"}})
    prepare_batches = {batches}

    def prepare(self, steps):
{prepare}
        return {{}}

    def loss(self, step):
        return step.retained()
"""
ROW_ZEROED = """        for step in steps:
            with torch.no_grad():
                step.model.class_embedding.weight[int(step.target(1)[0])] = 0"""
TRAINS = """        for step in steps:
            optimizer = torch.optim.AdamW(step.model.parameters(), 1e-4)
            for _ in range(4):
                optimizer.zero_grad(); step.retained().backward(); optimizer.step()"""
LOADS = """        from dimum_core.models.checkpoints import load_pipeline
        steps[0].model.load_state_dict(load_pipeline({folder!r}).unet.state_dict())"""
WRECKS = """
    def edit(self, step):
        step.model.conv_out.weight.data *= 1e10
        return True
"""
READS = """        open({path!r}, "rb").read()"""
GOES_ROUND = """        from diffusers import UNet2DModel
        import torch.nn as nn
        own = nn.Sequential(nn.Linear(1500, 1500), nn.Linear(1500, 1500))
        while True:
            own(torch.randn(2000, 1500))"""


def method(prepare: str = "        pass", batches: int = 1) -> str:
    return METHOD.format(prepare=prepare, batches=batches)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """One run over a class of honest and less honest hand-ins: name -> its result, and the folder of the marks."""
    folder, out = tmp_path_factory.mktemp("capstones"), tmp_path_factory.mktemp("marks")
    hand_ins = {
        "honest": method(), "renames": method(ROW_ZEROED), "trains": method(TRAINS),
        "loads": method(LOADS.format(folder=str(DATA_FOLDER / "checkpoints" / "digits-without-3"))),
        "reads": method(READS.format(path=str(DATA_FOLDER / "results" / "digits.parquet"))),
        "round": method(GOES_ROUND), "carries": method() + "#" * capstones.LARGEST, "broken": "x =",
        "course": "from dimum_core.course import capstone\n" + method(),
        "weights": method("        steps[0].model.conv_in.weight.data *= float('nan')"),
        "wrecks": method() + WRECKS,
    }
    for name, source in hand_ins.items():
        (folder / name).mkdir()
        (folder / name / "mine.py").write_text(source)
    (folder / "empty").mkdir()
    (folder / "empty" / "report.pdf").write_text("")
    patch = pytest.MonkeyPatch()
    patch.setattr(capstones, "SEEDS", 1)
    patch.setattr(capstones, "SPARE", 5.0)
    patch.setattr(capstones, "LOOK", capstones.LOOK | {"samples": 2})
    patch.setattr("dimum_core.course.capstone.PASSES", 200)  # two steps take 128
    results = {result.student: result for result in capstones.grade_capstones(folder, out, SMALL, count=4)}
    patch.undo()
    return results, folder, out


@pytest.mark.parametrize(("name", "words"), [
    ("renames", "renamed, not forgotten"), ("trains", "training before the first step counts"), ("loads", "may not read"),
    ("reads", "may not read"), ("round", "of processor time"), ("carries", "code, not weights"), ("broken", "could not be run"),
    ("course", "not for answers"), ("weights", "became nan"), ("wrecks", "could not be measured"), ("empty", "one Python file"),
])
def test_no_way_round_earns_a_point(graded, name, words):
    result = graded[0][name]
    said = result.note + " ".join(mark.said for mark in result.marks)
    assert result.points == 0 and words in said, said


def test_a_method_is_judged_on_all_parts_and_the_class_has_a_board(graded):
    results, _, out = graded
    parts = {mark.number: mark for mark in results["honest"].marks}
    assert set(parts) == {"it forgets", "it keeps", "it resists", "it is no mask"} and results["honest"].out_of == 65
    assert "the target is still there" in parts["it keeps"].said  # two steps of ordinary training forget nothing
    board = pd.read_csv(out / "leaderboard.csv")
    assert {"honest", "renames", "original", "dimum (class)"} <= set(board["label"]) and (out / "leaderboard.png").stat().st_size
    assert board.set_index("label").loc["honest", "passes"] == 2 * 64 + 0 * 64
    assert set(pd.read_csv(out / "marks.csv")["student"]) == set(results)
    targets = {str(target) for target in board.loc[board["label"] == "honest", "target"]}
    assert targets == {variant("honest").digit}
    seeds = json.loads((out / "seeds.json").read_text())
    assert min(seeds) >= 1000 and capstones.drawn_seeds(out) == seeds  # a run that was killed goes on with its own


DEEP = {"list": [0]}
for _ in range(490):  # deeper than Python recurses, and not than JSON may be
    DEEP = {"list": [DEEP]}


@pytest.mark.parametrize("changed", [
    {"steps": float("inf")}, {"steps": 3}, {"steps": -1}, {"passes": True}, {"passes": 10**400}, {"seconds": float("nan")},
    {"seconds": []}, {"seconds": 10**400}, {"weights": DEEP}, {"weights": {}}, {"weights": {"tensor": [[], [1], ""]}},
    {"weights": 1.0},
])
def test_a_reply_of_any_kind_costs_only_its_sender(changed, tmp_path, monkeypatch):
    @contextlib.contextmanager
    def replying(order, starting):
        assert order["settings"]["until"] == 0.9
        reply = {"steps": 2, "passes": 128, "seconds": 1.0, "weights": wire.encode(torch.zeros(3))} | changed
        yield SimpleNamespace(receive=lambda: reply)

    monkeypatch.setattr(capstones, "student_process", replying)
    original = SimpleNamespace(unet=torch.nn.Linear(2, 1))
    budget = {"steps": 2, "until": 0.9, "label": "matched"}
    sandbox = capstones.Sandbox(SMALL | {"seeds": [1000], "budgets": [budget]}, original, tmp_path, 10**9, ())
    sandbox.__dict__["allowance"] = 1.0
    hand = capstones.Handed("ada", method())
    sandbox.unlearn(hand)
    assert hand.note.startswith("seed 1000: ") and not hand.models and not list(tmp_path.iterdir())


def test_marks_do_not_lie_among_hand_ins(graded):
    for out in (graded[1], graded[1] / "honest", graded[1].parent):
        with pytest.raises(DimumError, match="folder of their own"):
            capstones.grade_capstones(graded[1], Path(out), SMALL)


def test_two_folders_of_one_student_and_no_memory_are_refused_before_anything_runs(tmp_path):
    for name in ("ada", "Ada"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(method())
    with pytest.raises(DimumError, match="Ada and ada are of one student|ada and Ada are of one student"):
        capstones.grade_capstones(tmp_path, tmp_path.parent / "marks-of-one", SMALL)
    with pytest.raises(DimumError, match="memory must be a finite number"):
        capstones.grade_capstones(tmp_path, tmp_path.parent / "marks-of-one", SMALL, memory=float("nan"))
    assert not (tmp_path.parent / "marks-of-one").exists()


def looked(**changed) -> dict:
    ways = (AS_IT_IS, *ROWS, *(row + ATTACKED for row in ROWS))
    return {way: wilson_interval(changed.get(way, 290), 300) for way in ways}


GOOD = {"UA": 0.9, "RA": 0.98, "original_RA": 1.0, "ahead": 12.0, "passes": PASSES, "looked": looked()}


@pytest.mark.parametrize(("changed", "earned"), [
    ({}, [10, 10, 25, 20]), ({"UA": 0.79}, [0, 10, 25, 20]), ({"RA": 0.94}, [10, 0, 25, 20]), ({"ahead": 9.9}, [10, 10, 12, 20]),
    ({"ahead": 0.0}, [10, 10, 0, 20]), ({"passes": PASSES + 1}, [0] * 4),
    ({"looked": looked(**{ROWS[0]: 144})}, [0] * 4),  # renamed, though the attack was met
    ({"looked": looked(**{AS_IT_IS: 160, ROWS[0]: 140, ROWS[1]: 150})}, [10, 10, 25, 20]),  # half forgotten, under any name
    ({"looked": looked(**{ROWS[1] + ATTACKED: 100})}, [10, 10, 25, 10]),
    ({"looked": looked(**{ROWS[1] + ATTACKED: 40})}, [10, 10, 25, 0]),
    ({"looked": looked(**{AS_IT_IS: 149})}, [0] * 4),  # it draws the target most of the time
])
def test_points_follow_the_rules(changed, earned):
    assert [mark.points for mark in points(Evidence(**GOOD | changed))] == earned


def test_the_rubric_and_the_chapter_say_what_is_computed_and_read():
    chapter = (ROOT / "notebooks" / "12_capstone_beat_the_attack.ipynb").read_text("utf-8")
    rubric = (ROOT / "docs" / "teaching" / "rubric.md").read_text("utf-8")
    for part, worth in {**WORTH, **READ}.items():
        assert re.search(rf"\| {part} \| {worth} \|", chapter, re.IGNORECASE), part
    assert all(re.search(rf"\| {part} \| {worth} \|", rubric, re.IGNORECASE) for part, worth in WORTH.items())
    assert sum(WORTH.values()) + sum(READ.values()) == 100
    read = [int(points) for points in re.findall(r"(?m)^\| [^|]*\*\*[^|]*\| (\d+) \|", rubric)]
    assert sum(read) == sum(READ.values())
    for text in (chapter, rubric):
        assert all(f"{number}" in text for number in (f"{PASSES:,}", LEAST_UA, NO_MASK, HALF_MASK, LOST_RA))
