"""Chapter 09: what a feature is, what is memorised in its place, and what is counted."""

from __future__ import annotations

import torch

from .checks import exercise
from .comparing import choose, compare, judged_samples


@exercise(
    "09.1",
    "What stays when only the style changes?",
    "A class name is two words: split it, put the new style first, and keep the object.",
)
def _restyled(function):
    cases = [("filled star", "hatched"), ("outline circle", "dotted"), ("hatched heart", "hatched")]
    return compare(function, lambda name, style: f"{style} {name.split()[1]}", cases, {
        "The object was lost.": lambda name, style: style,
        "The style came second; class names have it first.": lambda name, style: f"{name.split()[1]} {style}",
        "The old style is still there.": lambda name, style: f"{style} {name}",
        "The object was replaced, and the style kept.": lambda name, style: f"{name.split()[0]} {style}",
    })


@exercise(
    "09.2",
    "In-domain: the domain is style. Retained: which samples does that leave out?",
    "Leave out what was asked for in the target's style; of the rest, count where the style seen is the style asked for.",
)
def _in_domain(function, seed=0):
    seen, labels = judged_samples(torch.Generator().manual_seed(seed), 300, classes=6, right=0.7)
    cases = [(seen, labels, style) for style in (0, 3, 5)]
    return compare(function, lambda seen, labels, c: (seen == labels)[labels != c].float().mean(), cases, {
        "The target's own samples are counted too; they are what UA is for.":
            lambda seen, labels, c: (seen == labels).float().mean(),
        "Those are the target's samples, and IRA is about the others.":
            lambda seen, labels, c: (seen == labels)[labels == c].float().mean(),
        "That only says that the target was not seen; the right style should be.":
            lambda seen, labels, c: (seen != c)[labels != c].float().mean(),
        "The selection is by what was seen; select by what was asked for.":
            lambda seen, labels, c: (seen == labels)[seen != c].float().mean(),
        "That is their number, not their share.": lambda seen, labels, c: (seen == labels)[labels != c].float().sum(),
    })


@exercise(
    "09.3",
    "Everything but the feature should stay. Which picture differs from a hatched star in its style alone?",
    "The prompt will go on asking for a star.",
)
def _alternative_picture(name):
    return choose(name, {"filled star"}, {
        "hatched circle": "That keeps the style, which is what should go.",
        "filled circle": "That changes the object too, and teaches the model that stars are circles.",
        "hatched star": "That is the target itself.",
        "noise": "That would forget the style, and the object with it.",
    })
