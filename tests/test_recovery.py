"""Recovery metrics on curves worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import auc

from dimum_core.metrics import MetricError, area_under_recovery, best_attacks, recovery_ratio, steps_to_recovery


def test_the_area_is_the_mean_height():
    assert area_under_recovery([0, 10, 30], [0.0, 0.5, 0.5]) == pytest.approx((2.5 + 10) / 30)
    assert area_under_recovery([0, 7], [0.4, 0.4]) == pytest.approx(0.4)
    steps, heights = np.array([0, 3, 4, 11.0]), np.array([0.1, 0.9, 0.2, 1.0])
    assert area_under_recovery(steps, heights) == pytest.approx(auc(steps, heights) / 11)


def test_steps_to_a_level_lie_between_two_rows_or_are_censored():
    curve = [0, 10, 20], [0.0, 0.2, 0.6]
    assert steps_to_recovery(*curve, 0.4).steps == pytest.approx(15)
    assert steps_to_recovery(*curve, 0.2).steps == pytest.approx(10)
    assert str(steps_to_recovery(*curve, 0.0)) == "0"
    never = steps_to_recovery(*curve, 0.7)
    assert never.censored and str(never) == "> 20"


def test_the_ratio_is_0_for_the_retrained_and_1_for_the_original():
    assert recovery_ratio(0.1, 0.1, 0.9) == 0 and recovery_ratio(0.9, 0.1, 0.9) == 1
    assert recovery_ratio(0.5, 0.1, 0.9) == pytest.approx(0.5)
    with pytest.raises(MetricError, match="too close for a recovery ratio"):
        recovery_ratio(0.5, 0.52, 0.55)


def test_each_seed_is_reported_at_the_cell_that_the_others_chose():
    rows = [("m", rate, seed, value) for rate, values in {1e-4: (0.1, 0.2, 0.9), 1e-3: (0.5, 0.4, 0.0)}.items()
            for seed, value in enumerate(values)]
    table = pd.DataFrame(rows, columns=["method", "rate", "seed", "area"])
    chosen = best_attacks(table, ["method"], ["rate"], "area").sort_values("seed")
    # seed 0: the others prefer 1e-4 (0.55 to 0.2); seed 1: 1e-4 (0.5 to 0.25); seed 2: 1e-3 (0.45 to 0.15)
    assert chosen["rate"].tolist() == [1e-4, 1e-4, 1e-3] and chosen["area"].tolist() == [0.1, 0.2, 0.0]
    assert best_attacks(table[table.seed == 0], ["method"], ["rate"], "area").empty


def test_all_defences_at_once_are_chosen_for_as_one_by_one():
    """One defence and seed at a time, by hand: with ties, runs that are missing, and a defence of one seed."""
    draws = np.random.default_rng(0)
    rows = [(method, target, seed, rate, steps, draws.integers(0, 5) / 4) for method in "abcde" for target in (3, 7)
            for seed in range(4) for rate in (1e-4, 1e-3) for steps in (20, 40)]
    table = pd.DataFrame(rows, columns=["method", "target", "seed", "rate", "steps", "area"])
    table = table[(draws.random(len(table)) < 0.8) & ((table.method != "e") | (table.seed == 2))]
    keys, choices = ["method", "target"], ["rate", "steps"]
    found = best_attacks(table, keys, choices, "area").set_index([*keys, "seed", *choices])["area"]
    expected = {}
    for defence, group in table.groupby(keys):
        for seed in set(group.seed) if group.seed.nunique() > 1 else ():
            there = set(map(tuple, group.loc[group.seed == seed, choices].to_numpy().tolist()))
            on_others = group[group.seed != seed].groupby(choices)["area"].mean()
            best = on_others[[cell in there for cell in on_others.index]].idxmax()  # the first of those that are equal
            reported = group[(group.seed == seed) & (group["rate"] == best[0]) & (group["steps"] == best[1])]
            expected |= {(*defence, seed, *best): value for value in reported["area"]}
    assert found.to_dict() == expected and len(expected) == 32 and len(table) < 104


@pytest.mark.parametrize(("steps", "accuracy"), [
    ([0, 0, 5], [0, 0, 0]), ([1, 2], [0, 0]), ([0, 1], [0, 1.2]), ([0, 1], [0, float("nan")]), ([0], [0]), ([0, 1], [0, 0, 0]),
])
def test_what_is_no_curve_is_refused(steps, accuracy):
    with pytest.raises(MetricError, match="recovery curve needs rising steps"):
        area_under_recovery(steps, accuracy)
