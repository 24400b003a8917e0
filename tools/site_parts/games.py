"""The pages to play on: the playground and bets against the judge, from what tools/make/playground.py computed, a curve to
draw, from the film's counts, and the walk of chapter 11, from its output."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from reading import Chapter

PLAY = Path(__file__).resolve().parent / "play"
SIX = 6  # samples of a bet
DRAWN = (0, 4, 8, 12, 24, 40)  # steps of the attack that a curve is drawn through


@dataclass(frozen=True)
class Game:
    """A page, the file (from docs/) or chapter that it is made of, and the chapters that lead to it, before or after their text."""

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
         "../data/frames/film.json", before=("06",)),
    Game("walk", "There and back", "Scroll along the way of a model through its weights, and watch a digit go and return.", "11",
         after=("11",)),
)


def games(docs: Path, chapters: list[Chapter]) -> tuple[Game, ...]:
    """Those whose data are there."""
    return tuple(game for game in GAMES if (docs / game.data).exists() or places(chapters, game.data))


def played(chapter: Chapter, all_games: tuple[Game, ...]) -> dict[str, list[Game]]:
    """The games that stand before a chapter's text and after it."""
    return {"before": [game for game in all_games if chapter.number in game.before],
            "after": [game for game in all_games if chapter.number in game.after]}


def write_games(docs: Path, site: Path, chapters: list[Chapter], write) -> list[dict]:
    """The pages and their style; returns what the search knows of them. Their pictures are those of docs/."""
    found, made = games(docs, chapters), {"playground": with_retrained, "hiding": rounds, "curve": curves}
    if found:
        shutil.copy(PLAY / "play.css", site / "play.css")
    for game in found:
        shared = {"game": game, "games": found, "stems": {chapter.number: chapter.stem for chapter in chapters}}
        if game.name == "walk":
            write(game.name, "play/walk.html", places=with_pictures(places(chapters, game.data), site), **shared)
        else:
            about = json.loads((docs / game.data).read_text("utf-8"))
            write(game.name, f"play/{game.name}.html", about=about, made=made[game.name](about), **shared)
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
        seen = {step: count for phase, step, count, _ in frames if phase == "attack"} | {0: forgetting[-1][2]}
        found.append({"name": f"{method}, after {forgetting[-1][1]} steps", "seen": [seen[step] for step in DRAWN]})
    return {"count": film["count"], "steps": DRAWN, "tasks": found}


def places(chapters: list[Chapter], number: str) -> list[dict]:
    """The places of a chapter's walk (`widgets.walk`), as its output has them: a picture, where it is, and how many samples show
    the target there. Empty if there is no such output."""
    outputs = [output for chapter in chapters if chapter.number == number for cell in chapter.cells
               for output in (cell.get("outputs", []) if "walk(" in cell.source else [])]
    html = next((text for output in outputs if "place: " in (text := output.get("data", {}).get("text/html", ""))), "")
    counted = re.search(r"of (\d+) samples.*places 0 to \d+: \[([\d, ]+)\]", "".join(output.get("text", "") for output in outputs))
    data = re.search(r"const data = (\{.*?\}), root = ", html, re.DOTALL)
    if not counted or not data:
        return []
    frames, seen = json.loads(data[1]), counted[2].split(", ")
    found = []
    for key in frames["order"][0]:
        where = re.sub(r"^Place \d+: (.*?)\..*$", r"\1", frames["texts"][key])
        found.append({"picture": frames["frames"][key], "where": where, "seen": int(seen[int(key)]), "of": int(counted[1])})
    return found


def with_pictures(walk: list[dict], site: Path) -> list[dict]:
    """The places, their pictures written into the site."""
    for number, place in enumerate(walk):
        (site / "pictures" / f"walk-{number}.png").write_bytes(base64.b64decode(place["picture"]))
    return [place | {"picture": f"pictures/walk-{number}.png"} for number, place in enumerate(walk)]
