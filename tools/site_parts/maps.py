"""The parts of the course, and the map of its chapters: a column a part, a box a chapter, arrows from what it builds on."""

from __future__ import annotations

import html
import textwrap
from dataclasses import dataclass
from pathlib import Path

import yaml
from reading import Chapter

WIDTH, HEIGHT, GAP_X, GAP_Y, TOP = 170, 66, 44, 22, 28


@dataclass
class Part:
    name: str
    about: str
    chapters: list[Chapter]


def needs() -> dict[str, list[str]]:
    return yaml.safe_load((Path(__file__).with_name("map.yaml")).read_text("utf-8"))


def parts(chapters: list[Chapter]) -> list[Part]:
    """The parts that have chapters, each with its own; a chapter that no part names is in none."""
    found = yaml.safe_load((Path(__file__).with_name("parts.yaml")).read_text("utf-8"))
    by_part = [Part(part["name"], part["about"], [c for c in chapters if c.number in part["chapters"]]) for part in found]
    return [part for part in by_part if part.chapters]


def chapter_map(columns: list[Part], kind: str = "wide") -> str:
    """Inline SVG; every box is a link, and the whole is described in words for those who cannot see it."""
    boxes, lines, words, built_on = [], [], [], needs()
    at = {c.number: (k, row) for k, part in enumerate(columns) for row, c in enumerate(part.chapters)}
    for part in columns:
        for chapter in part.chapters:
            on = [n for n in built_on.get(chapter.number, []) if n in at]
            lines += [_arrow(at[n], at[chapter.number]) for n in on]
            boxes.append(_box(chapter, at[chapter.number]))
            words.append(f"{chapter.number} {chapter.title}" + (f" builds on {', '.join(on)}" if on else " comes first"))
    heads = [f'<text class="part" x="{k * (WIDTH + GAP_X) + 2}" y="16">{html.escape(part.name)}</text>'
             for k, part in enumerate(columns)]
    width = len(columns) * (WIDTH + GAP_X)
    height = TOP + max((row + 1 for _, row in at.values()), default=0) * (HEIGHT + GAP_Y)
    described = html.escape(". ".join(words) + ".")
    return (f'<svg class="map {kind}" viewBox="0 0 {width} {height}" role="group" aria-label="Map of the chapters. {described}">'
            f'<defs><marker id="tip-{kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z"/></marker></defs>{"".join(heads)}'
            + "".join(lines).replace("#tip", f"#tip-{kind}") + "".join(boxes) + "</svg>")


def _place(at: tuple[int, int]) -> tuple[int, int]:
    return at[0] * (WIDTH + GAP_X) + 1, TOP + at[1] * (HEIGHT + GAP_Y)


def _box(chapter: Chapter, at: tuple[int, int]) -> str:
    x, y = _place(at)
    title = textwrap.wrap(chapter.title, 18)[:3]
    spans = "".join(f'<tspan x="{x + 36}" dy="{17 if k else 0}">{html.escape(line)} </tspan>' for k, line in enumerate(title))
    first = y + HEIGHT / 2 + 4.5 - 8.5 * (len(title) - 1)
    return (f'<a href="{chapter.stem}.html" aria-label="{chapter.number} {html.escape(chapter.title)}">'
            f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
            f'<text class="number" x="{x + 10}" y="{first}">{chapter.number}</text> <text y="{first}">{spans}</text></a>')


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """Straight down to the next box of a column, round the boxes between to a later one, across to another column."""
    (x1, y1), (x2, y2) = _place(start), _place(end)
    if start[0] != end[0]:
        x1, y1, x2, y2 = x1 + WIDTH, y1 + HEIGHT // 2, x2 - 1, y2 + HEIGHT // 2
        path = f"M{x1} {y1}C{x1 + GAP_X} {y1} {x2 - GAP_X} {y2} {x2} {y2}"
    elif end[1] == start[1] + 1:
        path = f"M{x1 + WIDTH // 2} {y1 + HEIGHT}V{y2 - 1}"
    else:
        x1, y1, y2 = x1 + WIDTH, y1 + HEIGHT // 2, y2 + HEIGHT // 2
        path = f"M{x1} {y1}C{x1 + GAP_X} {y1} {x1 + GAP_X} {y2} {x1 + 1} {y2}"
    return f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>'
