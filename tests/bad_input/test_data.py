"""Calls that make and select data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dimum_core import load_dataset
from dimum_core.data import ImageSet, from_uint8, load_unlearn_canvas
from dimum_core.data.captions import caption
from dimum_core.data.shapes import CLASS_NAMES, render
from dimum_core.data.targets import find_target
from tests.bad_input.refusing import refused


def image_set(w, **changes):
    good = {"images": w.tiny.images, "labels": w.tiny.labels, "class_names": w.tiny.class_names, "item_hashes": w.tiny.item_hashes}
    return ImageSet("mine", **good | changes)


CASES = {
    "a data set by number": (lambda w: load_dataset(5), "no data set 5"),
    "a list of data sets": (lambda w: load_dataset(["digits"]), "no data set ['digits']"),
    "a data set by its path": (lambda w: load_dataset("../digits"), "Did you mean 'digits'"),
    "size 0": (lambda w: w.tiny.resized(0), "image size must be a whole number of at least 1, not 0"),
    "size -1": (lambda w: w.data.resized(-1), "not -1"),
    "size in words": (lambda w: w.tiny.resized("8"), "not '8'"),
    "size a half": (lambda w: w.tiny.resized(2.5), "not 2.5"),
    "size true": (lambda w: w.tiny.resized(True), "not True"),
    "size huge": (lambda w: w.tiny.resized(10**9), "cannot be averaged to 1000000000 x 1000000000"),
    "images in a list": (lambda w: image_set(w, images=[[1]]), "must be tensors of torch, not list and Tensor"),
    "images of numpy": (lambda w: image_set(w, images=w.tiny.images.numpy()), "not ndarray and Tensor"),
    "labels of numpy": (lambda w: image_set(w, labels=w.tiny.labels.numpy()), "not Tensor and ndarray"),
    "images without height": (lambda w: image_set(w, images=w.tiny.images[:, :, :0]), "shape N x C x H x W"),
    "too few hashes": (lambda w: image_set(w, item_hashes=w.tiny.item_hashes[:3]), "as many item_hashes, not 3"),
    "a class twice": (lambda w: image_set(w, class_names=("a", "a", "b")), "different names"),
    "classes in one word": (lambda w: image_set(w, class_names="abc"), "tuple of different names, not 'abc'"),
    "no classes": (lambda w: image_set(w, class_names=None), "not None"),
    "labels below 0": (lambda w: image_set(w, labels=w.tiny.labels - 1), "not in [-1, 1]"),
    "pixels of floats": (lambda w: from_uint8("mine", np.ones((2, 1, 4, 4)), [0, 1], ("a", "b")), "pixels must be uint8"),
    "pixels without channels": (lambda w: from_uint8("mine", np.zeros((2, 4, 4), np.uint8), [0, 1], ("a", "b")), "(2, 4, 4)"),
    "labels of halves": (lambda w: from_uint8("mine", np.zeros((1, 1, 4, 4), np.uint8), [0.5], ("a", "b")), "not float64"),
    "labels in words": (lambda w: from_uint8("mine", np.zeros((1, 1, 4, 4), np.uint8), ["a"], ("a", "b")), "whole numbers"),
    "an item that is not there": (lambda w: w.tiny.select([100]), "its 30 items are selected"),
    "half an item": (lambda w: w.tiny.select([0.5]), "not by tensor([0.5"),
    "an item in words": (lambda w: w.tiny.select("a"), "not by 'a'"),
    "a mask too short": (lambda w: w.tiny.select(torch.ones(3, dtype=torch.bool)), "or a mask"),
    "no selection": (lambda w: w.tiny.select(None), "not by None"),
    "repeats of no item": (lambda w: w.tiny.with_repeats([100], 2), "its 30 items are selected"),
    "repeats in words": (lambda w: w.tiny.with_repeats("a", 2), "not by 'a'"),
    "repeats by a short mask": (lambda w: w.data.with_repeats(torch.ones(3, dtype=torch.bool), 2), "or a mask"),
    "repeated no times": (lambda w: w.tiny.with_repeats([1], 0), "times must be a whole number of at least 1, not 0"),
    "repeated half a time": (lambda w: w.tiny.with_repeats([1], 1.5), "not 1.5"),
    "a target too long to print": (lambda w: w.tiny.only("x" * 5000), "xxx..."),
    "no target in a list": (lambda w: w.tiny.only([]), "There is no target in the list"),
    "words of plain classes": (lambda w: w.tiny.relabelled(0), "not a style and an object"),
    "a third word": (lambda w: w.tiny.relabelled(5), "position must be a whole number from 0 to 1"),
    "a shape below 0": (lambda w: render([-1]), "from 0 to 35"),
    "a shape too many": (lambda w: render(np.array([36])), "not array([36])"),
    "half a shape": (lambda w: render(np.array([0.5])), "not array([0.5])"),
    "shapes in a square": (lambda w: render(np.zeros((2, 2), int)), "list of whole numbers"),
    "a seed in words": (lambda w: render([0], "x"), "seed must be a whole number"),
    "a seed below 0": (lambda w: render([0], -1), "not -1"),
    "a caption of one word": (lambda w: caption("star", "a {style} {object}"), "not 'star'"),
    "a caption of nothing": (lambda w: caption(None, "a {style} {object}"), "not None"),
    "a misspelt style": (lambda w: find_target("hached", CLASS_NAMES), "Did you mean 'hatched'"),
    "an empty target": (lambda w: find_target("", CLASS_NAMES), "no style, object or class ''"),
    "a blank prompt": (lambda w: find_target("   ", CLASS_NAMES), "names nothing to forget"),
    "a prompt of two things": (lambda w: find_target("a star and a heart", CLASS_NAMES), "more than one thing"),
    "canvas at size 0": (lambda w: load_unlearn_canvas(w.canvas, image_size=0), "image_size must be"),
    "canvas at size 2.5": (lambda w: load_unlearn_canvas(w.canvas, image_size=2.5), "not 2.5"),
    "canvas: styles in one word": (lambda w: load_unlearn_canvas(w.canvas, styles="Crayon"), "styles must be a list"),
    "canvas: a style outside": (
        lambda w: load_unlearn_canvas(w.canvas, styles=["../canvas"]), "no style in this folder '../canvas'",
    ),
    "canvas: no styles": (lambda w: load_unlearn_canvas(w.canvas, styles=[]), "styles names none"),
    "canvas: counts in words": (lambda w: load_unlearn_canvas(w.canvas, per_combination="5"), "per_combination must be"),
    "canvas: a file": (lambda w: load_unlearn_canvas(w.folder / "file"), "There is no folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_call_is_refused_in_one_sentence(w, case):
    refused(w, *CASES[case])
