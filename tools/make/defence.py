"""Draw docs/defence.png: what each candidate for a defence costs, and by how much its strongest attacker leads.

    python tools/make/defence.py      seconds; from data/results/defence.csv and attackers.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from dimum_core.plots import COLOURS, use_style

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "experiments"))
from defence import ANEW, CANDIDATES, HOLDS, SEARCHED, frontier, with_controls  # noqa: E402 (a script of another folder)

FAMILIES = {"random label": COLOURS[1], "erasediff": COLOURS[4], "finetuning": COLOURS[0], "DiMUM": COLOURS[3], ANEW: "0.4"}
MARKERS = "osD^v<>"  # those of a family, in turn
TICKS = (1.5, 3, 6, 12, 24, 48)


def looks() -> dict[str, dict]:
    """A colour for each family of candidates, and a marker for each in it."""
    found = {}
    for name in [*CANDIDATES, ANEW]:
        family = next(each for each in FAMILIES if name.startswith(each))
        number = sum(other.startswith(family) for other in found)
        found[name] = {"color": FAMILIES[family], "marker": MARKERS[number], "markersize": 6}
    return found


def figure(found: pd.DataFrame) -> plt.Figure:
    """found: as `frontier` gives it, of the digit that was searched on."""
    fig, ax = plt.subplots(figsize=(10, 5), layout="constrained")
    for name, look in looks().items():
        line = found.xs(name, level="method").sort_values("price")
        kept = line[line["kept"]]
        ax.plot(100 * line["price"], line["worst"], **look, markerfacecolor="white", linewidth=0.8)
        ax.plot(100 * kept["price"], kept["worst"], **look, linestyle="none")
        ax.plot([], [], **look, linewidth=0.8, label=name)
    ax.axhspan(-0.03, HOLDS["lead"], color="0.92", zorder=0)
    ax.set(
        xscale="log", ylim=(-0.03, None), title=f"Forgetting a {SEARCHED}: what it costs, and what the strongest attacker leads by",
        xlabel="passes of the network, percent of a new training's (logarithmic)",
        ylabel="largest of six leads",
    )
    ax.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    ax.minorticks_off()
    fig.legend(loc="outside right upper", fontsize=8, title="hollow: other digits are lost", title_fontsize=8)
    return fig


def main() -> None:
    use_style()
    rows = with_controls(pd.read_csv(ROOT / "data" / "results" / "defence.csv"))
    found = frontier(rows[rows["target"] == SEARCHED])
    figure(found).savefig(ROOT / "docs" / "defence.png", dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
