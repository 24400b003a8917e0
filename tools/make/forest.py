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
from tables import CONFIRM, DIGITS, EFFECTS, FRESH, LATER, PHOTOGRAPHS, effect  # noqa: E402 (a script beside this one, not a package)

OUT = ROOT / "docs" / "forest.png"
LOOKS = {"distinguishable": ("o", COLOURS[0]), "equivalent": ("s", COLOURS[2]), "open": ("D", "0.55")}
GROUPS = {
    (CONFIRM, "matched"): "Predicted: digits 5 and 6 at UA 0.9, 400 steps of attack: recovery area",
    (FRESH, "matched"): "Digits at UA 0.9, samples of fresh noise: share after the attack",
    (DIGITS, "matched"): "Digits at UA 0.9, deterministic sampler: recovery area",
    (LATER, "matched"): "The same, nine later pairs alone",
    (DIGITS, "budget"): "Digits after 60 steps, deterministic sampler: recovery area",
    (PHOTOGRAPHS, "matched"): "Photographs of the former model at UA 0.9: recovery area",
}


def figure() -> plt.Figure:
    names = {group: [name for name, planned in EFFECTS.items() if planned[:2] == group] for group in GROUPS}
    heights = [len(each) + 1 for each in names.values()]
    fig, axes = plt.subplots(len(GROUPS), sharex=True, figsize=(9, 10.4), height_ratios=heights, layout="constrained")
    for ax, (group, title) in zip(axes, GROUPS.items(), strict=True):
        panel(ax, title, names[group])
    axes[-1].set_xlabel("difference: left of 0, the first gives back less")
    handles = [plt.Line2D([], [], marker=m, color=c, label=verdict) for verdict, (m, c) in LOOKS.items()]
    handles.append(plt.Rectangle((0, 0), 1, 1, color="0.93", label=f"within {MARGIN:g} of none"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize="small")
    return fig


def panel(ax: plt.Axes, title: str, names: list[str]) -> None:
    """One group of comparisons, a line each."""
    for place, name in enumerate(names):
        found = effect(name)
        marker, colour = LOOKS[found["verdict"]]
        ax.plot([found["low"], found["high"]], [place, place], color=colour, linewidth=2)
        ax.plot(found["difference"], place, marker, color=colour, markersize=7)
    ax.axvspan(-MARGIN, MARGIN, color="0.93", zorder=0)
    ax.axvline(0, color="0.3", linewidth=1)
    ax.set_yticks(range(len(names)), [" minus ".join(EFFECTS[name][2:]) for name in names])
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_title(title, fontsize="medium", loc="left")


def main() -> None:
    use_style()
    figure().savefig(OUT, dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
