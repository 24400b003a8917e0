"""What stands on the landing page: the films or the strip, three panels, what was found, the parts and their map."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from games import games
from maps import Part, chapter_map, parts
from nbconvert.filters.markdown import markdown2html
from notebook_check import repository
from PIL import Image
from reading import Chapter

from dimum_core.films import FILMS, cut, forgotten_at, read_film, said

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
    frames = docs.parent / "data" / "frames"
    films = [film_shown(frames, things, name) for things, name in FILMS.items() if (frames / f"{name}.json").exists()]
    grouped = {chapter.number for part in columns for chapter in part.chapters}
    by_number = {chapter.number: chapter for chapter in chapters}
    return {
        "chapters": chapters, "parts": columns, "alone": [c for c in chapters if c.number not in grouped],
        "start": by_number.get(START), "games": games(docs, chapters), "films": films,
        "strip": "story.png" if (docs / "story.png").exists() else None, "panels": panels(films[0], frames, site) if films else [],
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


def film_shown(folder: Path, things: str, name: str) -> dict:
    """A film with what its caption says. Right: the others at first. Forgotten: each method's frame before the attack."""
    film = read_film(folder, name)
    last = forgotten_at(film)
    ends = {method: frames[last] for method, frames in film["methods"].items()}
    right = next(iter(film["methods"].values()))[0][3]
    return film | {"things": things, "note": NOTES[things], "right": right, "forgotten": ends}


def panels(film: dict, folder: Path, site: Path) -> list[dict]:
    """Three panels: forget, attack and remember, each with a few rows of samples cut from the film."""
    (first, frames), (second, others) = film["methods"].items()
    forgotten, last = forgotten_at(film), len(frames) - 1
    wanted = {"Forget": [(0, 0, "before"), (0, forgotten, f"{first}: forgotten")],
              "Attack": [(0, forgotten, f"{first}: forgotten"), (0, last, f"{first}: attacked")],
              "Remember": [(1, forgotten, f"{second}: forgotten"), (1, last, f"{second}: attacked")]}
    with Image.open(folder / film["picture"]) as sheet:
        return [{"name": name, "says": SAYS[name],
                 "pictures": [_cut(sheet, film, site, column, row, called, (frames, others)[column][row][2])
                              for column, row, called in rows]} for name, rows in wanted.items()]


def _cut(sheet: Image.Image, film: dict, site: Path, column: int, row: int, called: str, seen: int) -> Picture:
    piece, file, caption = cut(sheet, film, column, row), f"pictures/film-{column}-{row}.png", f"{called}: {said(film, seen)}"
    piece.resize((piece.width * 8, piece.height * 8), Image.Resampling.BICUBIC).save(site / file)
    return Picture(file, f"{film['shown']} samples for the label {film['target']}. {caption}.", caption)
