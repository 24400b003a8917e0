"""The method and the attack in docs/usage.md, outside the package and with no other change; what the page lists is all there is."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.attacks import ATTACKS
from dimum_core.attacks.base import RETAINED
from dimum_core.cli import main
from dimum_core.errors import DimumError
from dimum_core.unlearning import METHODS, Method, Step, get_method, load_plugin
from dimum_core.unlearning.base import DATA_KINDS, Everyones
from dimum_core.unlearning.plugin import own_code

IMPORTS = "from dataclasses import dataclass\n\nfrom dimum_core.unlearning import register\n\n\n"
USAGE = (Path(__file__).parent.parent / "docs" / "usage.md").read_text()


def test_the_method_of_the_page_goes_all_the_way(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(relearn.__kwdefaults__, "samples", 8)
    source = next(block for block in re.findall(r"```python\n(.*?)```", USAGE, re.S) if "@register" in block)
    assert len(source.strip().splitlines()) <= 22
    plugin = tmp_path / "to_null.py"
    plugin.write_text(source)
    forgot, attacked = tmp_path / "forgot", tmp_path / "attacked"
    unlearning = f"unlearn digits --plugin {plugin} --method to-null --set weight=3.0 --target 3 --steps 30 --learning-rate 3e-4"
    try:
        assert main([*unlearning.split(), "--out", str(forgot)]) == 0
    finally:
        METHODS.pop("to-null", None)
    assert main(f"relearn {forgot} --target 3 --steps 4 --out {attacked}".split()) == 0
    curve = pd.read_csv(attacked / "curve.csv")
    assert curve["step"].tolist() == [0, 1, 2, 3, 4] and curve["target accuracy"].iloc[0] < 0.5
    assert main(f"evaluate {attacked} --target 3 --count 2 --steps 4".split()) == 0
    assert "what the label 3 draws" in capsys.readouterr().out


def test_the_attack_of_the_page_runs_and_is_measured():
    source = next(block for block in re.findall(r"```python\n(.*?)```", USAGE, re.S) if "(Attack)" in block)
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    names = {"pipe": pipe, "data": data, "unlearned": unlearn(pipe, "finetune", target="3", data=data, steps=1, progress=False)}
    quick = source.replace("samples=48", "samples=4").replace("steps: int = 10", "steps: int = 1")
    try:
        exec(quick.replace("attack(unlearned", "found = attack(unlearned").replace(").target  ", ")  "), names)
    finally:
        ATTACKS.pop("quick", None)
    found = names["found"]
    assert found.attack == "quick" and found.settings == {"steps": 1} and found.steps == 1 and found.had == (RETAINED,)
    assert found.target.n == 4 and found.retained.n == 4 and "quick" not in USAGE.split("## An attack of your own")[0]


def test_the_page_has_all_that_a_method_may_define_and_all_that_a_step_offers():
    page = USAGE.split("## A method of your own")[1].split("## An attack of your own")[0]
    defined = {name for name in {**vars(Everyones), **vars(Method), **vars(Method)["__annotations__"]} if not name.startswith("_")}
    assert {name for name in defined - {"name"} if not re.search(rf"`{name}\b", page)} == set()
    offered = {name for name in (*vars(Step), *Step.__dataclass_fields__) if not name.startswith("_")}
    offered -= {"forgets", "total_steps"}  # which the loop asks
    assert offered == set(re.findall(r"`step\.(\w+)", page.split("What a step offers")[1].split("\n\n")[1]))


def test_the_page_has_a_row_for_every_method_with_its_defaults():
    rows = re.findall(r"(?m)^\| `([a-z-]+)` \| ([^|]*) \| ([^|]*) \| (yes|no) \|$", USAGE)
    wanted = []
    for name, kind in sorted(METHODS.items()):
        if kind.__module__.startswith("dimum_core."):
            method = kind()
            settings = [f"`{each.name}={each.default}`" for each in fields(method) if not each.kw_only]
            needs = [kind for kind in DATA_KINDS if kind in method.needs]
            says = "yes" if method.compares_noise else "no"
            wanted.append((name, ", ".join(needs) or "–", ", ".join(settings) or "–", says))
    assert rows == wanted


def test_what_is_no_method_is_refused(tmp_path, capsys):
    empty, broken = tmp_path / "empty.py", tmp_path / "broken.py"
    empty.write_text("x = 1\n")
    broken.write_text("1 / 0\n")
    missing = tmp_path / "none.py"
    thawed = tmp_path / "thawed.py"
    thawed.write_text(f"{IMPORTS}@register('x')\nclass X:\n    needs = frozenset()\n    loss = None\n")
    refused = ((empty, "registers no method"), (broken, "ZeroDivisionError: division by zero.\n"), (missing, "There is no file"),
               (thawed, f"dimum: {thawed}: x is no frozen dataclass, as a method must be: put @dataclass(frozen=True) below"))
    for plugin, message in refused:
        assert main(f"unlearn digits --plugin {plugin} --method x --target 3 --out {tmp_path / 'o'}".split()) == 1
        assert message in capsys.readouterr().err


@pytest.fixture
def plugin(tmp_path):
    """Writes a method `mine` into a user's file, whose loss is an expression of `step`, and unlearns with it in the shell."""
    def unlearn(loss: str, *more: str) -> int:
        method = "@register('mine')\n@dataclass(frozen=True)\nclass Mine:\n    needs = frozenset({'retain'})\n\n"
        (tmp_path / "mine.py").write_text(f"{IMPORTS}{method}    def loss(self, step):\n        return {loss}\n")
        command = f"unlearn digits --plugin {tmp_path / 'mine.py'} --method mine --target 3 --steps 1 --out {tmp_path / 'out'}"
        return main([*command.split(), *more])

    yield unlearn
    METHODS.pop("mine", None)


@pytest.mark.parametrize(("loss", "wrong"), [
    ("None", "not None."), ("1.0", "not 1.0."), ("step.batch('retain')[0].mean()", "not a number in which no weight takes part."),
    ("step.retained().expand(2)", "not a tensor of shape (2,)."),
])
def test_a_loss_that_cannot_be_minimised_is_named(plugin, loss, wrong, capsys):
    assert plugin(loss) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("dimum: The loss of mine must be one number that depends on the weights") and said.endswith(wrong)


def test_a_training_is_not_resumed_by_another_version_of_its_method(plugin, capsys):
    assert plugin("step.retained()") == 0
    assert plugin("step.retained()  # a comment changes nothing", "--resume") == 0
    assert plugin("2 * step.retained()", "--resume") == 1
    assert "was made with code other than is given now" in capsys.readouterr().err


@pytest.fixture
def written(tmp_path):
    """Writes a method into FOLDER/mine.py and loads it."""
    before = dict(METHODS)

    def load(folder: str, name: str, factor: int = 1) -> None:
        (tmp_path / folder).mkdir(exist_ok=True)
        body = f"    needs = frozenset({{'retain'}})\n\n    def loss(self, step):\n        return {factor} * step.retained()\n"
        method = f"@register({name!r})\n@dataclass(frozen=True)\nclass Mine:\n{body}" if name else "x = 1\n"
        (tmp_path / folder / "mine.py").write_text(IMPORTS + method)
        load_plugin(tmp_path / folder / "mine.py")

    yield load
    for name in set(METHODS) - set(before):
        del METHODS[name]


def test_two_files_of_one_name_are_two(written):
    written("a", "of-a")
    first = own_code(get_method("of-a"))
    written("b", "of-b", factor=2)
    assert own_code(get_method("of-a")) == first != own_code(get_method("of-b"))
    with pytest.raises(DimumError, match="The name 'of-a' belongs to a method of plugin_mine"):
        written("b", "of-a")
    with pytest.raises(DimumError, match="registers no method"):
        written("a", "")  # which had one before
    assert "of-a" not in METHODS


def test_the_code_of_a_method_is_what_was_loaded_however_deep_it_lies(written, tmp_path):
    written("a", "of-a")
    deep = get_method("weight-distortion", base="cbft base=of-a")
    assert own_code(deep) == own_code(get_method("of-a")) != {} == own_code(get_method("weight-distortion", base="cbft base=dimum"))
    before = own_code(deep)
    (tmp_path / "a" / "mine.py").write_text("x = 1\n")
    assert own_code(deep) == before
