"""Exercises: right answers pass, each plausible wrong one is told its mistake. Pictures carry their text."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest

from dimum_core.course import check, checks, given, hint, variant
from dimum_core.course.checks import EXERCISES, verdict
from dimum_core.course.comparing import compare, same
from dimum_core.course.variants import PHOTOGRAPHS
from dimum_core.errors import UnknownName
from dimum_core.plots import COLOURS, METHOD_COLOURS, as_picture, as_svg, image_rows, in_fewer_shades, line_colours, show

from .course_answers import ANSWERS

ALL_WRONG = [(number, k) for number, (_, wrong) in sorted(ANSWERS.items()) for k in range(len(wrong))]


@pytest.fixture(autouse=True)
def fresh_learner():
    checks._failures.clear()
    checks._hints_shown.clear()


def test_every_exercise_has_a_right_answer_and_at_least_three_wrong_ones():
    assert set(ANSWERS) == set(EXERCISES)
    assert {number: len(wrong) for number, (_, wrong) in ANSWERS.items() if len(wrong) < 3} == {}
    chapters = {number[:2] for number in EXERCISES}
    assert all(sum(number.startswith(chapter) for number in EXERCISES) >= 3 for chapter in chapters)


@pytest.mark.parametrize("number", sorted(ANSWERS))
def test_right_answers_pass_whatever_the_random_inputs(number, capsys):
    right, _ = ANSWERS[number]
    assert check(number, right) is True, capsys.readouterr().out
    assert check(number, ...) is None and check(number, None) is None
    assert capsys.readouterr().out.count("not answered yet") == 2
    for seed in range(1, 6):
        assert verdict(number, right, seed=seed).right is True


@pytest.mark.parametrize("number", ["01.3", "01.6"])
def test_a_loss_that_draws_for_itself_is_never_refused_by_bad_luck(number):
    assert all(verdict(number, ANSWERS[number][0], seed=seed).right is True for seed in range(6, 60))


@pytest.mark.parametrize("k", range(5))
def test_only_a_size_near_the_smallest_counts_whatever_the_numbers(k):
    """Oracle: scipy's interval. Near is within 7 %, or within 8 samples."""
    p, width = given("03.1", f"student {k}").values()

    def wide(n):
        interval = binomtest(round(p * n), n).proportion_ci(0.95, "wilson")
        return interval.high - interval.low

    smallest = next(n for n in range(int(3.7 * p * (1 - p) * (1.96 / width) ** 2), 5000) if wide(n) <= width)
    slack = max(8, 0.07 * smallest)
    for n, right in ((smallest, True), (smallest - slack + 2, True), (smallest - slack - 2, False), (smallest + slack + 2, False),
                     (2 * smallest, False)):
        assert verdict("03.1", n, f"student {k}").right is right, (p, width, smallest, n)


@pytest.mark.parametrize(("number", "k"), ALL_WRONG)
def test_no_wrong_answer_survives_and_each_is_told_its_mistake(number, k):
    wrong, words = ANSWERS[number][1][k]
    for seed in range(3):
        found = verdict(number, wrong, seed=seed)
        assert found.right is False and words in found.said, found


@pytest.mark.parametrize(("a", "b", "alike"), [
    (np.str_("ESD"), "ESD", True), ("ESD", "DiMUM", False), (None, None, True), (None, np.zeros(2), False), ("a", 1.0, False),
    (np.array([1.0, 2.0]), (1.0, 2.0), True), (torch.tensor([1.0]), (1.0, 2.0), False), (np.float64(1.0), (1.0,), False),
    ([1.0, (2.0, 3.0)], (1.0, [2.0, 3.0]), True), (torch.ones(2, 1), torch.ones(2), False),
])
def test_what_is_the_same_whatever_holds_it(a, b, alike):
    assert same(a, b) is alike


def test_the_number_of_mutants_is_known(record_property):
    """The course says how many wrong answers were tried; keep what it says true."""
    record_property("wrong answers", len(ALL_WRONG))
    print(f"{len(ANSWERS)} exercises, {len(ALL_WRONG)} wrong answers, none survives")
    assert len(ALL_WRONG) >= 3 * len(EXERCISES)


def test_hints_come_one_by_one_and_never_before_they_are_asked_for(capsys):
    wrong = ANSWERS["01.2"][1][0][0]
    check("01.2", wrong)
    first = capsys.readouterr().out
    assert "Start from the equation" in first and "Solve x_t" not in first and 'hint("01.2")' in first
    check("01.2", wrong)
    assert "Start from the equation" not in capsys.readouterr().out
    for _ in range(4):
        hint("01.2")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("Hint 1 of 3")
    assert "Solve x_t" in said[1] and "First take away" in said[2] and "no further hint" in said[3]


def test_a_checker_that_only_says_no_is_enough(capsys, monkeypatch):
    monkeypatch.setattr(checks, "EXERCISES", {})
    checks.exercise("99.1", "Count again.")(lambda answer: answer == 4)
    assert check("99.1", 4) is True and check("99.1", 5) is False
    assert capsys.readouterr().out == "Exercise 99.1: right.\nExercise 99.1: not yet. Count again.\n"


def test_an_answer_that_fails_is_told_how(capsys):
    assert check("01.2", lambda x_t, eps, abar: undefined) is False  # noqa: F821
    assert "NameError" in capsys.readouterr().out
    assert check("01.2", lambda x_t, eps, abar: ...) is None
    with pytest.raises(UnknownName):
        check("99.9", 1)


def test_arrays_that_begin_alike_are_told_apart_where_they_differ():
    zeros, one = np.zeros((2, 4)), np.zeros((2, 4))
    one[1, 2] = 1
    said = compare(lambda x: [x, one], lambda x: [x, zeros], [(zeros,)])
    assert said.endswith("(0, 0, 0, ...) with 0 at [1, 2] was expected, not with 1 there.")
    said = compare(lambda x: [1, 2, 3, 4, 5], lambda x: [1, 2, 3, 4, 5, 6], [(zeros,)])
    assert said.endswith("[1, 2, 3, 4, ...] of 6 items was expected, not [1, 2, 3, 4, ...] of 5.")


def test_a_gap_of_the_student_edition_stops_the_notebook():
    def gap(x_t, eps, abar):
        raise NotImplementedError("Exercise 01.2")

    with pytest.raises(NotImplementedError, match=r"Exercise 01.2"):
        check("01.2", gap)


def test_an_answer_cannot_spoil_the_inputs_of_the_reference():
    def in_place(x_t, eps, abar):
        return x_t.zero_()

    assert verdict("01.2", in_place).right is False


def test_each_student_has_numbers_of_their_own():
    assert given("02.2") == {"w": 1.5} and given("02.2", "ada") == given("02.2", " Ada ")
    assert given("02.2", "\u00c5sa") == given("02.2", "A\u030asa")  # as macOS writes the name of a file
    drawn = {given("02.2", f"student {k}")["w"] for k in range(40)}
    assert len(drawn) >= 6 and 1.5 not in drawn
    w = given("02.2", "ada")["w"]
    assert verdict("02.2", 1 + w, "ada").right is True
    assert verdict("02.2", 2.5, "ada").right is False  # another's answer does not fit
    assert all(verdict("03.1", 870, f"student {k}").right is not None for k in range(5))


def test_a_variant_follows_from_the_id_alone():
    assert variant("ada") == variant("ada") and variant("ada").photograph in PHOTOGRAPHS
    many = [variant(f"student {k}") for k in range(200)]
    assert {v.digit for v in many} == set("0123456789") and {v.photograph for v in many} == set(PHOTOGRAPHS)
    assert len({(v.seed, v.sample_seed) for v in many}) == 200


def test_show_displays_picture_text_and_caption(monkeypatch):
    plt.close("all")  # of other tests
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *things: shown.extend(things))
    figure, ax = plt.subplots()
    ax.plot([0, 1])
    show(figure, "A caption.", "A line that rises.")
    data, metadata = shown[0]._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == "A line that rises." and data["image/png"]
    assert shown[1].data == "*A caption.*" and not plt.get_fignums()
    assert metadata["image/png"]["svg"].startswith("<svg ")
    show(image_rows({"real": torch.zeros(3, 1, 4, 4)}), "A row.", "Three grey images.")
    assert set(shown[2]._repr_mimebundle_()[1]["image/png"]) == {"alt"}  # images stay images


def test_a_chart_as_svg_is_its_picture_with_words_that_can_be_read():
    """Oracles: an XML parser, matplotlib's own SVG, and the numbers that were drawn."""
    figure, ax = plt.subplots()
    ax.plot([0, 1, 2], [0.1, 0.123456, 0.9], color="#0072b2")
    ax.set(title="A & B < C", xlabel="share of 0.123456", xlim=(0, 2), ylim=(0, 1))
    drawing, own = as_svg(figure), io.StringIO()
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(own, format="svg", bbox_inches="tight")
    short, whole = ElementTree.fromstring(drawing), ElementTree.fromstring(own.getvalue())
    words = [text.text for text in short.iter("{http://www.w3.org/2000/svg}text")]
    assert words == [text.text for text in whole.iter("{http://www.w3.org/2000/svg}text")]
    assert "A & B < C" in words and "share of 0.123456" in words
    paths = [[np.array(re.findall(r"-?[\d.]+", path.get("d")), dtype=float)
              for path in svg.iter("{http://www.w3.org/2000/svg}path")] for svg in (short, whole)]
    assert all(np.abs(a - b).max() < 0.011 for a, b in zip(*paths, strict=True))
    assert as_svg(figure) == drawing and len(drawing) < 0.8 * len(own.getvalue())
    ax.plot(*np.random.default_rng(0).random((2, 4000)), "o")
    assert as_svg(figure) is None  # too much for a notebook
    plt.close(figure)


def test_a_stored_picture_has_fewer_shades_and_no_eye_can_tell():
    shades = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    shades[0] = 255
    png = io.BytesIO()
    Image.fromarray(shades).save(png, format="PNG")
    stored = np.asarray(Image.open(io.BytesIO(in_fewer_shades(png.getvalue()))))
    assert len(np.unique(stored)) <= 65 and np.abs(stored.astype(int) - shades).max() <= 3
    assert (stored[0] == 255).all() and stored.shape == shades.shape  # white paper stays white


def test_pictures_are_scaled_alike_and_rows_are_labelled():
    grey = torch.tensor([-1.0, 0.0, 0.5, 2.0]).view(1, 2, 2)
    assert as_picture(grey).shape == (2, 2, 3)
    np.testing.assert_allclose(as_picture(grey)[..., 0], [[0, 0.5], [0.75, 1]])
    figure = image_rows({"real": torch.zeros(3, 1, 4, 4), "drawn": torch.zeros(2, 1, 4, 4)}, "Title", ["a", "b", "c"])
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["real", "drawn"]
    assert [ax.get_title() for ax in figure.axes[:3]] == ["a", "b", "c"] and len(figure.axes) == 6
    assert [ax.spines["top"].get_visible() for ax in figure.axes] == 5 * [True] + [False]  # a frame around each picture
    plt.close(figure)
    ways = [image_rows({"x": torch.zeros(1, 1, 4, 4)}, raw=raw).axes[0].images[0].get_interpolation() for raw in (False, True)]
    assert ways == ["bicubic", "nearest"]
    verdict = SimpleNamespace(labels=torch.tensor([1, -1, 0]))
    judge = SimpleNamespace(class_names=("cat", "ship"), judge=lambda images: verdict)
    said = [ax.get_xlabel() for ax in image_rows({"drawn": torch.zeros(3, 1, 4, 4)}, judge=judge).axes]
    assert said == ["ship", "none", "cat"]
    plt.close("all")


def test_neighbouring_colours_differ_in_lightness_or_hue_for_the_colour_blind():
    """Okabe and Ito's colours, seen by someone without red-green vision (Vienot's matrix), stay apart."""
    rgb = np.array([[int(c[i:i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    deuteranope = rgb @ np.array([[0.625, 0.375, 0.0], [0.7, 0.3, 0.0], [0.0, 0.3, 0.7]]).T
    distances = np.linalg.norm(deuteranope[:, None] - deuteranope, axis=-1)[np.triu_indices(len(COLOURS), 1)]
    assert distances.min() > 0.1


def test_a_method_keeps_its_colour_and_no_two_lines_share_one():
    assert line_colours(["DiMUM", "ESD"]) == [METHOD_COLOURS["dimum"], METHOD_COLOURS["esd"]]
    assert line_colours(["uce", "esd", "munba"]) == [COLOURS[1], METHOD_COLOURS["esd"], COLOURS[2]]
    for names in (["dimum (class)", "dimum (mixed)", "esd"], ["a", "b", "original", "retrained"], list(METHOD_COLOURS)):
        assert len(set(line_colours(names))) == len(names)
    assert len(line_colours([*METHOD_COLOURS, "a", "b"])) == len(METHOD_COLOURS) + 2
