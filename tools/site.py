"""Render the executed chapters as a site: build/site/index.html and a page a chapter, readable without a network.

    python tools/site.py             from build/notebooks (after `course.py run`)
    python tools/site.py --stored    from the outputs stored in notebooks/

Beside the chapters: slides of each, the pages of docs/, a search, and the notebooks to download.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from pygments.formatters import HtmlFormatter

ROOT = Path(__file__).resolve().parent.parent
PARTS = Path(__file__).resolve().parent / "site_parts"
sys.path.insert(0, str(PARTS))

from formulas import KATEX, check_formulas, typeset  # noqa: E402
from games import Game, games, played, write_games  # noqa: E402
from landing import landing  # noqa: E402
from links import Linker, terms, with_anchors  # noqa: E402
from reading import PAGES, Chapter, contents, read_chapter, read_page, sections  # noqa: E402
from slides import slides  # noqa: E402


def check_pictures(page: str, name: str) -> None:
    for tag in re.findall(r'<img\b[^>]*>|<svg class="chart"[^>]*>', page):
        alt = re.search(r'\b(?:alt|aria-label)="([^"]*)"', tag)
        if not alt or not alt[1] or alt[1].startswith("No description has been provided"):  # nbconvert's stopgap
            raise SystemExit(f"{name}: a picture has no text for those who cannot see it (use dimum_core.plots.show).")


def check_links(site: Path) -> None:
    """Every link within the site leads somewhere."""
    ids = {path.name: set(re.findall(r'\bid="([^"]+)"', path.read_text("utf-8"))) for path in site.glob("*.html")}
    for path in site.glob("*.html"):
        text = re.sub(r"<script\b.*?</script>", "", path.read_text("utf-8"), flags=re.DOTALL)
        for target in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            if re.match(r"(https?:|data:|mailto:)", target):
                continue
            file, _, anchor = target.partition("#")
            file = file.split("?")[0] or path.name
            if not (site / file).exists() or (anchor and file in ids and anchor not in ids[file]):
                raise SystemExit(f"{path.name}: the link to {target} leads nowhere.")


def write_style(site: Path) -> None:
    light = HtmlFormatter(style="default").get_style_defs(".highlight")
    dark = HtmlFormatter(style="github-dark").get_style_defs(".highlight").splitlines()
    dark = [line for line in dark if line.startswith(".")]
    system = "\n".join(f"@media (prefers-color-scheme: dark) {{ :root:not([data-theme=light]) {line} }}" for line in dark)
    chosen = "\n".join(f":root[data-theme=dark] {line}" for line in dark)
    shutil.copytree(KATEX, site / "katex", ignore=shutil.ignore_patterns("*.js", "*.md"))
    (site / "style.css").write_text("\n".join([(PARTS / "style.css").read_text("utf-8"), light, system, chosen]), "utf-8")


def copy_downloads(source: Path, site: Path) -> None:
    """The notebooks themselves, with gaps and without."""
    for folder in (source, ROOT / "notebooks" / "student"):
        out = site / "downloads" / (folder.name if folder.name == "student" else "")
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("[0-9]*.ipynb")):
            shutil.copy(path, out / path.name)


def build(source: Path, site: Path, docs: Path = ROOT / "docs") -> Path:
    chapters = [read_chapter(path) for path in sorted(source.glob("[0-9]*.ipynb"))]
    if not chapters:
        raise SystemExit(f"There are no chapters in {source}: run `make course` first.")
    aside = site.with_name(f".{site.name}")  # a site that stands is whole: the former one stays until this one is
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "pictures").mkdir(parents=True)
    write_style(aside)
    copy_downloads(source, aside)
    all_games = games(docs, chapters)
    there = [(name, title) for name, title in PAGES.items() if (docs / f"{name}.md").exists()]
    write = writer(aside, [(game.name, "Play") for game in all_games[:1]] + there)
    read = read_pages(docs)
    link = Linker({chapter.number: chapter.stem for chapter in chapters}, terms(read["glossary"][1]) if "glossary" in read else {})
    entries = write_chapters(chapters, aside, write, link, all_games) + write_pages(read, docs, aside, write, link)
    entries += write_games(docs, aside, chapters, write)
    write("search", "search.html", entries=json.dumps(entries).replace("</", "<\\/"))
    write("index", "index.html", **landing(chapters, docs, aside))
    check_links(aside)
    shutil.rmtree(site, ignore_errors=True)
    aside.rename(site)
    return site / "index.html"


def writer(site: Path, pages: list[tuple[str, str]]):
    """What writes a page from a template, once its pictures are known to have texts."""
    templates = Environment(loader=FileSystemLoader(PARTS), autoescape=True)

    def write(name: str, template: str, **parts) -> Path:
        text = typeset(templates.get_template(template).render(pages=pages, here=name, **parts))
        check_pictures(text, name)
        check_formulas(text, name)
        (site / f"{name}.html").write_text(text, "utf-8")
        return site / f"{name}.html"

    return write


def read_pages(docs: Path) -> dict[str, tuple[str, str]]:
    """Name -> title and body of the pages of docs/ that the site has; the glossary's entries can be linked."""
    read = {name: read_page(docs / f"{name}.md") for name in PAGES if (docs / f"{name}.md").exists()}
    return {name: (title, with_anchors(body) if name == "glossary" else body) for name, (title, body) in read.items()}


def write_pages(read: dict, docs: Path, site: Path, write, link: Linker) -> list[dict]:
    """The pages of docs/, their pictures and the films'; returns what the search knows of them."""
    entries = []
    for name, (title, body) in read.items():
        write(name, "page.html", title=title, body=Linker(link.numbers, {})(body))
        entries += sections(f"{name}.html", title, body)
    frames = docs.parent / "data" / "frames"
    for picture in [*docs.glob("*.png"), *frames.glob("*.png"), *frames.glob("*.webp")]:
        shutil.copy(picture, site / picture.name)
    return entries


def write_chapters(chapters: list[Chapter], site: Path, write, link: Linker, all_games: tuple[Game, ...]) -> list[dict]:
    """A page and slides for each chapter; returns what the search knows of them."""
    entries = []
    for before, chapter, after in zip([None, *chapters], chapters, [*chapters[1:], None], strict=False):
        if chapter.picture:
            (site / "pictures" / f"{chapter.stem}.png").write_bytes(chapter.picture)
        student = (site / "downloads" / "student" / f"{chapter.stem}.ipynb").exists()
        write(chapter.stem, "chapter.html", chapter=chapter, before=before, after=after, student=student, chapters=chapters,
              contents=contents(chapter.body), body=link(chapter.body, chapter.stem), games=played(chapter, all_games))
        write(f"{chapter.stem}-slides", "slides.html", chapter=chapter, slides=slides(chapter))
        entries += sections(f"{chapter.stem}.html", f"{chapter.number} {chapter.title}", chapter.body)
    return entries


def main(arguments: list[str]) -> None:
    source = ROOT / "notebooks" if arguments == ["--stored"] else ROOT / "build" / "notebooks"
    index = build(source, ROOT / "build" / "site")
    print(f"The site is ready: open {index.relative_to(ROOT)} in a browser.")


if __name__ == "__main__":
    main(sys.argv[1:])
