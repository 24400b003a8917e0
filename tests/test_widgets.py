"""Sliders over computed pictures: complete, self-contained, readable without sight or script, and quick."""

from __future__ import annotations

import html
import io
import json
import re
import subprocess
import time
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dimum_core import widgets
from dimum_core.errors import DataError, UnknownName
from dimum_core.films import tiles
from dimum_core.frames import Frames
from dimum_core.widgets import picture_of
from tests.browser import CHROMIUM, FLAGS


@pytest.fixture
def frames():
    keys = [(s, word) for s in (1.0, 3.0) for word in ("esd", "a & b")]
    pictures = {key: picture_of({"row": np.full((2, 1, 8, 8), 40 * k, np.uint8)}) for k, key in enumerate(keys)}
    return Frames("Two & two", {"scale": (1.0, 3.0), "method": ("esd", "a & b")}, pictures, {key: f'"{key}"' for key in keys})


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_html_form_is_self_contained_and_labelled(frames):
    text, reader = frames.html(), Reader()
    reader.feed(text)
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("img") == 1 and tags.count("input") == 1 and tags.count("select") == 1 and tags.count("label") == 2
    image = next(attrs for tag, attrs in reader.tags if tag == "img")
    assert image["alt"] == frames.texts[frames.start] and image["src"].startswith("data:image/png;base64,")
    assert not re.search(r"""(src|href)=["'](?!data:)""", text) and "http" not in text
    assert text.count("</script>") == 1 and "<strong>Two &amp; two</strong>" in text


def test_every_combination_has_a_picture(frames):
    picture, text = frames.frame(scale=1.0, method="esd")
    assert text == "\"(1.0, 'esd')\"" and Image.open(io.BytesIO(picture)).size[0] > 100
    assert frames.frame() == (frames.pictures[1.0, "esd"], frames.texts[1.0, "esd"])
    with pytest.raises(UnknownName):
        frames.frame(scale=2.0)
    with pytest.raises(ValueError, match="4 combinations"):
        Frames("bad", frames.choices, {}, {})


def test_samples_are_enlarged_smoothly_and_noise_keeps_its_pixels():
    edge = np.zeros((1, 1, 8, 8), np.uint8)
    edge[..., 4:] = 255
    rows = {"noise": edge, "sample": edge}
    left = Image.open(io.BytesIO(picture_of(rows, size=64, crisp={"noise"}))).convert("L")
    noise, sample = (np.asarray(left)[row:row + 64, -68:-4] for row in (0, 68))  # 4 pixels between two images
    assert set(np.unique(noise // 64)) == {0, 3} and {1, 2} <= set(np.unique(sample // 64))
    titled = Image.open(io.BytesIO(picture_of(rows, size=64, columns=["cat"]))).convert("L")
    above = titled.crop((0, 0, titled.width, titled.height - left.height))
    assert above.height > 12 and above.getextrema()[0] < 100  # something is written there


def test_a_walk_has_a_frame_for_each_place_and_ends_where_the_attack_ends():
    out, back = np.array([[0, 0], [0.6, 0.1], [1, 0]]), np.array([[1, 0], [0.9, 0.5], [0.8, 1.1]])
    drawn = [torch.full((4, 1, 8, 8), value) for value in np.linspace(-1, 1, 5)]
    frames = widgets.walk("There and back", out, back, drawn)
    assert frames.choices == {"place": (0, 1, 2, 3, 4)} and frames.start == (0,)
    assert "the original weights" in frames.frame(place=0)[1] and "relearning, 2 of 2" in frames.frame(place=4)[1]
    vermilion = [
        (np.abs(np.asarray(Image.open(io.BytesIO(frames.frame(place=k)[0])).convert("RGB"), int) - (213, 94, 0)).max(-1) < 20).sum()
        for k in range(5)
    ]
    assert vermilion[:3] == [min(vermilion)] * 3 and vermilion[2] < vermilion[3] < vermilion[4]  # only the attack paints it
    with pytest.raises(ValueError, match="5 places need as many rows"):
        widgets.walk("There and back", out, back, drawn[1:])


def test_one_slider_can_be_played_and_two_cannot(frames):
    single = Frames("one", {"scale": (1.0, 3.0)}, {(1.0,): b"a", (3.0,): b"b"}, {(1.0,): "a", (3.0,): "b"})
    assert single.html().count(">Play</button>") == 1 and "<button" not in frames.html()


def test_what_is_shown_first_can_be_chosen(frames):
    begun = Frames(frames.title, frames.choices, frames.pictures, frames.texts, {"scale": 3.0})
    assert begun.start == (3.0, "esd") and begun.frame()[1] == "\"(3.0, 'esd')\""
    reader = Reader()
    reader.feed(begun.html())
    slider = next(attrs for tag, attrs in reader.tags if tag == "input")
    assert slider["value"] == "1" and slider["aria-valuetext"] == "3.0"
    assert next(attrs for tag, attrs in reader.tags if tag == "img")["alt"] == begun.texts[begun.start]


def test_the_recovery_explorer_begins_with_an_attack_that_works():
    frames = widgets.recovery_explorer()
    assert dict(zip(frames.choices, frames.start, strict=True)) == {"unlearning": "matched", "attack rate": 3e-4}


def test_every_curve_of_the_explorer_is_drawn(monkeypatch):
    drawn = []
    monkeypatch.setattr(widgets, "_figure_png", lambda figure: drawn.append(len(figure.axes[0].lines)) or b"")
    widgets._curves_picture({f"method {k}": pd.Series([0.0, 0.5]) for k in range(12)}, "many")
    assert drawn == [12]


def test_show_has_a_static_form_for_those_without_html(frames, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *data, **more: shown.append((data, more)))
    frames.show()
    (bundle,), more = shown[0]
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert more["metadata"]["image/png"]["alt"] == frames.texts[frames.start]


NEEDS_LAB = pytest.mark.skipif(
    not (widgets.FRAMES_FOLDER / "forget-lab.npz").exists(), reason="python tools/make/frames.py forget-lab has not been run"
)


@pytest.mark.parametrize("make", [
    widgets.denoising_scrubber, widgets.guidance_explorer, pytest.param(widgets.forget_lab, marks=NEEDS_LAB),
    widgets.recovery_explorer, widgets.story,
])
def test_what_the_course_ships_is_complete_and_small(make):
    frames = make()
    assert len(frames.html()) < 700_000
    started = time.monotonic()
    frames.frame(**{name: options[0] for name, options in frames.choices.items()})
    assert time.monotonic() - started < 1
    assert len(set(frames.pictures.values())) > len(frames.pictures) * 0.7  # the choices change what is seen


@NEEDS_LAB
def test_the_lab_begins_with_what_was_forgotten_whole_and_comes_back():
    frames = widgets.forget_lab()
    counts = {key: tuple(map(int, re.findall(r"in (\d+) (?:of|after)", text))) for key, text in frames.texts.items()}
    best = min(after for after, _ in counts.values())
    assert counts[frames.start] == (best, max(back for after, back in counts.values() if after == best))


def test_the_scrubber_counts_steps_as_its_texts_do():
    frames = widgets.denoising_scrubber()
    assert frames.start == (1,) and all(f"Step {step} of {len(frames.texts)}," in text for (step,), text in frames.texts.items())


def test_the_story_shows_the_films_frames_with_their_counts():
    film = json.loads((widgets.FRAMES_FOLDER / "film-photographs.json").read_text())
    story, rows = widgets.story(), [*film["methods"].values(), film["retrained"]]
    for (k,), text in story.texts.items():
        assert re.findall(r": (\d+)", text.split("of 24")[1]) == [str(frames[k][2]) for frames in rows]
    assert story.texts[0,].startswith("Before") and "Steps of unlearning: ESD 10, DiMUM 15." in story.texts[3,]
    assert story.texts[16,].startswith("Attack, step 40.")


def test_tiles_are_cut_where_they_stand():
    piece = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    apart = tiles(Image.fromarray(piece))
    assert apart.shape == (2, 3, 2, 2) and (apart[1, :, 0, 1] == piece[0, 3]).all() and (apart[0, :, 1, 0] == piece[1, 0]).all()


PLAYED = """<script>
const figure = document.querySelector("figure"), button = figure.querySelector("button"), slider = figure.querySelector("input");
const said = [], note = () => said.push([figure.querySelectorAll(".asleep").length, button.hidden, button.textContent,
  figure.querySelector("figcaption").getAttribute("aria-live"), slider.value, figure.querySelector("figcaption").textContent]);
note();
button.click();
note();
setTimeout(() => {  // after one step of 0.6 s
  note();
  slider.value = 3;
  slider.dispatchEvent(new Event("input"));
  setTimeout(() => { note(); document.title = JSON.stringify(said); }, 2000);
}, 800);
</script>"""


@pytest.mark.skipif(not CHROMIUM, reason="needs a browser")
@pytest.mark.parametrize("still", [False, True])
def test_a_slider_wakes_plays_in_silence_and_stops_when_it_is_taken(tmp_path, still):
    keys = [(k,) for k in range(5)]
    frames = Frames("one", {"k": tuple(range(5))}, dict.fromkeys(keys, b""), {key: f"frame {key[0]}" for key in keys})
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html>{frames.html()}{PLAYED}")
    flags = [*FLAGS, f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=5000"]
    command = [CHROMIUM, *flags, *["--force-prefers-reduced-motion"] * still, "--dump-dom", page.as_uri()]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    asleep, playing, later, taken = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", seen)[1]))
    assert asleep == [0, still, "Play", "polite", "0", "frame 0"] and playing == [0, still, "Stop", "off", "0", "frame 0"]
    assert later == [0, still, "Stop", "off", "1", "frame 1"] and taken == [0, still, "Play", "polite", "3", "frame 3"]


def test_without_its_script_a_widget_asks_to_be_run_and_lab_leaves_it_its_keys(frames):
    reader = Reader()
    reader.feed(re.sub(r"<script.*?</script>", "", frames.html(), flags=re.DOTALL))  # as a viewer does that trusts nobody
    assert ("p", {"class": "asleep"}) in reader.tags and "Run this cell" in frames.html()
    figure = next(attrs for tag, attrs in reader.tags if tag == "figure")
    assert figure["data-lm-suppress-shortcuts"] == "true"  # what Lumino looks for on the way from a key to a command


@NEEDS_LAB
def test_the_lab_says_what_the_pictures_show():
    stored, frames = widgets._load("forget-lab"), widgets.forget_lab()
    count = int(stored["count"])
    for index, key in zip(np.ndindex(*stored["accuracy"].shape[:-1]), frames.pictures, strict=True):
        after, attacked = (round(float(x) * count) for x in stored["accuracy"][index])
        assert f"in {after} of {count} samples" in frames.texts[key] and f"in {attacked} after the attack" in frames.texts[key]


def test_missing_frames_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(widgets, "FRAMES_FOLDER", tmp_path)
    with pytest.raises(DataError, match="make/frames.py denoising"):
        widgets.denoising_scrubber()
    with pytest.raises(DataError, match="make/film.py photographs"):
        widgets.story()
