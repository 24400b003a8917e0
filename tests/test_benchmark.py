"""The laboratory: plans are checked whole, cells are computed once, every engine gives the same table."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import pytest
import torch
import yaml

from dimum_core.benchmark import load_plan, read_results, report, run
from dimum_core.benchmark.cost import estimate_minutes
from dimum_core.benchmark.plan import _method_files, cell_id, checkpoint_digest, code_of
from dimum_core.benchmark.reading import PlanError, check_plan
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


OWN_METHOD = """
from dataclasses import dataclass
from dimum_core.unlearning import register

@register("own-zero")
@dataclass(frozen=True)
class Zero:
    needs = frozenset({"forget"})  # ein Verfahren für nichts

    def loss(self, step):
        return step.predict(*step.batch("forget")).sum() * 0
"""


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


def test_a_cells_name_is_its_content_not_its_order():
    assert cell_id({"a": 1, "b": [1, 2]}) == cell_id({"b": [1, 2], "a": 1}) != cell_id({"a": 1, "b": [2, 1]})


def test_a_plan_with_ten_mistakes_names_each_in_one_message(tmp_path):
    path = tmp_path / "plan.yaml"
    path.write_text("""
checkpoint: digits
data: cifar10-mini
targets: {three: digits-without-3, "7": digits-without-8}
methods: [random-labels, {method: dimum, alternativ: class}, 5]
budgets: [0, {steps: 10, until: 2}]
attack_rates: [-0.1]
optimizers: [adam]
auxiliaries: [retain 200 %]
seeds: [x]
sample: 3
""")
    with pytest.raises(PlanError) as caught:
        load_plan(path)
    message = str(caught.value)
    for part in (
        "unknown setting 'sample'", "cifar10-mini has other classes", "'three' is no class", "digits-without-8'",
        "no method 'random-labels'. Did you mean 'random-label'", "was given alternativ", "not 5", "{'steps': 0}",
        "'until': 2", "not -0.1", "not 'adam'", "not 'retain 200 %'", "not 'x'",
    ):
        assert part in message, part
    with pytest.raises(PlanError, match="checkpoint is missing"):
        check_plan({"name": "x"})


def test_a_plan_has_the_same_cells_whatever_the_systems_encoding(tmp_path, in_c_locale):
    folder = tmp_path / "Pläne"
    folder.mkdir()
    (folder / "own.py").write_text(OWN_METHOD, encoding="utf-8")
    path = folder / "Größe.yaml"
    path.write_text("checkpoint: digits\ndata: digits\ntargets: ['3']\nbudgets: [{steps: 2, label: kürzer}]\nplugins: [own.py]\n"
                    "methods: [{method: own-zero, label: für nichts}]\n", encoding="utf-8")
    try:
        here = load_plan(path)
        assert {model["label"] for model in here.models()} == {"original", "für nichts"}
        code = ("import sys; from dimum_core.benchmark import load_plan; from dimum_core.benchmark.plan import cell_id\n"
                "print(*(cell_id(model) for model in load_plan(sys.argv[1]).models()))")
        there = in_c_locale("-c", code, path)
        assert there.stdout.decode().split() == [cell_id(model) for model in here.models()], there.stderr.decode()
    finally:
        METHODS.pop("own-zero")
    path.write_text(path.read_text(encoding="utf-8"), encoding="cp1252")
    with pytest.raises(PlanError, match="is not in UTF-8: have your editor save it so"):
        load_plan(path)


def test_a_failure_is_written_down_with_whatever_bytes_are_in_its_paths(tmp_path):
    record_failure(tmp_path, "ab", {}, "No such file: 'Pl\udce4ne'")  # how Python holds a byte that is no text
    assert "'Pl\\udce4ne'" in failures(tmp_path)[0].read_text(encoding="utf-8")


def test_the_models_that_a_plan_names_are_looked_for_beside_it(tmp_path, monkeypatch):
    plans, elsewhere = tmp_path / "plans", tmp_path / "elsewhere"
    for folder in (plans / "mine", tmp_path / "retrained"):
        shutil.copytree(CHECKPOINT_FOLDER / "digits-without-3", folder)
    shutil.copytree(CHECKPOINT_FOLDER / "cifar10-small", elsewhere / "mine")  # what the working directory holds is another
    monkeypatch.chdir(elsewhere)
    (plans / "plan.yaml").write_text(
        "checkpoint: mine\ndata: digits\ntargets: {'7': ../retrained}\nmethods: [esd]\nbudgets: [2]\n", encoding="utf-8"
    )
    plan = load_plan(plans / "plan.yaml")
    found = {model["method"]: load_pipeline(plan.folder(model)).image_shape for model in plan.models() if model["method"] != "esd"}
    assert found == {"original": (1, 8, 8), "retrained": (1, 8, 8)}
    (elsewhere / "only-here").mkdir()
    (plans / "plan.yaml").write_text(
        "checkpoint: only-here\ndata: digits\ntargets: ['7']\nmethods: [esd]\nbudgets: [2]\n", encoding="utf-8"
    )
    with pytest.raises(PlanError, match="no checkpoint '.*plans/only-here'"):
        load_plan(plans / "plan.yaml")


def test_combinations_that_are_none_are_named():
    wrong = {
        **CONTENT, "methods": ["esd", "esd", {"method": "salun", "label": "original"}, {"checkpoint": "x"}], "budgets": [2, 2],
        "seeds": [1, 1], "attack_steps": 2, "points": 4, "attack_rates": [], "targets": {"3": "cifar10-small", "7": None},
    }
    with pytest.raises(PlanError, match="has 8 mistakes") as caught:
        check_plan(wrong)
    for part in (
        "methods holds 'esd' twice (tell them apart by `label`)", "cannot be called 'original'", "has `checkpoint` and `label`",
        "budgets holds '2 steps' twice", "seeds holds '1' twice", "attack_rates is empty",
        "4 points of a curve, at equal distances, take a multiple of 3 attack_steps, not 2",
        "cifar10-small has other classes or another size",
    ):
        assert part in str(caught.value), part


@pytest.mark.parametrize(("key", "value", "message"), [
    ("attack_steps", [20, 40], "attack_steps should hold one whole number of at least 1, not [20, 40]"),
    ("samples", [16], "samples should hold one whole number"), ("batch_size", [], "batch_size should hold one whole number"),
    ("check_every", (1, 2), "check_every should hold one"),
    ("points", [2], "points should hold one"), ("points", 1, "at least 2, not 1"),
    ("evaluations", 4, "`evaluations: 4` is called `points: 5` now"), ("evaluations", [1], "`points: one more`"),
    ("learning_rate", [1e-4, 1e-3], "learning_rate should hold one number between 0 and 1, not [0.0001, 0.001]"),
    ("optimizers", [], "optimizers is empty"), ("budgets", [True], "a budget is a number of steps"),
    ("budgets", [{"steps": 3, "until": True}], "a budget has `steps`"),
])
def test_a_list_is_refused_where_the_grid_has_no_dimension_and_an_empty_one_where_it_has(key, value, message):
    with pytest.raises(PlanError, match="has 1 mistake: ") as caught:
        check_plan({**CONTENT, key: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(("line", "word", "number"), [
    ("learning_rate: 1e-4", "1e-4", "1.0e-4"), ("attack_rates: [0.001, 3E-5]", "3E-5", "3.0e-5"),
    ("budgets: [{steps: 2, until: 9e-1}]", "9e-1", "9.0e-1"),
    ("methods: [esd, {method: dimum, weight: 25e-1}]", "25e-1", "25.0e-1"), ("samples: 1e2", "1e2", None),
])
def test_a_number_that_yaml_takes_for_a_word_is_refused_with_how_to_write_it(line, word, number):
    content = {**CONTENT, **yaml.safe_load(line)}
    with pytest.raises(PlanError, match="has 1 mistake") as caught:
        check_plan(content)
    said = str(caught.value)
    assert repr(word) in said and ("write" in said) == (number is not None)
    if number:
        assert f"in YAML that is a word: write {number})" in said and yaml.safe_load(number) == float(word)


@pytest.mark.parametrize(("text", "message"), [
    ("a: [1", "is not YAML"), ("- 1", "should be a mapping"), ("plugins: [none.py]", "no file"), (None, "cannot be read"),
])
def test_what_is_no_plan_is_refused(tmp_path, capsys, text, message):
    path = tmp_path / "plan.yaml"
    if text is not None:
        path.write_text(text)
    assert main(["benchmark", "run", str(path), "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


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


def test_the_estimate_grows_with_the_work():
    small, large = (check_plan({**CONTENT, "attack_steps": steps}) for steps in (20, 400))
    once, more = estimate_minutes(small), estimate_minutes(large)
    assert 0 < once < more < 40 * once


def test_a_plan_with_prompts_is_estimated_too():
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
    plugin = tmp_path / "heir.py"
    plugin.write_text("from dataclasses import dataclass\nfrom dimum_core.unlearning import register\n"
                      "from dimum_core.unlearning.dimum import DiMUM\n\n\n"
                      '@register("heir")\n@dataclass(frozen=True)\nclass Heir(DiMUM):\n    weight: float = 2.0\n')
    load_plugin(plugin)
    try:
        assert {path.name for path in _method_files(METHODS["heir"])} == {"heir.py", "dimum.py"}
    finally:
        METHODS.pop("heir")
