"""Chapter 06: recovery in numbers, and the attack itself."""

from __future__ import annotations

import numpy as np
import torch
from scipy.integrate import trapezoid

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
    "06.1",
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
        "That is what is missing to the original.": (o - u) / (o - r),
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
    cases = [(steps, accuracy, level) for steps, accuracy in _curves(seed) for level in (0.4, 0.15)]
    return compare(function, _first_reach, cases, {
        "That is the first measured point above the level; go straight between the points.": _point(0),
        "You are off by one step: that is the last point below the level.": _point(-1),
        "A curve that never reaches the level is censored: return None, not its last step.": _never(lambda s: float(s[-1])),
        "A curve that never reaches the level is censored: return None, not infinity.": _never(lambda s: float("inf")),
        "That is the last step, wherever the curve goes.": lambda s, a, level: float(s[-1]),
    }, tolerance=1e-5)


def _batch(seed: int):
    generator = torch.Generator().manual_seed(seed)
    x, eps = torch.randn(2, 6, 3, 4, 4, generator=generator)
    table = torch.randn(10, generator=generator)

    def denoise(x_t, t, labels):
        """A network that listens to all three of its arguments."""
        return torch.tanh(x_t + table[labels].view(-1, 1, 1, 1)) * (1 + t.view(-1, 1, 1, 1) / 1000)

    return denoise, x, torch.randint(10, (6,), generator=generator), eps, torch.randint(1000, (6,), generator=generator)


@exercise(
    "06.4",
    "Nothing but ordinary training: noise the images, predict the noise under their own labels, compare.",
    "x_t = add_noise(x, eps, t); the prediction is denoise(x_t, t, labels).",
    "The mean, over every element, of the squared difference between eps and the prediction.",
)
def _attack_loss(function, seed=0):
    def loss(denoise, x, labels, eps, t):
        return (eps - denoise(add_noise(x, eps, t), t, labels)).square().mean()

    return compare(function, loss, [_batch(seed), _batch(seed + 1)], {
        "That is the sum of the squares; take the mean, or the learning rate depends on the batch.":
            lambda d, x, y, eps, t: (eps - d(add_noise(x, eps, t), t, y)).square().sum(),
        "The network saw the clean images: noise them first.": lambda d, x, y, eps, t: (eps - d(x, t, y)).square().mean(),
        "The prediction is compared with the images; the network predicts the noise.":
            lambda d, x, y, eps, t: (x - d(add_noise(x, eps, t), t, y)).square().mean(),
        "The square is missing: that is the mean absolute error.":
            lambda d, x, y, eps, t: (eps - d(add_noise(x, eps, t), t, y)).abs().mean(),
        "The sign is wrong: the attacker descends this loss.": lambda d, x, y, eps, t: -loss(d, x, y, eps, t),
        "All images carry one label; each has its own.":
            lambda d, x, y, eps, t: (eps - d(add_noise(x, eps, t), t, torch.zeros_like(y))).square().mean(),
    }, tolerance=1e-4)
