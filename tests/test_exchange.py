"""The exchange rate of unlearning and attack, on curves whose half recovery is known beforehand."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dimum_core.benchmark import read_results
from dimum_core.benchmark.exchange import after_lengths, exchange_panel, exchange_rates, half_recoveries, has_strengths
from dimum_core.benchmark.page import write_report
from dimum_core.benchmark.plan import CONTROLS
from dimum_core.benchmark.results import PROVENANCE

POINTS = (0, 10, 100, 1000)


def made_up(seeds=range(3)) -> pd.DataFrame:
    """`cheap` is undone in as many steps as it took (at the quicker rate), `dear` in none, and `idle` never forgot."""
    rows = []
    for seed, rate, steps, label in itertools.product(seeds, (1e-4, 1e-3), (10, 100), ("cheap", "dear", "idle", *CONTROLS)):
        control = label in CONTROLS
        if control and steps == 100:
            continue
        back = {"cheap": steps if rate == 1e-3 else 1000, "dear": np.inf, "idle": 0, "original": 0, "retrained": np.inf}[label]
        about = {
            "label": label, "method": label, "hyperparameters": "{}", "target": "3", "seed": seed, "auxiliary": "retain",
            "budget": "none" if control else f"{steps} of 100 steps", "at": np.nan if control else steps, "optimizer": "adamw",
            "attack_rate": rate, "samples": 32, "unlearning_steps": 0 if control else steps, "unlearning_seconds": 1.0,
            "unlearning_distance": 1.0, "unlearning_nfes": 1, "seconds": 1.0, "model": f"{label}{steps}{seed}",
            "cell": f"{label}{steps}{seed}{rate}", **dict.fromkeys(PROVENANCE, "known"), "threads": 1,
        }
        for step in POINTS:
            share = 0.8 if label in ("original", "idle") else 0.5 * (step >= back)  # half of the original's is 0.4
            rows.append(about | {
                "step": step, "target accuracy": share, "target low": share, "target high": share, "distance": float(step),
                "retained accuracy": 1 - step / 10_000, "attack_nfes": step, "sampling_nfes": 1,
            })
    return pd.DataFrame(rows)


def test_the_attacker_takes_the_rate_that_is_there_first_and_what_never_forgot_is_left_out():
    halves = half_recoveries(made_up())
    assert set(halves["label"]) == {"cheap", "dear", "retrained"} and len(halves) == 3 * (2 + 2 + 1)
    cheap = halves[halves["label"] == "cheap"]
    assert cheap["half"].tolist() == pytest.approx([8] * 3 + [82] * 3)  # 0.4 of the way up to 0.5, from the point before
    assert (cheap["attack_rate"] == 1e-3).all() and not cheap["censored"].any()
    assert cheap["retained"].tolist() == pytest.approx([0.999] * 3 + [0.99] * 3)
    dear = halves[halves["label"] == "dear"]
    assert dear["censored"].all() and (dear["half"] == 1000).all()


def test_after_each_length_stands_what_the_better_rate_gives_back_in_the_end():
    rows = made_up()
    slow = (rows["label"] == "cheap") & (rows["attack_rate"] == 1e-4)
    rows.loc[slow, ["target accuracy", "target low", "target high"]] = 0.3
    found = after_lengths(rows).set_index(["label", "steps", "seed"])
    assert len(found) == 3 * (3 * 2 + 1) and "original" not in found.index.get_level_values("label")
    cheap = found.loc["cheap"]
    assert (cheap["recovered"] == 0.5).all() and (cheap["attack_rate"] == 1e-3).all() and (cheap["UA"] == 1).all()
    assert (found.loc[["dear", "retrained"], "recovered"] == 0).all() and np.allclose(found.loc["idle", "UA"], 0.2)


def test_an_attacker_who_teaches_the_target_sets_no_exchange_rate():
    taught = made_up().assign(auxiliary="few-shot 8")
    taught.loc[taught["step"] >= 10, ["target accuracy", "target low", "target high"]] = 0.8
    pd.testing.assert_frame_equal(half_recoveries(pd.concat([taught, made_up()])), half_recoveries(made_up()))
    assert (half_recoveries(taught)["half"] <= 10).all()  # where nothing else was tried, it is what there is


def test_rates_are_medians_and_what_is_censored_is_beyond_any_number():
    rates = exchange_rates(half_recoveries(made_up())).set_index(["method", "unlearning steps"])
    assert rates.loc[("cheap", 10), ["half", "low", "high", "rate"]].tolist() == pytest.approx([8, 8, 8, 0.8])
    assert rates.loc[("cheap", 100), "rate"] == pytest.approx(0.82) and rates.loc[("dear", 100), "censored"] == 3
    assert np.isinf(rates.loc[("dear", 100), ["half", "low", "high", "rate"]].astype(float)).all()
    halves = pd.DataFrame({
        "label": "mixed", "unlearning_steps": 10, "half": [20.0, 50.0, 1000.0], "censored": [False, False, True], "retained": 1.0,
    })
    mixed = exchange_rates(halves).iloc[0]
    assert (mixed["half"], mixed["low"], mixed["high"], mixed["censored"]) == (50, 20, np.inf, 1)  # n = 3: the ends are the values


def test_the_report_of_a_ladder_begins_with_the_exchange_rate(tmp_path):
    rows = made_up()
    assert has_strengths(rows) and not has_strengths(rows.drop(columns="at")) and not has_strengths(rows[rows["at"] == 10])
    page = write_report(rows, tmp_path, "ladder").read_text()
    assert page.index("What it costs to undo") < page.index("Leaderboard")
    table = pd.read_csv(tmp_path / "figures" / "all-exchange.csv")
    assert set(table["method"]) == {"cheap", "dear"} and (tmp_path / "figures" / "all-exchange.png").stat().st_size > 5_000


def test_the_report_of_a_ladder_on_which_nothing_was_forgotten_says_so(tmp_path):
    rows = made_up()
    page = write_report(rows[~rows["label"].isin(["cheap", "dear"])], tmp_path, "ladder").read_text()
    assert "No model had forgotten: after every length of unlearning its UA lay below 0.80." in page
    assert not (tmp_path / "figures" / "all-exchange.png").exists()


def test_the_figure_says_in_words_what_it_shows():
    panel = exchange_panel(made_up(range(6)))
    assert panel.alt.endswith("After 100 steps of unlearning: cheap 82, dear more than 1000.")
    (ax,) = panel.figure.axes
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert lines["cheap"] == pytest.approx([8, 82]) and (lines["dear"] > 1000).all()


def test_few_pairs_are_marks_and_not_a_median():
    """Of two seeds one model of `cheap` resisted: a median of two would be the better one, and hide the other."""
    rows = made_up(range(2))
    held = (rows["label"] == "cheap") & (rows["seed"] == 1) & (rows["at"] == 100)
    rows.loc[held, ["target accuracy", "target low", "target high"]] = 0.0
    panel = exchange_panel(rows)
    marks = {line.get_label(): line.get_ydata() for line in panel.figure.axes[0].lines}
    assert sorted(marks["cheap"]) == pytest.approx([8, 8, 82, 1250]) and "2 pairs of target and seed are too few" in panel.caption
    assert panel.alt.endswith("After 100 steps of unlearning: cheap 82 to more than 1000, dear more than 1000.")


def test_a_price_is_a_share_of_the_passes_of_a_new_training():
    """The digits' model was trained in 2,000 steps of 128 images; EraseDiff makes three passes over 64 images a step."""
    path = Path(__file__).resolve().parent.parent / "tools" / "make" / "exchange.py"
    spec = importlib.util.spec_from_file_location("draw_exchange", path)
    spec.loader.exec_module(tool := importlib.util.module_from_spec(spec))
    rows = read_results(tool.ROWS)
    found = tool.prices(rows).set_index(["label", "unlearning_steps", "target", "seed"]).loc["erasediff"].sort_index()
    for steps in (15, 22, 32, 45):
        assert found.loc[steps, "price"].tolist() == pytest.approx(4 * [100 * steps * 3 * 64 / (2000 * 128)])
    rows = rows[(rows["label"] == "erasediff") & (rows["seed"] == 1)]
    start = rows[(rows["step"] == 0) & (rows["unlearning_steps"] == 22) & (rows["target"] == "3")]
    assert found.loc[(22, "3", 1), "UA"] == 1 - start["target accuracy"].item()
    last = rows[(rows["step"] == 400) & (rows["unlearning_steps"] == 45) & (rows["target"] == "7")]
    assert found.loc[(45, "7", 1), "shown"] == last["target accuracy"].item()
