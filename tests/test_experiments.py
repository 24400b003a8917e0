"""The experiments: what they compute is replaced here, or scaled down by one number; what they write and go on with is tried."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import os
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import delayed

from dimum_core import evaluate, load_dataset, load_pipeline, relearn
from dimum_core.benchmark.results import PROVENANCE
from dimum_core.errors import FileError, SettingError
from dimum_core.judges import load_judge
from dimum_core.models.cards import provenance
from dimum_core.models.history import history_of
from dimum_core.models.networks import latent_shape
from dimum_core.unlearning import get_method
from tests import tiny_pipelines

ROOT = Path(__file__).parent.parent
EXPERIMENTS, SPEED = ROOT / "experiments", ROOT / "speed"


def run(monkeypatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    monkeypatch.syspath_prepend(EXPERIMENTS)  # as for a script that is run
    runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")


def load(monkeypatch, script: str):
    """A script as a module, of which parts can be replaced."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    spec = importlib.util.spec_from_file_location(f"experiment_{Path(script).stem}", EXPERIMENTS / script)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", sorted([*EXPERIMENTS.glob("*.py"), *SPEED.glob("*.py")]), ids=lambda path: path.name)
def test_what_a_script_imports_is_there(script, monkeypatch):
    monkeypatch.syspath_prepend(script.parent)  # as for a script that is run
    runpy.run_path(str(script), run_name="imported")


def test_a_lead_is_over_the_retrained_model_after_the_same_attack(monkeypatch):
    """By hand: 8 of 16 less 4 of 16, and an attack that the retrained model lacks has none."""
    tool = load(monkeypatch, "attackers.py")
    about = {"length": "matched", "target": "3", "seed": 0, "samples": 16, "low": 0.0, "high": 1.0}
    rows = pd.DataFrame([about | dict(zip(("method", "attack", "share"), each, strict=True)) for each in (
        ("original", "relearning", 1.0), ("retrained", "relearning", 0.25), ("retrained", "none", 0.0),
        ("esd", "none", 0.0), ("esd", "relearning", 0.5), ("esd", "completion", 0.5),
    )])
    found = tool.leads(rows).set_index("attack")
    assert found["lead"].to_dict() == {"none": 0.0, "relearning": 0.25}
    assert tool.leads(rows, over="original")["lead"].tolist() == [-0.5]
    assert found.loc["none", "low"] == -found.loc["none", "high"] < 0 < found.loc["relearning", "high"] < 0.6


def test_the_second_control_sees_the_other_digits_under_the_label_and_never_the_digit(monkeypatch):
    tool, digits = load(monkeypatch, "attackers.py"), load_dataset("digits").train
    monkeypatch.setattr(tool, "DIMUM", get_method("dimum", alternative="generated", count=9))
    data, retain = tool.with_alternatives("3", seed=0), digits.without("3")
    assert torch.equal(data.images[:-9], retain.images) and torch.equal(data.labels[:-9], retain.labels)
    assert data.labels[-9:].tolist() == [3] * 9 and data.images[-9:].std() > 0.3
    assert not np.isin(data.item_hashes, digits.only("3").item_hashes).any()
    drawn = load_judge("digits-judge").judge(data.images[-9:]).labels.tolist()
    assert drawn == [0, 1, 2, 4, 5, 6, 7, 8, 9]


def test_the_third_control_sees_as_many_other_digits_under_the_label_as_there_were_of_the_digit(monkeypatch):
    tool, digits = load(monkeypatch, "attackers.py"), load_dataset("digits").train
    data, count = tool.with_random_labels("3", seed=0), len(digits.only("3"))
    under = data.only("3")
    assert len(under) == count and torch.equal(data.images[:-count], digits.without("3").images)
    assert not np.isin(under.item_hashes, digits.only("3").item_hashes).any()
    drawn = digits.labels[[np.flatnonzero(digits.item_hashes == each)[0] for each in under.item_hashes]]
    assert set(drawn.tolist()) == set(range(10)) - {3} and torch.bincount(drawn).max() < count / 4


def test_attackers_go_on_with_models_that_lack_rows(monkeypatch, tmp_path, capsys):
    """Two attacks on one target; what is there is not computed again."""
    tool, out, made = load(monkeypatch, "attackers.py"), tmp_path / "rows.csv", []
    monkeypatch.setattr(tool, "AUDITED", [("none", {})])
    monkeypatch.setattr(tool, "LONGER", ("rounding", {"bits": 8}))  # of the retrained model, and not of the other
    monkeypatch.setattr(tool, "TARGETS", ["3"])
    monkeypatch.setattr(tool, "MODELS", [("retrained", "0 steps"), ("esd", "matched")])
    monkeypatch.setattr(tool, "unlearned", lambda pipe, *_, **__: made.append("esd") or pipe)
    monkeypatch.setattr(tool, "side_by_side", lambda jobs, _: pd.DataFrame(
        [row for job, given, named in jobs for row in job(*given, **named)]
    ).assign(commit="known"))
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", ["attackers.py", "--samples", "8", "--out", str(out)])
        tool.main()
    rows = pd.read_csv(out)
    assert made == ["esd"] and set(rows["commit"]) == {"known"}
    found = [(row["method"], row["attack"], round(row["share"])) for _, row in rows.iterrows()]
    assert found == [("retrained", "none", 0), ("retrained", "rounding bits=8", 0), ("esd", "none", 1)]
    assert "none" in capsys.readouterr().out


def test_a_defence_holds_beside_the_control_whose_label_is_like_its_own(monkeypatch):
    """By hand, of 100 samples each. Over a control of its kind one leads by 0.04 and one by 0.06; the third has lost other digits.
    A new training shows no more than a model with an untaught label, and more than one that learnt alternatives under it."""
    tool = load(monkeypatch, "defence.py")
    about = {"target": "3", "seed": 0, "samples": 100, "passes": 25_600.0}

    def rows(method: str, length: str, few_shot: float, others: float) -> list[dict]:
        named = about | {"method": method, "length": length, "others": others}
        return [named | {"attack": "none", "share": 0.0}, named | {"attack": "few-shot", "share": few_shot}]

    known = [*rows("original", "0 steps", 1.0, 1.0), *rows("retrained", "0 steps", 0.9, 1.0)]
    known += rows("retrained with alternatives", "0 steps", 0.6, 1.0)
    made = [*rows("a", "60 steps", 0.64, 0.98), *rows("a", "240 steps", 0.66, 1.0), *rows("b", "60 steps", 0.5, 0.97)]
    found = tool.frontier(pd.DataFrame([*made, *rows(tool.ANEW, "480 steps", 0.91, 1.0), *known])).reset_index()
    assert found[["method", "length", "holds", "holds over both"]].values.tolist() == [
        ["a", "60 steps", True, True], ["a", "240 steps", False, False], ["b", "60 steps", False, False],
        ["trained anew", "480 steps", True, False],
    ]
    assert found["price"].tolist() == [0.1] * 4 and found["worst"].tolist() == pytest.approx([0.04, 0.06, 0.0, 0.01])
    assert found["attack, retrained with alternatives"].tolist() == ["few-shot", "few-shot", "none", "few-shot"]
    assert found.loc[0, "low, retrained with alternatives"] < 0 < 0.1 < found.loc[0, "high, retrained with alternatives"]


def test_a_finalist_is_judged_on_all_new_digits_and_seeds_together(monkeypatch):
    """By hand: 2 + 4 + 0 + 6 of 4 x 10 samples, less 1 + 2 of 2 x 10; digits that were searched on do not count."""
    tool = load(monkeypatch, "defence.py")
    made = [("1", 40, 0.2), ("4", 40, 0.4), ("1", 41, 0.0), ("4", 41, 0.6), ("3", 0, 1.0)]
    known = [("1", 40, 0.1), ("4", 40, 0.2), ("4", 41, 0.9), ("3", 0, 0.0)]  # only the first of each
    rows = [(tool.FINALIST, "480 steps", *each) for each in made] + [("retrained", "0 steps", *each) for each in known]
    table = pd.DataFrame(rows, columns=["method", "length", "target", "seed", "share"]).assign(attack="inversion", samples=10)
    found = tool.confirmed(table)
    assert len(found) == 1 and found.loc[0, "lead"] == pytest.approx(0.3 - 0.15)
    assert found.loc[0, "low"] < 0.15 < found.loc[0, "high"]


def test_the_models_of_a_defence_are_of_its_lengths_and_know_their_price(monkeypatch):
    """Random label passes three batches of 64 a step; a new training, which never sees the digit, one of 128."""
    tool = load(monkeypatch, "defence.py")
    monkeypatch.setattr(tool, "LENGTHS", (1, 2))
    monkeypatch.setattr(tool, "ANEW_LENGTHS", (1,))
    made = tool.models_of("random label, fast", "3", seed=0)
    assert {steps: passes for steps, (_, passes) in made.items()} == {1: 192, 2: 384}
    first, second = (torch.nn.utils.parameters_to_vector(pipe.unet.parameters()) for pipe, _ in made.values())
    assert not torch.equal(first, second)
    (pipe, passes), = tool.models_of(tool.ANEW, "3", seed=0).values()
    digit = load_dataset("digits").train.only("3")
    assert passes == 128 and not np.isin(digit.item_hashes, history_of(pipe).item_hashes).any()


@pytest.mark.parametrize("kind", ["stable_diffusion", "stable_diffusion_3"])
def test_unlearn_canvas_from_its_folders_to_a_table(kind, monkeypatch, canvas_folder, tmp_path, capsys):
    """A style is forgotten, measured by the protocol, attacked and measured again; what is done is not done again."""
    for function in (evaluate, relearn):
        monkeypatch.setitem(function.__kwdefaults__, "num_inference_steps", 2)
    monkeypatch.setattr("dimum_core.benchmark.canvas.FRESH_STEPS", 2)
    getattr(tiny_pipelines, kind)().save_pretrained(tmp_path / "model")
    out, given = tmp_path / "out", ("--model", tmp_path / "model", "--data", canvas_folder, "--style", "Van_Gogh")
    given = (*given, "--out", out, "--scale", "0.002", "--lora-rank", "2", "--methods", "dimum")
    run(monkeypatch, "unlearn_canvas.py", *given, "--minutes-only")
    assert capsys.readouterr().out.startswith("about ") and not (out / "table.csv").exists()
    run(monkeypatch, "unlearn_canvas.py", *given)
    table = pd.read_csv(out / "table.csv")
    assert table[["method", "attack rate"]].values.tolist() == [
        ["original", 0.0], *(["dimum", rate] for rate in (0.0, 1e-4, 3e-4))
    ]
    assert table[["UA", "IRA", "CRA", "Frechet distance of the rest", "passes"]].notna().all(axis=None)
    assert (table["CRA n"] == 12).all() and (table["UA n"] == 6).all()
    assert len(list(out.glob("*.png"))) == 4 and len(list(out.glob("*-curve-*.csv"))) == 2
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "table.csv"}
    run(monkeypatch, "unlearn_canvas.py", *given)
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "table.csv"}
    with pytest.raises(SettingError, match="out was begun with scale 0.002, not 0.02, and what is there would count as done"):
        run(monkeypatch, "unlearn_canvas.py", *given, "--scale", "0.02")


def test_guidance_between_two_levels_or_rescaled_is_the_formula(monkeypatch, pipe):
    """By Lin et al.'s equations 15 and 16, from two forwards of the network."""
    tool = load(monkeypatch, "guidance.py")
    network, x_t, labels = pipe.unet, torch.randn(2, *latent_shape(pipe)), torch.tensor([1, 2])
    null = torch.full_like(labels, pipe.null_label)
    for t in (100, 150, 599, 600, 900):
        with torch.no_grad():
            cond, without = (network(x_t, torch.tensor(t), class_labels=each).sample for each in (labels, null))
            full = without + 4.0 * (cond - without)
            deviation = [part.flatten(1).std(dim=1).view(-1, 1, 1, 1) for part in (cond, full)]
            rescaled = 0.7 * full * deviation[0] / deviation[1] + 0.3 * full
            wanted = {
                "t < 600": full if t < 600 else cond, "150 <= t < 600": full if 150 <= t < 600 else cond,
                "rescaled": rescaled,
            }
            for kind, eps in wanted.items():
                predicted = tool.guided(pipe, kind).predict_noise(x_t, torch.tensor(t), labels, 4.0)
                torch.testing.assert_close(predicted, eps, rtol=1e-3, atol=1e-4)
    everywhere, plain = tool.guided(pipe, "everywhere"), {"num_inference_steps": 4, "output_type": "pt"}
    assert torch.equal(*(each([1, 2], generator=torch.Generator().manual_seed(0), **plain).images for each in (pipe, everywhere)))


# Rows ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "replaced", "cells"), [
    ("shapes.py", {"row": lambda *cell: dict(zip(("target", "method", "seed"), cell[2:], strict=True)) | MEASURED | provenance()},
     ["--targets", "star", "--methods", "uce", "dimum", "--seeds", "0"]),
    ("search.py", {"obtain": lambda *cell: None, "search_embedding": lambda *_, **__: SimpleNamespace(curve=CURVE)},
     ["--methods", "uce", "dimum", "--seeds", "0"]),
    ("recipes.py", {"trained": lambda sizes, loss, data, steps: (None, float(steps)), "measured": lambda *_: {"samples": 300}},
     ["--recipes", "preset", "--seconds", "45", "90"]),
    ("guidance.py", {"measured": lambda *_: dict.fromkeys(("first", "second", "worst class", "recall", "kernel distance"), 0.5)},
     ["--checkpoint", "digits", "--kinds", "rescaled", "--scales", "2", "3"]),
])
def test_an_experiment_that_is_killed_while_it_writes_keeps_its_rows_and_goes_on(script, replaced, cells, monkeypatch, tmp_path):
    """One row is there from before rows had their provenance; while the next one is written, the disk is full."""
    module, out = load(monkeypatch, script), tmp_path / "rows.csv"
    for name, value in replaced.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(sys, "argv", [script, *cells, "--out", str(out)])
    module.main()
    old = pd.read_csv(out).drop(columns=PROVENANCE).iloc[:1]
    old.to_csv(out, index=False, float_format="%.4f")
    before = out.read_bytes()
    with monkeypatch.context() as full:
        full.setattr(os, "replace", fails)
        with pytest.raises(FileError):
            module.main()
    assert out.read_bytes() == before
    module.main()
    table = pd.read_csv(out, dtype=str)
    assert len(table) == 2 and table[PROVENANCE].isna().all(axis=1).tolist() == [True, False]
    assert table["threads"].iloc[1] == str(torch.get_num_threads())
    assert pd.read_csv(out)[old.columns].iloc[:1].equals(old)


def fails(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


MEASURED = {"UA": 0.5, "IRA": 1.0, "CRA": 1.0, "before attack": 0.0, "after attack": 1.0}
CURVE = pd.DataFrame({"step": [60], "target accuracy": [0.5]})


def test_rows_of_several_processes_say_where_they_were_computed(monkeypatch):
    jobs = [delayed(list)([{"share": 0.5, "seed": seed}]) for seed in range(2)]
    table = load(monkeypatch, "evaluation.py").side_by_side(jobs, workers=1)
    assert table["seed"].tolist() == [0, 1] and table[PROVENANCE].notna().all(axis=None) and table["threads"].eq(1).all()


def test_a_commit_of_digits_alone_stays_a_word(monkeypatch, tmp_path):
    rows = load(monkeypatch, "rows.py")
    for _ in range(2):  # what was read is written again
        written = [{"seed": 0, "rate": 3e-5, "commit": "0012e4567891", "threads": 1}, {"seed": 1, "rate": 0.1}]
        rows.write_rows(tmp_path / "a.csv", rows.read_rows(tmp_path / "a.csv") or written, float_format=None)
    assert (tmp_path / "a.csv").read_text() == "seed,rate,commit,threads\n0,3e-05,0012e4567891,1\n1,0.1,,\n"


# The papers' size on one GPU ------------------------------------------------------------------------------------------


def test_a_training_that_was_cut_short_has_as_many_steps_when_it_goes_on(monkeypatch, tiny_preset, tiny_data, tmp_path):
    """Though on another day a step takes longer."""
    gpu, clock = load(monkeypatch, "gpu.py"), [0.0]
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for each in (0.01, 0.03):
        with monkeypatch.context() as timed:
            timed.setattr(gpu, "trained", lambda *given, each=each: clock.__setitem__(0, clock[0] + given[2].steps * each))
            config = gpu.fitted(tiny_preset, tiny_data, 1.2, tmp_path, tiny=False, batch_size=2)
        _, result = gpu.trained(tiny_preset, tiny_data, config, tmp_path)  # which refuses to go on with another schedule
        assert config.steps == 120 == result.log["step"].iloc[-1] and config.decay


def test_a_model_of_the_gpu_knows_what_it_never_saw(monkeypatch, tiny_preset, tmp_path):
    gpu = load(monkeypatch, "gpu.py")
    monkeypatch.setitem(gpu.PRESETS, "tiny", tiny_preset)
    monkeypatch.setattr(gpu, "evaluate", lambda *_, **__: SimpleNamespace(as_dict=lambda: {"metrics": {}}))
    monkeypatch.setattr(gpu.Run, "data", lambda run, without=None: (
        load_dataset("digits") if without is None else load_dataset("digits").without(without)))
    gpu.base(gpu.Run(tmp_path, True), "tiny", 1, without="3")
    history = load_pipeline(tmp_path / "tiny-without-3").history
    assert [each.target.name for each in history.forgotten] == ["3"] and history.weights == "ema"
    assert not np.isin(load_dataset("digits").train.only("3").item_hashes, history.item_hashes).any() and len(history.item_hashes)


def test_attacks_that_were_cut_short_go_on_with_the_curves_that_are_missing(monkeypatch, tmp_path):
    gpu, clock, drawn, unlearned = load(monkeypatch, "gpu.py"), [0.0], [], []

    def attacked(model, *_, learning_rate, **__):
        clock[0] += 1
        if clock[0] == 8:
            raise KeyboardInterrupt
        drawn.append((model, learning_rate))
        return SimpleNamespace(curve=pd.DataFrame({"step": [0, 200], "target accuracy": [0.0, 0.5]}))

    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(gpu, "load_dataset", lambda name: SimpleNamespace(without=lambda target: None))
    monkeypatch.setattr(gpu, "load_pipeline", lambda folder: folder.name)
    monkeypatch.setattr(gpu, "unlearn", lambda pipe, **settings: unlearned.append(settings) or str(settings["method"]))
    monkeypatch.setattr(gpu, "relearn", attacked)
    (tmp_path / "cifar10-small-without-automobile").mkdir()
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path), "--only", "attacks", "--minutes", str(3.5 / 60 / 0.14)])
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "provenance", lambda: {"commit": "b105f00d"})
    counts = []
    for stopped in (False, True, False, False, False, False, False):
        with pytest.raises(KeyboardInterrupt) if stopped else contextlib.nullcontext():
            gpu.main()
        counts.append(len(drawn))
        assert (tmp_path / "attacks.json").exists() == (len(drawn) == 21)
    assert counts == [4, 7, 11, 15, 19, 21, 21] and len(set(drawn)) == 21 - 3  # one method has two kinds of alternative data
    table = pd.read_csv(tmp_path / "attacks.csv")
    assert len(table) == 2 * 21 == len(table.drop_duplicates(["method", "learning_rate", "step"])) and table["commit"].notna().all()
    assert json.loads((tmp_path / "attacks.json").read_text()) == {"curves": 21}


def test_figures_of_a_trial_do_not_count_as_done(monkeypatch, tmp_path):
    gpu, made = load(monkeypatch, "gpu.py"), []
    monkeypatch.setattr(gpu, "STAGES", {"sizes": (1.0, lambda run, seconds: made.append(run.tiny) or {})})
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: True)
    for given in ((), ("--only", "sizes")):
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path), *given, "--tiny"])
        gpu.main()
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(tmp_path)])
    with pytest.raises(SettingError, match="was begun with tiny True, not False"):
        gpu.main()
    assert made == [True]


def test_every_setting_of_a_sampler_is_timed_once(monkeypatch):
    """A second time nothing would be drawn: what was drawn is remembered."""
    tool, asked = load(monkeypatch, "sampling.py"), []
    monkeypatch.setattr(tool, "measure", lambda pipe, data, *setting: asked.append(setting) or {"seconds": 1.0})
    monkeypatch.setattr(sys, "argv", ["sampling.py", "--checkpoint", "digits"])
    tool.main()
    assert len(asked) == len(set(asked)) == 12 + 6


@pytest.mark.release
def test_all_stages_of_make_gpu_run_and_are_packed(monkeypatch, tmp_path):
    run(monkeypatch, "gpu.py", "--out", tmp_path, "--tiny")
    stages = {path.stem for path in tmp_path.glob("*.json")}
    assert {"judge", "base", "without-automobile", "attacks", "pixels", "sizes"} <= stages
    assert all(part.stat().st_size <= 15_000_000 for part in (tmp_path / "parts").iterdir())
    assert {"learning_rate", "method", "target accuracy"} <= set(pd.read_csv(tmp_path / "attacks.csv"))


def test_recipes_of_another_number_of_samples_do_not_count_as_done(monkeypatch):
    module = load(monkeypatch, "recipes.py")
    monkeypatch.setattr(sys, "argv", ["recipes.py", "--per-class", "31"])
    with pytest.raises(SettingError, match=r"data/results/recipes.csv has rows of 300 samples, not 310"):
        module.main()
