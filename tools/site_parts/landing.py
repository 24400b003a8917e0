"""What stands on the landing page: the films or the strip, three panels, what was found, the parts and their map."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from games import games
from maps import Part, chapter_map, parts
from nbconvert.filters.markdown import markdown2html
from notebook_check import repository
from PIL import Image
from reading import Chapter

FILMS = {"photographs": "film-photographs", "digits": "film"}  # what is shown -> its files in docs/
NOTES = {
    "photographs": "Look closely: some of what the judge calls something else still has the shape of a car. One run of each, "
                   "with one seed; the averages below are of digits.",
    "digits": "One run of each, with one seed; averages stand below.",
}
START = "00"  # the chapter to begin with
SAYS = {
    "Forget": "A method trains the model until the label no longer draws it. A retraining from nothing would cost far more.",
    "Attack": "The attacker trains it for a moment on other pictures, none of what was forgotten, and it comes back.",
    "Remember": "DiMUM has the model memorise something else in its place. Less comes back; forgetting for longer helps, too.",
}


@dataclass(frozen=True)
class Picture:
    file: str
    alt: str
    caption: str


def landing(chapters: list[Chapter], docs: Path, site: Path) -> dict:
    """What the template of the landing page needs; the panels' pictures are written into the site."""
    columns = parts(chapters)
    films = [read_film(docs, things, name) for things, name in FILMS.items() if (docs / f"{name}.json").exists()]
    grouped = {chapter.number for part in columns for chapter in part.chapters}
    by_number = {chapter.number: chapter for chapter in chapters}
    return {
        "chapters": chapters, "parts": columns, "alone": [c for c in chapters if c.number not in grouped],
        "start": by_number.get(START), "games": games(docs, chapters), "films": films,
        "strip": "story.png" if (docs / "story.png").exists() else None, "panels": panels(films[0], docs, site) if films else [],
        "found": what_we_found(docs.parent / "README.md"), "repository": repository(),
        "map": chapter_map(columns) + chapter_map([_in_one(columns)], "narrow"),
    }


def _in_one(columns: list[Part]) -> Part:
    """All chapters below each other, for narrow windows."""
    return Part("", "", [chapter for part in columns for chapter in part.chapters])


def what_we_found(readme: Path) -> str:
    """What README says of the findings and of their limits, so that the two cannot differ; empty if there is none."""
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    section = re.search(r"^## What we found\n+(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return markdown2html(re.sub(r"\]\((?!\w+:)", f"]({repository()}/blob/main/", section[1])) if section else ""


def read_film(docs: Path, things: str, name: str) -> dict:
    """What `tools/make/film.py` wrote: picture, target, called, count, shown, and the frames of each method and the retrained model
    (phase, step, samples of the target, others that are right). Right: the others at first. Forgotten: the last frames before the
    attack."""
    film = json.loads((docs / f"{name}.json").read_text("utf-8"))
    ends = {method: [frame for frame in frames if frame[0] == "forget"][-1] for method, frames in film["methods"].items()}
    right = next(iter(film["methods"].values()))[0][3]
    return film | {"things": things, "note": NOTES[things], "right": right, "forgotten": ends}


def panels(film: dict, docs: Path, site: Path) -> list[dict]:
    """Three panels: forget, attack and remember, each with a few rows of samples cut from the film."""
    (first, frames), (second, others) = film["methods"].items()
    forgotten = max(k for k, frame in enumerate(frames) if frame[0] == "forget")
    last = len(frames) - 1
    wanted = {"Forget": [(0, 0, "before"), (0, forgotten, f"{first}: forgotten")],
              "Attack": [(0, forgotten, f"{first}: forgotten"), (0, last, f"{first}: attacked")],
              "Remember": [(1, forgotten, f"{second}: forgotten"), (1, last, f"{second}: attacked")]}
    with Image.open(docs / film["picture"]) as sheet:
        return [{"name": name, "says": SAYS[name],
                 "pictures": [_cut(sheet, film, site, column, row, called, (frames, others)[column][row][2])
                              for column, row, called in rows]} for name, rows in wanted.items()]


def _cut(sheet: Image.Image, film: dict, site: Path, column: int, row: int, called: str, seen: int) -> Picture:
    width = sheet.width // (len(film["methods"]) + 1)  # the retrained model comes last
    tile = width // film["shown"]
    piece = sheet.crop((column * width, row * tile, (column + 1) * width, (row + 1) * tile))
    file = f"pictures/film-{column}-{row}.png"
    piece.resize((piece.width * 8, piece.height * 8), Image.Resampling.BICUBIC).save(site / file)
    said = f"{seen} of {film['count']} are {film['called']}"
    return Picture(file, f"{film['shown']} samples for the label {film['target']}. {called}: {said}.", f"{called}: {said}")
