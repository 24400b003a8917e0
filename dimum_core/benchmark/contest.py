"""What results say: runs, the attacker at their best, contests on common pairs, and their leaderboards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ..metrics import (
    Interval,
    MetricError,
    area_under_recovery,
    average_ranks,
    best_attacks,
    least_difference,
    least_p,
    letter_groups,
    paired_difference,
    pairwise_comparisons,
    steps_to_recovery,
    t_interval,
    wilson_interval,
)
from .plan import CONTROLS, Plan
from .results import NFES, ResultsError, check_columns, check_provenance

DEFENCE = ["budget", "auxiliary", "label", "target"]
CHOICES = ["attack_rate", "optimizer"]
PAIR = ["target", "seed"]
RUN = [*DEFENCE, "seed"]
ATTACK = [*DEFENCE, *CHOICES, "seed"]
ALIKE = {  # column -> what it holds: curves of two kinds show different shares of the same model
    "sampler": "samplers", "attack_steps": "lengths of attacks", "attack_batch_size": "batch sizes of attacks",
    "samples": "numbers of samples", "checkpoint": "checkpoints", "data": "data sets", "judge": "judges",
}
UNLEARNED = ["unlearning_steps", "unlearning_distance", "unlearning_seconds"]
LEAST_UA = 0.8  # what has not forgotten, or has forgotten everything, is not ranked (docs/protocol.md)
LEAST_RA = 0.9  # of the original's
FEWEST = 4  # runs: of fewer, Student's interval of a share is as wide as all shares there are
ALPHA = 0.05  # two methods whose corrected p lies above it share a letter


def runs(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per attack: UA and RA before it, what it recovered, area under its curve, steps to half recovery, RA there, cost."""
    check_columns(rows)
    _check_one_cell(rows)
    _check_alike(rows)
    before = rows[(rows["label"] == "original") & (rows["step"] == 0)].groupby("target")["target accuracy"].mean()
    attacks = []
    for curve in _curves(rows):
        shown, kept = curve["target accuracy"], curve["retained accuracy"]
        half = steps_to_recovery(curve["step"], shown, before.get(curve["target"][0], 1.0) / 2)
        attacks.append({name: curve[name][0] for name in ATTACK} | {
            "steps": curve["unlearning_steps"][0], "UA": 1 - shown[0], "RA": kept[0], "distance": curve["unlearning_distance"][0],
            "recovered": shown[-1], "RA after": kept[-1], "half": half.steps, "censored": half.censored,
            "RA at half": kept[(curve["step"] >= half.steps).argmax()], "area": area_under_recovery(curve["step"], shown),
            "samples": curve.get("samples", [Plan.samples])[0], "seconds": curve["unlearning_seconds"][0],
            **{name: curve.get(name, [None])[-1] for name in NFES},
        })
    return pd.DataFrame(attacks)


def _curves(rows: pd.DataFrame) -> Iterator[dict[str, np.ndarray]]:
    """The columns of each attack, by its steps; as arrays, since so many tables of three rows take seconds."""
    rows = rows.sort_values("step", kind="stable")
    names = [*ATTACK, "step", "target accuracy", "retained accuracy", *UNLEARNED, "samples", *NFES]
    columns = {name: rows[name].to_numpy() for name in names if name in rows}
    number = rows.groupby(ATTACK).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    for places in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        if number[places[0]] >= 0:  # else a name is missing
            yield {name: values[places] for name, values in columns.items()}


def _check_one_cell(rows: pd.DataFrame) -> None:
    """Refuse two attacks under one name: ResultsError says which cells they are, of the first that is found."""
    keys = [*ATTACK, "step"]
    twice = rows[rows.duplicated(keys, keep=False)]
    if len(twice):
        about = twice.iloc[0][keys[:-1]]
        same = twice[(twice[keys[:-1]] == about).all(axis=1)]
        name = ", ".join(f"{key} {value}" for key, value in about.items())
        cells = ", ".join(sorted(same["cell"].unique())) if "cell" in same else "not named"
        raise ResultsError(
            f"These results hold more than one attack for {name} (cells: {cells}): of two versions, keep one; of two settings, "
            "give each a `label` of its own in the plan."
        )


def _check_alike(rows: pd.DataFrame) -> None:
    """Refuse curves that were measured in different ways; of what an earlier version did not write down there is no column."""
    for column, what in ALIKE.items():
        found = rows.get(column, pd.Series(dtype=object)).unique()
        if len(found) > 1:
            named = sorted("one that is not named" if pd.isna(value) else str(value) for value in found)
            raise ResultsError(
                f"These results were made with different {what} ({'; '.join(named[:4])}), so their methods cannot be compared: "
                "report each by itself, or run the older ones again."
            )


def strongest(table: pd.DataFrame) -> pd.DataFrame:
    """For each defence and seed the attack that is best on the other seeds; where these have none of its attacks, or there is but
    one seed, the best on this one, luck included.

    A seed that lacks some of the attacks, as in a run that goes on, is left out: it could only choose among the others.
    """
    attacks = table.groupby(RUN)["area"].transform("size")
    table = table[attacks == attacks.groupby([table[key] for key in DEFENCE]).transform("max")]
    chosen = best_attacks(table, DEFENCE, CHOICES, "area")
    known = pd.MultiIndex.from_frame(table[RUN]).isin(pd.MultiIndex.from_frame(chosen[RUN]))
    # what other seeds cannot choose for is kept: a run that has begun its second seed still reports all of its first
    return chosen if known.all() else pd.concat([chosen, _luckiest(table[~known])], ignore_index=True)


def _luckiest(table: pd.DataFrame) -> pd.DataFrame:
    """For each defence and seed the attack that is best on this very seed: the most that one seed alone can say."""
    return table.loc[table.groupby(RUN)["area"].idxmax()]


def report(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per (budget, auxiliary, method), best defence first: mean over targets and seeds, ± half of Student's 95 % interval.

    Of fewer than four runs the values stand there, in the order of targets and seeds. Each method counts all its runs: only a
    `leaderboard` compares on the pairs that all have.
    """
    check_provenance(rows)
    lines = []
    for (budget, auxiliary, label), group in strongest(runs(rows)).groupby(["budget", "auxiliary", "label"]):
        group = group.sort_values(PAIR)
        columns = ("UA", "RA", "distance", "area", "recovered", "RA after")
        lines.append({
            "budget": budget, "auxiliary": auxiliary, "method": label, "runs": len(group), "steps": f"{group['steps'].mean():.0f}",
            **{column: with_interval(group[column], 1 if column == "distance" else 2) for column in columns},
            "half recovery": half_recovery(group["half"], group["censored"]),
            "order": group["area"].mean(),
        })
    table = pd.DataFrame(lines).sort_values(["budget", "auxiliary", "order", "method"])
    return table.drop(columns="order").reset_index(drop=True)


def with_interval(values: pd.Series, digits: int) -> str:
    """Mean ± half of Student's interval; of fewer than FEWEST values, which have none worth its name, the values themselves."""
    if len(values) < FEWEST:
        return ", ".join(f"{value:.{digits}f}" for value in values)
    interval = t_interval(values)
    return f"{interval.value:.{digits}f} ± {interval.high - interval.value:.{digits}f}"


def half_recovery(steps: pd.Series, censored: pd.Series) -> str:
    """The median of attack steps, a bound if one that was not reached within the attack enters it; of few runs each by itself."""
    if len(steps) < FEWEST:
        return ", ".join(f"{'> ' if late else ''}{step:.0f}" for step, late in zip(steps, censored, strict=True))
    return ("> " if 2 * censored.sum() >= len(steps) else "") + f"{steps.median():.0f}"


@dataclass(frozen=True)
class Contest:
    """Methods that had the same budget and met the same attacker, on the (target, seed) pairs that they all have.

    runs: one row for each method and pair, at the attacker's best setting. controls: the same of the original and the retrained
    model, on those of the pairs for which they were run. left_out: why a method is not compared. pairs_left_out: those that some
    of the methods lack, and that are therefore compared for none.
    """

    budget: str
    auxiliary: str
    runs: pd.DataFrame
    controls: pd.DataFrame
    left_out: dict[str, str] = field(default_factory=dict)
    pairs_left_out: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        return f"{self.budget}, {self.auxiliary}"

    @property
    def where(self) -> str:
        """The rows of the table that it is made from, as pandas' `query` takes it."""
        methods = f" and label not in {list(self.left_out)!r}" if self.left_out else ""
        pairs = "".join(f" and not (target == {target!r} and seed == {seed})" for target, seed in self.pairs_left_out)
        return f"auxiliary == {self.auxiliary!r} and budget in [{self.budget!r}, 'none']{methods}{pairs}"

    def pivot(self, value: str = "area", labels=None) -> pd.DataFrame:
        """A row for each (target, seed) pair, a column for each method, or for each of `labels`, in this order."""
        table = self.runs.pivot(index=PAIR, columns="label", values=value)
        return table if labels is None else table[list(labels)]


def contests(rows: pd.DataFrame) -> list[Contest]:
    """Every (budget, auxiliary set) of the results, each on its complete pairs."""
    attacks, compared = runs(rows), []
    best = strongest(attacks)
    for (budget, auxiliary), group in best[~best["label"].isin(CONTROLS)].groupby(["budget", "auxiliary"]):
        areas = group.pivot(index=PAIR, columns="label", values="area")
        left_out = _short_of_pairs(areas)
        complete = areas.drop(columns=list(left_out)).dropna()
        if not complete.size:
            continue
        entries = group[group["label"].isin(complete.columns)]
        controls = best[best["label"].isin(CONTROLS) & (best["auxiliary"] == auxiliary)]
        lucky = _targets_of_one_seed(entries)
        compared.append(Contest(
            budget, auxiliary, left_out=left_out, pairs_left_out=tuple(areas.index.difference(complete.index)),
            runs=_chosen_alike(on_pairs(entries, complete.index), lucky, attacks),
            controls=_chosen_alike(on_pairs(controls, complete.index), lucky, attacks),
        ))
    return compared


def _short_of_pairs(areas: pd.DataFrame) -> dict[str, str]:
    """Methods that have fewer than half of the pairs, and would leave little of a contest; areas: NaN for a pair that one lacks."""
    counts = areas.notna().sum()
    return {label: f"has only {count} of {len(areas)} pairs" for label, count in counts.items() if 2 * count < len(areas)}


def on_pairs(rows: pd.DataFrame, pairs: pd.MultiIndex) -> pd.DataFrame:
    """The rows whose (target, seed) is one of these pairs."""
    return rows[pd.MultiIndex.from_frame(rows[PAIR]).isin(pairs)]


def _targets_of_one_seed(entries: pd.DataFrame) -> set[str]:
    """Targets of which a method has one seed only, so that its attacker's choice includes luck."""
    seeds = entries.groupby(DEFENCE)["seed"].nunique()
    return set(seeds[seeds == 1].index.get_level_values("target"))


def _chosen_alike(chosen: pd.DataFrame, lucky: set[str], attacks: pd.DataFrame) -> pd.DataFrame:
    """Runs of a contest, met by one attacker: luck is included for all methods and controls on the targets in `lucky`.

    Otherwise a method would look worse than one with more seeds, only because its attacker was lucky.
    """
    alone = chosen["target"].isin(lucky)
    if alone.any():
        chosen = pd.concat([chosen[~alone], _luckiest(attacks.merge(chosen.loc[alone, RUN]))])
    return chosen.reset_index(drop=True)


def unranked(contest: Contest) -> dict[str, str]:
    """Methods that are not ranked, and why, by the rule of the protocol: a whole interval must lie below the bound."""
    original = contest.controls.loc[contest.controls["label"] == "original", "RA"].mean()
    least = LEAST_RA * (1.0 if pd.isna(original) else original)
    reasons = {}
    for label, group in contest.runs.groupby("label"):
        ua, ra = (pooled(group[name], group["samples"]) for name in ("UA", "RA"))
        if ua.high < LEAST_UA:
            reasons[label] = f"not forgotten: UA {ua.value:.2f} < {LEAST_UA:.2f}"
        elif ra.high < least:
            reasons[label] = f"quality lost: RA {ra.value:.2f} < {least:.2f}"
    return reasons


def pooled(shares: pd.Series, samples: pd.Series) -> Interval:
    """The share over all samples of several runs, with Wilson's interval."""
    return wilson_interval(round(float((shares * samples).sum())), int(samples.sum()))


def mean_interval(values: pd.Series) -> Interval:
    """Mean of shares over pairs with Student's interval, cut to [0, 1]; a single pair has no interval."""
    if len(values) < 2:
        return Interval(float(values.mean()), 0.0, 1.0, len(values))
    interval = t_interval(values)
    return Interval(interval.value, max(0.0, interval.low), min(1.0, interval.high), interval.n)


def leaderboard(contest: Contest) -> pd.DataFrame:
    """One row per method, best first: area with interval, rank, group letters, distance to the best, quality, cost.

    Two methods share a letter if Holm's correction over all pairs leaves their difference open. Unranked methods are last.
    """
    notes, areas = unranked(contest), contest.pivot()
    ranked = areas[[label for label in areas.mean().sort_values(kind="stable").index if label not in notes]]
    ranks = average_ranks(ranked) if len(ranked.columns) else pd.Series(dtype=float)
    letters, lines = groups(ranked), []
    for label in [*ranked.columns, *notes]:
        group, line = contest.runs[contest.runs["label"] == label], {"method": label, "pairs": len(areas)}
        for name in ("area", "UA", "RA", "recovered", "RA after"):
            line |= _with_ends(name, mean_interval(group[name]))
        if label in ranked and len(areas) > 1:
            line |= _with_ends("behind", paired_difference(ranked[label], ranked.iloc[:, 0]))
        line |= {"rank": ranks.get(label), "group": letters.get(label, ""), "note": notes.get(label, "")}
        lines.append(line | {name: group[name].mean() for name in ("steps", "distance", "seconds", *NFES)})
    return pd.DataFrame(lines)


def _with_ends(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name} low": interval.low, f"{name} high": interval.high}


def comparisons(contest: Contest) -> pd.DataFrame:
    """All pairs of ranked methods, with Holm's correction; empty if there are fewer than two pairs or methods."""
    ranked = contest.pivot().drop(columns=list(unranked(contest)))
    if len(ranked) < 2:
        ranked = ranked.iloc[:, :0]  # one pair has no interval
    return pairwise_comparisons(ranked)


def groups(table: pd.DataFrame) -> dict[str, str]:
    """Letters of methods; table: a row for each pair, a column for each method, best first."""
    if len(table) < 2 or len(table.columns) < 2:
        return dict.fromkeys(table.columns, "a")
    tests = pairwise_comparisons(table)
    different = {frozenset(pair) for pair in tests.loc[tests["p (Holm)"] <= ALPHA, ["first", "second"]].to_numpy().tolist()}
    return letter_groups(list(table.columns), different)


def resolution(contest: Contest) -> dict:
    """What so many pairs can tell apart: the typical deviation of differences, the least difference found with 80 % power, and
    whether the smallest possible p survives Holm's correction at all."""
    tests, pivot = comparisons(contest), contest.pivot()
    if not len(tests):
        raise MetricError(f"The contest {contest.name} has too few pairs or ranked methods to compare: run more seeds.")
    spread = [(pivot[a] - pivot[b]).std() for a, b in zip(tests["first"], tests["second"], strict=True)]
    typical = float(pd.Series(spread).median())
    return {
        "pairs": len(pivot), "comparisons": len(tests), "deviation": typical,
        "least difference": least_difference(typical, len(pivot)) if typical > 0 else 0.0,
        "least p (Holm)": min(1.0, least_p(len(pivot)) * len(tests)),
    }
