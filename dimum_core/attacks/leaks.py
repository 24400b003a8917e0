"""What an attacker must not have: no auxiliary image may show what the model was made to forget, or nearly be an image of it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..data import ImageSet
from ..data.targets import Target, Wanted, find_target
from ..errors import DataError
from ..metrics import nearest_neighbours
from ..models.history import Forgotten

# Root-mean-square difference of two images, pixels in [-1, 1], below which one counts as a copy of the other: what another
# compression or a rounding changes, not what another photograph does.
NEAR = 0.05


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
            where = "" if target is not None and target.items else "under another label "
            raise DataError(
                f"The auxiliary set has {int(leaked.sum())} images of the forget set, or nearly so, {where}"
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
    forget = forget.resized(auxiliary.images.shape[-1])
    distance, _ = nearest_neighbours(auxiliary.images.flatten(1).numpy(), forget.images.flatten(1).numpy())
    return distance[:, 0] < NEAR * forget.images[0].numel() ** 0.5
