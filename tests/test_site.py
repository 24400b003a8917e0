"""The site's landing page, map, links and folds, on small pieces made here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from jinja2 import Environment, FileSystemLoader
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from dimum_core.films import FILMS
from dimum_core.plots import as_svg
from dimum_core.widgets import FRAMES_FOLDER

PARTS = Path(__file__).resolve().parent.parent / "tools" / "site_parts"
sys.path[:0] = [str(PARTS), str(PARTS.parent)]

from charts import with_charts  # noqa: E402
from folding import pieces  # noqa: E402
from landing import landing  # noqa: E402
from links import Linker, slug, terms, with_anchors  # noqa: E402
from maps import needs, parts  # noqa: E402
from reading import BET, Chapter, plain, read_chapter, render, sections, with_folded_code, with_own_ids  # noqa: E402
from site_check import CHROMIUM, FLAGS  # noqa: E402

from tests.browser import browser  # noqa: E402

NUMBERS = [f"{k:02}" for k in range(13)]


def chapters(numbers=NUMBERS) -> list[Chapter]:
    return [Chapter(f"{n}_x", n, f"Title of {n}", ["see"], 2, "", None, "") for n in numbers]


def test_every_chapter_but_the_first_is_in_one_part():
    grouped = [chapter.number for part in parts(chapters()) for chapter in part.chapters]
    assert grouped == NUMBERS[1:] == sorted(needs())


@pytest.mark.parametrize("kind", ["wide", "narrow"])
def test_no_arrow_of_the_map_runs_behind_a_box(kind, tmp_path):
    drawn = re.findall(r"<svg class=\"map .*?</svg>", landing(chapters(), tmp_path, tmp_path)["map"])[kind == "narrow"]
    boxes = [tuple(map(float, b)) for b in re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', drawn)]
    paths = re.findall(r'class="arrow" d="([^"]+)"', drawn)
    assert len(boxes) == 12 and len(paths) == sum(map(len, needs().values()))
    for path in paths:
        hit = [(x, y, w, h) for px, py in points(path) for x, y, w, h in boxes if x < px < x + w and y < py < y + h]
        assert not hit, (path, hit)
    width, height = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn).groups())
    assert all(0 <= px <= width and 0 <= py <= height for path in paths for px, py in points(path))


def points(path: str) -> list[tuple[float, float]]:
    """Places along a path of M, V and C."""
    numbers = [float(n) for n in re.findall(r"[\d.]+", path)]
    if "C" not in path:
        (x, y), end = numbers[:2], numbers[2]
        return [(x, y + (end - y) * k / 20) for k in range(21)]
    p = [numbers[k:k + 2] for k in range(0, 8, 2)]
    weights = [((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3) for t in (k / 40 for k in range(41))]
    return [tuple(sum(w * q[axis] for w, q in zip(ws, p, strict=True)) for axis in (0, 1)) for ws in weights]


def test_the_findings_are_those_of_the_readme(tmp_path):
    readme = (PARTS.parent.parent / "README.md").read_text()
    found = landing(chapters(), PARTS.parent.parent / "docs", pictures(tmp_path))["found"]
    listed = readme.split("## What we found")[1].split("\n\n")[1]
    assert found.count("<li>") == listed.count("\n- ") + 1 >= 3
    assert re.findall(r"[\d.]{3,}", plain(found)) == re.findall(r"[\d.]{3,}", listed)
    assert "These figures are of small models" in plain(found)  # their limits go with them
    assert [link.rpartition("/blob/main/")[2] for link in re.findall(r'href="([^"]+)"', found)] == ["docs/results.md", "CLAIMS.md"]


def pictures(folder: Path) -> Path:
    (folder / "pictures").mkdir(exist_ok=True)
    return folder


def test_panels_are_cut_from_the_frames_that_they_name(tmp_path):
    """Two methods and a retrained model, two samples of 2 x 2 pixels: frame k of model m has grey 40 k + 70 m."""
    sheet = Image.new("L", (12, 6))
    for k in range(3):
        for m in range(3):
            sheet.paste(40 * k + 70 * m, (4 * m, 2 * k, 4 * m + 4, 2 * k + 2))
    docs, folder = tmp_path / "docs", tmp_path / "data" / "frames"
    folder.mkdir(parents=True)
    sheet.save(folder / "film.png")
    frames = [["forget", 0, 9, 8], ["forget", 4, 1, 6], ["attack", 4, 7, 7]]
    film = {"picture": "film.png", "target": "3", "called": "a 3", "count": 9, "shown": 2, "retrained": [["forget", 0, 0, 8]] * 3,
            "methods": {"A": frames, "B": [*frames[:2], ["attack", 4, 2, 7]]}}
    (folder / "film.json").write_text(json.dumps(film))
    made = landing(chapters(), docs, pictures(tmp_path))
    assert [(film["right"], film["forgotten"]) for film in made["films"]] == [(8, {"A": frames[1], "B": frames[1]})]
    shown = [(p.caption, Image.open(tmp_path / p.file).getpixel((5, 5))) for panel in made["panels"] for p in panel["pictures"]]
    assert shown == [("before: 9 of 9 are a 3", 0), *[("A: forgotten: 1 of 9 are a 3", 40)] * 2,
                     ("A: attacked: 7 of 9 are a 3", 80), ("B: forgotten: 1 of 9 are a 3", 110),
                     ("B: attacked: 2 of 9 are a 3", 150)]


DOCS = PARTS.parent.parent / "docs"


def page_of_films(folder: Path) -> tuple[Path, list[dict]]:
    """A page with the shipped films alone, and what is known of them."""
    films = landing(chapters(), DOCS, pictures(folder))["films"]
    for film in films:
        shutil.copy(FRAMES_FOLDER / film["picture"], folder)
    template = Environment(loader=FileSystemLoader(PARTS), autoescape=True).get_template("film.html")
    (folder / "film.html").write_text("<!doctype html>" + template.render(films=films, strip=None))
    return folder / "film.html", films


@pytest.mark.skipif(not CHROMIUM, reason="needs a browser")
def test_one_film_is_seen_at_a_time_and_the_choice_changes_it(tmp_path):
    page, films = page_of_films(tmp_path)
    with browser(tmp_path) as window:
        window.open(page, still=True)
        window.until("!document.querySelector('.films').hidden")
        for number, film in enumerate(films):
            window.run(f"document.querySelectorAll('[name=film]')[{number}].click()")
            assert window.run("Array.from(document.querySelectorAll('.film')).map(film => film.hidden)") == [
                k != number for k in range(len(films))]
            window.run(f"document.querySelectorAll('input[type=range]')[{number}].focus()")
            window.press("End")
            told = window.run("document.querySelector('.film:not([hidden])').innerText")
            last = [frames[-1] for frames in [*film["methods"].values(), film["retrained"]]]
            assert re.findall(r"(\d+) of 24 are", told) == [str(seen) for _, _, seen, _ in last]
            assert f"Attack, step {last[0][1]}" in told and f"one model of {film['things']} forgets the" in told.lower()


def test_the_films_are_whole_and_light():
    weights = [(DOCS / name).stat().st_size for name in ("playground.png", "playground.json")]
    for name in FILMS.values():
        film = json.loads((FRAMES_FOLDER / f"{name}.json").read_text())
        rows = [*film["methods"].values(), film["retrained"]]
        with Image.open(FRAMES_FOLDER / film["picture"]) as sheet:
            tile = sheet.width / (len(rows) * film["shown"])
            assert {len(frames) for frames in rows} == {sheet.height / tile}
        assert all(0 <= count <= film["count"] for frames in rows for frame in frames for count in frame[2:])
        assert film["retrained"][-1][2] <= film["count"] / 12  # the control: other images do not teach the target
        weights.append((FRAMES_FOLDER / film["picture"]).stat().st_size)
    assert sum(weights) < 3_000_000


@pytest.mark.skipif(not CHROMIUM, reason="needs a browser")
@pytest.mark.parametrize(("flags", "told", "counts"), [([], "Attack, step 40", [20, 7]),
                                                        (["--force-prefers-reduced-motion"], "The original", [24, 24])])
def test_the_film_runs_once_and_stands_still_if_motion_is_unwanted(tmp_path, flags, told, counts):
    page, (film, _) = page_of_films(tmp_path)
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=20000", "--dump-dom"]
    seen = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120).stdout
    assert f'<p class="phase">{told}</p>' in seen and ">Play</button>" in seen
    for (name, frames), count in zip(film["methods"].items(), counts, strict=True):
        assert frames[-1 if flags == [] else 0][2] == count and film["retrained"][-1][2] == 0
        side = rf'<p class="name">{name}</p>\s*<canvas[^>]*></canvas>\s*<p class="count">{count} of 24 are an automobile</p>'
        assert re.search(side, seen), seen
        assert re.search(rf'aria-valuetext="{told}[^"]*{name}: {count} of 24', seen)


BETS = """<!doctype html><main><p><strong>Before you look:</strong> will it come back?</p>
<details class="bet"><summary>I have a guess: show me</summary>yes</details>
<p>It does.</p><p><strong>Before you look:</strong> and with noise?</p>
<details class="bet"><summary>I have a guess: show me</summary>no</details>{guesses}</main>
<script>
const lines = document.querySelectorAll(".guess");
lines[1].value = "never <b>";
lines[1].dispatchEvent(new Event("input"));
document.querySelector("#guesses a").click();
document.querySelector("#guesses input").click();
</script>"""


@pytest.mark.skipif(not CHROMIUM, reason="needs a browser")
def test_a_guess_is_kept_and_stands_beside_what_came(tmp_path):
    page = tmp_path / "01_x.html"
    page.write_text(BETS.format(guesses=(PARTS / "guesses.html").read_text()))
    with browser(tmp_path) as opened:  # one for both days: a browser that ends at once need not have written what it keeps
        opened.open(page)
        seen = opened.run("document.body.outerHTML")
        page.write_text(page.read_text().split("<script>\nconst lines")[0])  # another day
        opened.open(page)
        again = opened.run("document.body.outerHTML")
    section = re.search(r"(?s)<section id=.guesses.>.*?</section>", seen)[0]  # no longer hidden
    assert section.count("<li>") == 1 and "and with noise? <strong>never &lt;b&gt;</strong>" in section
    assert "1 of 1 as I thought." in section and 'href="#bet-1"' in section
    first, second = re.findall(r"<details[^>]*>", seen)
    assert "open" not in first and "open" in second
    assert "never &lt;b&gt;" in again and "1 of 1 as I thought." in again


def test_charts_take_the_colours_of_the_page_and_have_ids_of_their_own():
    figure, ax = plt.subplots()
    ax.fill_between([0, 1], [0, 1], color="#0072b2")
    ax.plot([0, 1], "o", color="black")
    metadata = {"image/png": {"alt": 'It "rises" & rests.', "svg": as_svg(figure)}}
    plt.close(figure)
    drawn, old = (new_output("display_data", {"image/png": "iVBORw0="}, metadata={"image/png": kept})
                  for kept in (metadata["image/png"], {"alt": "An old one."}))
    cell = new_code_cell("show()", outputs=[drawn, old, drawn], id="cell")
    page = render([cell])
    assert page.count('<svg class="chart" role="img" aria-label="It &quot;rises&quot; &amp; rests."') == 2
    assert page.count("<img") == 1 and 'alt="An old one."' in page
    ids, uses = re.findall(r' id="([^"]+)"', page), re.findall(r'(?:href="|url\()#([^")]+)', page)
    assert len(ids) == len(set(ids)) and {name for name in ids if re.match(r"cell-\d", name)} == set(uses)
    assert not re.search(r"#000000|#ffffff|<style", page) and "fill: #0072b2" in page and "currentColor" in page
    assert cell.outputs[0].data == {"image/png": "iVBORw0="} and with_charts(new_markdown_cell("x"))[1] == {}


GLOSSARY = ("<p><strong>retrained model</strong> Never saw <math>x</math> the target. Chapter 04.</p>"
            "<p><strong>pass, network evaluation, NFE</strong> One call.</p>")


def test_terms_and_chapters_are_linked_once_and_only_in_prose():
    words = terms(GLOSSARY)
    assert set(words) == {"retrained model", "network evaluation", "NFE"}
    assert words == terms(with_anchors(GLOSSARY))
    assert words["NFE"][0] == slug("pass, network evaluation, NFE")
    assert all(f'id="{anchor}"' in with_anchors(GLOSSARY) for anchor, _ in words.values())
    link = Linker({"04": "04_what", "05": "05_how", "06": "06_why"}, words)
    page = link("<h2>A retrained model</h2><p>The retrained model, chapters 04, 05 and 06; a retrained model.</p>"
                "<pre>NFE of chapter 04</pre><p><code>NFE</code> and NFEs, in chapter 07</p>", "06_why")
    assert page.count("term-retrained-model") == 1 and "<h2>A retrained model</h2>" in page
    assert "<pre>NFE of chapter 04</pre>" in page
    assert '<a href="04_what.html">04</a>, <a href="05_how.html">05</a> and 06;' in page
    assert "<code>NFE</code> and NFEs, in chapter 07</p>" in page and "Never saw … the target." in page


PLOT = """rate = measure()
figure, (left, right) = plt.subplots(1, 2)
left.plot(rate)
right.plot(rate)
show(figure, "A curve.")"""


@pytest.mark.parametrize(("source", "tags", "seen", "called"), [
    (PLOT, [], ["rate = measure()"], "The plot"),
    (PLOT + "\nprint(rate)", [], ["rate = measure()", "print(rate)"], "The plot"),  # what comes last matters
    ("import a\nimport b\nc = 1", [], [], "Set-up: imports"),
    ("seed = 0", ["parameters"], [], "Set-up: the numbers of this chapter"),
    ("show(1)", [], ["show(1)"], ""), ("%%writefile x\nimport a", [], ["%%writefile x\nimport a"], ""),
])
def test_set_up_and_plots_are_folded_and_no_line_is_lost(source, tags, seen, called):
    found = pieces(source, tags)
    assert [code for code, name in found if not name] == seen and {name for _, name in found if name} == {called} - {""}
    assert "\n".join(code for code, _ in found) == source
    page = with_folded_code(new_code_cell(source, id="c", metadata={"tags": tags}))
    assert page.count("<details") == bool(called) and all(word in plain(page) for word in re.findall(r"\w+", source))


def test_cells_that_answer_one_bet_open_together(tmp_path):
    hidden = {"jupyter": {"outputs_hidden": True}}
    cells = [new_code_cell("a = 1", metadata=hidden), new_code_cell("b = 2", metadata=hidden), new_markdown_cell("And?"),
             new_code_cell("c = 3", metadata=hidden), new_code_cell("# @title Solution of 01.1\nd = 4"), new_code_cell("e = 5")]
    nbformat.write(new_notebook(cells=cells), tmp_path / "01_small.ipynb")
    body = read_chapter(tmp_path / "01_small.ipynb").body
    folds = [plain(each) for each in re.findall(r"<details.*?</details>", body, re.DOTALL)]
    assert [BET in fold for fold in folds] == [True, True, False] and "Solution of 01.1" in folds[2]
    assert "a = 1" in folds[0] and "b = 2" in folds[0] and "c = 3" in folds[1] and "d = 4" in folds[2]
    assert not any("e = 5" in fold for fold in folds) and "e = 5" in plain(body)


@pytest.mark.parametrize("anchor", ["", "#attack-and-defend"])
def test_a_chapters_link_to_a_page_of_docs_leads_to_the_sites_page(anchor):
    page = render([new_markdown_cell(f"[there](../docs/quizzes.md{anchor})", id="there")])
    assert f'href="quizzes.html{anchor}"' in page
    page = render([new_markdown_cell(f"[there](../docs/performance.md{anchor}) [lost](../docs/nothing.md)", id="there")])
    assert re.search(rf'href="https://github.com/[\w/-]+/blob/main/docs/performance.md{anchor}"', page)  # the site has no such page
    assert 'href="nothing.html"' in page  # which is refused when links are checked


def test_a_tables_empty_corner_is_no_header():
    page = render([new_markdown_cell("| | seen |\n|---|---|\n| **ESD** | 3 |", id="t")])
    assert re.search(r"<thead>\s*<tr>\s*<td></td>\s*<th>seen</th>", page)


def test_headings_of_the_same_words_have_ids_of_their_own():
    assert with_own_ids('<h2 id="A">A</h2><h3 id="A">A</h3>') == '<h2 id="A">A</h2><h3 id="A-2">A</h3>'


def test_the_search_knows_formulas_and_leaves_out_what_cells_printed():
    body = ('<p>The loss <math><msub><mi>&#x003B5;</mi><mi>t</mi></msub></math></p><div class="output_subarea output_stream '
            'output_stdout output_text">\n<pre>Exercise 06.1: right.</pre>\n</div><p>after</p>')
    assert sections("a.html", "A", body)[0]["text"] == "The loss \N{GREEK SMALL LETTER EPSILON}t after"
