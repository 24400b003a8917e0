"""Draw docs/photographs.png: what 300 steps of attack bring back on the 32 x 32 model, and what they do to the other classes.

    python tools/make/photographs.py      seconds; from data/results/photographs-long.parquet
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dimum_core.benchmark import read_results
from dimum_core.plots import recovery_curves, use_style

ROOT = Path(__file__).resolve().parent.parent.parent


def over_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Means of one method's runs at each step, with the lowest and the highest run in place of an interval."""
    steps = rows.groupby("step")
    shares = steps["target accuracy"].agg(["mean", "min", "max"]).set_axis(["target accuracy", "target low", "target high"], axis=1)
    return shares.assign(**{"retained accuracy": steps["retained accuracy"].mean()}).reset_index()


def main() -> None:
    use_style()
    rows = read_results(ROOT / "data" / "results" / "photographs-long.parquet")
    curves = {label: over_runs(runs) for label, runs in rows.groupby("label")}
    figure = recovery_curves(curves, "Asked for automobile, and for the others")
    figure.savefig(ROOT / "docs" / "photographs.png", dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
