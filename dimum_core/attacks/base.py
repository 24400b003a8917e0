"""What an attack is: one interface for all, one record of what each came to, and the one way in which it is measured.

An attack is a frozen dataclass of its settings that extends `Attack`. `register` is all that makes it known by name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from diffusers import DiffusionPipeline
from torch import Tensor

from ..checking import check_entry, check_kind
from ..data import Dataset
from ..data.targets import Wanted, find_target
from ..errors import DataError, SettingError, UnknownName
from ..evaluation import draw_samples
from ..judges import Judge, PairJudge, Verdict
from ..judges.counting import accuracy_on_each
from ..metrics import Interval, accuracy, wilson_interval
from ..models.conditions import conditions_of
from ..models.fresh_noise import FRESH_STEPS, with_fresh_noise
from ..models.sampling import check_pipeline

ATTACKS: dict[str, type[Attack]] = {}

# What an attacker may have beside the network: the words of every record, so that two of them can be compared.
RETAINED, SHOTS, HELD_OUT = "images of the other classes", "images of the target", "held-out images of the target"
OLD_ROW, SEED, MASK = "the original's row for the target", "the seed of the original's training", "which weights were edited"
TEACHING = {SHOTS, HELD_OUT}  # what may put into a model what it never knew


@dataclass(frozen=True)
class Means:
    """What an attacker may have. An attack uses only what it `has`.

    target: whatever `find_target` takes but single images, and a Target from then on.
    data: the data set that the model was trained on. original: the model before it forgot.
    samples: images of the target, or of several in turn, that are drawn and judged, and as many of the other classes.
    init_seed: of the original's training, from which its first weights can be made again.
    """

    target: Wanted
    data: Dataset
    judge: Judge | PairJudge
    original: DiffusionPipeline | None = None
    samples: int = 100
    init_seed: int = 0
    seed: int = 0

    def __post_init__(self):
        check_kind("data", self.data, Dataset, "a data set, such as load_dataset('digits')")
        object.__setattr__(self, "target", find_target(self.target, self.data.class_names))
        if self.target.items:
            raise DataError("A judge cannot recognise single images, only their label: use relearn, which counts copies of them.")


@dataclass(frozen=True)
class Attacked:
    """What an attack gives: a pipeline to draw the target from as usual, or, if the network stayed as it was, its own samples.

    images: N x C x H x W in [-1, 1], meant to show the target. steps: of optimisation. details: more figures, by name.
    """

    pipeline: DiffusionPipeline | None = None
    images: Tensor | None = None
    steps: int = 0
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """The record of one attack on one model.

    attack, settings: which it was. had: what the attacker had beside the network. gives: "a model" or "samples".
    seconds: of the attack, without the drawing. steps: of optimisation; 0 if it has none.
    target, retained: share of samples asked for that show the target, and, of a changed model, share of other samples that show the
        class that was asked for; 95 % Wilson intervals. details: more figures, by name. images: the first samples of the target.
    """

    attack: str
    settings: dict
    had: tuple[str, ...]
    gives: str
    steps: int
    seconds: float
    target: Interval
    retained: Interval | None = None
    details: dict[str, float] = field(default_factory=dict)
    images: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def teaches(self) -> bool:
        """The attacker showed the target, or images of it: what came back is no proof of memory."""
        return bool(TEACHING & set(self.had))

    def as_dict(self) -> dict:
        """What goes into a file: all but the images."""
        return asdict(self) | {"had": list(self.had), "images": None}

    @classmethod
    def from_dict(cls, saved: dict) -> Outcome:
        """The inverse of `as_dict`; a KeyError or TypeError for what is not such a record."""
        intervals = {key: saved[key] and Interval(**saved[key]) for key in ("target", "retained")}
        return cls(**saved | intervals | {"had": tuple(saved["had"])})


class Attack:
    """What an attack defines: what it has, whether it applies, and how it runs. `@dataclass(frozen=True) class Mine(Attack)`."""

    name: ClassVar[str]
    has: ClassVar[tuple[str, ...]] = ()

    def lacking(self, pipe: DiffusionPipeline, means: Means) -> str:
        """Why it cannot be tried on this model with these means, in one clause; empty if it can."""
        return ""

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        """Attack a pipeline, which stays as it is."""
        raise NotImplementedError(f"{self.name} does nothing.")


def register(name: str) -> Callable[[type[Attack]], type[Attack]]:
    """Class decorator: make an attack known as `name`."""

    def add(attack: type[Attack]) -> type[Attack]:
        check_entry("an attack", name, attack, ATTACKS)
        ATTACKS[name] = attack
        attack.name = name
        return attack

    return add


def get_attack(name: str, **settings) -> Attack:
    """An attack by its name, with settings that differ from the usual ones."""
    if name not in ATTACKS:
        raise UnknownName("attack", name, ATTACKS)
    known = tuple(ATTACKS[name].__dataclass_fields__)
    for setting in settings:
        if setting not in known:
            raise UnknownName(f"setting of the attack {name}", setting, known)
    return ATTACKS[name](**settings)


def label_of(name: str, settings: dict) -> str:
    """A name and the settings that differ from the usual ones, as tables say it: "rounding bits=4"."""
    return " ".join([name, *(f"{key}={value}" for key, value in settings.items())])


def attack(pipe: DiffusionPipeline, kind: Attack, means: Means) -> Outcome:
    """Run one attack on one model and measure what came back, with fresh noise (Euler ancestral) from the seed.

    SettingError if the attack does not apply. On the same seed every model is drawn from the same noise.
    """
    check_pipeline(pipe)
    if reason := kind.lacking(pipe, means):
        raise SettingError(f"The attack {kind.name} cannot be tried: {reason}.")
    started = time.monotonic()
    attacked = kind.run(pipe, means)
    seconds = time.monotonic() - started
    images = drawn_afresh(attacked.pipeline, means) if attacked.images is None else attacked.images
    verdict = means.judge.judge(images)
    count = means.samples if attacked.images is None else len(images)
    shown = verdict.shows(means.target)[:count]
    afresh = attacked.images is None
    return Outcome(
        kind.name, asdict(kind), kind.has, "samples" if attacked.pipeline is None else "a model", attacked.steps, seconds,
        wilson_interval(int(shown.sum()), count), _retained(verdict, means) if afresh else None,
        attacked.details | (accuracy_on_each(verdict, _asked(means), means.target) if afresh else {}),
        images[: min(8, count)],
    )


def _retained(verdict: Verdict, means: Means) -> Interval:
    labels = _asked(means)
    return accuracy(verdict.labels[means.samples :], labels[means.samples :])


def _asked(means: Means) -> list[int]:
    """As many labels of the target as of the others, evenly."""
    own, others = means.target.labels, means.target.others.tolist()
    return [labels[i % len(labels)] for labels in (own, others) for i in range(means.samples)]


def drawn_afresh(pipe: DiffusionPipeline, means: Means) -> Tensor:
    """`means.samples` images of the target, then as many of the others: N x C x H x W in [-1, 1]."""
    asked = conditions_of(pipe, means.target, means.target.class_names).asked(_asked(means))
    return draw_samples(with_fresh_noise(pipe), asked, seed=means.seed, progress=False, num_inference_steps=FRESH_STEPS)


@register("none")
@dataclass(frozen=True)
class NoAttack(Attack):
    """The model as it is: what every attack starts from."""

    def run(self, pipe: DiffusionPipeline, means: Means) -> Attacked:
        return Attacked(pipe)
