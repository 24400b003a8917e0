"""Exercises of chapters 11 and 12: the reference passes, and three plausible wrong answers each do not."""

from __future__ import annotations

import numpy as np
import pytest

from dimum_core.course import check


def undone(u, r):
    return -(r * u).sum() / (u * u).sum()


def barrier(losses):
    first, last, rest = losses[0], losses[-1], np.arange(len(losses)) / (len(losses) - 1)
    return max(0.0, (losses - (first + (last - first) * rest)).max())


def others_best(table):
    values = []
    seeds = range(len(next(iter(table.values()))))
    for seed in seeds:
        rate = max(table, key=lambda r: sum(v for s, v in enumerate(table[r]) if s != seed))
        values.append(table[rate][seed])
    return sum(values) / len(values)


def per_seed_maximum(table):
    return float(np.mean(np.max(list(table.values()), axis=0)))


RIGHT = {
    "11.1": undone,
    "11.2": barrier,
    "11.3": lambda labels, rows: set(range(rows - 1)) - set(labels),
    "11.4": lambda g_r, g_f, rate: -(rate * g_r) @ g_f,
    "12.1": others_best,
    "12.2": lambda budget, before, each: max(0, budget - before) // each,
    "12.3": lambda ua, ra, area: 100 * ua * ra * (1 - area),
}
WRONG = {
    "11.1": [
        lambda u, r: (r * u).sum() / (u * u).sum(),  # the sign
        lambda u, r: r.norm() / u.norm(),  # how far, not whether home
        lambda u, r: -(r * u).sum() / u.norm(),  # the norm not squared
    ],
    "11.2": [
        lambda losses: losses.max() - losses.min(),
        lambda losses: losses.max() - losses[0],
        lambda losses: (losses - np.linspace(losses[0], losses[-1], len(losses)))[1:-1].max(),  # negative where there is none
    ],
    "11.3": [
        lambda labels, rows: set(range(rows)) - set(labels),  # null
        lambda labels, rows: set(labels),
        lambda labels, rows: {rows - 1},
    ],
    "11.4": [
        lambda g_r, g_f, rate: rate * g_r @ g_f,  # the sign
        lambda g_r, g_f, rate: -rate * g_f @ g_f,  # the target's own step
        lambda g_r, g_f, rate: -rate * g_r @ g_f / (g_r.norm() * g_f.norm()),  # the cosine
    ],
    "12.1": [
        per_seed_maximum,  # luck counted as strength
        lambda table: float(np.mean(list(table.values()))),
        lambda table: max(float(np.mean(v)) for v in table.values()),  # chosen and reported on the same seeds
    ],
    "12.2": [
        lambda budget, before, each: budget // each,
        lambda budget, before, each: (budget - before) / each + 1,
        lambda budget, before, each: (budget - before) // each,  # negative when it cannot be paid
    ],
    "12.3": [
        lambda ua, ra, area: 100 * (ua + ra + 1 - area) / 3,
        lambda ua, ra, area: 100 * ua * ra * area,
        lambda ua, ra, area: 100 * ua * (1 - area),
    ],
}


@pytest.mark.parametrize("number", sorted(RIGHT))
def test_the_reference_passes_and_three_wrong_answers_do_not(number, capsys):
    assert check(number, RIGHT[number]) is True, capsys.readouterr().out
    assert len(WRONG[number]) == 3
    for answer in WRONG[number]:
        assert check(number, answer) is False
    assert check(number, ...) is None
    said = capsys.readouterr().out
    assert said.count("not yet.") == 3 and "raised" not in said and "not answered yet" in said
