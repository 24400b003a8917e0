"""The laboratory under stress: every engine, kill -9, two runs at once, methods from outside, failing cells."""

from __future__ import annotations

import copy
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.attacks import auxiliary_set
from dimum_core.benchmark import check_plan, load_plan, read_results, run, store
from dimum_core.benchmark.engines import EngineError, run_tasks
from dimum_core.benchmark.nfe import attack_nfes, counted
from dimum_core.benchmark.reading import PlanError
from dimum_core.benchmark.running import run_task
from dimum_core.benchmark.store import failures
from dimum_core.cli import main
from dimum_core.data import step_generator
from dimum_core.errors import DimumError
from dimum_core.models.checkpoints import CHECKPOINT_FOLDER
from dimum_core.unlearning import METHODS

ROOT = Path(__file__).parent.parent
PLUGIN = """
from dataclasses import dataclass
from dimum_core.unlearning import register

@register("to-noise")
@dataclass(frozen=True)
class ToNoise:
    fails: bool = False
    needs = frozenset({"forget"})

    def loss(self, step):
        if self.fails:
            raise RuntimeError("as it was meant to")
        x, condition = step.batch("forget")
        x_t, eps, t = step.noise(x)
        return step.predict(x_t, t, condition).square().mean()
"""
PLAN = """
checkpoint: digits
data: digits
targets: ["3"]
plugins: [to_noise.py]
methods: [to-noise, {method: dimum, alternative: noise, count: 4}]
controls: [original]
budgets: [2]
seeds: [0]
batch_size: 8
attack_steps: 2
attack_rates: [0.0001, 0.001]
points: 2
samples: 2
"""


@pytest.fixture(scope="module")
def plan_file(small_digits, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "to_noise.py").write_text(PLUGIN)
    (folder / "tiny.yaml").write_text(PLAN.replace("checkpoint: digits", f"checkpoint: {small_digits[0]}"))
    yield folder / "tiny.yaml"
    METHODS.pop("to-noise", None)


@pytest.fixture(scope="module")
def unbroken(plan_file, tmp_path_factory) -> pd.DataFrame:
    out = tmp_path_factory.mktemp("unbroken")
    assert run(load_plan(plan_file), out, engine="serial", progress=False).failed == 0
    return table(out)


def table(out) -> pd.DataFrame:
    return read_results(out).drop(columns=["seconds", "unlearning_seconds", "commit"])


def start(plan_file: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "dimum_core.cli", "benchmark", "run", str(plan_file), "--out", str(out), "--engine", "serial"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for_cells(process: subprocess.Popen, out: Path, count: int) -> None:
    while process.poll() is None and len(list((out / "cells").glob("[0-9a-f]*"))) < count:
        time.sleep(0.002)


@pytest.mark.release
@pytest.mark.parametrize("engine", ["loky", "dask"])
def test_two_workers_give_the_same_table_bit_for_bit(plan_file, unbroken, tmp_path, engine):
    summary = run(load_plan(plan_file), tmp_path, engine=engine, workers=2, progress=False)
    assert (summary.computed, summary.failed) == (6, 0)
    pd.testing.assert_frame_equal(table(tmp_path), unbroken, check_exact=True)


def test_workers_are_other_processes():
    found = [process for _, process in run_tasks("loky", os.getpid, [(), ()], 2, None)]
    assert len(found) == 2 and os.getpid() not in found


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "no-address", "http://127.0.0.1:9", "tls://127.0.0.1:9"])
def test_a_scheduler_that_is_not_there_is_named(address):
    import dask.distributed  # here, because it takes a second

    quick = {"distributed.comm.timeouts.connect": "100ms"}
    with dask.config.set(quick), pytest.raises(EngineError, match=f"answers at {address} "):
        next(run_tasks("dask", print, [()], 1, address))
    left = [each.status for each in gc.get_objects() if type(each) is dask.distributed.Client]
    assert set(left) == {"closed"}  # what garbage collection closes can wait for itself


def test_a_schedulers_address_is_for_dask_alone():
    with pytest.raises(EngineError, match="for the engine dask, not for loky"):
        next(run_tasks("loky", print, [()], 1, "tcp://127.0.0.1:9"))


def test_the_engine_dask_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(EngineError, match=r"pip install -e '\.\[cluster\]'"):
        next(run_tasks("dask", print, [()], 1))


@pytest.mark.release
def test_a_run_killed_at_a_random_point_goes_on_to_the_same_table(plan_file, unbroken, tmp_path):
    process = start(plan_file, tmp_path)
    wait_for_cells(process, tmp_path, random.randint(1, 7))
    time.sleep(random.random() * 0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = len(list((tmp_path / "cells").glob("[0-9a-f]*")))
    summary = run(load_plan(plan_file), tmp_path, engine="serial", progress=False)
    assert 1 <= found <= 9 and summary.failed == 0 and summary.computed + summary.reused == 6
    pd.testing.assert_frame_equal(table(tmp_path), unbroken, check_exact=True)
    assert not list((tmp_path / "weights").glob("*"))


@pytest.mark.release
def test_two_runs_at_once_share_the_work_and_do_no_harm(plan_file, unbroken, tmp_path):
    process = start(plan_file, tmp_path)
    wait_for_cells(process, tmp_path, 1)
    here = run(load_plan(plan_file), tmp_path, engine="serial", progress=False)
    assert process.wait(timeout=300) == 0 and here.failed == 0
    pd.testing.assert_frame_equal(table(tmp_path), unbroken, check_exact=True)
    assert not list((tmp_path / "weights").glob("*")) and not failures(tmp_path)


def test_a_failing_cell_is_written_down_the_rest_goes_on_and_the_exit_code_says_so(plan_file, tmp_path, capsys):
    bad = plan_file.with_name("bad.yaml")
    bad.write_text(PLAN.replace("[to-noise, ", "[{method: to-noise, fails: true}, ").replace("[0.0001, 0.001]", "[0.001]"))
    assert main(["benchmark", "run", str(bad), "--out", str(tmp_path), "--engine", "serial"]) == 1
    said = capsys.readouterr()
    assert "2 attacks computed, 0 were there, 1 failed" in said.out and "the latest traceback is in" in said.err
    (failure,) = failures(tmp_path)
    assert "RuntimeError: as it was meant to" in failure.read_text() and '"fails": true' in failure.read_text()
    assert set(table(tmp_path)["method"]) == {"original", "dimum"}


def own_plan(folder: Path, plugin: str, method: str = "to-noise") -> Path:
    """A plan of one model and one attack with a user's own file, to be changed at will."""
    text = PLAN.replace("[to-noise, {method: dimum, alternative: noise, count: 4}]", f"[{method}]")
    for old, new in (("to_noise.py", "own.py"), ("[original]", "[]"), ("[0.0001, 0.001]", "[0.001]")):
        assert old in text
        text = text.replace(old, new)
    (folder / "own.py").write_text(plugin)
    (folder / "own.yaml").write_text(text)
    return folder / "own.yaml"


@pytest.fixture
def no_to_noise():
    """The name is free, for a file other than the module's, and is given back afterwards."""
    held = METHODS.pop("to-noise", None)
    yield
    METHODS.pop("to-noise", None)
    if held is not None:
        METHODS["to-noise"] = held


def test_a_plugin_that_takes_a_shipped_name_is_refused_before_anything_is_computed(tmp_path, capsys):
    shipped = METHODS["esd"]
    path = own_plan(tmp_path, PLUGIN.replace("to-noise", "esd"), "esd")
    assert main(["benchmark", "run", str(path), "--out", str(tmp_path / "out"), "--engine", "serial"]) == 1
    assert "'esd' belongs to a method of dimum_core.unlearning.esd" in capsys.readouterr().err
    content = {"name": "own", **yaml.safe_load(path.read_text()), "plugins": [str(tmp_path / "own.py")]}
    with pytest.raises(DimumError, match="'esd' belongs to"):  # a plan from a mapping: its plugins are not run before
        run(check_plan(content), tmp_path / "out", engine="serial", progress=False)
    assert METHODS["esd"] is shipped and not (tmp_path / "out").exists()


def test_a_plugin_that_was_edited_after_it_was_read_is_run_as_it_is_now(tmp_path, no_to_noise):
    broken = PLUGIN.replace("if self.fails", "if True")
    plan = load_plan(own_plan(tmp_path, broken))
    (tmp_path / "own.py").write_text(PLUGIN)
    model, out = plan.models()[0], tmp_path / "out"  # named by the file as it is now; this process knows the broken one
    store.prepare(out)
    assert run_task(plan, model, out, threads=1) == (1, 0)
    (tmp_path / "own.py").write_text(broken)
    assert run(plan, tmp_path / "again", engine="serial", progress=False).failed == 1
    assert "as it was meant to" in failures(tmp_path / "again")[0].read_text()


def test_a_plugin_on_top_of_another_method_than_its_default_runs(tmp_path, no_to_noise):
    """The code that names its cell is that of its base, too, and was compared with that of the default one."""
    on_top = ("from dataclasses import dataclass\nfrom dimum_core.unlearning import register\n"
              "from dimum_core.unlearning.on_top import OnTop\n\n\n"
              '@register("to-noise")\n@dataclass(frozen=True)\nclass Mine(OnTop):\n    pass\n')
    plan = load_plan(own_plan(tmp_path, on_top, "{method: to-noise, base: random-label}"))
    assert run(plan, tmp_path / "out", engine="serial", progress=False).failed == 0


def test_a_plugin_with_a_hyper_parameter_that_must_be_given_runs(tmp_path, no_to_noise):
    plan = load_plan(own_plan(tmp_path, PLUGIN.replace("bool = False", "bool"), "{method: to-noise, fails: false}"))
    assert run(plan, tmp_path / "out", engine="serial", progress=False).computed == 1


def test_a_plugin_that_is_edited_during_a_run_gives_no_results_under_its_old_name(tmp_path, no_to_noise):
    plan, out = load_plan(own_plan(tmp_path, PLUGIN)), tmp_path / "out"
    store.prepare(out)
    model = plan.models()[0]
    (tmp_path / "own.py").write_text(PLUGIN + "\n# edited\n")
    assert run_task(plan, model, out, threads=1) == (0, 1)
    assert "'to-noise' has changed since this run began: run the plan again." in failures(out)[0].read_text()
    assert not list((out / "cells").iterdir())
    assert run(plan, out, engine="serial", progress=False).computed == 1


def entry(folder: Path, steps: int | None) -> Path:
    """A checkpoint from elsewhere: the shipped model that never saw a 3, with a card that says it took so many steps."""
    shutil.copytree(CHECKPOINT_FOLDER / "digits-without-3", folder)
    card = json.loads((folder / "card.json").read_text())
    card["training"] = {} if steps is None else {"steps": steps, "seconds": 7}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def test_a_checkpoint_with_a_card_enters_the_contest(plan_file, tmp_path):
    entry(tmp_path / "mine-3", steps=2)
    plan = tmp_path / "plan.yaml"
    text = PLAN
    for old, new in (
        ("plugins: [to_noise.py]\n", ""), ('["3"]', '{"3": digits-without-3}'), ("[original]", "[retrained]"),
        ("[0.0001, 0.001]", "[0.001]"),
        ("[to-noise, {method: dimum, alternative: noise, count: 4}]", "[{checkpoint: 'mine-{target}', label: mine}]"),
    ):
        assert old in text
        text = text.replace(old, new)
    plan.write_text(text)
    assert run(load_plan(plan), tmp_path / "out", engine="serial", progress=False).failed == 0
    rows = read_results(tmp_path / "out").set_index("label")
    curve = ["step", "target accuracy", "retained accuracy", "distance", "unlearning_distance"]
    assert rows.loc["mine", curve].to_numpy().tolist() == rows.loc["retrained", curve].to_numpy().tolist()  # the same weights
    assert rows.loc["mine", ["budget", "unlearning_steps", "unlearning_seconds"]].iloc[0].tolist() == ["2 steps", 2, 7]


def test_a_checkpoint_that_breaks_the_rules_is_refused(tmp_path):
    entry(tmp_path / "long", steps=3)
    entry(tmp_path / "silent", steps=None)
    names = ("long", "silent", "gone")
    listed = ", ".join(f"{{checkpoint: {name}, label: {name}}}" for name in names)
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"checkpoint: digits\ndata: digits\ntargets: ['3']\nbudgets: [2]\nmethods: [{listed}]\n")
    with pytest.raises(PlanError, match="3 mistakes") as caught:
        load_plan(plan)
    for part in ("long took 3 steps by its card, more than the 2", "does not say how many steps", "There is no checkpoint"):
        assert part in str(caught.value), part
    common = "checkpoint: digits\ndata: digits\ntargets: ['3']\nmethods: [{checkpoint: long, label: long}]\n"
    plan.write_text(common + "budgets: [{steps: 4, snapshots: [2, 3, 4]}]\n")  # it would stand beside models of two steps
    with pytest.raises(PlanError, match="1 mistake: .*long took 3 steps by its card, more than the 2 of the budget '2 of 4 steps'"):
        load_plan(plan)
    common = "checkpoint: digits\ndata: digits\nbudgets: [3]\n"
    plan.write_text(common + "targets: ['3', '7']\nmethods: [{checkpoint: long, label: x}]\n")
    with pytest.raises(PlanError, match=r"x is one checkpoint for 2 targets: put \{target\}"):
        load_plan(plan)


def test_network_evaluations_are_those_that_were_made():
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    settings = {"target": "3", "progress": False, "batch_size": 8}
    for method, a_step in (("random-label", 3), ("finetune", 1), ("sharpness-aware", 4)):
        with counted(pipe.unet) as seen:
            unlearn(pipe, method, data=data, steps=2, until=1.0, evaluate_every=2, **settings)
        assert seen["training"] == a_step * 2 * 8, method  # predictions of a step x steps x batch
        looks = seen["sampling"] / (32 * 25 * 2)  # at the original and at the end; nothing if the very same was drawn before
        assert looks in (0, 1, 2)
    with counted(pipe.unet) as seen:
        unlearn(pipe, "esd", data=data, steps=3, **settings)
    stops = [int(torch.randint(10, (1,), generator=step_generator(0, index))) for index in range(3)]
    assert seen["training"] == sum(2 * stop + 3 for stop in stops) * 8  # a guided path, two targets, one prediction
    with counted(pipe.unet) as seen:
        unlearn(pipe, "dimum", data=data, steps=2, alternative="generated", count=16, **settings)
    assert seen["training"] == 16 * 20 * 2 + 2 * 2 * 8  # what the original draws, guided, is part of the unlearning
    attack = {"attack_batch_size": 8, "samples": 3}
    with counted(pipe.unet) as seen:
        relearn(pipe, auxiliary_set("retain", data, "3"), steps=4, samples=3, evaluate_every=2, seed=987, **settings)
    expected = attack_nfes(attack, pipe, point=2, step=4)
    assert seen == {"training": expected["attack_nfes"], "sampling": expected["sampling_nfes"]} == {"training": 32, "sampling": 900}


def test_counting_leaves_nothing_behind():
    """Not on the copies either, whether they were asked or not; and what was free to train is free again."""
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    frozen = next(pipe.unet.parameters()).requires_grad_(False)
    with counted(pipe.unet) as seen:
        gone = unlearn(pipe, "finetune", target="3", data=data, steps=1, batch_size=8, progress=False)
        twice, before = copy.deepcopy(copy.deepcopy(pipe.unet)), seen["training"]
        assert not any(parameter.requires_grad for parameter in pipe.unet.parameters())
    for network in (pipe.unet, gone.unet, twice):
        assert not network._forward_pre_hooks
        network(torch.randn(2, 4, 4, 4), 500, class_labels=torch.tensor([0, 1]))
    assert seen["training"] == before == 8
    assert [p for p in pipe.unet.parameters() if not p.requires_grad] == [frozen]
