"""The capstone's rules, which its notebook and `dimum grade --capstone` share: score, budget, a second look, points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
from diffusers import DiffusionPipeline

from ..attacks import relearn, reset_embedding, swap_embedding
from ..benchmark.contest import LEAST_UA, runs, strongest
from ..data import Dataset
from ..metrics import Interval
from .marks import Mark

PASSES = 9_600  # evaluations of the network on one image, those of `prepare` included: what 75 steps of the rival cost
RIVAL = "dimum (class)"
PUBLISHED_SEED = 0  # of the shipped digits model's training
LOST_RA, LEAD = 0.05, 10.0  # full points: RA at most so much below the original's; a score so far ahead of the rival's
NO_MASK, HALF_MASK = 0.4, 0.2  # full and half points from these bounds of UA on, whichever row is put back
STILL_THERE = 0.5  # below this UA the target is not forgotten
RENAMED = 0.5  # of UA as it is: what falls below this with a row put back, before any attack, has forgotten a name
WORTH = {"it forgets": 10, "it keeps": 10, "it resists": 25, "it is no mask": 20}
READ = {"it was tested fairly": 15, "it is explained": 20}  # by a person, see docs/teaching/rubric.md
AS_IT_IS, ROWS, ATTACKED = "as it is", ("old row back", "published seed's row"), ", attacked"


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each defence and seed: UA and RA before the attack, area at the attacker's best rate, and the score, 0 to 100.

    rows: of recovery curves, as `read_results` gives them.
    """
    defences = runs(rows).groupby(["target", "label", "budget"])  # one by one: a quick look may have one seed only
    best = pd.concat([strongest(group) for _, group in defences], ignore_index=True)
    best["score"] = 100 * best["UA"] * best["RA"] * (1 - best["area"])
    return best


def behind_the_name(
    model: DiffusionPipeline, original: DiffusionPipeline, data: Dataset, target: str, **attack
) -> dict[str, DiffusionPipeline]:
    """The model as it is, with each row of ROWS put back for the target, and each of these attacked: name -> pipeline.

    attack: settings of `relearn`, which trains on the data without the target.
    """
    ways = {AS_IT_IS: model, **dict(zip(ROWS, (
        swap_embedding(model, original, target), reset_embedding(model, target, PUBLISHED_SEED)), strict=True))}
    for row in ROWS:
        attacked = relearn(ways[row], data.without(target), target=target, progress=False, **attack)
        ways[row + ATTACKED] = attacked.pipeline
    return ways


@dataclass(frozen=True)
class Evidence:
    """What was measured of a method over its seeds: means, the most passes on one seed, and UA for each way of asking.

    ahead: of the RIVAL's mean score under the same seeds. looked: name of `behind_the_name` -> UA with its 95 % interval.
    """

    UA: float
    RA: float
    original_RA: float
    ahead: float
    passes: float
    looked: Mapping[str, Interval]

    @property
    def lowest(self) -> float:
        """The lowest bound of UA with a row put back, attacked or not."""
        return min(share.low for way, share in self.looked.items() if way != AS_IT_IS)

    @property
    def refused(self) -> str:
        """Why none of this counts; empty if it does."""
        if self.passes > PASSES:
            return f"{self.passes:,.0f} passes, and the budget is {PASSES:,}: training before the first step counts, too"
        as_it_is = self.looked[AS_IT_IS].value
        if as_it_is < STILL_THERE:
            return f"UA {as_it_is:.2f} in the look behind the name: the target is still there"
        renamed = [row for row in ROWS if self.looked[row].value < RENAMED * as_it_is]
        if renamed:
            return f"UA {self.looked[renamed[0]].value:.2f} with the {renamed[0]}: the target was renamed, not forgotten"
        return ""


def points(found: Evidence) -> list[Mark]:
    """What the computed parts of the capstone earn: nothing if the budget was overrun, or the target is renamed or still there."""
    resists = 25 if found.ahead >= LEAD else 12 if found.ahead > 0 else 0
    no_mask = 20 if found.lowest >= NO_MASK else 10 if found.lowest >= HALF_MASK else 0
    lost = found.original_RA - found.RA
    earned = {
        "it forgets": (10 * (found.UA >= LEAST_UA), f"UA {found.UA:.2f}; {LEAST_UA} is asked for"),
        "it keeps": (10 * (lost <= LOST_RA), f"RA {found.RA:.2f}; the original's is {found.original_RA:.2f}"),
        "it resists": (resists, f"{found.ahead:+.0f} from {RIVAL}; full points from {LEAD:+.0f} on"),
        "it is no mask": (no_mask, f"lowest bound of UA with a row put back: {found.lowest:.2f}; full points from {NO_MASK} on"),
    }
    because = f". Nothing counts: {found.refused}" if found.refused else ""
    return [
        Mark(part, 0.0 if because else float(earned[part][0]), float(out_of), earned[part][1] + because)
        for part, out_of in WORTH.items()
    ]
