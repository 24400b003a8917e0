"""How a class name, a style and an object such as "hatched star", is put into words."""

from __future__ import annotations

from ..errors import DataError, brief

WORD_KINDS = ("style", "object")  # what the words of a two-word class name are
TEMPLATES = (
    "a {style} {object}",
    "{object}, {style}",
    "a drawing of a {style} {object}",
    "a {object} in {style} style",
    "{style} style, a {object}",
    "a {object}, drawn in {style}",
)
PARTIAL_TEMPLATES = ("a {object}", "{style} style")  # a tenth of the captions leave a word out
PARTIAL_SHARE = 0.1
PARAPHRASES = ("a drawing in {style} style of a {object}", "{style} {object}", "in {style}, a drawing of a {object}")  # held out
CANVAS_TEMPLATES = ("A {object} image in {style} style.",)  # UnlearnCanvas's own wording


def caption(class_name: str, template: str) -> str:
    """A class name in the words of a template; underscores within a word are spaces: "Van_Gogh Dogs"."""
    if not isinstance(class_name, str) or " " not in class_name:
        raise DataError(f"A caption needs a class name of a style and an object, such as 'hatched star', not {brief(class_name)}.")
    style, thing = class_name.split(" ", 1)
    return template.format(style=style.replace("_", " "), object=thing.replace("_", " "))
