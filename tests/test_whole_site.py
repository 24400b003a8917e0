"""The site of the chapters as they are stored and the pages of docs/, read by a parser of HTML that the builder does not use."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest

from .test_course_tools import ROOT, site

UNREAD = {"script", "style", "pre", "code", "svg"}  # nobody takes what is in there for prose
LOADS = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}


class Page(HTMLParser):
    """What a page links and loads, its ids, its prose, and how many formulas stand on lines of their own."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.loads, self.ids, self.prose, self.unread, self.displays = [], [], [], [], [], 0
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        for key, value in attrs:
            self.ids += [value] * (key == "id")
            self.links += [value] * ((tag, key) == ("a", "href"))
            self.loads += [value] * ((tag, key) in LOADS)
            self.displays += (key, value) == ("class", "katex-display")
        self.unread += [tag] * (tag in UNREAD)

    def handle_endtag(self, tag):
        if self.unread and tag == self.unread[-1]:
            self.unread.pop()

    def handle_data(self, data):
        self.prose += [] if self.unread else [data]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return site.build(ROOT / "notebooks", tmp_path_factory.mktemp("whole") / "site").parent


@pytest.fixture(scope="module")
def pages(built) -> dict[str, Page]:
    return {path.name: Page(path) for path in sorted(built.glob("*.html"))}


def test_every_chapter_and_page_is_there_and_all_links_lead_somewhere(built, pages):
    stems = [path.stem for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")]
    assert len(stems) >= 13
    names = ("index", "search", *site.PAGES, *stems, *(f"{stem}-slides" for stem in stems))
    assert {f"{name}.html" for name in names} <= pages.keys()
    lost, inner = [], 0
    for name, page in pages.items():
        for link in map(urlsplit, page.links):
            if link.scheme in ("http", "https", "mailto"):
                continue
            target, inner = unquote(link.path) or name, inner + 1
            found = target in pages if target.endswith(".html") else (built / target).is_file()
            anchors = {link.fragment, unquote(link.fragment)}  # a browser tries both
            if not found or (link.fragment and target in pages and anchors.isdisjoint(pages[target].ids)):
                lost.append((name, link.geturl()))
    assert not lost and inner > 500


def test_nothing_is_loaded_from_elsewhere_and_all_that_is_loaded_is_there(built, pages):
    loads = {(name, load) for name, page in pages.items() for load in page.loads if not load.startswith("data:")}
    assert len(loads) > 2 * len(pages)  # the two style sheets
    assert [pair for pair in loads if not (built / unquote(pair[1])).is_file()] == []


def test_no_command_of_tex_can_be_read_and_every_display_formula_is_drawn(pages):
    left = {name: re.findall(r"\\[A-Za-z]+|\$\$|\\[,;!|{}]", "".join(page.prose)) for name, page in pages.items()}
    assert {name: found for name, found in left.items() if found} == {}
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        cells = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "markdown"]
        assert pages[f"{path.stem}.html"].displays == sum(cell.count("$$") for cell in cells) / 2, path.stem
        told = "\n".join(cells).split("## Where to read on")[0]
        assert pages[f"{path.stem}-slides.html"].displays == told.count("$$") / 2, path.stem
