"""The exchange rate: how many steps of an attack undo how many steps of unlearning."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..plots import STYLE, line_colours
from .contest import CHOICES, LEAST_UA, PAIR, runs
from .figures import WIDTH, Panel
from .plan import CONTROLS

RUN = ["label", "unlearning_steps", *PAIR]
RESAMPLES = 2_000
MARKERS = "os^Dv<>P*X"


def has_strengths(rows: pd.DataFrame) -> bool:
    """Whether some method was attacked after several lengths of unlearning by fixed numbers of steps, as snapshots give them."""
    return bool(len(rows)) and rows.get("at", pd.Series(dtype=float)).nunique() > 1


def half_recoveries(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per method, length of unlearning, target and seed: the attack steps until half of the original's accuracy is back.

    For each model the attacker takes the learning rate that gets there first, which favours the attacker. half: attack
    steps, or the length of the attack if it is never reached (`censored`). retained: accuracy on the other classes at the first
    point of the curve from there on. Models with UA below 0.8 have not forgotten yet, and are left out.
    """
    table = runs(rows).rename(columns={"steps": "unlearning_steps", "RA at half": "retained"})
    table = table[(table["label"] != "original") & (table["UA"] >= LEAST_UA)].sort_values(["censored", "half"], kind="stable")
    return table.drop_duplicates(RUN)[[*RUN, *CHOICES, "half", "censored", "retained"]].sort_values(RUN).reset_index(drop=True)


def exchange_rates(halves: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """One row per method and length of unlearning: the median attack steps to half recovery, and their ratio to the steps.

    low, high: 95 % percentile bootstrap over the pairs of target and seed. Censored values count as infinite: a median
    among them, or an end of its interval, is infinite, and means "longer than the attack".
    """
    lines, generator = [], np.random.default_rng(seed)
    for (label, steps), group in halves[~halves["label"].isin(CONTROLS)].groupby(["label", "unlearning_steps"]):
        values = group["half"].where(~group["censored"], np.inf).to_numpy()
        draws = _median(generator.choice(values, (RESAMPLES, len(values))))
        low, high = (_quantile(draws, share) for share in (0.025, 0.975))
        middle = _median(values[None])[0]
        lines.append({
            "method": label, "unlearning steps": steps, "pairs": len(values), "censored": int(group["censored"].sum()),
            "half": middle, "low": low, "high": high, "rate": middle / steps, "retained": group["retained"].mean(),
        })
    return pd.DataFrame(lines)


def _median(values: np.ndarray) -> np.ndarray:
    """The upper middle value of each row, so that infinite ones need no arithmetic."""
    return np.sort(values, axis=1)[:, values.shape[1] // 2]


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.sort(values)[round(share * (len(values) - 1))])


def exchange_panel(rows: pd.DataFrame) -> Panel:
    """Attack steps to half recovery against steps of unlearning, both by their logarithms, a line for each method."""
    halves = half_recoveries(rows)
    data, longest = exchange_rates(halves), float(rows["step"].max())
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
        colours = line_colours(data["method"].unique())
        for number, (method, line) in enumerate(data.groupby("method", sort=False)):
            colour, marker = colours[number], MARKERS[number % len(MARKERS)]
            shift = 1 + 0.03 * (number - data["method"].nunique() / 2)  # so that intervals do not hide each other
            x, seen = line["unlearning steps"] * shift, np.minimum(line["half"], longest * 1.25).clip(lower=1)
            ax.plot(x, seen, color=colour, marker=marker, markersize=5, linewidth=1, label=method)
            ax.vlines(x, line["low"].clip(lower=1), np.minimum(line["high"], longest * 1.25), color=colour, linewidth=1, alpha=0.5)
        ends = [data["unlearning steps"].min(), data["unlearning steps"].max()]
        ax.plot(ends, ends, color="#777777", linestyle=":", linewidth=1)
        beside = {"xytext": (-4, 4), "textcoords": "offset points", "ha": "right", "fontsize": 7.5, "color": "#777777"}
        ax.annotate("one for one", (ends[1], ends[1]), **beside)
        ax.axhspan(longest * 1.1, longest * 1.5, color="#777777", alpha=0.15, linewidth=0)
        ax.annotate("not within the attack", (ends[0], longest * 1.13), fontsize=7.5, color="#777777")
        ax.set(
            xscale="log", yscale="log", ylim=(None, longest * 1.5), title="What it costs to undo", xlabel="steps of unlearning",
            ylabel="attack steps until half is back",
        )
        ax.set_xticks(sorted(set(data["unlearning steps"])), [f"{x:g}" for x in sorted(set(data["unlearning steps"]))])
        ax.xaxis.minorticks_off()
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    pairs = len(halves[[*PAIR]].drop_duplicates())
    return Panel(
        "exchange", "The exchange rate of unlearning and attack",
        "Median attack steps after which half of the original's accuracy on the target is back, at the learning rate that gets "
        f"there first, over {pairs} pairs of target and seed, with 95 % bootstrap intervals. Grey band: not within {longest:g} "
        "steps. Dotted: as many steps as the unlearning took.",
        _in_words(data, longest), "step >= 0", data, figure,
    )


def _in_words(data: pd.DataFrame, longest: float) -> str:
    most = data[data["unlearning steps"] == data["unlearning steps"].max()].sort_values("half")
    parts = [
        f"{row['method']} {row['half']:.0f}" if np.isfinite(row["half"]) else f"{row['method']} more than {longest:.0f}"
        for _, row in most.iterrows()
    ]
    steps, methods = most["unlearning steps"].iloc[0], data["method"].nunique()
    return f"Lines for {methods} methods. After {steps:g} steps of unlearning: {', '.join(parts)}."
