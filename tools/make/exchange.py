"""Draw docs/exchange.png and docs/price.png: what a longer unlearning costs the attacker, and what it costs whoever unlearns.

    python tools/make/exchange.py      seconds; from data/results/exchange.parquet
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from dimum_core.benchmark import read_results
from dimum_core.benchmark.contest import LEAST_UA
from dimum_core.benchmark.exchange import MARKERS, exchange_panel
from dimum_core.models.cards import read_card
from dimum_core.plots import line_colours, use_style

ROOT = Path(__file__).resolve().parent.parent.parent
ROWS, DOCS = ROOT / "data" / "results" / "exchange.parquet", ROOT / "docs"


def prices(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each attack: method, steps, UA, price in percent of a new training (passes), share shown in the end."""
    training = read_card(ROOT / "data" / "checkpoints" / "digits")["training"]
    last = rows[(rows["step"] == rows["step"].max()) & (rows["label"] != "original")]
    price = 100 * last["unlearning_nfes"] / (training["steps"] * training["batch_size"])
    first = rows[rows["step"] == 0].set_index("cell")["target accuracy"]
    about = last[["label", "unlearning_steps", "target", "seed"]]
    return about.assign(price=price, shown=last["target accuracy"], UA=1 - last["cell"].map(first))


def price_figure(rows: pd.DataFrame) -> plt.Figure:
    groups = dict(list(prices(rows).groupby("label")))
    figure, ax = plt.subplots(figsize=(7.2, 4), layout="constrained")
    for (label, group), colour, marker in zip(groups.items(), line_colours(groups), MARKERS, strict=False):
        means = group.groupby("unlearning_steps")[["price", "shown", "UA"]].mean()
        ax.plot(group["price"], group["shown"], marker, color=colour, markersize=4, alpha=0.4, linestyle="none")
        forgotten = means[means["UA"] >= LEAST_UA]
        ax.plot(means["price"], means["shown"], color=colour, marker=marker, markerfacecolor="white")
        ax.plot(forgotten["price"], forgotten["shown"], color=colour, marker=marker, label=label)
        for steps, mean in means.iterrows():
            there = (mean["price"], mean["shown"])
            ax.annotate(f"{steps:g}", there, xytext=(4, 5), textcoords="offset points", fontsize=8, color=colour)
    ax.set(
        xscale="log", ylim=(-0.03, 1.03), title="What resistance costs",
        xlabel="passes of the network in unlearning, percent of a new training's (logarithmic)",
        ylabel=f"shows the digit after {rows['step'].max()} attack steps",
    )
    ax.xaxis.set_major_formatter("{x:g}")
    ax.legend(title=f"method; numbers: steps\nhollow: UA below {LEAST_UA:g}", fontsize=8, title_fontsize=8)
    return figure


def main() -> None:
    use_style()
    rows = read_results(ROWS)
    for name, figure in (("exchange", exchange_panel(rows).figure), ("price", price_figure(rows))):
        figure.savefig(DOCS / f"{name}.png", dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
