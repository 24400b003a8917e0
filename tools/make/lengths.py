"""Draw docs/surface.png and docs/lengths.png: what an attack at length gives back after ever longer unlearning.

    python tools/make/lengths.py      seconds; from data/results/surface.parquet and data/results/photographs-lengths.parquet
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from dimum_core.benchmark import read_results
from dimum_core.benchmark.contest import LEAST_UA
from dimum_core.benchmark.exchange import MARKERS, after_lengths
from dimum_core.plots import line_colours, use_style

ROOT = Path(__file__).resolve().parent.parent.parent
BACK, KEPT = "recovered", "RA"  # columns of `after_lengths`
FIGURES = {"surface": ("surface", [BACK]), "photographs-lengths": ("lengths", [BACK, KEPT])}  # results: picture, what it shows


def lengths_figure(rows: pd.DataFrame, shown: list[str]) -> plt.Figure:
    """A column for each target: what shows it after the attack and, below, the other classes before the attack."""
    found = after_lengths(rows)
    targets, methods = list(found["target"].unique()), [label for label in found["label"].unique() if label != "retrained"]
    labels = {BACK: f"shows it after\n{rows['step'].max():,} steps of attack", KEPT: "others right,\nbefore the attack"}
    size = max(6.2, 3.8 * len(targets)), 1.4 + 2.2 * len(shown)
    alike = {"sharex": True, "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(len(shown), len(targets), figsize=size, **alike)
    for column, target in zip(axes.T, targets, strict=True):
        here = found[found["target"] == target]
        for ax, what in zip(column, shown, strict=True):
            lines(ax, here, what, methods)
        column[0].set_title(f"asked for {target}")
        column[-1].set(xscale="log", xlabel="steps of unlearning (logarithmic)", ylim=(-0.03, 1.06))
        column[-1].set_xticks(sorted(here.loc[here["steps"] > 0, "steps"].unique()))
        column[-1].xaxis.set_major_formatter("{x:g}")
        column[-1].minorticks_off()
    for ax, what in zip(axes[:, 0], shown, strict=True):
        ax.set_ylabel(labels[what])
    handles, names = axes[0, 0].get_legend_handles_labels()
    title = f"hollow: UA below {LEAST_UA:g}"
    figure.legend(handles, names, loc="outside lower center", ncols=5, fontsize=8, title=title, title_fontsize=8)
    return figure


def lines(ax: plt.Axes, here: pd.DataFrame, what: str, methods: list[str]) -> None:
    """A line for each method, of several seeds through their means, with a pale mark for each; dotted, the retrained model."""
    colours = line_colours(methods)
    for number, (label, colour, marker) in enumerate(zip(methods, colours, MARKERS, strict=False)):
        look = {"color": colour, "marker": marker, "markersize": 5, "linestyle": "--" if colour in colours[:number] else "-"}
        runs = here[here["label"] == label]
        line = runs.groupby("steps")[[what, "UA"]].mean()
        if len(runs) > len(line):
            ax.plot(runs["steps"], runs[what], **look | {"linestyle": "none", "markersize": 3, "alpha": 0.35})
        ax.plot(line[what], **look | {"markerfacecolor": "white"})
        ax.plot(line.loc[line["UA"] >= LEAST_UA, what], **look | {"linestyle": "none"})
        ax.plot([], [], **look, label=label)
    control = here.loc[here["label"] == "retrained", what]
    if len(control):
        ax.axhline(control.mean(), color="black", linestyle=":", linewidth=1.2, label="retrained")


def main() -> None:
    use_style()
    for source, (picture, shown) in FIGURES.items():
        figure = lengths_figure(read_results(ROOT / "data" / "results" / f"{source}.parquet"), shown)
        figure.savefig(ROOT / "docs" / f"{picture}.png", dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
