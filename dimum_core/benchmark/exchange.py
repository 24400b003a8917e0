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
FEWEST_PAIRS = 6  # of fewer a median, the upper one of even numbers, says little
MARKERS = "os^Dv<>P*X"


def has_strengths(rows: pd.DataFrame) -> bool:
    """Whether some method was attacked after several lengths of unlearning by fixed numbers of steps, as snapshots give them."""
    return bool(len(rows)) and rows.get("at", pd.Series(dtype=float)).nunique() > 1


def half_recoveries(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per method, length of unlearning, target and seed: the attack steps until half of the original's accuracy is back.

    For each model the attacker takes the learning rate that gets there first, which favours the attacker. Of several auxiliary sets
    the retained images count, or else the first: an attacker who teaches the target gets there at once. half: attack steps, or
    the length of the attack if it is never reached (`censored`). retained: accuracy on the other classes at the first point of the
    curve from there on. Models with UA below 0.8 have not forgotten yet, and are left out.
    """
    table = _runs(rows).rename(columns={"steps": "unlearning_steps", "RA at half": "retained"})
    table = table[table["UA"] >= LEAST_UA].sort_values(["censored", "half"], kind="stable")
    return table.drop_duplicates(RUN)[[*RUN, *CHOICES, "half", "censored", "retained"]].sort_values(RUN).reset_index(drop=True)


def after_lengths(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per method, length of unlearning, target and seed: what the attack gives back in the end, and what it cost.

    For each model the attacker takes the learning rate that gives most back in the end, on this very model, which favours the
    attacker; of several auxiliary sets one counts, as in `half_recoveries`. The retrained model's row says 0 steps. See `runs` for
    the columns.
    """
    table = _runs(rows).sort_values("recovered", ascending=False, kind="stable")
    return table.drop_duplicates(["label", "steps", *PAIR]).sort_values(["label", "steps", *PAIR]).reset_index(drop=True)


def _runs(rows: pd.DataFrame) -> pd.DataFrame:
    """`runs` of all models but the original, attacked with the retained images or, where nobody has these, the first set."""
    there = rows["auxiliary"].unique()
    table = runs(rows[rows["auxiliary"] == ("retain" if "retain" in there else there[0])])
    return table[table["label"] != "original"]


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


def exchange_panel(rows: pd.DataFrame) -> Panel | None:
    """Attack steps to half recovery against steps of unlearning, both by their logarithms: a mark for each model.

    From FEWEST_PAIRS pairs of target and seed on, a line for each method joins the medians. None if no model has forgotten.
    """
    halves = half_recoveries(rows)
    data, longest = exchange_rates(halves), float(rows["step"].max())
    if data.empty:
        return None
    pairs = len(halves[PAIR].drop_duplicates())
    with plt.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(WIDTH, 4.2))
        colours = line_colours(data["method"].unique())
        for number, (method, line) in enumerate(data.groupby("method", sort=False)):
            look = {"color": colours[number], "marker": MARKERS[number % len(MARKERS)], "label": method}
            shift = 1 + 0.03 * (number - data["method"].nunique() / 2)  # so that marks do not hide each other
            if pairs < FEWEST_PAIRS:
                _marks(ax, halves[halves["label"] == method], shift, longest, look)
            else:
                _medians(ax, line, shift, longest, look)
        _grounds(ax, sorted(set(data["unlearning steps"])), longest)
        ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    return Panel(
        "exchange", "The exchange rate of unlearning and attack", _caption(pairs, longest), _in_words(data, pairs, longest),
        "step >= 0", data, figure,
    )


def _marks(ax: plt.Axes, halves: pd.DataFrame, shift: float, longest: float, look: dict) -> None:
    """A mark for each model of one method."""
    there = halves["half"].where(~halves["censored"], longest * 1.25).clip(lower=1)
    ax.plot(halves["unlearning_steps"] * shift, there, linestyle="none", markersize=6, alpha=0.8, **look)


def _medians(ax: plt.Axes, line: pd.DataFrame, shift: float, longest: float, look: dict) -> None:
    """The medians of one method, joined, with their intervals."""
    x, seen = line["unlearning steps"] * shift, np.minimum(line["half"], longest * 1.25).clip(lower=1)
    ax.plot(x, seen, markersize=5, linewidth=1, **look)
    ends = (line["low"].clip(lower=1), np.minimum(line["high"], longest * 1.25))
    ax.vlines(x, *ends, color=look["color"], linewidth=1, alpha=0.5)


def _grounds(ax: plt.Axes, strengths: list[float], longest: float) -> None:
    """Axes, the line of one for one, and the band of what was not reached."""
    ends = [strengths[0], strengths[-1]]
    ax.plot(ends, ends, color="#777777", linestyle=":", linewidth=1)
    beside = {"xytext": (-4, 4), "textcoords": "offset points", "ha": "right", "fontsize": 7.5, "color": "#777777"}
    ax.annotate("one for one", (ends[1], ends[1]), **beside)
    ax.axhspan(longest * 1.1, longest * 1.5, color="#777777", alpha=0.15, linewidth=0)
    ax.annotate("not within the attack", (ends[0], longest * 1.13), fontsize=7.5, color="#777777")
    ax.set(
        xscale="log", yscale="log", ylim=(None, longest * 1.5), title="What it costs to undo", xlabel="steps of unlearning",
        ylabel="attack steps until half is back",
    )
    ax.set_xticks(strengths, [f"{x:g}" for x in strengths])
    ax.xaxis.minorticks_off()


def _caption(pairs: int, longest: float) -> str:
    what = f"median over {pairs} pairs of target and seed, with 95 % bootstrap intervals"
    if pairs < FEWEST_PAIRS:
        what = f"a mark for each model, as {pairs} pairs of target and seed are too few for a median"
    return (
        "Attack steps after which half of the original's accuracy on the target is back, at the learning rate that gets there "
        f"first: {what}. Models whose UA was below {LEAST_UA:g} had not forgotten, and are left out. Grey band: not within "
        f"{longest:g} steps. Dotted: as many steps as the unlearning took."
    )


def _in_words(data: pd.DataFrame, pairs: int, longest: float) -> str:
    def number(steps: float) -> str:
        return f"{steps:.0f}" if np.isfinite(steps) else f"more than {longest:.0f}"

    most = data[data["unlearning steps"] == data["unlearning steps"].max()].sort_values("half")
    parts = []
    for _, row in most.iterrows():
        ends = [number(row["low"]), number(row["high"])] if pairs < FEWEST_PAIRS else [number(row["half"])]
        parts.append(f"{row['method']} {' to '.join(dict.fromkeys(ends))}")
    steps, methods = most["unlearning steps"].iloc[0], data["method"].nunique()
    what = "Marks" if pairs < FEWEST_PAIRS else "Lines"
    return f"{what} for {methods} methods. After {steps:g} steps of unlearning: {', '.join(parts)}."
