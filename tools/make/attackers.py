"""Draw docs/attackers.png: what each attacker gets out of unlearned models, beyond what a model gives that never knew the target.

    python tools/make/attackers.py      seconds; from data/results/attackers.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from dimum_core.plots import use_style

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "experiments"))
from attackers import DEFENCES, LENGTHS, OWN_CONTROLS, leads, own_leads  # noqa: E402 (a script of another folder, not a package)

OWN = {method: f"{method.split(' ')[0]} (own control)" for method in OWN_CONTROLS if method in DEFENCES}
WORDS = {
    "none": "no attack", "relearning": "relearning, 150 steps", "relearning steps=600": "relearning, 600 steps",
    "few-shot": "few-shot (10 images of the digit)", "old-row": "the label's old row", "seed-row": "the row of the seed",
    "trained-row": "the row alone, trained (16 images)", "rounding bits=8": "rounding to 8 bits",
    "rounding bits=4": "rounding to 4 bits", "weight-noise": "noise on the weights", "pruning": "pruning",
    "inversion": "inversion of held-out images", "low-rank": "relearning, low-rank", "completion": "completion of masked weights",
    "initial-noise": "optimised initial noise",
}


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean leads over the targets: a row for each attack, as they were made, a column for each length and method.

    After some methods' column stands their lead over a control of their own, whose label draws what their label draws.
    """
    both = pd.concat([leads(rows), own_leads(rows).replace({"method": OWN})])
    found = both.pivot_table(index="attack", columns=["length", "method"], values="lead", sort=False)
    order = [name for method in DEFENCES for name in [method, *([OWN[method]] if method in OWN else [])]]
    columns = [(length, name) for length in LENGTHS for name in order if (length, name) in found]
    return found.loc[[name for name in WORDS if name in found.index], columns]


def figure(rows: pd.DataFrame) -> plt.Figure:
    found = table(rows)
    fig, ax = plt.subplots(figsize=(11, 5.8), layout="constrained")
    image = ax.imshow(found, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (i, j), lead in np.ndenumerate(found.to_numpy()):
        if np.isfinite(lead):
            colour = "black" if lead > 0.5 else "white"
            ax.text(j, i, f"{lead:.2f}".replace("-0.00", "0.00"), ha="center", va="center", color=colour)
    ax.set(
        yticks=range(len(found)), yticklabels=[WORDS[name] for name in found.index], xticks=range(len(found.columns)),
        xticklabels=[f"{method}\n{length}".translate({ord(" "): "\n", ord("-"): "\n"}) for length, method in found.columns],
        title="What an attacker gets beyond a model that never knew the digit",
    )
    ax.tick_params(labelsize=8)
    ax.grid(False)
    fig.colorbar(image, label="lead: share of samples minus the control's")
    return fig


def main() -> None:
    use_style()
    rows = pd.read_csv(ROOT / "data" / "results" / "attackers.csv")
    figure(rows).savefig(ROOT / "docs" / "attackers.png", dpi=130, bbox_inches="tight", facecolor="white")


if __name__ == "__main__":
    main()
