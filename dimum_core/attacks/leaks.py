"""What an attacker must not have: no auxiliary image may show what the model was made to forget, or nearly be an image of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import ImageSet
from ..data.targets import Target, Wanted, find_target
from ..errors import DataError
from ..metrics import nearest_neighbours
from ..models.history import Forgotten

# Root-mean-square difference of two images, pixels in [-1, 1], below which one counts as a copy of the other: what another
# compression or a rounding changes, not what another photograph does.
NEAR = 0.05
COARSE = 8  # side, about, at which most pairs show that they are no copies


def refuse_leaks(auxiliary: ImageSet, target: Wanted, forget: ImageSet | None = None) -> None:
    """Before the first step: no auxiliary image may have a label of the target, or be (nearly) an image of the forget set.

    target: if it is single images, only they and near copies of them are refused, not their label.
    """
    target = find_target(target, auxiliary.class_names)
    refuse_forgotten(auxiliary, [Forgotten.of(target, forget)])


def refuse_forgotten(auxiliary: ImageSet, forgotten: Iterable[Forgotten]) -> None:
    """The same for each of several things that a model was made to forget. Of those that it knows from a folder, only copies bit
    for bit are recognised."""
    if not len(auxiliary):
        raise DataError("The auxiliary set is empty: the attacker has nothing to finetune on.")
    for each in {(each.target, each.item_hashes.tobytes()): each for each in forgotten}.values():
        target = each.target_among(auxiliary.class_names)
        _refuse_labels(auxiliary, target)
        leaked = np.isin(auxiliary.item_hashes, each.item_hashes) | _near_copies(auxiliary, each.images)
        if leaked.any():
            where = "" if target is not None and target.items else ", under another label"
            raise DataError(
                f"The auxiliary set has {int(leaked.sum())} images of the forget set or near copies of them{where} "
                f"(the first is number {int(leaked.argmax())}): remove them first."
            )


def _refuse_labels(auxiliary: ImageSet, target: Target | None) -> None:
    labelled = 0 if target is None or target.items else int(target.among(auxiliary.labels).sum())
    if labelled:
        raise DataError(
            f"The auxiliary set has {labelled} images of the target {target.kind} {target.name}: an attacker does not "
            f"have them, so take {auxiliary.name}.without({target.said!r})."
        )


def _near_copies(auxiliary: ImageSet, forget: ImageSet | None) -> np.ndarray:
    """Which auxiliary images are nearly one of those to forget: bool, N."""
    if forget is None or not len(forget):
        return np.zeros(len(auxiliary), dtype=bool)
    ours, theirs = auxiliary.images, forget.resized(auxiliary.images.shape[-1]).images
    near, known = (some.numpy() for some in _perhaps_near(ours, theirs))
    if near.any():
        distance, _ = nearest_neighbours(ours[near].flatten(1).numpy(), theirs[known].flatten(1).numpy())
        near[near] = distance[:, 0] < NEAR * theirs[0].numel() ** 0.5
    return near


def _perhaps_near(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Which of N images of C x H x W may be near copies of some of M others, and of which: bool, N and M. The rest are none.

    Means of squares of b x b pixels differ no more than the pixels do: b^2 |mean x - mean y|^2 <= |x - y|^2 over a square, by
    Jensen's inequality. So images whose means lie farther apart than near copies may need no look at all pixels, which would take
    b^2 as long. A tenth is added for what float32 rounds.
    """
    side = max(1, min(ours.shape[-2:]) // COARSE)
    a, b = (F.avg_pool2d(images, side).flatten(1) for images in (ours, theirs))
    limit, near, known = 1.1 * NEAR * ours[0].numel() ** 0.5 / side, [], torch.zeros(len(b), dtype=torch.bool)
    for part in a.split(max(1, 2**24 // len(b))):  # 64 MiB of distances at a time
        close = torch.cdist(part, b) < limit
        near.append(close.any(1))
        known |= close.any(0)
    return torch.cat(near), known
