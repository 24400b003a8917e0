"""Checks of the last two chapters: geometry, the attacker at his best, matched cost and the capstone's score."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from ..geometry import barrier
from ..metrics import best_attacks
from .checks import exercise


def _close(given, wanted, tolerance: float = 1e-6) -> bool:
    return abs(float(given) - float(wanted)) < tolerance


@exercise("11.1", "Project r on -u: <r, -u> / |u|, then take it as a share of |u|. The sign: going home is positive.")
def _share_undone(function) -> bool:
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 40, generator=generator, dtype=torch.float64) for _ in range(3)]
    pairs += [torch.stack([u, -0.25 * u]) for u, _ in pairs[:1]]
    return all(_close(function(u, r), -float(r @ u) / float(u @ u)) for u, r in pairs)


@exercise("11.2", "Subtract the straight line from the first loss to the last, and take the highest point; never below zero.")
def _barrier(function) -> bool:
    lines = [[1.0, 3.0, 2.0], [0.0, 1.0, 4.0, 9.0], [2.0, 2.0, 2.0], [5.0, 4.0, 6.0, 1.0, 0.0]]
    return all(_close(function(np.array(line)), barrier(line)) for line in lines)


@exercise("11.3", "A row has a gradient if its label is in the batch. The last one, null, is always: labels are dropped to it.")
def _rows_without_gradient(function) -> bool:
    cases = [([0, 1, 1, 4], 6), ([0, 1, 2, 3], 5), ([2, 2], 4)]
    wanted = [{2, 3}, set(), {0, 1}]
    return all({int(k) for k in function(labels, rows)} == w for (labels, rows), w in zip(cases, wanted, strict=True))


@exercise("11.4", "The weights change by -rate g_r, and the target's loss, to first order, by <g_f, change>.")
def _first_order(function) -> bool:
    generator = torch.Generator().manual_seed(1)
    pairs = [torch.randn(2, 40, generator=generator, dtype=torch.float64) for _ in range(3)]
    return all(_close(function(g_r, g_f, 0.01), -0.01 * float(g_r @ g_f)) for g_r, g_f in pairs)


def _recovered() -> dict[float, list[float]]:
    return {3e-5: [0.1, 0.2, 0.3, 0.2], 3e-4: [0.4, 0.5, 0.1, 0.3], 3e-3: [0.9, 0.0, 0.2, 0.1]}


@exercise("12.1", "For each seed, choose the rate with the highest mean on the *other* seeds; average its values on this one.")
def _attacker_at_his_best(function) -> bool:
    def wanted(table: dict[float, list[float]]) -> float:
        rows = pd.DataFrame([{"d": 0, "rate": r, "seed": s, "v": v} for r, vs in table.items() for s, v in enumerate(vs)])
        return best_attacks(rows, ["d"], ["rate"], "v")["v"].mean()

    generator = np.random.default_rng(0)
    tables = [_recovered(), *({r: generator.random(5).tolist() for r in (1e-4, 1e-3)} for _ in range(4))]
    return all(_close(function(table), wanted(table)) for table in tables)


@exercise("12.2", "Take what is paid before the first step off the budget, divide by the price of a step, and round down.")
def _steps_for_a_budget(function) -> bool:
    cases = [(48, 10, 2, 19), (48, 0, 2, 24), (47, 10, 3, 12), (10, 10, 2, 0), (5, 10, 2, 0)]
    return all(int(function(budget, before, each)) == steps for budget, before, each, steps in cases)


@exercise("12.3", "100 UA RA (1 - area): a product, so that no factor can pay for another.")
def _score(function) -> bool:
    cases = [(1.0, 1.0, 0.0), (0.9, 0.8, 0.25), (1.0, 0.0, 0.0), (0.5, 1.0, 1.0)]
    return all(_close(function(ua, ra, area), 100 * ua * ra * (1 - area), 1e-4) for ua, ra, area in cases)
