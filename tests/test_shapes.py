"""Shapes: the pictures are what they are called and the same each time; targets are sets of labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dimum_core.data import load_dataset
from dimum_core.data.shapes import CLASS_NAMES, DISTANCES, OBJECTS, STYLES, render
from dimum_core.data.targets import find_target, word_kinds
from dimum_core.errors import DataError, UnknownName
from dimum_core.models.codec import Codec
from dimum_core.models.conditions import ClassConditions


def test_pictures_are_a_function_of_labels_and_seed():
    labels = np.arange(36)
    assert (render(labels, 3) == render(labels, 3)).all()
    assert (render(labels, 3) != render(labels, 4)).mean() > 0.5
    assert render(labels).shape == (36, 3, 16, 16) and render(labels[:0]).shape == (0, 3, 16, 16)


def test_the_area_of_each_object_is_that_of_its_formula():
    """Count points with negative distance on a fine grid, and compare with the area from geometry."""
    side = np.linspace(-1.5, 1.5, 1201)
    u, v = np.meshgrid(side, side)
    area = {name: (distance(u, v) < 0).sum() * (side[1] - side[0]) ** 2 for name, distance in DISTANCES.items()}
    star = 10 * 0.5 * 1.1 * 0.46 * np.sin(np.pi / 5)  # ten triangles between a tip, an inner corner and the centre
    triangle = 3 * 3**0.5 * 0.56**2  # inscribed circle of radius 0.56
    cross = 2 * 2 * 0.68 - 0.68**2
    heart = 1.12**2 + np.pi * 0.56**2  # a square and two half circles
    expected = {"circle": np.pi * 0.92**2, "square": 1.6**2, "triangle": triangle, "star": star, "cross": cross, "heart": heart}
    for name in OBJECTS:
        assert area[name] == pytest.approx(expected[name], rel=0.01), name


def test_styles_put_different_amounts_of_ink_in_the_middle():
    """A filled circle is dark in the middle, an outlined one is not; a watercolour has no sharp edge."""
    pixels = {style: render(np.full(40, CLASS_NAMES.index(f"{style} circle"))).astype(float).mean(1) for style in STYLES}
    centre = {style: p[:, 7:9, 7:9].mean() - p[:, 0].mean() for style, p in pixels.items()}
    assert centre["filled"] < -60 and abs(centre["outline"]) < 10
    steepest = {style: np.abs(np.diff(p, axis=2)).max((1, 2)).mean() for style, p in pixels.items()}
    assert steepest["watercolour"] < 0.5 * steepest["filled"]


def test_the_data_set_is_balanced_and_its_splits_differ():
    data = load_dataset("shapes")
    assert data.class_names == CLASS_NAMES and len(CLASS_NAMES) == 36
    assert data.train.labels.bincount().tolist() == [300] * 36 and data.test.labels.bincount().tolist() == [50] * 36
    assert not np.isin(data.test.item_hashes, data.train.item_hashes).any()


def test_a_target_is_a_set_of_labels(shapes):
    assert len(shapes.train.only("outline")) == len(shapes.train.only("star")) == 6 * 4
    assert len(shapes.train.only("outline star")) == 4 and len(shapes.train.without("outline")) == 30 * 4
    assert {CLASS_NAMES[i].split()[0] for i in shapes.train.without("outline").labels.tolist()} == set(STYLES[1:])
    assert find_target("a drawing of a hatched star", CLASS_NAMES).name == "hatched star"
    assert find_target('"A Hatched star!"', CLASS_NAMES).name == "hatched star"
    canvas = ("Van_Gogh Dogs", "Van_Gogh Cats", "Crayon Dogs", "Crayon Cats")
    assert find_target("A Dogs image in Van Gogh style.", canvas).name == "Van_Gogh Dogs"
    assert find_target("in the style of van gogh", canvas).name == "Van_Gogh"
    assert find_target("paint it in hatched style", CLASS_NAMES).position == 0


def test_a_style_and_an_object_that_are_not_there_together_are_no_target():
    names = ("outline star", "filled star", "outline heart")
    for asked in ("filled heart", "a drawing of a filled heart"):
        with pytest.raises(UnknownName, match="no style, object or class 'filled heart'"):
            find_target(asked, names)


def test_what_stands_in_for_the_target_is_never_the_target():
    names = ("outline star", "filled star", "outline heart")  # no filled heart
    outline = find_target("outline", names)
    assert outline.moved("filled").tolist() == [1, 1, 1] and outline.moved().tolist() == [0, 0, 2]
    assert outline.neighbours(0).tolist() == outline.neighbours(2).tolist() == [1]


@pytest.mark.parametrize("names", [
    ("goldfish", "great white shark", "tiger shark", "great grey owl"), ("red fox", "grey wolf", "polar bear", "snow leopard"),
])
def test_classes_of_several_words_that_are_no_grid_are_all_neighbours(names):
    assert find_target(names[1], names).neighbours(1).tolist() == [0, 2, 3]


def test_what_stands_in_is_drawn_for_each_label_from_all_of_its_own():
    names = ("a star", "b star", "c star", "a heart", "b heart")  # no c heart
    condition = torch.tensor([0] * 50 + [3] * 50)
    drawn = ClassConditions("a", 5, Codec(), names).instead(condition, torch.Generator().manual_seed(0))
    assert set(drawn[:50].tolist()) == {1, 2} and set(drawn[50:].tolist()) == {4}
    stars = ClassConditions("outline", 36, Codec(), CLASS_NAMES)
    near = torch.stack([stars.forgotten.neighbours(label) for label in range(6)])
    asked = torch.arange(6).repeat(20)
    at_once = torch.randint(5, asked.shape, generator=torch.Generator().manual_seed(1))  # results were made with this draw
    assert torch.equal(stars.instead(asked, torch.Generator().manual_seed(1)), near[asked, at_once])


def test_single_word_classes_are_targets_as_before(tiny_data):
    target = find_target("top", tiny_data.class_names)
    assert target.labels == (1,) and target.others.tolist() == [0, 2] and target.neighbours(1).tolist() == [0, 2]
    assert word_kinds(tiny_data.class_names) == () and target.moved().tolist() == [1, 1, 1]


def test_moving_and_neighbours_change_one_word():
    star = CLASS_NAMES.index("filled star")
    moved = find_target("outline", CLASS_NAMES).moved()
    assert CLASS_NAMES[moved[star]] == "outline star"
    near = find_target("outline", CLASS_NAMES).neighbours(CLASS_NAMES.index("outline star"))
    assert {CLASS_NAMES[i] for i in near.tolist()} == {f"{style} star" for style in STYLES[1:]}
    one = find_target("outline star", CLASS_NAMES)
    assert len(one.neighbours(one.labels[0])) == 10 and set(one.moved().tolist()) == set(one.labels)


@pytest.mark.parametrize(("target", "error", "message"), [
    ("outlien", UnknownName, "Did you mean 'outline'"),
    ("a blue dog", DataError, "names nothing to forget"),
    ("a hatched filled star", DataError, "more than one thing"),
    (36, UnknownName, "There is no class 36"),
])
def test_what_is_no_target_is_refused_in_one_sentence(target, error, message):
    with pytest.raises(error, match=message):
        find_target(target, CLASS_NAMES)


def test_relabelling_keeps_the_images(shapes, tiny_data):
    styles = shapes.train.relabelled(0)
    assert styles.class_names == STYLES and torch.equal(styles.images, shapes.train.images)
    assert (styles.labels == shapes.train.labels // 6).all()
    assert (shapes.train.relabelled(1).labels == shapes.train.labels % 6).all()
    with pytest.raises(DataError, match="not a style and an object"):
        tiny_data.relabelled(0)
