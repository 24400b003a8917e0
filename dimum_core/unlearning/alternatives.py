"""Alternative data D_alt: what DiMUM memorises under the forgotten condition."""

from __future__ import annotations

import torch

from ..data import ImageSet, from_uint8, step_generator
from ..errors import DataError, UnknownName
from ..sampling import ClassConditionalPipeline

KINDS = ("class", "mixed", "images", "generated", "noise")
FEW = 16


def build_alternative(
    kind: str, count: int, retain: ImageSet, pipe: ClassConditionalPipeline, target: str | int, seed: int
) -> ImageSet:
    """At most `count` images to memorise in the target's place.

    class: images of one other class, drawn by the seed. mixed: of all retained classes. images: 16 fixed images of the
    retained set. generated: samples that the pipeline draws for the other classes, so that no real data is needed.
    noise: images of independent uniform pixels.
    """
    if kind not in KINDS:
        raise UnknownName("kind of alternative data", kind, KINDS)
    generator = step_generator(seed, -10**9)
    label = int(pipe.label_tensor([target])[0])
    if kind == "noise":
        return _noise(count, retain, generator)
    if kind == "generated":
        return _generated(count, retain, pipe, label, seed)
    if kind == "class":
        others = [c for c in retain.labels.unique().tolist() if c != label]
        retain = retain.only(others[int(torch.randint(len(others), (1,), generator=generator))])
    if not len(retain):
        raise DataError("There are no retained images to choose alternative data from.")
    chosen = torch.randperm(len(retain), generator=generator)[: FEW if kind == "images" else count]
    return retain.select(chosen)


def _noise(count: int, like: ImageSet, generator: torch.Generator) -> ImageSet:
    pixels = torch.randint(256, (count, *like.images.shape[1:]), generator=generator).byte().numpy()
    return from_uint8("noise", pixels, [0] * count, like.class_names)


def _generated(count: int, like: ImageSet, pipe: ClassConditionalPipeline, label: int, seed: int) -> ImageSet:
    from ..evaluation import draw_samples

    others = [c for c in range(len(like.class_names)) if c != label]
    labels = [others[i % len(others)] for i in range(count)]
    images = draw_samples(pipe, labels, seed=seed + 10**6, progress=False)
    pixels = ((images + 1) * 127.5).round().byte().numpy()
    return from_uint8("generated", pixels, labels, like.class_names)
