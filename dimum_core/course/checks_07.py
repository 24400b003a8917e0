"""Chapter 07: DiMUM's loss, its weight, its data, when it is done, a fair contest, and alternatives that are none."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch

from ..metrics import least_p
from ..models.diffusion import add_noise
from .asking import compare_loss
from .checks import exercise
from .comparing import compare, compare_value


def _dimum(denoise, retained, alternative, target, weight, *, own=False, clean=False, weighed=("alternative",), kept=1, sums=False):
    """Two denoising losses, right or with one mistake. A set is images, labels, noise and degrees."""
    def loss(part, label=None):
        x, labels, eps, t = part
        asked = labels if label is None else torch.full_like(labels, label)
        error = (eps - denoise(x if clean else add_noise(x, eps, t), t, asked)).square()
        return error.sum() if sums else error.mean()

    memorised = loss(alternative, None if own else target)
    factors = {name: weight if name in weighed else 1.0 for name in ("retained", "alternative")}
    return kept * factors["retained"] * loss(retained) + factors["alternative"] * memorised


@exercise(
    "07.1",
    "Two losses of ordinary training. Only the labels of the second are not the images' own.",
    "For the alternative images every label is target: torch.full_like(labels, target).",
    "loss(retained) + weight * loss(alternative), each the mean over all elements of (eps - prediction)^2.",
)
def _dimum_loss(function, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def part(count):
        x, eps = torch.randn(2, count, 3, generator=generator)
        return x, torch.randint(3, (count,), generator=generator), eps, torch.randint(1000, (count,), generator=generator)

    cases = [(torch.randn(5, generator=generator), part(8), part(5), 3, weight) for weight in (1.0, 0.0, 7.0)]
    return compare_loss(function, _dimum, cases, {
        "The alternative images are told their own labels: so nothing is memorised under the target's.":
            lambda *c: _dimum(*c, own=True),
        "The network saw the clean images: noise them first.": lambda *c: _dimum(*c, clean=True),
        "Those are sums; with means, lambda keeps its meaning for any size of batch and image.": lambda *c: _dimum(*c, sums=True),
        "The sign is wrong: DiMUM climbs nothing, it minimises both terms.": lambda *c: _dimum(*c[:4], -c[4]),
        "lambda weighs the memorised term, not the retained one.": lambda *c: _dimum(*c, weighed=("retained",)),
        "lambda weighs both terms; it belongs to the memorised one.": lambda *c: _dimum(*c, weighed=("retained", "alternative")),
        "The retained term is missing: who keeps the other classes?": lambda *c: _dimum(*c, kept=0),
    })


@exercise(
    "07.2",
    "A sum over d elements is d times their mean.",
    "How many elements has the image, channels included?",
    numbers={"size": [32, 16, 28, 64, 48], "weight": [0.01, 0.002, 0.005, 0.02, 0.05]},
)
def _converted_weight(value, numbers):
    size, weight = numbers["size"], numbers["weight"]
    right = 3 * size * size * weight
    return compare_value(value, right, {
        "Divided where it should be multiplied: the sum is the larger number.": weight / (3 * size * size),
        "The channels are missing: there are three.": size * size * weight,
        "The weight is unchanged, but a sum is not a mean.": weight,
        "An image has as many rows as columns: square its size.": 3 * size * weight,
        "That is the factor; multiply the weight by it.": 3 * size * size,
    }, tolerance=1e-3 * right)


@exercise(
    "07.3",
    "Which kinds can be made from the model, or from a random number generator, alone?",
    "\"class\", \"mixed\" and \"images\" are taken from the retained data.",
)
def _no_real_images(names):
    if isinstance(names, str):
        return "A set of names was asked for, such as {\"class\"}: there is more than one."
    chosen = {str(name).strip().lower() for name in names}
    if chosen == {"generated", "noise"}:
        return True
    real, missing = chosen & {"class", "mixed", "images"}, {"generated", "noise"} - chosen
    said = [f"{', '.join(sorted(real))}: taken from the retained data, so real images."] if real else []
    strange = chosen - {"class", "mixed", "images", "generated", "noise"}
    said += [f"There is no kind {', '.join(sorted(strange))}."] if strange else []
    said += [f"{len(missing)} of the right kinds {'is' if len(missing) == 1 else 'are'} missing."] if missing else []
    return " ".join(said)


_WANTED = {"methods": 2, "targets": 2, "seeds": 2, "attack_rates": 3}
_WRECKS = 1e-3  # from here on the attacks of chapter 06 spoil the recovery


@exercise(
    "07.4",
    "What else could explain a difference? Chance, the target, the attacker's learning rate, how far each method went.",
    "The shares of chapter 08: n pairs of target and seed cannot give a p below 2 / 2^n, and every comparison multiplies it.",
    "At least three attack rates below 1e-3, neighbours at most a factor of four apart; at least as many steps of attack as of "
    "unlearning; the controls original and retrained; strength \"matched\", \"budget\" or both.",
)
def _fair_contest(plan):
    if not isinstance(plan, dict):
        return "A dictionary was expected, with methods, targets, seeds, attack_rates, steps, controls and strength."
    for name, least in _WANTED.items():
        values = plan.get(name, ())
        if isinstance(values, (str, int, float)) or len(set(values)) < least:
            return f"{name}: at least {least} different ones are needed."
    if {"original", "retrained"} & set(plan["methods"]):
        return "methods: original and retrained are controls, not rivals."
    ours = {name for name in set(plan["methods"]) if str(name).startswith("dimum")}  # dimum (class) is one too
    if not ours:
        return "methods: dimum is not among them."
    if ours == set(plan["methods"]):
        return "methods: the rival is missing."
    missing = {"original", "retrained"} - set(plan.get("controls", ()))
    if missing:
        return f"controls: {' and '.join(sorted(missing))} missing. Without them, recovery and plain learning look alike."
    strength = plan.get("strength")
    strength = {strength} if isinstance(strength, str) else set(strength or ())
    if not strength or strength - {"matched", "budget"}:
        return "strength: compare at \"matched\" forgetting, at a matched \"budget\", or at both; else the longer run wins."
    comparisons = len(ours) * len(set(plan["methods"]) - ours) * len(strength)
    return _rates(plan) or _length(plan) or _pairs(plan, comparisons) or True


def _rates(plan) -> str:
    rates = sorted(rate for rate in set(plan["attack_rates"]) if rate < _WRECKS)
    if len(rates) < 3:
        return (f"attack_rates: {len(rates)} lie below {_WRECKS:g}; at least 3 are needed there. Chapter 06 showed that "
                "a higher rate spoils the recovery itself, and then a small area is no defence.")
    if rates[-1] < 3.9 * rates[0]:
        return "attack_rates: they are nearly the same, so the attacker has no real choice."
    if any(high > 4.1 * low for low, high in pairwise(rates)):
        return "attack_rates: neighbours lie more than a factor of four apart, so the attacker may miss the best one."
    if rates[-1] < 1e-4:
        return "attack_rates: all are so low that the attack hardly moves the weights."
    return ""


def _length(plan) -> str:
    steps = plan.get("steps")
    if not isinstance(steps, dict) or not {"unlearning", "attack"} <= set(steps):
        return "steps: say how many, as {\"unlearning\": ..., \"attack\": ...}."
    if steps["unlearning"] < 10:
        return "steps: so few unlearn nothing."
    if steps["attack"] < steps["unlearning"]:
        return "steps: the attack is shorter than the unlearning, so resistance may only mean that it was cut off."
    return ""


def _pairs(plan, comparisons: int) -> str:
    pairs = len(set(plan["targets"])) * len(set(plan["seeds"]))
    if least_p(pairs) * comparisons <= 0.05:
        return ""
    return (f"seeds and targets: {pairs} pairs give no p below {least_p(pairs):.3f}, and {comparisons} comparisons of DiMUM with a "
            f"rival multiply it to {min(1, least_p(pairs) * comparisons):.2f} (Holm, chapter 08). No result could show anything.")


def _settled(steps, memorised, ordinary, window, share, *, both=True, absolute=False, too_late=0, ends_only=False):
    """The first step from which neither loss falls by more than `share` of itself in the next `window` points."""
    def still(losses, k):
        window_ahead = losses[k + 1:k + window + 1]
        fall = losses[k] - (window_ahead[-1] if ends_only else min(window_ahead))
        return fall > (share if absolute else share * losses[k])

    for k in range(len(steps) - window + too_late):
        if not still(memorised, k) and not (both and still(ordinary, k)):
            return steps[k]
    return None


@exercise(
    "07.5",
    "At a point, look ahead: is one of the next `window` losses lower by more than `share` of the loss here?",
    "losses[k] - min(losses[k + 1 : k + window + 1]) > share * losses[k] means that it still falls.",
    "The first step at which neither curve still falls; points with fewer than `window` points after them do not count. Else None.",
)
def _when_done(function, seed=0):
    rng = np.random.default_rng(seed)
    steps = np.arange(0, 60, 4)
    falling = [0.3 * 0.7 ** np.arange(len(steps)) + 0.1 + 0.001 * rng.normal(size=len(steps)) for _ in range(2)]
    slow = 0.2 * 0.95 ** np.arange(len(steps)) + 0.001 * rng.normal(size=len(steps))
    curves = [(falling[0], falling[1]), (falling[0], slow), (slow, falling[1])]
    cases = [([int(k) for k in steps], [float(x) for x in m], [float(x) for x in o], window, share)
             for m, o in curves for window, share in ((3, 0.05), (2, 0.1))]
    late = [0.5, 0.4, 0.3, 0.2, 0.2]  # level at the last two points only: too late to say
    cases.append(([0, 4, 8, 12, 16], late, late, 2, 0.1))
    cases.append((list(range(0, 28, 4)), [0.5, 0.4, 0.3, 0.5, 0.5, 0.5, 0.5], [0.2] * 7, 2, 0.1))  # a dip within the window

    def meeting(steps, memorised, ordinary, window, share):
        return next((s for s, m, o in zip(steps, memorised, ordinary, strict=True) if m <= o), None)

    return compare(function, _settled, cases, {
        "Only the memorised loss is watched; the ordinary one still falls.": lambda *c: _settled(*c, both=False),
        "share is a share of the loss, not a loss.": lambda *c: _settled(*c, absolute=True),
        "A point counts only if at least `window` points come after it.": lambda *c: _settled(*c, too_late=1),
        "That is the first step at which the losses meet; they may go on falling together.": meeting,
        "Only the next point is looked at, and one point wavers: look at all of the window.":
            lambda s, m, o, window, share: _settled(s, m, o, 1, share),
        "Only the last point of the window is looked at; a loss may fall in between.": lambda *c: _settled(*c, ends_only=True),
        "A number was asked for, or None where both fall to the end: not the last step.":
            lambda *c: c[0][-1] if _settled(*c) is None else _settled(*c),
    }, tolerance=1e-9)


@exercise(
    "07.6",
    "After `images = images[order]`: which label belongs to images[0]?",
    "Either shuffle both, or choose first. And what remains if you take `count` before you throw the target away?",
    "kept = order[labels[order] != target][:count]; return images[kept].",
)
def _mended_alternatives(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(24) % 4
    images, order = torch.randn(24, 2, generator=generator), torch.randperm(24, generator=generator)

    def chosen(images, labels, target, count, order):
        return images[order[labels[order] != target][:count]]

    return compare(function, chosen, [(images, labels, target, count, order) for target, count in ((3, 8), (0, 5))], {
        "Both faults are still there.": lambda x, y, target, count, order: x[order][:count][y[:count] != target],
        "The labels were not shuffled with the images, so images of the target are among them.":
            lambda x, y, target, count, order: x[order][y != target][:count],
        "There are too few: the first `count` are taken, and then the target is thrown away.":
            lambda x, y, target, count, order: x[order][:count][y[order][:count] != target],
        "They are not shuffled any more: the order is part of the task.": lambda x, y, target, count, order: x[y != target][:count],
        "Those are the images of the target.": lambda x, y, target, count, order: x[order[y[order] == target][:count]],
    }, tolerance=1e-6)
