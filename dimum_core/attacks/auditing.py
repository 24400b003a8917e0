"""`audit`: every attack that applies but the search for words, on one model and on one that never knew the target, in minutes."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from diffusers import DiffusionPipeline
from tqdm.auto import tqdm

from ..checking import check_kind, check_number, check_seed, check_whole
from ..data import Dataset, ImageSet
from ..data.targets import Target, Wanted, find_target
from ..errors import CheckpointError, DataError
from ..files import check_writable, write_atomically
from ..fitting import default_data
from ..judges import Judge, PairJudge, identity_of, judge_for
from ..metrics import Interval, difference_of_proportions
from ..models.conditions import conditions_of
from ..models.history import history_of
from ..models.networks import network_of, networks_in, same_layout
from ..models.sampling import check_data
from ..models.support import check_supported
from ..training import digest_of
from .base import Attack, Means, Outcome, attack, get_attack, label_of

AUDITED = (  # in this order, so that little time goes to what tells most; the search for words (tokens) would take longer
    ("none", {}), ("relearning", {}), ("few-shot", {}), ("old-row", {}), ("seed-row", {}), ("trained-row", {}), ("paraphrases", {}),
    ("embedding", {}), ("rounding", {"bits": 8}), ("rounding", {"bits": 4}), ("weight-noise", {}), ("pruning", {}),
    ("inversion", {}), ("low-rank", {}), ("completion", {}), ("initial-noise", {}),
)


@dataclass
class Audit:
    """What came back of a target.

    outcomes: attack -> role ("audited", "retrained") -> record. left_out: attack -> why it was not tried.
    """

    target: str
    outcomes: dict[str, dict[str, Outcome]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def lead(self, name: str) -> Interval | None:
        """Accuracy on the target that an attack gives, minus what it gives on the model that never knew it (Newcombe).

        The intervals of all leads hold together with 95 % (Bonferroni). None if it was not run on such a model.
        """
        records = self.outcomes[name]
        if "retrained" not in records:
            return None
        count = sum("retrained" in each for each in self.outcomes.values())
        counts = [n for role in ("audited", "retrained") for n in (_hits(records[role].target), records[role].target.n)]
        return difference_of_proportions(*counts, confidence=1 - 0.05 / count)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each attack: accuracy on the target, on the other classes, on the retrained model's target, and the lead."""
        rows = {}
        for name, records in self.outcomes.items():
            own, other, lead = records["audited"], records.get("retrained"), self.lead(name)
            rows[name] = {
                "target": own.target.value, "low": own.target.low, "high": own.target.high, "n": own.target.n,
                "others": own.retained.value if own.retained else np.nan, "retrained": other.target.value if other else np.nan,
                "lead": lead.value if lead else np.nan, "lead low": lead.low if lead else np.nan,
                "lead high": lead.high if lead else np.nan, "seconds": own.seconds,
            }
        return pd.DataFrame(rows).T

    def as_dict(self) -> dict:
        """For JSON."""
        leads = {name: self.lead(name) for name in self.outcomes}
        return {
            "target": self.target, "left_out": self.left_out,
            "attacks": {
                name: {role: outcome.as_dict() for role, outcome in records.items()}
                | {"lead": vars(leads[name]) if leads[name] else None}
                for name, records in self.outcomes.items()
            },
        }


def _hits(share: Interval) -> int:
    return round(share.value * share.n)


def audit(
    pipe: DiffusionPipeline, target: Wanted, data: Dataset | None = None, *, retrained: DiffusionPipeline | None = None,
    original: DiffusionPipeline | None = None, judge: Judge | PairJudge | None = None, samples: int = 64, init_seed: int = 0,
    seed: int = 0, minutes: float | None = None, out: Path | None = None, progress: bool = True,
) -> Audit:
    """Run every attack that applies, but the search for words, which takes longer, and say what comes back of the target.

    target: one, or several at once. What the model was made to forget beside it is left out of what attackers have.
    data: what the model was trained on; default, the shipped set of its classes. retrained: a model that never knew the target; on
        it each of them that applies to it, too, is run, and only the lead over it shows memory. original: the model before it
        forgot, for attackers who know something of it. init_seed: of the original's training.
    minutes: no new attack is begun after so many; default, all are run. out: a folder that keeps each finished attack, from which
        the same audit goes on.
    Raises UnknownName for an unknown target, DataError for a model that was never shown it, or a `retrained` that may have been.
    """
    models = {role: model for role, model in (("audited", pipe), ("retrained", retrained)) if model is not None}
    means = _means(pipe, target, data, original, judge, samples, init_seed, seed)
    _check_models(models, original, means)
    if minutes is not None:
        check_number("minutes", minutes, 0, above=True)
    store = None if out is None else _opened(Path(out), models, means)
    found, started = Audit(means.target.name), time.monotonic()
    for name, settings in tqdm(AUDITED, desc="attacks", disable=not progress):
        kind, label = get_attack(name, **settings), label_of(name, settings)
        late = minutes is not None and time.monotonic() - started > 60 * minutes and found.outcomes
        reason = "no time was left" if late else kind.lacking(pipe, means)
        if reason:
            found.left_out[label] = reason
            continue
        tried = {role: model for role, model in models.items() if role == "audited" or not kind.lacking(model, means)}
        found.outcomes[label] = {role: _kept(store, f"{label}-{role}", model, kind, means) for role, model in tried.items()}
    return found


def _means(pipe, target, data, original, judge, samples: int, init_seed: int, seed: int) -> Means:
    check_supported(pipe, trains=True)
    check_whole("samples", samples)
    check_seed(seed)
    check_seed(init_seed)
    data = default_data(pipe) if data is None else data
    check_kind("data", data, Dataset, "a data set, such as load_dataset('digits')")
    check_data(data, pipe)
    target = find_target(target, data.class_names)
    if target.items or not all(len(data.train.only(part)) for part in target.each):
        raise DataError(f"{data.name} has no class, style or object {target.name!r} among its training images to audit.")
    judge = judge_for(pipe, judge, conditions_of(pipe, target, data.class_names))
    data = Dataset(*(_without_former(images, pipe, target) for images in (data.train, data.test)))
    return Means(target, data, judge, original, samples, init_seed, seed)


def _without_former(images: ImageSet, pipe: DiffusionPipeline, target: Target) -> ImageSet:
    """Data without what else the model was made to forget: no attacker has it, and in the retained data it would be
    taught."""
    kept, _ = history_of(pipe).leave_out(images.without(target))
    return images.select(target.selects(images) | torch.from_numpy(np.isin(images.item_hashes, kept.item_hashes)))


def _check_models(models: dict[str, DiffusionPipeline], original: DiffusionPipeline | None, means: Means) -> None:
    """Check, before anything takes long, which models may have been shown the target, and which must have been."""
    target, images = means.target, means.data.train.only(means.target)
    for role, model in [*models.items(), *([] if original is None else [("original", original)])]:
        check_supported(model, trains=True)
        try:
            check_data(means.data, model)
        except DataError as error:
            raise DataError(f"The {role} model does not fit: {error}") from error
    if original is not None and not same_layout(network_of(original), network_of(models["audited"])):
        raise DataError("The original's network has other weights than the audited one: give the model that it was made from.")
    if _never_shown(models["audited"], target):
        raise DataError(f"This model was never shown {target.name}, so there is nothing to audit: give one that forgot it.")
    if original is not None and _never_shown(original, target):
        raise DataError(f"The original was never shown {target.name}: give the model that was made to forget it.")
    if "retrained" not in models:
        return
    history = history_of(models["retrained"])
    seen = bool(np.isin(images.item_hashes, history.item_hashes).any())
    apart = len(history.item_hashes) > 0 or _never_shown(models["retrained"], target)
    if seen or not apart:
        what = "has seen images of it" if seen else "does not say so"
        raise DataError(
            f"The retrained model must never have been shown {target.name}, and its history {what}: train one with "
            f"--without {' '.join(part.name for part in target.each)}."
        )
    if more := history.leave_out(means.data.train.without(target))[1]:
        raise DataError(
            f"The retrained model was never shown {', '.join(more)} either, and this audit would teach it: give one that lacks "
            f"{target.name} alone."
        )


def _never_shown(pipe: DiffusionPipeline, target: Target) -> bool:
    """Whether a model's history says that the target was left out of its training."""
    about = [each for each in history_of(pipe).forgotten if set(target.labels) & set(each.target.labels) and not each.target.items]
    known = set(target.labels).difference(*(each.target.labels for each in about))
    return not known and not any(each.record for each in about)


def _opened(folder: Path, models: dict[str, DiffusionPipeline], means: Means) -> Path:
    """The folder of this audit; CheckpointError if it holds another one."""
    check_writable(folder)
    settings = {key: getattr(means, key) for key in ("samples", "init_seed", "seed")}
    known = models | ({} if means.original is None else {"original": means.original})
    about = settings | {"target": means.target.name, "data": means.data.train.digest, "judge": identity_of(means.judge)}
    about |= {"held out": means.data.test.digest} | {role: _identity(model) for role, model in known.items()}
    file = folder / "audit.json"
    if file.is_file():
        if json.loads(file.read_text("utf-8")) != about:
            raise CheckpointError(f"{folder} holds an audit of another model, or with other settings: take another folder.")
        return folder
    write_atomically(file, json.dumps(about, indent=1).encode())
    return folder


def _identity(pipe: DiffusionPipeline) -> list[str]:
    """What a pipeline draws by: the weights of all its networks, its settings, and those of its sampler."""
    settings = {key: value for key, value in pipe.config.items() if isinstance(value, (bool, int, float))}
    sampler = {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}  # not diffusers' own notes
    return [repr(sorted(settings.items())), repr(sorted(sampler.items())), *map(digest_of, networks_in(pipe))]


def _kept(store: Path | None, name: str, pipe: DiffusionPipeline, kind: Attack, means: Means) -> Outcome:
    """The record of an attack: from the folder, if it is there and was made with the settings of today."""
    file = None if store is None else store / f"{name.replace(' ', '-')}.json"
    if file is not None and file.is_file():
        kept = Outcome.from_dict(json.loads(file.read_text("utf-8")))
        if kept.settings == json.loads(json.dumps(asdict(kind))):
            return kept
    outcome = attack(pipe, kind, means)
    if file is not None:
        write_atomically(file, json.dumps(outcome.as_dict(), indent=1).encode())
    return outcome
