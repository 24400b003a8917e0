"""Draw docs/forest.png: the comparisons that CLAIMS.md speaks of, a line each, with their intervals.

    python tools/make/forest.py        seconds; from data/results
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from dimum_core.metrics import MARGIN
from dimum_core.plots import COLOURS, use_style

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tools"))
from tables import EFFECTS, effect  # noqa: E402 (a script beside this one, not a package)

OUT = ROOT / "docs" / "forest.png"
LOOKS = {"distinguishable": ("o", COLOURS[0]), "equivalent": ("s", COLOURS[2]), "open": ("D", "0.55")}
GROUPS = {"matched": "digits, UA 0.9", "budget": "digits, 60 steps"}


def figure() -> plt.Figure:
    fig, ax = plt.subplots(figsize=(9, 6), layout="constrained")
    labels = []
    for place, name in enumerate(EFFECTS):
        source, budget, first, second = EFFECTS[name]
        found = effect(name)
        marker, colour = LOOKS[found["verdict"]]
        ax.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=2)
        ax.plot(found["difference"], place, marker, color=colour, markersize=7)
        group = GROUPS[budget] if "cifar" not in source else "photographs"
        labels.append(f"{first} minus {second}  ({group})")
    ax.axvspan(-MARGIN, MARGIN, color="0.93", zorder=0)
    ax.axvline(0, color="0.3", linewidth=1)
    ax.set_yticks(range(len(labels)), labels)
    ax.invert_yaxis()
    ax.set_xlabel("difference of recovery area: left, the first gives back less")
    fig.suptitle("What is told apart, what is equivalent, and what is open", fontweight="bold")
    handles = [plt.Line2D([], [], marker=m, color=c, label=verdict) for verdict, (m, c) in LOOKS.items()]
    handles.append(plt.Rectangle((0, 0), 1, 1, color="0.93", label=f"within {MARGIN:g} of none"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    return fig


def main() -> None:
    use_style()
    figure().savefig(OUT, dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
