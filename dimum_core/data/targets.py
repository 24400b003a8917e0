"""What is to be forgotten: a class, a word that several class names share, such as a style, several of these, or single images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence, Set
from dataclasses import dataclass
from numbers import Integral
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError, UnknownName
from .captions import WORD_KINDS


class Labelled(Protocol):
    """What a target asks of an image set (`ImageSet` is one)."""

    name: str
    labels: Tensor
    class_names: tuple[str, ...]
    item_hashes: np.ndarray

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Target:
    """What is to be forgotten, as a set of labels, or as single images under their labels.

    position: which word of a class name it is (0: the style, 1: the object); None if it is a whole class name.
    items: hashes of the images, if only these are to be forgotten and not their labels.
    parts: the targets, if it is several at once, all of one kind: classes, styles or objects.
    """

    name: str
    class_names: tuple[str, ...]
    labels: tuple[int, ...]
    position: int | None = None
    items: frozenset[bytes] = frozenset()
    parts: tuple[Target, ...] = ()

    @property
    def each(self) -> tuple[Target, ...]:
        """The targets that it is: itself, or several."""
        return self.parts or (self,)

    @property
    def said(self) -> str | list[str]:
        """What `find_target` knows it by, and JSON can hold: a name, or a list of names."""
        return [part.name for part in self.parts] or self.name

    def selects(self, images: Labelled) -> Tensor:
        """Which images of a set are to be forgotten: bool, N. A single image is known by its pixels, so its repeats are too."""
        if not self.items:
            return self.among(images.labels)
        return torch.from_numpy(np.array([item.tobytes() in self.items for item in images.item_hashes], dtype=bool))

    def among(self, labels: Tensor) -> Tensor:
        """Which labels belong to the target: bool, of the same shape."""
        return torch.isin(labels, torch.tensor(self.labels, device=labels.device))

    @property
    def kind(self) -> str:
        """class, style or object."""
        return "class" if self.position is None else WORD_KINDS[self.position]

    @property
    def in_words(self) -> str:
        """The class 3, say, or the styles outline and hatched."""
        if self.items:
            return self.name
        plural = {"class": "classes"}.get(self.kind, f"{self.kind}s")
        return f"the {plural if self.parts else self.kind} {self.name}"

    @property
    def others(self) -> Tensor:
        """Every label that does not belong to the target, in order; with single images of every label, all of them."""
        labels = torch.arange(len(self.class_names))
        return labels if self.items and len(self.labels) == len(labels) else labels[~self.among(labels)]

    def moved(self, name: str | None = None) -> Tensor:
        """For each label the one with the target in its place, all else kept: "filled star" to "outline star" for the style
        "outline". Single images have their own label, so none moves. name: another word of the same kind, or class, in the
        target's place, without which several targets have none."""
        if self.items and name is None:
            return torch.arange(len(self.class_names))
        name = self.name if name is None else name
        if self.position is None:
            return torch.full((len(self.class_names),), self.class_names.index(name))
        return torch.tensor([self._renamed(label, name) for label in self.class_names])

    def _renamed(self, label: str, name: str) -> int:
        words = label.split(" ")
        words[self.position] = name
        moved = " ".join(words)
        if moved in self.class_names:
            return self.class_names.index(moved)
        return next(i for i, other in enumerate(self.class_names) if other.split(" ")[self.position] == name)

    def neighbours(self, label: int) -> Tensor:
        """The labels next to one of the target's: those that differ in the target's word alone; for a whole class, in one word of
        two. Where there are none, or names are not a style and an object, every label but the target's."""
        words, own = self.class_names[label].split(" "), (label,) if self.items else self.labels  # single images may take another

        def near(name: str) -> bool:
            differing = [i for i, (a, b) in enumerate(zip(words, name.split(" "), strict=True)) if a != b]
            return len(differing) == 1 if self.position is None else differing == [self.position]

        there = [i for i in range(len(self.class_names)) if i not in own]
        labels = [i for i in there if near(self.class_names[i])] if word_kinds(self.class_names) else []
        return torch.tensor(labels or there, dtype=torch.int64)


Wanted = str | int | Target | Labelled | Sequence | Set | np.ndarray  # whatever `find_target` takes


def find_target(target: Wanted, class_names: tuple[str, ...]) -> Target:
    """A class by name or number, a word of class names, a prompt that has such words in it, or an image set: just these images.
    A list, a set or an array: several of these at once, but not images.

    Raises UnknownName for a name that is none of these, DataError for a prompt that has none, or two of a kind, for images of
    other classes, and for several targets that are not of one kind.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, (list, tuple, set, frozenset, np.ndarray)):
        return _several([find_target(each, class_names) for each in target])
    if hasattr(target, "item_hashes"):
        return _single_images(target, class_names)
    words = word_kinds(class_names)
    target = as_spelt(target, (*class_names, *(word for kind in words for word in kind)))
    if not isinstance(target, str) or target in class_names or not words:
        label = class_index(target, class_names)
        return Target(class_names[label], class_names, (label,))
    word = target.replace(" ", "_") if target.replace(" ", "_") in {w for kind in words for w in kind} else target
    for position, kind in enumerate(words):
        if word in kind:
            labels = tuple(i for i, name in enumerate(class_names) if name.split(" ")[position] == word)
            return Target(word, class_names, labels, position)
    named = _named_in(target, words) if " " in target else target
    if named == target:  # a word that there is not, or a style and an object that there are, but not together
        raise UnknownName("style, object or class", target, (*(w for kind in words for w in kind), *class_names))
    return find_target(named, class_names)


def _several(targets: list[Target]) -> Target:
    """Several targets as one, in the order of their labels; each counts once."""
    if not targets:
        raise DataError("There is no target in the list: name what is to be forgotten.")
    parts = tuple(sorted(dict.fromkeys(part for target in targets for part in target.each), key=lambda part: part.labels))
    if len(parts) == 1:
        return parts[0]
    if any(part.items for part in parts):
        raise DataError("Single images are one target: give them as one image set, and by themselves.")
    if len({part.position for part in parts}) > 1:
        kinds = ", ".join(f"{part.name} ({part.kind})" for part in parts)
        raise DataError(f"Several targets are all classes, all styles or all objects, not {kinds}: take one kind after the other.")
    names, class_names = [part.name for part in parts], parts[0].class_names
    labels = tuple(sorted(label for part in parts for label in part.labels))
    if len(labels) == len(class_names):
        raise DataError(f"The targets {', '.join(names)} are all that there is: leave something to be kept.")
    return Target(f"{', '.join(names[:-1])} and {names[-1]}", class_names, labels, parts[0].position, parts=parts)


def _single_images(images: Labelled, class_names: tuple[str, ...]) -> Target:
    if not len(images):
        raise DataError(f"{images.name}: there are no images to forget.")
    if images.class_names != class_names:
        raise DataError(f"The images to forget have other classes than the model or the data: {', '.join(images.class_names[:5])}.")
    items = frozenset(item.tobytes() for item in images.item_hashes)
    labels = tuple(images.labels.unique().tolist())
    return Target(f"{len(items)} image{'s' * (len(items) > 1)} of {images.name}", class_names, labels, items=items)


def is_target(name: str, class_names: tuple[str, ...]) -> bool:
    """Whether a name is a class, a style or an object here."""
    return name in class_names or any(name in kind for kind in word_kinds(class_names))


def word_kinds(class_names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The words at each position of two-word class names, styles and objects; nothing if the names are not of two words."""
    split = [name.split(" ") for name in class_names]
    return tuple(tuple(dict.fromkeys(kind)) for kind in zip(*split, strict=True)) if {len(s) for s in split} == {2} else ()


def _named_in(prompt: str, words: tuple[tuple[str, ...], ...]) -> str:
    """The class, style or object that a prompt speaks of."""
    said = _plain(prompt)
    named = [word for kind in words for word in kind if _plain(word) in said]
    whole = [word for word in named if not any(word != other and _plain(word) in _plain(other) for other in named)]
    if not whole:
        known = ", ".join(word for kind in words for word in kind)
        raise DataError(f"The prompt {prompt!r} names nothing to forget: it should have one of {known} in it.")
    if any(sum(word in kind for word in whole) > 1 for kind in words):
        raise DataError(f"The prompt {prompt!r} names more than one thing to forget: {', '.join(whole)}.")
    return " ".join(whole)


def _plain(text: str) -> str:
    """In lower case, with one space for all that is not a letter or digit, and at both ends, so that whole words are found."""
    return " ".join(["", *re.findall(r"[^\W_]+", unicodedata.normalize("NFC", text).casefold()), ""])


def as_spelt(name: object, names: Sequence[str]) -> object:
    """A name as it stands among others: an accent may be a character of its own, as in many folders of a Mac, or part of a letter,
    as it is typed. Whatever is none of them stays as it is."""
    if not isinstance(name, str) or name in names:
        return name
    plain = unicodedata.normalize("NFC", name)
    return next((other for other in names if unicodedata.normalize("NFC", other) == plain), name)


def class_index(target: str | int, class_names: tuple[str, ...]) -> int:
    """The number of a class given by name or number; UnknownName lists what there is."""
    target = as_spelt(target, class_names)
    if isinstance(target, str) and target in class_names:
        return class_names.index(target)
    if isinstance(target, Integral) and not isinstance(target, bool) and 0 <= target < len(class_names):
        return int(target)
    raise UnknownName("class", target, class_names)
