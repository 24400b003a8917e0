"""What a results folder says: one row a defence, with intervals, the attacker at his best."""

from __future__ import annotations

import pandas as pd

from ..metrics import area_under_recovery, best_attacks, steps_to_recovery, t_interval

DEFENCE = ["budget", "auxiliary", "label", "target"]
CHOICES = ["attack_rate", "optimizer"]


def runs(rows: pd.DataFrame) -> pd.DataFrame:
    """One row an attack: UA and RA before it, what it recovered, the area under its curve, steps to half recovery."""
    before = rows[(rows["label"] == "original") & (rows["step"] == 0)].groupby("target")["target accuracy"].mean()
    found = []
    for names, curve in rows.groupby([*DEFENCE, *CHOICES, "seed"]):
        about, curve = dict(zip([*DEFENCE, *CHOICES, "seed"], names, strict=True)), curve.sort_values("step")
        first, last = curve.iloc[0], curve.iloc[-1]
        half = steps_to_recovery(curve["step"], curve["target accuracy"], before.get(about["target"], 1.0) / 2)
        found.append(about | {
            "steps": first["unlearning_steps"], "UA": 1 - first["target accuracy"], "RA": first["retained accuracy"],
            "distance": first["unlearning_distance"], "recovered": last["target accuracy"],
            "RA after": last["retained accuracy"], "half": half.steps, "censored": half.censored,
            "area": area_under_recovery(curve["step"], curve["target accuracy"]),
        })
    return pd.DataFrame(found)


def strongest(table: pd.DataFrame) -> pd.DataFrame:
    """For each defence and seed the attack that is best on the other seeds; with one seed only, all of them."""
    return best_attacks(table, DEFENCE, CHOICES, "area") if table["seed"].nunique() > 1 else table


def report(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a (budget, auxiliary, method), best defence first: mean over targets and seeds, ± half of Student's 95 % interval."""
    lines = []
    for (budget, auxiliary, label), group in strongest(runs(rows)).groupby(["budget", "auxiliary", "label"]):
        late, columns = int(group["censored"].sum()), ("UA", "RA", "distance", "area", "recovered", "RA after")
        lines.append({
            "budget": budget, "auxiliary": auxiliary, "method": label, "runs": len(group), "steps": f"{group['steps'].mean():.0f}",
            **{column: with_interval(group[column], 1 if column == "distance" else 2) for column in columns},
            "half recovery": f"> {group['half'].max():.0f}" if 2 * late > len(group) else f"{group['half'].median():.0f}",
            "order": group["area"].mean(),
        })
    table = pd.DataFrame(lines).sort_values(["budget", "auxiliary", "order", "method"])
    return table.drop(columns="order").reset_index(drop=True)


def with_interval(values: pd.Series, digits: int) -> str:
    if len(values) < 2:
        return f"{values.mean():.{digits}f}"
    interval = t_interval(values)
    return f"{interval.value:.{digits}f} ± {interval.high - interval.value:.{digits}f}"
