"""Figures of a contest, for the report and for notebooks; each with the rows it shows and a text for those who cannot see it."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..plots import COLOURS, STYLE
from .contest import CHOICES, PAIR, Contest, leaderboard, mean_interval, on_pairs

WIDTH = 5.4  # inches: the letters are still legible when a phone shrinks it


@dataclass(frozen=True)
class Panel:
    """A figure with what belongs beside it. where: the rows of the results, as pandas' `query` takes it; data: what is drawn."""

    name: str
    title: str
    caption: str
    alt: str
    where: str
    data: pd.DataFrame
    figure: Figure


def panels(rows: pd.DataFrame, contest: Contest) -> list[Panel]:
    """All figures of one contest."""
    board = leaderboard(contest)
    with plt.rc_context(STYLE):
        return [
            area_panel(contest, board), pareto_panel(contest, board), curves_panel(rows, contest, board),
            heat_panel(rows, contest, board),
        ]


def area_panel(contest: Contest, board: pd.DataFrame) -> Panel:
    """Area under the recovery curve with intervals, best first; controls below; letters of Holm's groups at the right."""
    controls = [{"method": label, "note": "control", **_area_of(g)} for label, g in contest.controls.groupby("label", sort=False)]
    data = pd.concat([board, pd.DataFrame(controls)], ignore_index=True)
    figure, ax = plt.subplots(figsize=(WIDTH, 0.9 + 0.24 * len(data)))
    for line, row in data.iterrows():
        colour = "#777777" if row["note"] else COLOURS[0]
        ax.plot([row["area low"], row["area high"]], [line, line], color=colour, linewidth=1.5)
        ax.plot(row["area"], line, "s" if row["note"] else "o", color=colour, markersize=5)
        ax.text(1.03, line, row["group"] if not row["note"] else "–", va="center", fontsize=8, color=colour)
    ax.set_yticks(range(len(data)), data["method"], fontsize=8)
    ax.set(xlim=(-0.02, 1.02), xlabel="area under the recovery curve (0: nothing comes back)", title="What comes back")
    ax.invert_yaxis()
    ranked = board[board["note"] == ""]
    return Panel(
        "area", "Area under the recovery curve",
        "Mean accuracy on the forgotten class over the attack, at the attacker's best setting, with Student's 95 % interval over "
        f"{len(contest.pivot())} pairs of target and seed. Methods that share a letter could not be told apart (sign-flip tests, "
        "Holm's correction, 5 %). Grey squares: not ranked, or controls.",
        f"Dots with intervals for {len(ranked)} ranked methods. {_extremes(ranked, 'area')}",
        contest.where, data, figure,
    )


def pareto_panel(contest: Contest, board: pd.DataFrame) -> Panel:
    """Lasting forgetting (1 - accuracy on the target after the attack) against retained accuracy before it, with the front."""
    data = board.assign(lasting=1 - board["recovered"], **{"on the front": pareto_front(board["RA"], 1 - board["recovered"])})
    figure, ax = plt.subplots(figsize=(WIDTH, 4.0))
    for _, row in data.iterrows():
        colour = COLOURS[0] if row["on the front"] else "#777777"
        spread_x, spread_y = [row["RA low"], row["RA high"]], [1 - row["recovered high"], 1 - row["recovered low"]]
        ax.plot(spread_x, [row["lasting"]] * 2, color=colour, alpha=0.35, linewidth=1)
        ax.plot([row["RA"]] * 2, spread_y, color=colour, alpha=0.35, linewidth=1)
        ax.plot(row["RA"], row["lasting"], "o", color=colour, markersize=5)
    _numbered(ax, data)
    front = data[data["on the front"]].sort_values("RA")
    ax.plot(front["RA"], front["lasting"], color=COLOURS[0], linestyle=":", linewidth=1)
    ax.set(
        title="Forgetting that lasts, against quality", xlabel="right among the other classes, before the attack",
        ylabel="1 – accuracy on the target, after", xlim=(max(-0.03, data["RA low"].min() - 0.05), 1.03), ylim=(-0.03, 1.06),
    )
    key = ", ".join(f"{number} {method}" for number, method in enumerate(data["method"], start=1))
    return Panel(
        "pareto", "Forgetting against retained quality",
        "Up and to the right is better; the height is the end of the curve, not its area. Blue: on the front, where no other "
        f"method is as good in both and better in one. Lines: 95 % intervals. {key}.",
        f"Points for {len(data)} methods; on the front: {', '.join(front['method'])}.", contest.where, data, figure,
    )


def pareto_front(first: pd.Series, second: pd.Series) -> np.ndarray:
    """Which points no other beats: more is better, and to beat is to be as good in both and better in one."""
    points = np.column_stack([first, second])
    beaten = (points[None] >= points[:, None]).all(2) & (points[None] > points[:, None]).any(2)
    return ~beaten.any(axis=1)


def curves_panel(rows: pd.DataFrame, contest: Contest, board: pd.DataFrame) -> Panel:
    """Recovery curves of every method at the attacker's best setting, mean over pairs with a band; controls dashed and dotted."""
    best = pd.concat([contest.runs, contest.controls])
    data = recovery_bands(rows.merge(best[["label", "budget", "auxiliary", *PAIR, *CHOICES]]))
    controls = [name for name in ("original", "retrained") if name in set(data["label"])]
    figure, axes = _small_multiples(list(board["method"]))
    for method, ax in axes.items():
        for name, style in zip(controls, (":", "--"), strict=False):
            curve = data[data["label"] == name]
            ax.plot(curve["step"], curve["mean"], color="#777777", linestyle=style, linewidth=1)
        curve = data[data["label"] == method]
        ax.plot(curve["step"], curve["mean"], color=COLOURS[0], marker="o", markersize=3)
        ax.fill_between(curve["step"], curve["low"], curve["high"], color=COLOURS[0], alpha=0.2, linewidth=0)
        ax.set(ylim=(-0.03, 1.03))
    figure.suptitle("When it comes back", fontsize=11, fontweight="bold")
    figure.supxlabel("attack steps", fontsize=9)
    figure.supylabel("accuracy on the target", fontsize=9)
    ends = data[data["step"] == data["step"].max()].rename(columns={"label": "method"})
    ends = ends[ends["method"].isin(board["method"])]
    return Panel(
        "curves", "Recovery curves",
        "Accuracy on the forgotten class while the attack goes on, at the attacker's best setting, mean over pairs with Student's "
        "95 % band. Grey: the same attack on the original model (dotted) and on the retrained one (dashed).",
        f"Small line charts of {len(axes)} methods. At the end of the attack: {_extremes(ends, 'mean')}",
        contest.where, data, figure,
    )


def recovery_bands(rows: pd.DataFrame, value: str = "target accuracy") -> pd.DataFrame:
    """Mean curve of each label over its rows, with Student's interval; rows: one attack for each (label, target, seed)."""
    lines = []
    for (label, step), group in rows.groupby(["label", "step"]):
        interval = mean_interval(group[value])
        band = {"mean": interval.value, "low": interval.low, "high": interval.high, "pairs": interval.n}
        lines.append({"label": label, "step": step, **band})
    return pd.DataFrame(lines)


def heat_panel(rows: pd.DataFrame, contest: Contest, board: pd.DataFrame) -> Panel:
    """Accuracy on the target by the attacker's setting and steps, mean over the contest's pairs, a map for each method."""
    data = setting_means(rows, contest)
    figure, axes = _small_multiples(list(board["method"]))
    everywhere = data.pivot(index="label", columns=[*CHOICES, "step"], values="mean")  # one scale of settings and steps for all
    for method, ax in axes.items():
        _heat_map(ax, everywhere.loc[method].unstack(), data)
    bar = figure.colorbar(ax.images[0], ax=list(axes.values()), label="accuracy on the target, per cent", shrink=0.5, pad=0.02)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=""))  # like the numbers in the cells
    figure.suptitle("At which setting it comes back", fontsize=11, fontweight="bold")
    figure.supxlabel("attack steps", fontsize=9)
    figure.supylabel("the attacker's learning rate", fontsize=9)
    ranked = data[data["label"].isin(board.loc[board["note"] == "", "method"])]
    worst = (ranked if len(ranked) else data).nlargest(1, "mean").iloc[0]
    return Panel(
        "rates", "The attacker's setting and steps",
        "Accuracy on the forgotten class in per cent, mean over the pairs that met this setting. A defence is judged by its "
        "brightest row.",
        f"Heat maps of {len(axes)} methods. Among the ranked ones, most comes back for {worst['label']} at learning rate "
        f"{_setting(worst[CHOICES], data)} after {worst['step']:g} steps: {worst['mean']:.2f}.", contest.where, data, figure,
    )


def setting_means(rows: pd.DataFrame, contest: Contest) -> pd.DataFrame:
    """Mean accuracy on the target of each method, by the attacker's setting and step, and over how many of the contest's pairs."""
    where = (rows["auxiliary"] == contest.auxiliary) & (rows["budget"] == contest.budget)
    compared = on_pairs(rows[where & rows["label"].isin(contest.runs["label"])], contest.pivot().index)
    means = compared.groupby(["label", *CHOICES, "step"])["target accuracy"].agg(mean="mean", pairs="count")
    return means.reset_index()


def _heat_map(ax, table: pd.DataFrame, data: pd.DataFrame) -> None:
    """One method's map; table: a row for each setting, a column for each step, NaN for a setting that it did not meet."""
    ax.imshow(table, cmap="cividis", vmin=0, vmax=1, aspect="auto", origin="lower")
    ax.set_xticks(range(table.shape[1]), [f"{step:g}" for step in table.columns], fontsize=7)
    ax.set_yticks(range(len(table)), [_setting(choice, data) for choice in table.index], fontsize=7)
    ax.grid(False)
    for (y, x), share in np.ndenumerate(table.to_numpy()):
        if np.isfinite(share):
            ax.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=6, color="wk"[int(share > 0.6)])


def _setting(choice, data: pd.DataFrame) -> str:
    """A learning rate, and the optimizer where there are several; choice: in the order of CHOICES."""
    rate, optimizer = choice
    return f"{rate:g}" if data["optimizer"].nunique() == 1 else f"{rate:g} ({optimizer})"


def _small_multiples(names: list[str], columns: int = 4) -> tuple[Figure, dict]:
    lines = -(-len(names) // columns)
    figure, grid = plt.subplots(
        lines, columns, figsize=(WIDTH, 0.7 + 1.05 * lines), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    for number, ax in enumerate(grid.flat):
        ax.set_visible(number < len(names))
        ax.xaxis.set_tick_params(labelbottom=number + columns >= len(names))  # the lowest of its column
    axes = dict(zip(names, grid.flat, strict=False))
    for name, ax in axes.items():
        ax.set_title(name, fontsize=7.5, fontweight="normal", pad=2)
        ax.tick_params(labelsize=7)
    return figure, axes


def _numbered(ax, data: pd.DataFrame) -> None:
    """Numbers beside points; those of points that fall together stand in one text."""
    groups: list[tuple] = []  # the first point of each, and its numbers
    points = data[["RA", "lasting"]].to_numpy()
    for number in np.argsort(-points[:, 1], kind="stable"):
        near = [numbers for place, numbers in groups if np.abs(points[number] - place).max() < 0.045]  # about the height of a digit
        if near:
            near[0].append(number + 1)
        else:
            groups.append((points[number], [number + 1]))
    for place, numbers in groups:
        ax.annotate(" ".join(map(str, sorted(numbers))), place, (4, 3), textcoords="offset points", fontsize=7.5)


def _area_of(group: pd.DataFrame) -> dict:
    interval = mean_interval(group["area"])
    return {"pairs": interval.n, "area": interval.value, "area low": interval.low, "area high": interval.high}


def _extremes(table: pd.DataFrame, value: str) -> str:
    if not len(table):
        return "There are none."
    least, most = table.loc[table[value].idxmin()], table.loc[table[value].idxmax()]
    return f"Least for {least['method']} ({least[value]:.2f}), most for {most['method']} ({most[value]:.2f})."
