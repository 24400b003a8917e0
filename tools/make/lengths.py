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
FIGURES = {"surface": "surface", "photographs-lengths": "lengths"}  # results, and the picture of them


def lengths_figure(rows: pd.DataFrame) -> plt.Figure:
    """A column for each target: above, what shows it after the attack; below, the other classes before the attack."""
    found, last = after_lengths(rows), rows["step"].max()
    targets = list(found["target"].unique())
    methods = [label for label in found["label"].unique() if label != "retrained"]
    figure, axes = plt.subplots(2, len(targets), figsize=(7.6, 5.6), layout="constrained", sharex=True, sharey="row", squeeze=False)
    for column, target in zip(axes.T, targets, strict=True):
        here = found[found["target"] == target]
        for label, colour, marker in zip(methods, line_colours(methods), MARKERS, strict=False):
            line = here[here["label"] == label].groupby("steps").mean(numeric_only=True)
            forgotten = line[line["UA"] >= LEAST_UA]
            for ax, what in zip(column, ("recovered", "RA"), strict=True):
                ax.plot(line.index, line[what], color=colour, marker=marker, markerfacecolor="white", markersize=5)
                ax.plot(forgotten.index, forgotten[what], color=colour, marker=marker, linestyle="none", markersize=5, label=label)
        for _, control in here[here["label"] == "retrained"].groupby("label").mean(numeric_only=True).iterrows():
            for ax, what in zip(column, ("recovered", "RA"), strict=True):
                ax.axhline(control[what], color="black", linestyle=":", linewidth=1.2, label="retrained")
        column[0].set(title=f"asked for {target}", ylim=(-0.03, 1.06))
        column[1].set(xscale="log", ylim=(-0.03, 1.06), xlabel="steps of unlearning (logarithmic)")
        column[1].set_xticks(sorted(here.loc[here["steps"] > 0, "steps"].unique()), minor=False)
        column[1].xaxis.set_major_formatter("{x:g}")
        column[1].minorticks_off()
    axes[0, 0].set_ylabel(f"shows it after\n{last:,} steps of attack")
    axes[1, 0].set_ylabel("others right,\nbefore the attack")
    handles, names = axes[0, 0].get_legend_handles_labels()
    title = f"hollow: UA below {LEAST_UA:g}"
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, title=title, title_fontsize=8)
    return figure


def main() -> None:
    use_style()
    for source, picture in FIGURES.items():
        figure = lengths_figure(read_results(ROOT / "data" / "results" / f"{source}.parquet"))
        figure.savefig(ROOT / "docs" / f"{picture}.png", dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
