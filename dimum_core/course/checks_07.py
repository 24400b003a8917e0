"""Chapter 07: DiMUM's loss, its weight, its data, and a fair contest."""

from __future__ import annotations

import torch

from .checks import exercise
from .comparing import compare, compare_value


@exercise(
    "07.1",
    "Two ordinary denoising losses, one of them weighed.",
    "Each term is the mean of its squared differences; lambda weighs the second.",
)
def _dimum_loss(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    retain, alternative = torch.randn(8, 3, generator=generator), torch.randn(4, 3, generator=generator)
    cases = [(retain, alternative, w) for w in (0.0, 1.0, 7.0)]
    return compare(function, lambda r, a, w: r.square().mean() + w * a.square().mean(), cases, {
        "Those are sums; with means, lambda keeps its meaning for any size of image.":
            lambda r, a, w: r.square().sum() + w * a.square().sum(),
        "The first term is a mean and the second a sum: this hides a factor in lambda.":
            lambda r, a, w: r.square().mean() + w * a.square().sum(),
        "The sign is wrong: nothing is climbed in DiMUM, both terms are minimised.":
            lambda r, a, w: r.square().mean() - w * a.square().mean(),
        "lambda weighs the memorised term, not the retained one.": lambda r, a, w: w * r.square().mean() + a.square().mean(),
        "The squares are missing.": lambda r, a, w: r.abs().mean() + w * a.abs().mean(),
        "A root is too much: the mean squared error is not rooted.":
            lambda r, a, w: r.square().mean().sqrt() + w * a.square().mean().sqrt(),
        "The retained term is missing: who keeps the other classes?": lambda r, a, w: w * a.square().mean(),
    }, tolerance=1e-4)


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


_WANTED = {"methods": 2, "targets": 2, "seeds": 3, "attack_rates": 2}


@exercise(
    "07.4",
    "What else could explain a difference? Chance, the target, the attacker's learning rate, how far each method went.",
    "At least two methods, two targets, three seeds and two attack rates; the controls original and retrained.",
    "strength says how the runs are made comparable: \"matched\" (the same UA), \"budget\" (the same steps), or both.",
)
def _fair_contest(plan):
    if not isinstance(plan, dict):
        return "A dictionary was expected, with methods, targets, seeds, attack_rates, controls and strength."
    for name, least in _WANTED.items():
        values = plan.get(name, ())
        if isinstance(values, (str, int, float)) or len(set(values)) < least:
            return f"{name}: at least {least} different ones are needed."
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
    return True
