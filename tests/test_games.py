"""The pages to play on, in a real browser: by keys, by pointer, and without scripts, on small data made here."""

from __future__ import annotations

import itertools
import json
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from jinja2 import Environment, FileSystemLoader
from PIL import Image

from tests.browser import CHROMIUM, browser

PARTS = Path(__file__).resolve().parent.parent / "tools" / "site_parts"
sys.path[:0] = [str(PARTS), str(PARTS.parent)]

from games import GAMES, games, places, played, rounds, write_games  # noqa: E402
from reading import Chapter  # noqa: E402

ELEVEN = next((PARTS.parent.parent / "notebooks").glob("11_*.ipynb"))
COUNT, SHOWN, STEPS = 24, 8, (0, 4, 40)
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="needs a browser")


def chapter(number: str) -> Chapter:
    return Chapter(f"{number}_x", number, "", [], 1, "", None, "")


@pytest.fixture(scope="module")
def eleven() -> Chapter:
    """Chapter 11 with its stored outputs."""
    return Chapter("11_x", "11", "", [], 1, "", None, "", cells=nbformat.read(ELEVEN, as_version=4).cells)


def state(row: int, seen: int) -> dict:
    return {"row": row, "seen": seen, "kept": COUNT - 1, "marks": [int(k < seen) for k in range(SHOWN)]}


def model(first_row: int, gentle, strong) -> dict:
    ways = [[state(first_row + k, seen) for k, seen in enumerate(way)] for way in (gentle, strong)]
    return {"trained": first_row, "attacks": ways}


@pytest.fixture(scope="module")
def site(tmp_path_factory, eleven) -> Path:
    """Two targets, two methods, one budget: row k of the sheet has grey k."""
    docs, out = tmp_path_factory.mktemp("repository") / "docs", tmp_path_factory.mktemp("site")
    docs.mkdir()
    (docs.parent / "data" / "frames").mkdir(parents=True)
    models = [{"target": target, "method": method, "budget": "for long", **model(10 * k, (0, 1, 2), (0, 3, last))}
              for k, (target, method, last) in enumerate([("3", "A", 20), ("3", "B", 1), ("7", "A", 4), ("7", "B", 9)], 1)]
    about = {"data": "digits", "count": COUNT, "shown": SHOWN, "seed": 0, "methods": ["A", "B"], "budgets": ["for long"],
             "rates": [1e-4, 3e-4], "steps": STEPS, "called": {"3": "a 3", "7": "a 7"}, "targets": ["3", "7"], "models": models,
             "original": {"3": state(1, 24), "7": state(2, 23)},
             "retrained": {"3": model(60, (0, 0, 0), (0, 0, 0)), "7": model(70, (0, 0, 0), (0, 0, 5))}}
    sheet = Image.new("L", (2 * SHOWN, 160))
    for row in range(80):
        sheet.paste(3 * row, (0, 2 * row, 2 * SHOWN, 2 * row + 2))
    sheet.save(out / "playground.png")
    film = {"target": "3", "count": COUNT, "shown": SHOWN, "retrained": [["attack", 40, 0, 24]], "methods": {
        name: [["forget", 0, 24, 24], ["forget", 8, 2, 24], *[["attack", step, back * step // 4, 24] for step in range(4, 44, 4)]]
        for name, back in (("A", 2), ("B", 0))}}
    for name, content in (("playground", about), ("../data/frames/film", film)):
        (docs / f"{name}.json").write_text(json.dumps(content))
    templates = Environment(loader=FileSystemLoader(PARTS), autoescape=True)
    (out / "pictures").mkdir()
    (out / "style.css").write_text((PARTS / "style.css").read_text())
    write_games(docs, out, [chapter("06"), eleven], lambda name, template, **parts: (out / f"{name}.html").write_text(
        templates.get_template(template).render(here=name, pages=[], **parts)))
    return out


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def text(window, selector: str) -> str:
    return window.run(f"document.querySelector({json.dumps(selector)}).innerText")


def tab_to(window, selector: str) -> None:
    for _ in range(40):
        window.press("Tab")
        if window.run(f"document.activeElement.matches({json.dumps(selector)})"):
            return
    raise AssertionError(f"the tab key does not reach {selector}")


@needs_browser
def test_the_playground_is_played_by_keys_alone(site, window):
    window.open(site / "playground.html")
    window.until("!document.getElementById('lab').hidden")
    assert text(window, ".told").startswith("A: 0 of 24 are a 3.")
    tab_to(window, "[name=target]")
    window.press("ArrowRight", "Tab", "ArrowRight")
    assert text(window, "figure.model .name") == "Forgot by B" and text(window, ".phase") == "Forgotten, after 40 steps"
    tab_to(window, "input[type=range]")
    window.press("End")
    assert text(window, ".told") == "B: 9 of 24 are a 7. Of 24 samples of the other classes, 23 are right."
    assert text(window, "figure.retrained figcaption") == "5 of 24 are a 7"
    assert text(window, "figure.original figcaption") == "23 of 24 are a 7"
    assert window.run("document.querySelector('figure.model canvas').getAttribute('aria-label')") == (
        "8 samples by the model that forgets by B. 9 of 24 are a 7")
    pen = "document.querySelector('figure.model canvas').getContext('2d')"
    middle = window.run(f"Array.from({pen}.getImageData(96, 96, 1, 1).data)")
    assert middle[:3] == [3 * 42] * 3  # row 40 + 2 of the sheet
    assert "23, 0, 3, 9" in window.run("document.querySelector('.stage-chart').getAttribute('aria-label')")
    assert window.run("document.querySelector('.line.model').getAttribute('d').split('L').length") == 4
    window.press("ArrowLeft")
    assert text(window, ".phase") == "Attack, step 4 of 40"
    assert window.run("document.querySelector('.line.model').getAttribute('d').split('L').length") == 3


@needs_browser
def test_nothing_moves_by_itself_and_playing_ends_at_the_last_moment(site, window):
    window.open(site / "playground.html", still=True)
    window.until("!document.getElementById('lab').hidden")
    tab_to(window, "#lab button")
    assert text(window, "#lab button") == "Play" and window.run("document.querySelector('input[type=range]').value") == "1"
    window.press("Enter")
    window.until("document.querySelector('#lab button').innerText === 'Play'")
    assert text(window, ".phase") == "Attack, step 40 of 40" and text(window, ".told").startswith("A: 20 of 24 are a 3.")


@needs_browser
def test_bets_are_counted_against_what_the_attack_shows(site, window):
    """Four models count: 20 and 9 of 24 hide, 1 and 0 have forgotten. The judge, who sees nothing before, says forgotten."""
    window.open(site / "hiding.html")
    window.until("!document.getElementById('game').hidden")
    told = []
    for turn in range(1, 5):
        assert text(window, "#game h2") == f"Model {turn} of 4"
        tab_to(window, "button[value=hiding]")
        window.press("Enter")
        told.append(text(window, ".told"))
        assert window.run("document.activeElement.matches('.next')") and not window.run("document.querySelector('.after').hidden")
        window.press("Enter")
    assert sorted(line.split(":")[0] for line in told) == ["Forgotten", "Forgotten", "Hiding", "Hiding"]
    for line in told:
        hides = line.startswith("Hiding")
        mine, judges = ("right", "wrong") if hides else ("wrong", "right")
        assert f"You were {mine}. The judge said forgotten, and was {judges}." in line
    assert any("after the attack 20 of 24 samples are a 3. It forgot by A, in 10 steps." in line for line in told)
    assert text(window, "#game h2") == "You and the judge are even: 2 to 2, of 4"
    assert text(window, ".score") == "You 2, the judge 2, of 4."
    assert window.run("document.querySelectorAll('.past li').length") == 4


@needs_browser
def test_a_curve_is_drawn_by_keys_and_by_dragging_before_it_is_shown(site, window):
    window.open(site / "curve.html")
    window.until("!document.getElementById('draw').hidden")
    assert window.run("document.querySelector('.line.model').getAttribute('d')") == ""
    tab_to(window, "[role=slider]")
    window.press("ArrowUp", "ArrowUp", "ArrowUp", "ArrowDown")
    box = "document.querySelectorAll('[role=slider]')[4].getBoundingClientRect()"
    window.run("document.querySelector('svg').scrollIntoView({block: 'center'})")
    x, y = window.run(f"{box}.x + {box}.width / 2"), window.run(f"{box}.y + {box}.height / 2")
    rise = window.run("document.querySelector('svg').getScreenCTM().d") * (232 - 18) / COUNT  # of one sample
    window.drag((x, y), (x, y - 5 * rise), (x, y - 10 * rise))
    values = window.run("Array.from(document.querySelectorAll('[role=slider]')).map(p => p.getAttribute('aria-valuenow')).join()")
    assert values == "4,2,2,2,12"
    tab_to(window, ".show")
    window.press("Enter")
    assert text(window, ".told") == (  # off by 2, 2, 4, 10 and 8
        "A, after 8 steps. You drew 4, 2, 2, 2, 12; what came was 2, 4, 6, 12, 20, of 24. You were 5 samples off, on average. "
        "Now another model.")
    assert window.run("document.querySelector('.line.model').getAttribute('d').split('L').length") == 6
    window.run("document.querySelectorAll('[role=slider]')[0].focus()")
    window.press("ArrowUp")
    assert window.run("document.querySelector('[role=slider]').getAttribute('aria-valuenow')") == "4"  # too late


@needs_browser
@pytest.mark.parametrize(("page", "part", "said"), [
    ("playground", "lab", ["3: forgot by A, in 10 steps", "20 of 24", "7: never saw a 7"]),
    ("hiding", "game", ["Asked for a 7: forgotten, or hiding?"]), ("curve", "draw", ["I have drawn mine"]),
    ("walk", None, ["The original weights", "samples show the digit", "Unlearning ends here."]),
])
def test_without_scripts_there_is_a_form_to_read(site, window, page, part, said):
    window.open(site / f"{page}.html", scripts=False)
    shown = window.run("document.querySelector('main').innerText")
    assert all(words in shown for words in said)
    assert window.run(f"document.querySelector('{'#' + part if part else '.seen'}').hidden")
    assert window.run("document.documentElement.scrollWidth - innerWidth") <= 0


@needs_browser
@pytest.mark.parametrize("still", [False, True])
def test_the_walk_goes_on_by_scrolling_or_by_a_slider_where_motion_is_unwanted(site, window, eleven, still):
    walk = places([eleven], "11")
    window.open(site / "walk.html", still=still)
    window.until("!document.querySelector('.seen').hidden")
    assert text(window, "li.here h2") == "The original weights"
    if still:
        assert window.run("Array.from(document.querySelectorAll('.places li')).filter(one => one.offsetHeight).length") == 1
    tab_to(window, "input[type=range]")
    window.press("End")
    window.until(f"document.querySelector('li.here') === document.querySelectorAll('.places li')[{len(walk) - 1}]")
    assert f"{walk[-1]['seen']} of {walk[-1]['of']} samples" in window.run("document.querySelector('.seen input').ariaValueText")
    assert f"walk-{len(walk) - 1}.png" in window.run("document.querySelector('.way').style.backgroundImage")
    if not still:
        window.run("document.querySelectorAll('.places li')[2].scrollIntoView({block: 'center'})")
        window.until("document.querySelector('.way').style.backgroundImage.includes('walk-2.png')")


def test_the_walk_is_that_of_the_chapters_output(eleven):
    printed = next(output["text"] for cell in eleven.cells for output in cell.get("outputs", [])
                   if "show the target at places" in output.get("text", ""))
    walk = places([eleven], "11")
    assert [place["seen"] for place in walk] == json.loads(re.search(r"\[.*\]", printed)[0]) and len(walk) > 6
    assert walk[0]["where"] == "the original weights" and walk[-1]["where"].startswith("relearning, ")
    assert places([chapter("11")], "11") == [] == places([eleven], "07")


def test_games_stand_only_where_their_data_are_and_at_their_chapters(tmp_path):
    docs, film = tmp_path / "docs", tmp_path / "data" / "frames" / "film.json"
    docs.mkdir()
    film.parent.mkdir(parents=True)
    assert games(docs, []) == ()
    film.write_text("{}")
    assert [game.name for game in games(docs, [])] == ["curve"]
    at = {number: {when: [game.name for game in found] for when, found in played(chapter(number), GAMES).items()}
          for number in ("03", "06", "07", "08")}
    assert at["03"] == {"before": [], "after": ["hiding"]} and at["06"] == {"before": ["curve"], "after": ["hiding"]}
    assert at["07"] == {"before": [], "after": ["playground"]} and at["08"] == {"before": [], "after": []}


DOCS = PARTS.parent.parent / "docs"


def shipped() -> tuple[dict, list[dict]]:
    """The playground's data, and each state of it with its target."""
    about = json.loads((DOCS / "playground.json").read_text())
    models = [*about["models"], *({"target": target, **model} for target, model in about["retrained"].items())]
    states = [{"target": model["target"], **found} for model in models for way in model["attacks"] for found in way]
    return about, states + [{"target": target, **found} for target, found in about["original"].items()]


def test_the_playground_has_every_combination_and_all_its_pictures():
    about, states = shipped()
    wanted = list(itertools.product(about["targets"], about["methods"], about["budgets"]))
    assert [(model["target"], model["method"], model["budget"]) for model in about["models"]] == wanted
    assert {len(way) for model in about["models"] for way in model["attacks"]} == {len(about["steps"])}
    assert {len(model["attacks"]) for model in about["models"]} == {len(about["rates"])}
    sheet = Image.open(DOCS / "playground.png")
    tile = sheet.width // about["shown"]
    assert {state["row"] for state in states} == set(range(sheet.height // tile))


def test_frames_of_the_playground_are_what_the_judge_says_of_the_pictures():
    from dimum_core.judges import load_judge

    about, states = shipped()
    sheet = torch.from_numpy(np.array(Image.open(DOCS / "playground.png"))).float() / 127.5 - 1
    tile, judge = sheet.shape[1] // about["shown"], load_judge(f"{about['data']}-judge")
    tiles = sheet.unfold(0, tile, tile).unfold(1, tile, tile)  # rows x shown x tile x tile
    said = judge.judge(tiles.reshape(-1, 1, tile, tile)).labels.reshape(tiles.shape[:2])
    marks = torch.stack([said[state["row"]] == int(state["target"]) for state in states])
    wanted = torch.tensor([state["marks"] for state in states]).bool()
    assert (marks == wanted).float().mean() > 0.99  # rounding to bytes may turn one
    assert all(sum(state["marks"]) <= state["seen"] <= about["count"] for state in states)


def test_there_is_something_to_bet_on():
    about, _ = shipped()
    hiding = [game["hiding"] for game in rounds(about)]
    assert min(hiding.count(True), hiding.count(False)) >= 3
    assert all(model["attacks"][-1][-1]["seen"] <= about["count"] / 12 for model in about["retrained"].values())
