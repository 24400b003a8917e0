"""What the site reads: chapters (notebooks) and pages (Markdown), as HTML."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby, starmap
from pathlib import Path

import nbformat
from charts import with_charts
from folding import pieces
from formulas import with_mathml
from nbconvert import HTMLExporter
from nbconvert.filters.markdown import markdown2html
from notebook_check import COLAB, repository
from outputs import is_progress

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = {"glossary": "Glossary", "cheat_sheet": "Cheat sheet", "failures": "What goes wrong", "quizzes": "Quizzes",
         "bibliography": "Sources"}  # those of docs/ that the site has
SOLUTION = re.compile(r"# @title Solution of ([\d.]+)")
BET = "I have a guess: show me"
ANCHOR = re.compile(r'<a class="anchor-link".*?</a>')
HEADING = re.compile(r'<h([23])[^>]*\bid="([^"]+)"[^>]*>(.*?)</h\1>', re.DOTALL)
TAG = re.compile(r"<(script|style|svg)\b.*?</\1>|<[^>]+>", re.DOTALL)
MATHML = re.compile(r"<math\b.*?</math>", re.DOTALL)
CODE = re.compile(r'<div class="highlight hl-.*?</pre></div>', re.DOTALL)
UNSEARCHED = re.compile(r'<div class="[^"]*highlight.*?</pre>\s*</div>|<div class="prompt[^>]*>.*?</div>'
                        r'|<div class="output_subarea output_stream.*?</pre>\s*</div>|<summary>.*?</summary>', re.DOTALL)


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
    samples: bool = False  # does the picture show samples, or is it a chart?
    colab: str = ""
    cells: list = field(default_factory=list)


def read_chapter(path: Path) -> Chapter:
    notebook = nbformat.read(path, as_version=4)
    if any(output.output_type == "error" for cell in notebook.cells for output in cell.get("outputs", [])):
        raise SystemExit(f"A cell of {path.name} ended in an error: run the chapter again before it goes onto the site.")
    colab = next((m[1] for cell in notebook.cells if (m := COLAB.search(cell.source))), "")
    notebook.cells = [
        cell for cell in notebook.cells
        if "google.colab" not in cell.source and "injected-parameters" not in cell.metadata.get("tags", [])
    ]
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(COLAB.sub("", cell.source))
        else:
            cell.outputs = [output for output in cell.get("outputs", []) if not is_progress(output)]
    body = with_own_ids("".join(starmap(fold, groupby(notebook.cells, why_folded))))
    about = notebook.metadata.get("dimum", {})
    picture, alt, samples = first_picture(notebook)
    return Chapter(
        path.stem, path.stem.split("_")[0], about.get("title", path.stem), list(about.get("aims", [])),
        about.get("minutes", 0), body, picture, alt, samples, colab, notebook.cells,
    )


def render(cells: list) -> str:
    notebook = nbformat.v4.new_notebook()
    marked = [with_charts(cell) for cell in cells]
    notebook.cells = [cell for cell, _ in marked]
    body, _ = _exporter().from_notebook_node(notebook)
    for mark, chart in (item for _, charts in marked for item in charts.items()):
        body = body.replace(mark, chart)
    body = body.replace('href="student/', 'href="downloads/student/')
    body = without_empty_headers(re.sub(r'href="(?:\.\./)+docs/(\w+)\.md(#[\w-]+)?"', _page_of_docs, body))
    return body if "<h" not in body else ANCHOR.sub("", body)


def without_empty_headers(body: str) -> str:
    """The corner of a table is a cell like any other: a header that says nothing would be read aloud beside each number."""
    return re.sub(r"<th\b([^>]*)>\s*</th>", r"<td\1></td>", body)


def _page_of_docs(link: re.Match) -> str:
    """Where a link to a page of docs/ leads: to the site's page, or to the repository's where the site has none."""
    name, anchor = link[1], link[2] or ""
    if name not in PAGES and (DOCS / f"{name}.md").exists():
        return f'href="{repository()}/blob/main/docs/{name}.md{anchor}"'
    return f'href="{name}.html{anchor}"'


_EXPORTERS: list[HTMLExporter] = []


def _exporter() -> HTMLExporter:
    if not _EXPORTERS:
        _EXPORTERS.append(HTMLExporter(template_name="basic"))
    return _EXPORTERS[0]


def with_folded_code(cell) -> str:
    """A cell, its set-up or plotting folded."""
    body = render([cell])
    if cell.cell_type != "code" or SOLUTION.search(cell.source):
        return body
    found = pieces(cell.source, cell.metadata.get("tags", []))
    if not any(called for _, called in found):
        return body
    code = "".join(_folded(piece, called) if called else highlighted(piece) for piece, called in found)
    return CODE.sub(lambda match: code, body, count=1)


def _folded(source: str, called: str) -> str:
    summary = f"{called} <span>{len(source.splitlines())} lines</span>"
    return f'<details class="code"><summary>{summary}</summary>{highlighted(source)}</details>'


@cache
def highlighted(source: str) -> str:
    return CODE.search(render([nbformat.v4.new_code_cell(source, id="code")]))[0]


def with_own_ids(body: str) -> str:
    """A page whose headings have each an id of their own: the second of the same words gets a number."""
    seen: dict[str, int] = {}

    def number(match: re.Match) -> str:
        seen[match[2]] = seen.get(match[2], 0) + 1
        return match[0] if seen[match[2]] == 1 else f'{match[1]}{match[2]}-{seen[match[2]]}"'

    return re.sub(r'(<h[1-6][^>]*\bid=")([^"]+)"', number, body)


def why_folded(cell) -> str:
    """A solution stays out of sight until it is asked for, and what answers a bet until the reader has one."""
    found = SOLUTION.search(cell.source)
    return f"Solution of {found[1]}" if found else BET if cell.metadata.get("jupyter", {}).get("outputs_hidden") else ""


def fold(why: str, cells: Iterable) -> str:
    """Cells one after the other, behind one line to open if they are folded."""
    body = "".join(map(with_folded_code, cells))
    kind = ' class="bet"' if why == BET else ""
    return f"<details{kind}><summary>{why}</summary>{body}</details>" if why else body


def first_picture(notebook) -> tuple[bytes | None, str, bool]:
    """The picture of a chapter's card: samples, if it has any (those tagged `cover`, or the first); its text; and is it samples?"""

    def rank(cell) -> tuple[bool, bool]:
        return "image_rows(" not in cell.source, "cover" not in cell.metadata.get("tags", [])

    cells = sorted(notebook.cells, key=rank)
    for cell in cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output.metadata.get("image/png", {}).get("alt", "")
                return base64.b64decode(output.data["image/png"]), alt, not rank(cell)[0]
    return None, "", False


def read_page(path: Path) -> tuple[str, str]:
    """Title and body of a Markdown page; links to other pages point at their HTML, headings have the
    anchors that they have on GitHub, where chapters and pages link to them, too."""
    text = path.read_text(encoding="utf-8")
    title = text.split("\n", 1)[0].lstrip("# ").strip()
    body = re.sub(r'<h[1-6][^>]*\bid="[^"]+"', lambda heading: heading[0].lower(), markdown2html(with_mathml(text)))
    body = ANCHOR.sub("", re.sub(r'href="(?!https?:)(?:\.\./)*(?:docs/)?([\w/-]+)\.md(#[\w-]+)?"', _page_of_docs, body))
    return title, without_empty_headers(body)


def plain(body: str) -> str:
    """The text of a piece of HTML; of a formula, its letters."""
    body = MATHML.sub(lambda match: re.sub(r"<[^>]+>|\s+", "", match[0]), body)
    return re.sub(r"\s+", " ", html.unescape(TAG.sub(" ", body))).strip()


def contents(body: str) -> list[tuple[str, str]]:
    """The main headings of a page, each with the anchor that leads to it."""
    return [(m[2], plain(m[3])) for m in HEADING.finditer(body) if m[1] == "2"]


def sections(name: str, title: str, body: str) -> list[dict]:
    """For the search: each section of a page, with where it is and what it says. Prose is searched, not code."""
    body = UNSEARCHED.sub(" ", body)
    starts = [(0, "", title)] + [(m.start(), "#" + m[2], f"{title}: {plain(m[3])}") for m in HEADING.finditer(body)]
    ends = [start for start, *_ in starts[1:]] + [len(body)]
    return [
        {"at": name + anchor, "title": heading, "text": plain(body[start:end])[:6000]}
        for (start, anchor, heading), end in zip(starts, ends, strict=True)
    ]
