"""What a model has seen and forgotten. It travels with the weights, so that no chain of steps gets round a check."""

from __future__ import annotations

import base64
import inspect
import json
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..data import ImageSet
from ..data.targets import Target, class_index, find_target, is_target
from .networks import network_name

HISTORY_FILE = "history.json"
NO_HASHES = np.array([], dtype="V8")


@dataclass(frozen=True, eq=False)
class Forgotten:
    """One thing that a model was made to forget, or was never shown.

    item_hashes: of the images that were to be forgotten (see `ImageSet`). images: themselves, in memory only: the folder of a model
    that was made to forget images must not hand them on.
    record: of the unlearning: target, settings, steps, seconds, log, forget_set, left_out; nothing if it was never shown.
    """

    target: Target
    item_hashes: np.ndarray = field(repr=False)
    images: ImageSet | None = None
    record: dict = field(default_factory=dict)

    @classmethod
    def of(cls, target: Target, images: ImageSet | None, record: dict | None = None) -> Forgotten:
        """A target with the images that belong to it, as far as they are known."""
        return cls(target, NO_HASHES if images is None else np.unique(images.item_hashes), images, record or {})

    def target_among(self, class_names: tuple[str, ...]) -> Target | None:
        """The target in a set of these classes; None if they do not have it."""
        if self.target.items or self.target.class_names == class_names:
            return self.target
        there = [part.name for part in self.target.each if is_target(part.name, class_names)]
        return find_target(there, class_names) if there else None

    def selects(self, images: ImageSet) -> Tensor:
        """Which images of a set were to be forgotten, by their label or by their pixels: bool, N."""
        by_pixels = torch.from_numpy(np.isin(images.item_hashes, self.item_hashes))
        target = self.target_among(images.class_names)
        return by_pixels if target is None else by_pixels | target.selects(images)


@dataclass(frozen=True, eq=False)
class History:
    """All that a model has seen and forgotten, in whatever steps: training, unlearning, pruning, an attack, saving and loading.

    item_hashes: of every image that it has learnt from. Their number only grows.
    forgotten: what it was made to forget, or never shown, in this order.
    training_set: the images of its last training or unlearning, in memory only: copies of single images are told apart in them.
    weights: "ema" or "raw"; "as loaded" if nobody knows.
    """

    item_hashes: np.ndarray = field(default_factory=NO_HASHES.copy, repr=False)
    forgotten: tuple[Forgotten, ...] = ()
    training_set: ImageSet | None = None
    weights: str = "as loaded"

    @property
    def last(self) -> Forgotten | None:
        """What it was made to forget last, or was never shown; None if it knows all that it was trained on."""
        return self.forgotten[-1] if self.forgotten else None

    @property
    def record(self) -> dict:
        """Of the last unlearning; empty if there was none."""
        return next((each.record for each in reversed(self.forgotten) if each.record), {})

    def having_seen(self, *sets: ImageSet | History) -> History:
        """With the images of these sets, or of another history, among those that it has learnt from."""
        return replace(self, item_hashes=np.unique(np.concatenate([self.item_hashes, *(s.item_hashes for s in sets)])))

    def having_forgotten(self, target: Target, images: ImageSet, record: dict | None = None) -> History:
        """With one thing more that it does not know: images, of one training set, that belong to a target."""
        return replace(self, forgotten=(*self.forgotten, Forgotten.of(target, images, record)))

    def and_of(self, updates: History) -> History:
        """With all that updates of its weights saw and forgot: what both say of the model they were trained on counts once."""
        known = {_text_of(each) for each in self.forgotten}
        new = tuple(each for each in updates.forgotten if _text_of(each) not in known)
        weights = updates.weights if updates.forgotten else self.weights
        return replace(self.having_seen(updates), forgotten=(*self.forgotten, *new), weights=weights)

    def leave_out(self, images: ImageSet) -> tuple[ImageSet, tuple[str, ...]]:
        """A set without the images that were to be forgotten, and the names of the targets that some of them belonged to."""
        names = []
        for each in self.forgotten:
            chosen = each.selects(images)
            if chosen.any():
                images, names = images.select(~chosen), [*names, each.target.name]
        return images, tuple(dict.fromkeys(names))

    def to_json(self) -> str:
        """What goes into a checkpoint's folder: eight bytes for each image seen, targets and records, but no image and no log."""
        content = {"weights": self.weights, "seen": _text(self.item_hashes), "forgotten": [_saved(each) for each in self.forgotten]}
        return json.dumps(content, indent=1, default=str) + "\n"

    @classmethod
    def from_json(cls, text: str) -> History:
        """The inverse of `to_json`; a ValueError, KeyError or TypeError for what is not a history."""
        content = json.loads(text)
        return cls(_hashes(content["seen"]), tuple(map(_loaded, content["forgotten"])), weights=str(content["weights"]))


def _saved(each: Forgotten) -> dict:
    target, items = each.target, np.array(sorted(each.target.items), dtype="V8")
    named = {"name": target.said, "class_names": target.class_names, "labels": target.labels, "items": _text(items)}
    record = {key: value for key, value in each.record.items() if key not in ("target", "log", "forget_set")}
    return {"target": named, "images": _text(each.item_hashes), "record": record}


def _text_of(each: Forgotten) -> str:
    return json.dumps(_saved(each), default=str)


def _loaded(saved: dict) -> Forgotten:
    named, record = saved["target"], dict(saved["record"])
    names, items = tuple(named["class_names"]), frozenset(item.tobytes() for item in _hashes(named["items"]))
    if items:
        labels = tuple(class_index(label, names) for label in named["labels"])
        target = Target(str(named["name"]), names, labels, items=items)
    else:
        target = find_target(named["name"], names)
    return Forgotten(target, _hashes(saved["images"]), record={"target": target.said, **record} if record else {})


def _text(hashes: np.ndarray) -> str:
    return base64.b64encode(hashes.tobytes()).decode()


def _hashes(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="V8")


# The history of a pipeline --------------------------------------------------------------------------------------------


def history_of(pipe: DiffusionPipeline) -> History:
    """What a pipeline's network has seen and forgotten; nothing, if nobody noted it."""
    return vars(pipe).get("history", History())


def remember(pipe: DiffusionPipeline, history: History) -> DiffusionPipeline:
    """Give a pipeline its history, as `pipe.history`, and the record of its last unlearning, as `pipe.unlearning`."""
    pipe.history = history
    if history.record:
        pipe.unlearning = history.record
    return pipe


def with_unet(pipe: DiffusionPipeline, unet: nn.Module) -> DiffusionPipeline:
    """A pipeline like `pipe`, its history included, with another network and a scheduler of its own."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    names = [name for name in inspect.signature(type(pipe).__init__).parameters if name in pipe.config]
    parts = {name: getattr(pipe, name) if name in pipe.components else pipe.config[name] for name in names}
    new = type(pipe)(**parts | {network_name(pipe): unet, "scheduler": scheduler})
    new.set_progress_bar_config(leave=False)
    return remember(new, history_of(pipe))
