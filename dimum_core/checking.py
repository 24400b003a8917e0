"""Settings and image sets are checked once, where they enter, so that a mistake does not surface deep inside."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from numbers import Integral, Real

import numpy as np
import torch
from torch import Tensor

from .errors import DataError, SettingError, brief

SEVERAL = 10  # images that are hardly all bright in every pixel


def is_dataclass(kind: type) -> bool:
    """Itself, and not just what it extends."""
    return "__dataclass_fields__" in vars(kind)


def check_entry(what: str, name: str, new: type, known: Mapping[str, type]) -> None:
    """Refuse a class that is to be known by the name of another file's, or that is no dataclass. what: "a method", say."""
    holder = known.get(name)
    if holder is not None and holder.__module__ != new.__module__:
        raise SettingError(f"The name {name!r} belongs to {what} of {holder.__module__}: give yours another.")
    if not is_dataclass(new):
        raise SettingError(f"{name} is no frozen dataclass, as {what} must be: put @dataclass(frozen=True) below @register.")


def check_whole(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    """Refuse what is not a whole number in [least, most]."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least or (most is not None and value > most):
        span = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise SettingError(f"{name} must be a whole number {span}, not {brief(value)}.")


def check_multiple(name: str, value: int, divisor: int) -> None:
    """Refuse a size that a network cannot halve, or a width that its groups cannot share."""
    check_whole(name, value)
    if value % divisor:
        raise SettingError(f"{name} must be a multiple of {divisor}, not {value}.")


def check_number(name: str, value: object, low: float = -math.inf, high: float = math.inf, above: bool = False) -> None:
    """Refuse what is not a finite number in [low, high], or in (low, high] if `above`."""
    number = isinstance(value, Real) and not isinstance(value, bool) and abs(value) < math.inf  # false for NaN
    if not number or not low <= value <= high or (above and value == low):
        least = "" if low == -math.inf else f" above {low}" if above else f" of at least {low}"
        most = "" if high == math.inf else f"{' and' if least else ''} at most {high}"
        raise SettingError(f"{name} must be a finite number{least}{most}, not {brief(value)}.")


def check_seed(seed: object) -> None:
    """Refuse what cannot seed a generator; a margin is left for the seeds that are derived from it."""
    check_whole("seed", seed, 0, 2**62)


def check_kind(name: str, value: object, kind: type | tuple[type, ...], instead: str) -> None:
    """Refuse what is not a `kind`; instead: what to give, in words."""
    if not isinstance(value, kind):
        raise SettingError(f"{name} must be {instead}, not {brief(value)}.")


def check_images(images: Tensor, labels: Tensor, class_names: tuple[str, ...], name: str) -> None:
    """Refuse anything that is not a labelled image set, in one sentence."""
    named = isinstance(class_names, tuple) and all(isinstance(word, str) for word in class_names)
    if not named or len(set(class_names)) < len(class_names):
        raise DataError(f"{name}: class_names must be a tuple of different names, not {brief(class_names)}.")
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        kinds = " and ".join(type(value).__name__ for value in (images, labels))
        raise DataError(f"{name}: images and labels must be tensors of torch, not {kinds}.")
    if images.ndim != 4 or images.dtype != torch.float32 or not images.shape[1:].numel():
        raise DataError(f"{name}: images must be float32 of shape N x C x H x W, not {images.dtype} {tuple(images.shape)}.")
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise DataError(f"{name}: {len(images)} images need {len(images)} int64 labels, not {labels.dtype} {tuple(labels.shape)}.")
    if not len(images):
        return
    height, width, last = images.shape[1:]
    if last in (1, 3, 4) and min(height, width) > 4:
        shape = tuple(images.shape)
        raise DataError(f"{name}: images must be N x C x H x W, and {shape} has its channels last: transpose to (0, 3, 1, 2).")
    low, high = images.aminmax()
    if not (low >= -1 and high <= 1):  # also true for NaN
        raise DataError(f"{name}: pixels must be finite and lie in [-1, 1], not in [{low:.3g}, {high:.3g}].")
    if low >= 0 and high > low and len(images) >= SEVERAL:
        warnings.warn(
            f"{name}: no pixel is below 0. Images are held in [-1, 1] here; if yours were made for [0, 1], give 2 x - 1.",
            stacklevel=4,
        )
    first, last = (int(label) for label in labels.aminmax())
    if first < 0 or last >= len(class_names):
        raise DataError(f"{name}: labels must lie in [0, {len(class_names) - 1}], not in [{first}, {last}].")


def check_indices(indices, count: int, name: str) -> Tensor:
    """Indices into `count` items, or a mask of them, as a tensor; DataError for what is neither."""
    try:
        indices = torch.as_tensor(indices)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{name}: items are selected by whole numbers or a mask, not by {brief(indices)}.") from error
    if not indices.numel() and indices.dtype == torch.float32:  # an empty list
        indices = indices.long()
    if indices.dtype == torch.bool:
        fits = indices.shape == (count,)
    else:
        whole = indices.ndim == 1 and not indices.is_floating_point() and not indices.is_complex()
        fits = whole and bool(((indices >= -count) & (indices < count)).all())
    if not fits:
        raise DataError(f"{name}: its {count} items are selected by a list of their numbers or a mask, not by {brief(indices)}.")
    return indices


def check_apart(images, others, said: str) -> None:
    """Refuse an image set that shares images with another, bit for bit and whatever their labels; said: what they are, in words."""
    shared = np.isin(images.item_hashes, others.item_hashes)
    if shared.any():
        first = int(shared.argmax())
        raise DataError(f"{images.name}: {int(shared.sum())} {said} (the first is number {first}): remove them first.")
