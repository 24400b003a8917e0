"""What verdicts add up to: accuracies on what was asked for, on the target and on the rest, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from ..data.targets import Target, word_kinds
from ..metrics import Interval, wilson_interval
from .classifier import NONE_OF_THESE, PairVerdict, Verdict


def accuracies(judged: Verdict | Tensor, labels: Tensor, target: Target | None) -> dict[str, Interval]:
    """Accuracy over all samples and, with a target, UA and RA; with styles and objects also IRA and CRA.

    judged: the verdict, or what was seen as int64, N. labels: what was asked for, int64, N.
    UA: share of the target's samples that do not show it; of several targets, that show none of them, and "UA" with a
    name is the share of that target's samples that do not show it. RA: share of the others that show just what was asked for.
    IRA, CRA (UnlearnCanvas, arXiv 2402.11846): for a style, the share of samples of the other styles with the right style, and the
        share of all samples, the target's included, with the right object; for an object, the other way round. For one
        combination, the share with both words right of the samples that share one word with it, and of those that share none;
        where there are no such samples, as with a single style, without that row.
    """
    seen = judged.labels if isinstance(judged, Verdict) else judged
    right = seen == labels
    rows = {"accuracy": wilson_interval(int(right.sum()), len(right))}
    if target is not None:
        of_target = target.among(labels)
        for part in dict.fromkeys((target, *target.each)):
            shown = judged.shows(part) if isinstance(judged, Verdict) else part.among(seen)
            rows["UA" if part is target else f"UA {part.name}"] = _share(~shown[part.among(labels)])
        rows["RA"] = _share(right[~of_target])
        if isinstance(judged, PairVerdict):
            rows |= retained_accuracies(judged, labels, target)
    rows["none of these"] = wilson_interval(int((seen < 0).sum()), len(seen))
    return rows


def accuracy_on_each(verdict: Verdict, labels: Sequence[int], target: Target) -> dict[str, float]:
    """The accuracy on each of several targets, "accuracy on NAME"; nothing if there is one. labels: what was asked for, N."""
    asked = torch.tensor(labels)
    return {f"accuracy on {part.name}": float(verdict.shows(part)[part.among(asked)].float().mean()) for part in target.parts}


def retained_accuracies(verdict: PairVerdict, labels: Tensor, target: Target) -> dict[str, Interval]:
    """IRA and CRA: see `accuracies`."""
    objects = len(word_kinds(target.class_names)[1])
    right = (verdict.words[0] == labels // objects, verdict.words[1] == labels % objects)
    of_target = target.among(labels)
    if target.position is not None:
        return {"IRA": _share(right[target.position][~of_target]), "CRA": _share(right[1 - target.position])}
    near = torch.isin(labels, torch.cat([target.neighbours(label) for label in target.labels]))
    both = right[0] & right[1]
    found = {"IRA": both[near], "CRA": both[~near & ~of_target]}
    return {name: _share(each) for name, each in found.items() if len(each)}


def _share(true: Tensor) -> Interval:
    return wilson_interval(int(true.sum()), len(true))


def drawn_for(target: Target, verdict: Verdict, labels: Tensor) -> pd.DataFrame:
    """What the target's conditions draw now: the share of each class, or of each style or object."""
    of_target = target.among(labels)
    if target.position is None:
        return shares(verdict.labels[of_target], target.class_names)
    kind = word_kinds(target.class_names)[target.position]
    return shares(_words_seen(verdict, target, kind)[of_target], kind)


def _words_seen(verdict: Verdict, target: Target, kind: tuple[str, ...]) -> Tensor:
    """The style or object that each image shows, as a number of `kind`; a judge of whole names says it by the class."""
    if isinstance(verdict, PairVerdict):
        return verdict.words[target.position]
    words = [kind.index(name.split(" ")[target.position]) for name in target.class_names]
    return torch.tensor([*words, NONE_OF_THESE])[verdict.labels]  # -1, none of these, is the last


def shares(judged: Tensor, class_names: tuple[str, ...]) -> pd.DataFrame:
    """How often each class, and none of these, was seen; judged: int64, N, -1 for none."""
    names = dict(enumerate(class_names)) | {-1: "none of these"}
    return as_table({name: wilson_interval(int((judged == label).sum()), len(judged)) for label, name in names.items()})


def as_table(rows: dict[str, Interval]) -> pd.DataFrame:
    """A row for each interval."""
    return pd.DataFrame({name: {"value": r.value, "low": r.low, "high": r.high, "n": r.n} for name, r in rows.items()}).T
