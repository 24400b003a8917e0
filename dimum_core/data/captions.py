"""How a class name, a style and an object such as "hatched star", or a name as it is, is put into words."""

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
PLAIN_TEMPLATES = ("a photo of a {name}",)  # CLIP's own (Radford et al. 2021), for names that are no style and object


def caption(class_name: str, template: str) -> str:
    """A class name in the words of a template; underscores within a word are spaces: "Van_Gogh Dogs". DataError for a name that is
    no style and object, unless the template takes any."""
    if not isinstance(class_name, str) or (" " not in class_name and "{name}" not in template):
        raise DataError(
            f"A caption needs a class name of a style and an object, such as 'hatched star', not {brief(class_name)}: name every "
            "class in two words."
        )
    style, _, thing = (part.replace("_", " ") for part in class_name.partition(" "))
    return template.format(name=class_name.replace("_", " "), style=style, object=thing)
