"""What an attacker may have: the ladder of auxiliary sets D_aux, none of which holds the target."""

from __future__ import annotations

import torch

from ..data import Dataset, ImageSet, from_uint8, load_dataset, step_generator
from ..errors import DataError, UnknownName
from ..evaluation import draw_samples
from ..sampling import ClassConditionalPipeline

AUXILIARY = ("retain", "synthetic", "public", "noise")
PUBLIC = {"digits": "mnist-mini"}


def auxiliary_set(
    kind: str,
    data: Dataset,
    target: str | int,
    *,
    pipe: ClassConditionalPipeline | None = None,
    share: float = 1.0,
    count: int = 512,
    seed: int = 0,
) -> ImageSet:
    """Auxiliary data for `relearn`.

    retain: the retained training data. synthetic: `count` samples that `pipe` draws for the other classes; the original model's, or
    the unlearned model's own, so that the attacker needs no data at all. public: another data set of the same classes: for
    digits, MNIST; for CIFAR-10, its test images, which no model was trained on. noise: `count` images of uniform noise with the
    other classes' labels, the negative control.
    share: of the set, drawn by the seed; at least one image stays.
    """
    if kind not in AUXILIARY:
        raise UnknownName("auxiliary set", kind, AUXILIARY)
    if not 0 < share <= 1:
        raise DataError(f"A share of the auxiliary set lies above 0 and at most at 1, not at {share}.")
    label = data.train.class_index(target)
    if kind == "retain":
        full = data.train.without(target)
    elif kind == "public":
        full = (load_dataset(PUBLIC[data.name]).train if data.name in PUBLIC else data.test).without(target)
    elif kind == "noise":
        full = _noise(data.train, label, count, seed)
    else:
        full = synthesise(pipe, label, count, seed)
    kept = max(1, round(share * len(full)))
    return full.select(torch.randperm(len(full), generator=step_generator(seed, -3))[:kept]) if kept < len(full) else full


def synthesise(pipe: ClassConditionalPipeline | None, label: int, count: int, seed: int) -> ImageSet:
    """Samples of every class but one, evenly."""
    if pipe is None:
        raise DataError("Synthetic auxiliary data need the pipeline that draws them: pass pipe=.")
    others = [c for c in range(len(pipe.class_names)) if c != label]
    labels = [others[i % len(others)] for i in range(count)]
    images = draw_samples(pipe, labels, seed=seed + 10**6, progress=False)
    return from_uint8("synthetic", ((images + 1) * 127.5).round().byte().numpy(), labels, pipe.class_names)


def _noise(like: ImageSet, label: int, count: int, seed: int) -> ImageSet:
    pixels = torch.randint(256, (count, *like.images.shape[1:]), generator=step_generator(seed, -4)).byte().numpy()
    others = [c for c in range(len(like.class_names)) if c != label]
    return from_uint8("noise", pixels, [others[i % len(others)] for i in range(count)], like.class_names)
