"""Alternative data D_alt: what DiMUM memorises under the forgotten condition."""

from __future__ import annotations

import torch

from ..checking import check_whole
from ..data import ImageSet, from_uint8, step_generator
from ..data.targets import Target, Wanted, find_target
from ..errors import DataError, UnknownName
from ..evaluation import draw_samples
from ..models.conditions import conditions_of

ALTERNATIVES = ("class", "mixed", "images", "generated", "noise")
FEW = 16


def build_alternative(
    kind: str, count: int, retain: ImageSet, pipe, target: Wanted, seed: int
) -> ImageSet:
    """At most `count` images to memorise in the target's place.

    class: images of one other class, drawn by the seed; for a style or an object, of one other style or object. mixed: of all
    retained classes. images: 16 fixed images of the retained set. generated: samples that the pipeline draws for the other classes,
    so that no real data is needed. noise: images of independent uniform pixels. In place of single images, only other images of
    their own classes make sense: "class", or 16 of them, "images".
    """
    if kind not in ALTERNATIVES:
        raise UnknownName("kind of alternative data", kind, ALTERNATIVES)
    check_whole("count", count)
    generator = step_generator(seed, -10**9)
    target = find_target(target, retain.class_names)
    if target.items:
        if kind not in ("class", "images"):
            raise DataError(f"In the place of single images come other images of their class: alternative 'class', not {kind!r}.")
        retain = retain.select(target.among(retain.labels))
    if kind == "noise":
        return noise_set(count, retain, target, generator)
    if kind == "generated":
        return drawn_set("generated", count, pipe, retain, target, seed)
    if kind == "class" and len(retain) and not target.items:
        others = _others(target, retain)
        retain = retain.only(others[int(torch.randint(len(others), (1,), generator=generator))])
    if not len(retain):
        raise DataError("There are no retained images to choose alternative data from.")
    chosen = torch.randperm(len(retain), generator=generator)[: min(FEW, count) if kind == "images" else count]
    return retain.select(chosen)


def _others(target: Target, retain: ImageSet) -> list[int | str]:
    """The classes, or the styles or objects, that may take the target's place, and of which there are images."""
    there = retain.labels.unique().tolist()
    if target.position is None:
        return [label for label in target.neighbours(target.labels[0]).tolist() if label in there]
    words = dict.fromkeys(retain.class_names[label].split(" ")[target.position] for label in there)
    return [word for word in words if word not in {part.name for part in target.each}]


def noise_set(count: int, like: ImageSet, target: Target, generator: torch.Generator) -> ImageSet:
    """Images of independent uniform pixels, spread evenly over a set's labels outside the target."""
    pixels = torch.randint(256, (count, *like.images.shape[1:]), generator=generator).byte().numpy()
    return from_uint8("noise", pixels, _other_labels(target, like, count), like.class_names)


def drawn_set(name: str, count: int, pipe, like: ImageSet, target: Target, seed: int) -> ImageSet:
    """Samples of every class of a set outside the target, spread evenly."""
    labels = _other_labels(target, like, count)
    prompts = conditions_of(pipe, class_names=target.class_names).asked(labels)
    images = draw_samples(pipe, prompts, seed=seed + 10**6, progress=False)
    return from_uint8(name, ((images + 1) * 127.5).round().byte().numpy(), labels, target.class_names)


def _other_labels(target: Target, like: ImageSet, count: int) -> list[int]:
    others = target.others[torch.isin(target.others, like.labels)].tolist()
    if not others:
        raise DataError(f"{like.name} has no class but the target, {target.name}, so there is none to draw in its place.")
    return [others[i % len(others)] for i in range(count)]
