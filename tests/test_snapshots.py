"""One run of unlearning gives all its strengths, one attack all its lengths; and curves are drawn with fresh noise."""

import shutil

import pandas as pd
import pytest

from dimum_core import evaluate, load_dataset, load_pipeline, relearn, unlearn
from dimum_core.benchmark import check_plan, read_results, run, unlearned
from dimum_core.benchmark.cost import curve_points
from dimum_core.benchmark.reading import PlanError
from dimum_core.geometry import displacement
from dimum_core.models import fresh_noise

CONTENT = {
    "name": "ladder", "checkpoint": "digits", "data": "digits", "targets": ["3"], "methods": ["random-label"],
    "controls": [], "seeds": [0], "batch_size": 8, "attack_rates": [1e-3, 1e-4], "samples": 2, "attack_steps": 5, "points": [1, 3],
}
STRENGTHS = {"steps": 4, "snapshots": [1, 2, 4]}


@pytest.fixture(scope="module")
def laddered(small_digits, tmp_path_factory):
    plan = check_plan({**CONTENT, "checkpoint": small_digits[0], "budgets": [STRENGTHS]})
    out, calls = tmp_path_factory.mktemp("ladder"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unlearned, "unlearn", lambda *given, **settings: calls.append(1) or unlearn(*given, **settings))
        summary = run(plan, out, engine="serial", progress=False)
    assert (summary.computed, summary.failed, len(calls)) == (3 * 2, 0, 1)
    return plan, out


def test_a_snapshot_is_what_a_run_of_so_many_steps_ends_in(laddered, small_digits, tmp_path):
    rows = read_results(laddered[1])
    assert set(rows["budget"]) == {f"{n} of 4 steps" for n in (1, 2, 4)} and sorted(set(rows["step"])) == [0, 1, 3, 5]
    assert not list((laddered[1] / "weights").glob("*"))
    runs = check_plan({**CONTENT, "checkpoint": small_digits[0], "budgets": [1, 2, 4]})  # too short for a warm-up, so prefixes
    run(runs, tmp_path, engine="serial", progress=False)
    alone = read_results(tmp_path)
    same = ["unlearning_steps", "unlearning_nfes", "unlearning_distance", "attack_rate", "step", "target accuracy", "distance"]
    order = ["unlearning_steps", "attack_rate", "step"]
    first, second = (table[same].sort_values(order).reset_index(drop=True) for table in (rows, alone))
    pd.testing.assert_frame_equal(first, second)


def test_a_snapshot_before_the_last_step_is_of_the_whole_run(small_digits, tmp_path):
    """Twenty steps begin with two of warm-up, also if only the second is attacked."""
    content = {**CONTENT, "checkpoint": small_digits[0], "attack_rates": [1e-3], "attack_steps": 1, "points": 2}
    run(check_plan({**content, "budgets": [{"steps": 20, "snapshots": [2]}]}), tmp_path, engine="serial", progress=False)
    pipe, moved = load_pipeline(small_digits[0]), []

    def look(step, forgetful):
        moved.append(float(displacement(pipe.unet, forgetful.unet).norm()))
        return {}

    settings = {"steps": 20, "batch_size": 8, "evaluate": look, "evaluate_every": [2], "progress": False}
    unlearn(pipe, "random-label", target="3", data=load_dataset("digits"), **settings)
    assert read_results(tmp_path)["unlearning_distance"].iloc[0] == pytest.approx(moved[0], rel=1e-5)


def test_what_is_missing_of_a_ladder_comes_back_bit_for_bit(laddered, tmp_path):
    plan, out = laddered
    again = tmp_path / "copy"
    shutil.copytree(out, again)
    for cell in sorted((again / "cells").iterdir())[::2]:
        shutil.rmtree(cell)
    assert run(plan, again, engine="serial", progress=False).failed == 0
    aside = ["seconds", "unlearning_seconds"]
    pd.testing.assert_frame_equal(read_results(again).drop(columns=aside), read_results(out).drop(columns=aside))


def test_a_ladder_that_meets_one_more_attack_is_unlearned_once(laddered, small_digits, tmp_path, monkeypatch):
    shutil.copytree(laddered[1], tmp_path / "copy")
    plan = check_plan({**CONTENT, "checkpoint": small_digits[0], "budgets": [STRENGTHS], "attack_rates": [1e-3, 1e-4, 1e-5]})
    calls = []
    monkeypatch.setattr(unlearned, "unlearn", lambda *given, **settings: calls.append(1) or unlearn(*given, **settings))
    summary = run(plan, tmp_path / "copy", engine="serial", progress=False)
    assert (summary.computed, summary.reused, summary.failed, len(calls)) == (3, 6, 0, 1)
    assert not list((tmp_path / "copy" / "weights").glob("*"))


@pytest.mark.parametrize(("setting", "said"), [
    ({"budgets": [{**STRENGTHS, "until": 0.9}]}, "without `until`"),
    ({"budgets": [{"steps": 4, "snapshots": [2, 1]}]}, "in order"),
    ({"budgets": [{"steps": 4, "snapshots": [8]}]}, "a list of its steps"),
    ({"methods": ["uce"], "budgets": [STRENGTHS]}, "uce edits the weights at once and has no snapshots"),
    ({"methods": ["uce"], "budgets": [4]}, "uce changes what words do, and this pipeline is asked by labels"),
    ({"budgets": [4], "points": [0, 3]}, "or a list of steps in order"),
    ({"budgets": [4], "points": [3, 6]}, "no point after 6"),
])
def test_snapshots_and_points_that_are_none_are_refused(setting, said):
    with pytest.raises(PlanError, match=said):
        check_plan({**CONTENT, **setting})


def test_points_are_counted_with_both_ends():
    counts = [curve_points(check_plan({**CONTENT, "budgets": [4], "points": points})) for points in ([1, 3], [1, 5], 2)]
    assert counts == [4, 3, 2]


def test_all_measures_draw_with_fresh_noise(small_digits, monkeypatch):
    """A sampler that draws nothing but zeros is asked by evaluations, curves and the stop at a wanted UA alike."""
    asked = []

    class Counted(fresh_noise.EulerAncestralDiscreteScheduler):
        def set_timesteps(self, steps, **settings):
            asked.append(steps)
            super().set_timesteps(steps, **settings)

    monkeypatch.setattr(fresh_noise, "EulerAncestralDiscreteScheduler", Counted)
    pipe, data = load_pipeline(small_digits[0]), load_dataset("digits")
    settings = {"steps": 1, "batch_size": 8, "progress": False}
    evaluate(pipe, per_class=1, progress=False)
    relearn(pipe, data.train.without("3"), target="3", samples=1, **settings)
    unlearn(pipe, "random-label", target="3", data=data, until=0.5, **settings)
    assert asked == [25] * 5  # the curve has two points, and `until` looks at the original, too
    evaluate(pipe, per_class=1, scheduler=pipe.scheduler, num_inference_steps=3, progress=False)
    assert len(asked) == 5
