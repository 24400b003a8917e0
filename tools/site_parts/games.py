"""The pages to play on: the playground and bets against the judge, from what tools/make/playground.py computed, and a curve to
draw, from the film's counts."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from reading import Chapter

PLAY = Path(__file__).resolve().parent / "play"
SIX = 6  # samples of a bet
DRAWN = (0, 4, 8, 12, 24, 40)  # steps of the attack that a curve is drawn through


@dataclass(frozen=True)
class Game:
    """A page, the file in docs/ that it is made of, and the chapters that lead to it: before they are read, or after."""

    name: str
    title: str
    says: str
    data: str
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


GAMES = (
    Game("playground", "The playground", "Choose what a model forgets, how, for how long, and how hard it is attacked.",
         "playground.json", after=("07",)),
    Game("hiding", "Forgotten, or hiding?", "Six samples of a model: you bet, the judge bets, and the attack shows who was right.",
         "playground.json", after=("03", "06")),
    Game("curve", "Draw the curve first", "How fast does a forgotten digit come back? Draw it, then see what was measured.",
         "film.json", before=("06",)),
)


def games(docs: Path) -> tuple[Game, ...]:
    """Those whose data are there."""
    return tuple(game for game in GAMES if (docs / game.data).exists())


def played(chapter: Chapter, all_games: tuple[Game, ...]) -> dict[str, list[Game]]:
    """The games that stand before a chapter's text and after it."""
    return {"before": [game for game in all_games if chapter.number in game.before],
            "after": [game for game in all_games if chapter.number in game.after]}


def write_games(docs: Path, site: Path, chapters: list[Chapter], write) -> list[dict]:
    """The pages and their style; returns what the search knows of them. Their pictures are those of docs/."""
    found, made = games(docs), {"playground": with_retrained, "hiding": rounds, "curve": curves}
    if found:
        shutil.copy(PLAY / "play.css", site / "play.css")
    for game in found:
        about = json.loads((docs / game.data).read_text("utf-8"))
        write(game.name, f"play/{game.name}.html", game=game, games=found, about=about, made=made[game.name](about),
              stems={chapter.number: chapter.stem for chapter in chapters})
    return [{"at": f"{game.name}.html", "title": game.title, "text": game.says} for game in found]


def with_retrained(about: dict) -> list[dict]:
    """All models that forgot, and those that never saw the target: what each did in words, and its states around the stronger
    attack."""
    forgot = [model | {"told": f"forgot by {model['method']}, in {model['trained']} steps"} for model in about["models"]]
    never = [model | {"target": target, "told": f"never saw {about['called'][target]}"}
             for target, model in about["retrained"].items()]
    ends = [{"before": model["attacks"][-1][0], "after": model["attacks"][-1][-1]} for model in forgot + never]
    return [model | end | {"called": about["called"][model["target"]]} for model, end in zip(forgot + never, ends, strict=True)]


def rounds(about: dict) -> list[dict]:
    """Models to bet on. Hiding: after the stronger attack at least a quarter of the samples show the target; forgotten: at most one
    in twelve. What lies between is left out. The judge says hiding if it sees the target in any of the six."""
    least, most = about["count"] / 4, about["count"] / 12
    return [{"called": model["called"], "told": model["told"], "before": model["before"], "after": model["after"],
             "hiding": model["after"]["seen"] >= least, "judge": any(model["before"]["marks"][:SIX])}
            for model in with_retrained(about) if not most < model["after"]["seen"] < least]


def curves(film: dict) -> dict:
    """Curves to draw, and where: the counts of each method of the film, the attack's beginning first."""
    found = []
    for method, frames in film["methods"].items():
        forgetting = [frame for frame in frames if frame[0] == "forget"]
        seen = {step: count for phase, step, count in frames if phase == "attack"} | {0: forgetting[-1][2]}
        found.append({"name": f"{method}, after {forgetting[-1][1]} steps", "seen": [seen[step] for step in DRAWN]})
    return {"count": film["count"], "steps": DRAWN, "tasks": found}
