"""Charts on the site: the SVG that `dimum_core.plots.show` keeps beside a picture, in the colours of the page."""

from __future__ import annotations

import copy
import html
import re

from nbformat.v4 import new_output

COLOURS = {"#000000": "currentColor", "#ffffff": "var(--ground)"}  # black on white, as charts are stored, fits no dark page


def with_charts(cell) -> tuple:
    """A cell with a mark in place of each chart, and mark -> SVG, since nbconvert would change it on its way. Chapters that were
    stored before charts had an SVG keep the PNG."""
    drawn = {k: drawing for k, output in enumerate(cell.get("outputs", [])) if (drawing := _drawing(output))}
    if not drawn:
        return cell, {}
    marked, found = copy.deepcopy(cell), {}
    for k, drawing in drawn.items():
        mark = f"<!--chart {cell.id}-{k}-->"
        found[mark] = inline(drawing, cell.outputs[k].metadata["image/png"].get("alt", ""), f"{cell.id}-{k}")
        marked.outputs[k] = new_output("display_data", {"text/html": mark})
    return marked, found


def _drawing(output) -> str:
    return output.get("metadata", {}).get("image/png", {}).get("svg", "")


def inline(drawing: str, alt: str, name: str) -> str:
    """An SVG for a page. name: makes its ids differ from those of other charts of the page."""
    drawing = re.sub(r"<!--.*?-->|<style.*?</style>", "", drawing, flags=re.DOTALL)  # a style would be the whole page's
    used = set(re.findall(r'(?:"|url\()#([\w-]+)', drawing))
    drawing = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", drawing)
    drawing = re.sub(r'("|url\()#([\w-]+)(?=[")])', lambda m: f"{m[1]}#{name}-{m[2]}", drawing)
    for colour, seen in COLOURS.items():
        drawing = drawing.replace(colour, seen)
    said = f'<svg class="chart" role="img" aria-label="{html.escape(alt)}" '
    return f'<div class="plot">{drawing.replace("<svg ", said, 1)}</div>'
