"""Recovery: how much of what was forgotten an attack brings back, and how soon."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.integrate import trapezoid

from ..checking import check_kind, check_number
from .intervals import MetricError, as_numbers


@dataclass(frozen=True)
class StepsToRecovery:
    """Attack steps until a level is reached; `censored` if it is not within the observed steps, and then only a lower bound."""

    steps: float
    censored: bool

    def __str__(self) -> str:
        return f"> {self.steps:.0f}" if self.censored else f"{self.steps:.0f}"


def area_under_recovery(steps, accuracy) -> float:
    """Mean accuracy on the target over the attack, by the trapezium rule: 0 if nothing comes back, at most 1.

    steps: rising, the first one 0 (before the attack). accuracy: in [0, 1], one for each step. MetricError otherwise.
    """
    steps, accuracy = _curve(steps, accuracy)
    return float(trapezoid(accuracy, steps) / steps[-1])


def steps_to_recovery(steps, accuracy, level: float) -> StepsToRecovery:
    """The first step at which the curve, straight between its points, reaches `level`; censored if it never does."""
    check_number("level", level, 0, 1)
    steps, accuracy = _curve(steps, accuracy)
    reached = np.flatnonzero(accuracy >= level)
    if not len(reached):
        return StepsToRecovery(float(steps[-1]), censored=True)
    after = int(reached[0])
    if after == 0:
        return StepsToRecovery(0.0, censored=False)
    low, high = accuracy[after - 1 : after + 1]
    part = (level - low) / (high - low)
    return StepsToRecovery(float(steps[after - 1] + part * (steps[after] - steps[after - 1])), censored=False)


def recovery_ratio(unlearned: float, retrained: float, original: float) -> float:
    """(A_unlearned - A_retrained) / (A_original - A_retrained), accuracies on the target after the same attack.

    0: the attack finds no more than in a model that never saw the target. 1: as much as in one that never forgot it.
    MetricError if the attack does not tell the original and the retrained model apart.
    """
    for name, value in (("unlearned", unlearned), ("retrained", retrained), ("original", original)):
        check_number(name, value, 0, 1)
    if original - retrained < 0.05:
        raise MetricError(
            f"After this attack the original model draws the target in {original:.0%} of cases and the retrained one in "
            f"{retrained:.0%}: too close for a recovery ratio; use a weaker attack or more samples."
        )
    return (unlearned - retrained) / (original - retrained)


def best_attacks(table: pd.DataFrame, keys: list[str], choices: list[str], value: str, seed: str = "seed") -> pd.DataFrame:
    """The rows of a table at the attacker's best cell: for each seed, of the cells that it has, the one best on all *other* seeds.

    keys: what makes one defence, such as method and target. A seed is left out if it is the only one, or shares no cell with the
    others: there is nothing to choose on.
    """
    _need_columns(table, [*keys, *choices, value, seed])
    runs = [*keys, seed]
    several = table[table.groupby(keys)[seed].transform("nunique") > 1]
    if several.empty:
        return several
    wide = several.pivot_table(index=runs, columns=choices, values=value, aggfunc=["sum", "count"]).fillna(0)
    on_others = wide.groupby(keys).transform("sum") - wide  # all defences at once: group by group takes seconds for a grid
    means = on_others["sum"] / on_others["count"]  # 0 / 0 where a cell was run on this seed alone: no number, never the best
    means = means.where(wide["count"] > 0).round(12).dropna(how="all")  # rounded: a difference of sums breaks ties by its last bit
    if means.empty:
        return several.iloc[:0]
    best = means.idxmax(axis=1)
    best = pd.DataFrame(best.tolist(), index=best.index, columns=choices).reset_index()
    return several.merge(best, on=[*runs, *choices])[list(table)]


def _need_columns(table: pd.DataFrame, columns: list[str]) -> None:
    check_kind("table", table, pd.DataFrame, "a table, one row for each run")
    lacking = [column for column in columns if column not in table]
    if lacking:
        raise MetricError(f"The table lacks the columns {', '.join(map(str, lacking))}; it has {', '.join(map(str, table))}.")


def _curve(steps, accuracy) -> tuple[np.ndarray, np.ndarray]:
    steps, accuracy = as_numbers(steps, "The steps of a recovery curve"), as_numbers(accuracy, "Its accuracies")
    rising = steps.ndim == 1 and len(steps) > 1 and steps[0] == 0 and (np.diff(steps) > 0).all()
    if not rising or accuracy.shape != steps.shape or not ((accuracy >= 0) & (accuracy <= 1)).all():
        raise MetricError("A recovery curve needs rising steps, the first one 0, and as many accuracies in [0, 1].")
    return steps, accuracy
