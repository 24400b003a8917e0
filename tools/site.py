"""Render the executed chapters as a site: build/site/index.html and a page a chapter, readable without a network.

    python tools/site.py             from build/notebooks (after `course.py run`)
    python tools/site.py --stored    from the outputs stored in notebooks/
"""

from __future__ import annotations

import base64
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from jinja2 import Environment, FileSystemLoader
from latex2mathml.converter import convert as to_mathml
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parent.parent
PARTS = Path(__file__).resolve().parent / "site_parts"
MATH = re.compile(r"(?P<code>```.*?```|`[^`\n]*`)|\$\$(?P<block>.+?)\$\$|(?<![\\$\w])\$(?P<inline>[^$\n]+?)\$(?!\w)", re.DOTALL)

BADGE = re.compile(r"\[!\[Open in Colab\]\([^)]*\)\]\(([^)]*)\)")  # its picture would need a network


@dataclass
class Chapter:
    stem: str
    number: str
    title: str
    aims: list[str]
    minutes: float
    body: str
    picture: bytes | None
    picture_alt: str


def with_mathml(markdown: str) -> str:
    """LaTeX between dollars as MathML, which browsers draw themselves; code is left alone."""

    def draw(match: re.Match) -> str:
        if match["code"]:
            return match["code"]
        display = "block" if match["block"] else "inline"
        return re.sub(r"\s*\n\s*", " ", to_mathml((match["block"] or match["inline"]).strip(), display=display))

    return MATH.sub(draw, markdown)


def read_chapter(path: Path) -> Chapter:
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [
        cell for cell in notebook.cells
        if "google.colab" not in cell.source and "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(BADGE.sub(r"[Open this chapter in Colab](\1)", cell.source))
        cell.outputs = [o for o in cell.get("outputs", []) if o.get("name") != "stderr"]  # progress bars
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    about = notebook.metadata.get("dimum", {})
    picture, alt = first_picture(notebook)
    body = re.sub(r'<a class="anchor-link".*?</a>', "", body)
    return Chapter(
        path.stem, path.stem.split("_")[0], about.get("title", path.stem), list(about.get("aims", [])),
        about.get("minutes", 0), body, picture, alt,
    )


def first_picture(notebook) -> tuple[bytes | None, str]:
    """The picture of a chapter's card: the one whose cell is tagged `cover`, or the first."""
    cells = sorted(notebook.cells, key=lambda cell: "cover" not in cell.metadata.get("tags", []))
    for cell in cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                return base64.b64decode(output.data["image/png"]), alt
    return None, ""


def check_pictures(page: str, name: str) -> None:
    for tag in re.findall(r"<img\b[^>]*>", page):
        alt = re.search(r'\balt="([^"]*)"', tag)
        if not alt or not alt[1] or alt[1].startswith("No description has been provided"):  # nbconvert's stopgap
            raise SystemExit(f"{name}: a picture has no text for those who cannot see it (use dimum_core.plots.show).")


def build(source: Path, site: Path) -> Path:
    chapters = [read_chapter(path) for path in sorted(source.glob("[0-9]*.ipynb"))]
    if not chapters:
        raise SystemExit(f"There are no chapters in {source}: run `make course` first.")
    shutil.rmtree(site, ignore_errors=True)
    (site / "pictures").mkdir(parents=True)
    code_style = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark_style = HtmlFormatter(style="github-dark").get_style_defs(".highlight")
    dark = "\n".join(f"@media (prefers-color-scheme: dark) {{ {line} }}" for line in dark_style.splitlines())
    (site / "style.css").write_text((PARTS / "style.css").read_text() + code_style + "\n" + dark)
    templates = Environment(loader=FileSystemLoader(PARTS), autoescape=True)
    for before, chapter, after in zip([None, *chapters], chapters, [*chapters[1:], None], strict=False):
        if chapter.picture:
            (site / "pictures" / f"{chapter.stem}.png").write_bytes(chapter.picture)
        page = templates.get_template("chapter.html").render(chapter=chapter, before=before, after=after)
        check_pictures(page, chapter.stem)
        (site / f"{chapter.stem}.html").write_text(page)
    index = site / "index.html"
    index.write_text(templates.get_template("index.html").render(chapters=chapters))
    return index


def main(arguments: list[str]) -> None:
    source = ROOT / "notebooks" if arguments == ["--stored"] else ROOT / "build" / "notebooks"
    index = build(source, ROOT / "build" / "site")
    print(f"The site is ready: open {index.relative_to(ROOT)} in a browser.")


if __name__ == "__main__":
    main(sys.argv[1:])
