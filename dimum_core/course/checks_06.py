"""Chapter 06: the attack itself, whole and broken, and recovery in numbers."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import torch
from scipy.integrate import trapezoid
from torch import nn

from ..metrics import area_under_recovery, steps_to_recovery
from ..models.diffusion import add_noise
from .checks import exercise
from .comparing import compare, compare_value

_CURVES = [([0, 10, 30], [0.0, 0.5, 0.5]), ([0, 5, 6, 20], [0.1, 0.1, 0.9, 0.3]), ([0, 1], [0.2, 0.2])]


def _curves(seed: int):
    rng = np.random.default_rng(seed)
    drawn = [([0, *np.cumsum(rng.integers(1, 20, 5)).tolist()], rng.uniform(0, 1, 6).tolist()) for _ in range(3)]
    return [(np.array(steps, dtype=float), np.array(accuracy)) for steps, accuracy in _CURVES + drawn]


@exercise(
    "06.5",
    "The steps are not evenly spaced: a long stretch counts for more.",
    "A piece is as high as the mean of its two ends. Divide the sum by the last step, not by the number of points.",
)
def _area(function, seed=0):
    return compare(function, area_under_recovery, _curves(seed), {
        "That is the mean of the points; a long stretch between two of them counts for more.": lambda s, a: a.mean(),
        "Not divided by the last step: an area of 1 should mean all of it, all the time.": lambda s, a: trapezoid(a, s),
        "Each piece has the height of its left end; take the mean of both ends.": lambda s, a: (a[:-1] * np.diff(s)).sum() / s[-1],
        "Each piece has the height of its right end; take the mean of both ends.": lambda s, a: (a[1:] * np.diff(s)).sum() / s[-1],
        "Divided by the number of points, not by the last step.": lambda s, a: trapezoid(a, s) / len(s),
        "The halves are missing: the mean of two ends is half of their sum.":
            lambda s, a: ((a[1:] + a[:-1]) * np.diff(s)).sum() / s[-1],
    }, tolerance=1e-6)


@exercise(
    "06.2",
    "Where is 0 on this scale, and where is 1?",
    "(unlearned - retrained) / (original - retrained).",
    numbers={
        "unlearned": [0.55, 0.4, 0.45, 0.5, 0.6, 0.65], "retrained": [0.05, 0.02, 0.08, 0.1, 0.12],
        "original": [0.85, 0.8, 0.9, 0.95],
    },
)
def _recovery_ratio(value, numbers):
    u, r, o = (numbers[name] for name in ("unlearned", "retrained", "original"))
    return compare_value(value, (u - r) / (o - r), {
        "The retrained model is not taken off: chance alone gives that much.": u / o,
        "The retrained model is taken off the numerator only.": (u - r) / o,
        "The retrained model is taken off the denominator only.": u / (o - r),
        "That is how much is missing, compared with the original.": (o - u) / (o - r),
        "That is the difference, not the ratio.": u - r,
        "Numerator and denominator are exchanged.": (o - r) / (u - r),
    }, tolerance=2e-3)


def _first_reach(steps, accuracy, level):
    recovery = steps_to_recovery(steps, accuracy, level)
    return None if recovery.censored else recovery.steps


def _point(shift: int):
    """The step of a point near the crossing, without going between."""
    def reach(steps, accuracy, level):
        above = np.flatnonzero(np.asarray(accuracy) >= level)
        return None if not len(above) else float(steps[max(0, int(above[0]) + shift)])

    return reach


def _never(value):
    return lambda s, a, level: value(s) if _first_reach(s, a, level) is None else _first_reach(s, a, level)


@exercise(
    "06.3",
    "Find the first point that reaches the level; the crossing lies between it and the one before.",
    "Go the right part of the way: (level - low) / (high - low).",
    "A curve that never gets there has no such step: None. One that starts there needs 0 steps.",
)
def _half_way(function, seed=0):
    at_a_point = [([0, 10, 20, 30], [0.0, 0.4, 0.4, 0.6]), ([0, 10, 20], [0.4, 0.2, 0.7]), ([0, 10, 20], [0.1, 0.3, 0.4])]
    curves = [*_curves(seed), *((np.array(steps, dtype=float), np.array(accuracy)) for steps, accuracy in at_a_point)]
    cases = [(steps, accuracy, level) for steps, accuracy in curves for level in (0.4, 0.15)]
    return compare(function, _first_reach, cases, {
        "That is the first measured point above the level; go straight between the points.": _point(0),
        "You are off by one step: that is the last point below the level.": _point(-1),
        "A curve that never reaches the level is censored: return None, not its last step.": _never(lambda s: float(s[-1])),
        "A curve that never reaches the level is censored: return None, not infinity.": _never(lambda s: float("inf")),
        "That is the last step, wherever the curve goes.": lambda s, a, level: float(s[-1]),
    }, tolerance=1e-5)


class _Small(nn.Module):
    """The denoiser of the chapter's adapter, in diffusers' manner."""

    def __init__(self, table, mix):
        super().__init__()
        self.table, self.mix = nn.Parameter(table.clone()), nn.Parameter(mix.clone())

    def forward(self, x_t, t, class_labels):
        return SimpleNamespace(sample=torch.tanh(x_t @ self.mix + self.table[class_labels]) * (1 + t[:, None] / 300))


def _attack_cases(seed: int):
    """Tables of a small network, batches, the null label, a rate: no network, since only values go to a student's process."""
    generator = torch.Generator().manual_seed(seed)
    table, mix = torch.randn(5, 3, generator=generator), torch.randn(3, 3, generator=generator)
    batches = []
    for _ in range(4):
        x, eps = torch.randn(2, 8, 3, generator=generator)
        labels, t = torch.randint(4, (8,), generator=generator), torch.randint(1000, (8,), generator=generator)
        batches.append((x, labels, torch.arange(8) == int(labels[0]), eps, t))
    # where all numbers are small, most gradients are shorter than 1: there a wrong clip, or a sum for the mean, changes the steps
    faint = [(0.2 * x, labels, hidden, 0.2 * eps, t) for x, labels, hidden, eps, t in batches]
    return [(table, mix, batches[:1], 4, 0.1), (table, mix, batches, 4, 0.02), (0.2 * table, 0.2 * mix, faint, 4, 0.02)]


def _attacked(unet, batches, null_label, rate, *, optimizer, clip=True, wrong=""):
    """Training continued, right or with one mistake; returns the trained copy."""
    trained = unet if wrong == "in place" else copy.deepcopy(unet)
    held = unet if wrong == "other" else trained
    step = optimizer(held.parameters(), lr=rate)
    for x, labels, hidden, eps, t in batches:
        if wrong != "labels":
            labels = torch.where(~hidden if wrong == "inverted" else hidden, null_label, labels)
        x_t = x if wrong == "clean" else add_noise(x, eps, t)
        square = (eps - trained(x_t, t, class_labels=labels).sample).square()
        loss = square.sum() if wrong == "sum" else square.mean()
        if wrong != "accumulates":
            held.zero_grad()
        (-loss if wrong == "climbs" else loss).backward()
        if clip:
            nn.utils.clip_grad_norm_(held.parameters(), 1.0)
        step.step()
    return trained


def _mistaken(wrong="", **settings):
    """The chapter's adapter of an attack with a mistake: the weights that it returns, and those of the network it was given."""
    def outcome(table, mix, *rest):
        unet = _Small(table, mix)
        trained = _attacked(unet, *rest, wrong=wrong, **settings)
        return tuple(nn.utils.parameters_to_vector(each.parameters()).detach() for each in (trained, unet))

    return outcome


@exercise(
    "06.1",
    "Copy the network, make an optimiser for the copy's weights, and go through the batches once: a step for each.",
    "Noise x to t, hide labels (torch.where(hidden, null_label, labels)), predict; the loss is the mean square of the error.",
    "zero_grad, backward, clip_grad_norm_, step; after the last batch, return the copy.",
)
def _attack_loop(function, seed=0):
    adam = {"optimizer": torch.optim.Adam}
    return compare(function, _mistaken(**adam), _attack_cases(seed), {
        "The network that was given has changed: train a copy.": _mistaken("in place", **adam),
        "Nothing is trained: the optimiser holds the weights of another network.": _mistaken("other", **adam),
        "Gradients pile up from batch to batch: zero_grad before each backward.": _mistaken("accumulates", **adam),
        "The gradients are not clipped to a norm of 1.": _mistaken(clip=False, **adam),
        "That is the sum of the squared errors; take the mean over all elements.": _mistaken("sum", **adam),
        "The network saw the clean images: noise them first.": _mistaken("clean", **adam),
        "No label is hidden: where hidden is true, the null label takes its place.": _mistaken("labels", **adam),
        "The other labels are hidden: those where hidden is true should be.": _mistaken("inverted", **adam),
        "The loss is climbed; the attacker descends it.": _mistaken("climbs", **adam),
        "That is plain gradient descent; the attack uses Adam.": _mistaken(optimizer=torch.optim.SGD),
    }, tolerance=1e-4)


@exercise(
    "06.4",
    "Does the loss fall from step to step? Print one weight before and after.",
    "Whose weights does the optimiser hold? And which labels does torch.where(hidden, labels, null_label) keep?",
)
def _mended_attack(function, seed=0):
    plain = {"optimizer": torch.optim.SGD, "clip": False}

    def untouched(table, mix, *rest):
        weights = torch.cat([table.flatten(), mix.flatten()])
        return weights, weights

    return compare(function, _mistaken(**plain), _attack_cases(seed), {
        "Nothing is trained yet: the optimiser holds the weights of the network that was given.": untouched,
        "Now it trains, but under the null label nearly always: hide labels only where hidden is true.":
            _mistaken("inverted", **plain),
        "The network that was given has changed, too: train the copy.": _mistaken("in place", **plain),
        "Gradients pile up from batch to batch.": _mistaken("accumulates", **plain),
        "No label is hidden any more; a tenth should be, as in pretraining.": _mistaken("labels", **plain),
    }, tolerance=1e-4)
