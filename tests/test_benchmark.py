"""The laboratory: plans are checked whole, cells are computed once, every engine gives the same table."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import pandas as pd
import pytest
import torch

from dimum_core.benchmark import cost, load_plan, read_results, report, run
from dimum_core.benchmark.cost import estimate_minutes
from dimum_core.benchmark.plan import UNNAMED, _method_files, cell_id, checkpoint_digest, code_of, judge_digest, source_digest
from dimum_core.benchmark.reading import check_plan
from dimum_core.benchmark.results import ResultsError
from dimum_core.benchmark.store import claim, failures, is_done, record_failure, write_cell
from dimum_core.cli import main
from dimum_core.models.checkpoints import CHECKPOINT_FOLDER, load_pipeline, save_checkpoint
from dimum_core.training import STATE_FILE
from dimum_core.unlearning import METHODS, load_plugin, register

CONTENT = {
    "name": "tiny", "checkpoint": "digits", "data": "digits", "targets": {"3": "digits-without-3"}, "batch_size": 8,
    "methods": ["random-label", {"method": "dimum", "alternative": "mixed", "count": 8, "label": "dimum (mixed)"}],
    "budgets": [2, {"steps": 4, "until": 0.01, "label": "matched"}], "seeds": [0, 1], "attack_steps": 2,
    "attack_rates": [1e-3], "points": 2, "samples": 2, "check_every": 1,
}


def table(out) -> pd.DataFrame:
    return read_results(out).drop(columns=["seconds", "unlearning_seconds", "commit"])


@pytest.fixture(scope="module")
def small_plan(small_digits):
    original, retrained = small_digits
    return check_plan({**CONTENT, "checkpoint": original, "targets": {"3": retrained}})


@pytest.fixture(scope="module")
def finished(small_plan, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    return out, run(small_plan, out, engine="serial", progress=False)


def test_a_plan_becomes_a_table_with_everything_that_determined_it(finished):
    out, summary = finished
    assert (summary.computed, summary.reused, summary.failed) == (2 * (2 + 4), 0, 0)
    rows = read_results(out)
    assert len(rows) == summary.computed * 2 and set(rows["label"]) == {"original", "retrained", "random-label", "dimum (mixed)"}
    assert set(rows["budget"]) == {"none", "2 steps", "matched"} and set(rows["step"]) == {0, 2}
    assert (rows.loc[rows.label == "original", "unlearning_distance"] == 0).all()
    assert not list((out / "weights").glob("*"))  # they are only kept while attacks are missing
    summary = report(rows)
    assert set(summary["method"]) == set(rows["label"]) and (summary["runs"] == 2).all()


def test_finished_cells_are_not_computed_again_and_missing_ones_come_back_bit_for_bit(small_plan, finished, tmp_path):
    out, before = finished[0], table(finished[0])
    again = tmp_path / "copy"
    shutil.copytree(out, again)
    assert run(small_plan, again, engine="serial", progress=False).computed == 0
    cells = sorted((again / "cells").iterdir())
    for cell in cells[::3]:
        shutil.rmtree(cell)
    (again / "cells" / f".{cells[0].name}.123").mkdir()  # what a killed process leaves
    assert run(small_plan, again, engine="serial", progress=False).computed > 0
    pd.testing.assert_frame_equal(table(again), before)


def test_a_cell_that_fails_is_written_down_and_does_not_stop_the_rest(tmp_path, capsys):
    @register("breaks")
    @dataclass(frozen=True)
    class Breaks:
        needs: ClassVar[frozenset[str]] = frozenset()

        def loss(self, step):
            raise RuntimeError("as it was meant to")

    try:
        plan = check_plan({**CONTENT, "methods": ["breaks", "random-label"], "budgets": [2], "seeds": [0], "controls": []})
        summary = run(plan, tmp_path, engine="serial", progress=False)
    finally:
        del METHODS["breaks"]
    assert (summary.computed, summary.failed) == (1, 1)
    assert "as it was meant to" in failures(tmp_path)[0].read_text() and set(table(tmp_path)["label"]) == {"random-label"}


def test_failures_come_newest_first(tmp_path):
    for age, cell in enumerate(("bb", "aa", "cc")):
        record_failure(tmp_path, cell, {}, "as it was meant to")
        os.utime(tmp_path / "failures" / f"{cell}.txt", ns=(0, 10**18 - age))
    assert [path.stem for path in failures(tmp_path)] == ["bb", "aa", "cc"]


def test_a_checkpoint_that_is_saved_anew_names_other_cells(tmp_path):
    shutil.copytree(CHECKPOINT_FOLDER / "digits-without-3", tmp_path / "mine")
    card = json.loads((tmp_path / "mine" / "card.json").read_text()) | {"training": {"steps": 1}}
    (tmp_path / "mine" / "card.json").write_text(json.dumps(card))
    plan = check_plan({**CONTENT, "methods": [{"checkpoint": str(tmp_path / "mine"), "label": "mine"}], "controls": []})
    before, pipe = [cell_id(model) for model in plan.models()], load_pipeline(tmp_path / "mine")
    parameter = next(pipe.unet.parameters())
    parameter.data += 1
    save_checkpoint(pipe, tmp_path / "mine", card)
    after = [cell_id(model) for model in plan.models()]
    assert not set(before) & set(after)
    parameter.data -= 1
    assert after == [cell_id(model) for model in plan.models()]


def test_the_settings_of_a_pipeline_and_the_judge_name_a_cell(tmp_path, monkeypatch):
    shutil.copytree(CHECKPOINT_FOLDER / "digits", tmp_path / "mine")
    index = tmp_path / "mine" / "model_index.json"
    settings, same = json.loads(index.read_text()), checkpoint_digest("digits")
    for changed, alike in (({"_diffusers_version": "9"}, True), ({"guidance_scale": 7.5}, False), ({"guidance_scale": 8.0}, False)):
        index.write_text(json.dumps(settings | changed))
        assert (checkpoint_digest(str(tmp_path / "mine")) == same) == alike
        same = same if alike else checkpoint_digest(str(tmp_path / "mine"))
    plan = check_plan({**CONTENT, "controls": ["original"], "methods": ["esd"]})
    before = plan.models()
    monkeypatch.setattr("dimum_core.benchmark.plan.judge_digest", lambda judge, checkpoint: "another")
    assert [model["judge"] for model in plan.models()] == ["another"] * len(before) and not any("judge" in each for each in before)


@pytest.mark.parametrize(("name", "checkpoint"), [("confirm", "digits"), ("photographs-long", "cifar10-small")])
def test_cells_of_shipped_results_keep_their_names(name, checkpoint):
    rows = read_results(CHECKPOINT_FOLDER.parent / "results" / f"{name}.parquet")
    assert set(rows["checkpoint"]) == {checkpoint_digest(checkpoint)} and judge_digest(None, checkpoint) in UNNAMED


def test_the_state_of_a_training_beside_a_checkpoint_is_no_part_of_it(tmp_path):
    shutil.copytree(CHECKPOINT_FOLDER / "digits-without-3", tmp_path / "mine")
    (tmp_path / "mine" / STATE_FILE).write_bytes(b"to go on from")
    assert checkpoint_digest(str(tmp_path / "mine")) == checkpoint_digest("digits-without-3")


def test_a_task_that_cannot_be_claimed_is_a_failure_of_its_own(tmp_path):
    (tmp_path / "locks").write_text("in the way")
    plan = check_plan({**CONTENT, "methods": ["random-label"], "budgets": [2], "seeds": [0], "controls": []})
    summary = run(plan, tmp_path, engine="loky", progress=False)
    assert (summary.computed, summary.failed) == (0, 1) and "FileExistsError" in failures(tmp_path)[0].read_text()


def test_a_cell_is_published_once_and_whole(tmp_path):
    (tmp_path / "cells").mkdir()
    write_cell(tmp_path, "ab", {"x": 1})
    write_cell(tmp_path, "ab", {"x": 2})  # came second
    assert is_done(tmp_path, "ab") and '"x": 1' in (tmp_path / "cells" / "ab" / "result.json").read_text()
    assert len(list((tmp_path / "cells").iterdir())) == 1


def test_a_model_is_claimed_by_one_run_at_a_time(tmp_path):
    with claim(tmp_path, "ab") as first, claim(tmp_path, "ab") as second, claim(tmp_path, "cd") as other:
        assert first and not second and other
    with claim(tmp_path, "ab") as again:
        assert again


def test_the_shipped_plans_are_right_and_the_command_reports(finished, tmp_path, capsys):
    from pathlib import Path

    plans = sorted((Path(__file__).parent.parent / "plans").glob("*.yaml"))
    assert len(plans) >= 3 and all(load_plan(path).models() for path in plans)
    assert main(["benchmark", "report", str(finished[0]), "--csv", str(tmp_path / "rows.csv")]) == 0
    assert "half recovery" in capsys.readouterr().out
    assert report(read_results(tmp_path / "rows.csv")).equals(report(read_results(finished[0])))
    with pytest.raises(ResultsError, match="holds no finished cells"):
        read_results(tmp_path)


def test_the_estimate_times_drawing_and_not_what_was_drawn_before(monkeypatch):
    drawn = []
    monkeypatch.setattr("dimum_core.evaluation.draw", lambda *given, **settings: drawn.append(1) or torch.zeros(16, 1, 8, 8))
    for times in (2, 4):  # one to warm up and one that counts
        estimate_minutes(check_plan(CONTENT))
        assert len(drawn) == times


def test_the_estimate_times_a_step_where_it_is_taken(monkeypatch):
    seen = []
    monkeypatch.setattr(cost, "Accelerator", lambda: SimpleNamespace(device=torch.device("meta")))
    monkeypatch.setattr(cost, "_one_step", lambda network, objective: seen.append(next(network.parameters()).device.type))
    monkeypatch.setattr(cost, "_draw_anew", lambda pipe: None)
    estimate_minutes(check_plan(CONTENT))
    assert set(seen) == {"meta"}


def test_the_estimate_grows_with_the_work():
    small, large = (check_plan({**CONTENT, "attack_steps": steps}) for steps in (20, 400))
    once, more = estimate_minutes(small), estimate_minutes(large)
    assert 0 < once < more < 40 * once


def test_a_plan_with_prompts_is_estimated_too(monkeypatch):
    monkeypatch.setattr(cost, "FRESH_STEPS", 2)
    prompts = {"checkpoint": "shapes", "data": "shapes", "targets": {"hatched": "shapes-without-hatched"}}
    assert estimate_minutes(check_plan({**CONTENT, **prompts})) > 0


def test_a_cell_is_named_by_the_code_of_its_method_and_of_those_that_it_builds_on(tmp_path):
    one = '"""About."""\n\n\nclass A:\n    """What it is."""\n\n    x = "a text"\n\n    def f(self):\n        return 1  # why\n'
    longer = one.replace('"""About."""', '"""About,\n\nat length."""').replace("What it is.", "What it is.\n\n    And more.\n    ")
    assert code_of(one) == code_of(longer) and "a text" in code_of(one) and "is" not in code_of(one)
    assert code_of(one) != code_of(one.replace("return 1", "return 2"))
    assert code_of('def f(): "said"; return 1') != code_of('def f(): "said"; return 2')
    moved = one.replace("class A", "import a\nfrom .b import (\n    c,\n)\n\nclass A")
    moved = moved.replace("        return", "        import d  # late\n\n        return")
    assert code_of(moved) == code_of(one)
    assert code_of("import a; x = 1") != code_of("import a; x = 2")
    files = {name: {path.name for path in _method_files(METHODS[name])} for name in ("salun", "erasediff", "sealed", "dimum")}
    assert files["salun"] == {"salun.py", "random_label.py"} and files["erasediff"] == {"erasediff.py", "random_label.py"}
    assert files["sealed"] == {"sealed.py", "dimum.py"} and files["dimum"] == {"dimum.py"}
    codes = {base: source_digest("cbft", {"base": base}) for base in ("finetune", "dimum", "dimum weight=2.0", "cbft base=dimum")}
    assert source_digest("cbft", {}) == codes["finetune"] != codes["dimum"] == codes["dimum weight=2.0"] == codes["cbft base=dimum"]
    plugin = tmp_path / "heir.py"
    plugin.write_text("from dataclasses import dataclass\nfrom dimum_core.unlearning import register\n"
                      "from dimum_core.unlearning.dimum import DiMUM\n\n\n"
                      '@register("heir")\n@dataclass(frozen=True)\nclass Heir(DiMUM):\n    weight: float = 2.0\n')
    load_plugin(str(plugin))
    try:
        assert {path.name for path in _method_files(METHODS["heir"])} == {"heir.py", "dimum.py"}
    finally:
        METHODS.pop("heir")
