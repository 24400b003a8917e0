"""Plans: read as a whole, each mistake named, and cells named by their content."""

from __future__ import annotations

import shutil

import pytest
import yaml

from dimum_core import training
from dimum_core.benchmark import load_plan
from dimum_core.benchmark.plan import cell_id
from dimum_core.benchmark.reading import PlanError, check_plan
from dimum_core.benchmark.store import failures, record_failure
from dimum_core.cli import main
from dimum_core.models.checkpoints import CHECKPOINT_FOLDER, load_pipeline
from dimum_core.unlearning import METHODS

from . import tiny_pipelines
from .test_benchmark import CONTENT

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
        "checkpoint: mine\ndata: digits\ntargets: {'3': ../retrained}\nmethods: [esd]\nbudgets: [2]\n", encoding="utf-8"
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


def test_a_control_that_knew_the_target_is_refused_before_the_run():
    with pytest.raises(PlanError, match="digits-without-7 was not trained without '3', so it is no control"):
        check_plan({**CONTENT, "targets": {"3": "digits-without-7"}})


def test_a_pipeline_that_names_no_classes_is_refused_among_the_other_mistakes(tmp_path):
    tiny_pipelines.stable_diffusion().save_pretrained(tmp_path / "sd")
    model = str(tmp_path / "sd")
    for content in ({"checkpoint": model}, {"targets": {"3": model}}):
        with pytest.raises(PlanError, match="has 2 mistakes") as caught:
            check_plan({**CONTENT, "targets": ["3"], **content, "samples": 0})
        said = f"{model} is a StableDiffusionPipeline, and a plan takes models that name their classes: use unlearn and relearn in"
        assert said in str(caught.value) and "samples should" in str(caught.value)


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
        "cifar10-small has other classes, another size or another network",
    ):
        assert part in str(caught.value), part


@pytest.mark.parametrize(("key", "value", "message"), [
    ("attack_steps", [20, 40], "attack_steps should hold one whole number of at least 1, not [20, 40]"),
    ("samples", [16], "samples should hold one whole number"), ("batch_size", [], "batch_size should hold one whole number"),
    ("check_every", (1, 2), "check_every should hold one"),
    ("points", [2, 1], "or a list of steps in order, not [2, 1]"), ("points", 1, "at least 2, or a list"),
    ("evaluations", 4, "`evaluations: 4` is called `points: 5` now"), ("evaluations", [1], "`points: one more`"),
    ("learning_rate", [1e-4, 1e-3], "learning_rate should hold one number between 0 and 1, not [0.0001, 0.001]"),
    ("optimizers", [], "optimizers is empty"), ("budgets", [True], "a budget is a number of steps"),
    ("budgets", [{"steps": 3, "until": True}], "a budget has `steps`"),
])
def test_a_list_is_refused_where_the_grid_has_no_dimension_and_an_empty_one_where_it_has(key, value, message):
    with pytest.raises(PlanError, match="has 1 mistake: ") as caught:
        check_plan({**CONTENT, key: value})
    assert message in str(caught.value)


def test_an_optimizer_that_is_not_installed_is_refused_before_anything_is_unlearned(monkeypatch):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(PlanError, match="has 1 mistake: adamw8bit needs bitsandbytes, which is not installed"):
        check_plan({**CONTENT, "optimizers": ["adamw", "adamw8bit"]})


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
