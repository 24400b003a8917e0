"""The map of the chapters: a box each, arrows from what it builds on."""

from __future__ import annotations

import html
import textwrap
from pathlib import Path

import yaml
from reading import Chapter

WIDTH, HEIGHT, GAP_X, GAP_Y = 150, 76, 34, 18


def needs() -> dict[str, list[str]]:
    return yaml.safe_load((Path(__file__).with_name("map.yaml")).read_text())


def places(chapters: list[Chapter]) -> dict[str, tuple[int, int]]:
    """Column and row of each chapter: a column further than the last one that it builds on; rows are filled from above."""
    wanted, column = needs(), {}
    for chapter in chapters:
        column[chapter.number] = 1 + max((column.get(n, -1) for n in wanted.get(chapter.number, [])), default=-1)
    filled: dict[int, int] = {}
    found = {}
    for chapter in chapters:
        place = column[chapter.number]
        found[chapter.number] = place % 4, (place // 4) * 3 + filled.setdefault(place, 0)
        filled[place] += 1
    return found


def chapter_map(chapters: list[Chapter]) -> str:
    """Inline SVG; every box is a link, and the whole is described in words for those who cannot see it."""
    at = places(chapters)
    rows = sorted({row for _, row in at.values()})
    at = {number: (column, rows.index(row)) for number, (column, row) in at.items()}
    width = (max(c for c, _ in at.values()) + 1) * (WIDTH + GAP_X)
    height = len(rows) * (HEIGHT + GAP_Y)
    lines, boxes, words = [], [], []
    for chapter in chapters:
        x, y = (at[chapter.number][0] * (WIDTH + GAP_X), at[chapter.number][1] * (HEIGHT + GAP_Y))
        on = [n for n in needs().get(chapter.number, []) if n in at]
        lines += [_arrow(at[n], at[chapter.number]) for n in on]
        words.append(f"{chapter.number} {chapter.title}" + (f" builds on {', '.join(on)}" if on else " needs nothing"))
        title = textwrap.wrap(chapter.title, 19)[:3]
        spans = "".join(f'<tspan x="{x + 10}" dy="15">{html.escape(line)}</tspan>' for line in title)
        boxes.append(
            f'<a href="{chapter.stem}.html" aria-label="{chapter.number}, {html.escape(chapter.title)}">'
            f'<rect x="{x + 1}" y="{y + 1}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
            f'<text x="{x + 10}" y="{y + 4}"><tspan class="number" x="{x + WIDTH - 22}" dy="15">{chapter.number}</tspan>'
            f'<tspan x="{x + 10}" dy="-15"></tspan>{spans}</text></a>'
        )
    described = html.escape(". ".join(words) + ".")
    return (f'<svg class="map" viewBox="0 0 {width} {height}" role="group" aria-label="Map of the chapters. {described}">'
            f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0L8 4L0 8z"/></marker></defs>{"".join(lines)}{"".join(boxes)}</svg>')


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1 = start[0] * (WIDTH + GAP_X) + WIDTH + 2, start[1] * (HEIGHT + GAP_Y) + HEIGHT // 2
    x2, y2 = end[0] * (WIDTH + GAP_X), end[1] * (HEIGHT + GAP_Y) + HEIGHT // 2
    if x2 <= x1 - WIDTH:  # to the next line of the map
        middle = y2 - HEIGHT // 2 - GAP_Y // 2
        x1, x2 = x1 - WIDTH // 2, x2 + WIDTH // 2
        path = f"M{x1} {y1 + HEIGHT // 2 + 1}V{middle}H{x2}V{y2 - HEIGHT // 2}"
    else:
        path = f"M{x1} {y1}C{x1 + GAP_X} {y1} {x2 - GAP_X} {y2} {x2} {y2}"
    return f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>'
