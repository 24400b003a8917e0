"""Chapter 02: guidance, its two conventions, and a step of DDIM."""

from __future__ import annotations

import torch

from ..models.diffusion import ALPHAS_CUMPROD
from .checks import exercise
from .comparing import compare, compare_value


@exercise(
    "02.1",
    "Start at the null prediction and go s times the way to the class's prediction.",
    "s = 0 must give the null prediction, s = 1 the class's: try both.",
    "null + s (class - null).",
)
def _guided(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = [(*torch.randn(2, 5, 3, 4, 4, generator=generator), s) for s in (0.0, 1.0, 3.5)]
    return compare(function, lambda null, cond, s: null + s * (cond - null), cases, {
        "That is the other convention, (1 + w) class - w null: here s = 1 must give the class's prediction.":
            lambda null, cond, s: (1 + s) * cond - s * null,
        "Null and class are exchanged.": lambda null, cond, s: cond + s * (null - cond),
        "The sign is wrong: guidance goes towards the class.": lambda null, cond, s: null - s * (cond - null),
        "Without the starting point: add the null prediction.": lambda null, cond, s: s * (cond - null),
        "s is not used: that is plain conditional sampling.": lambda null, cond, s: cond,
    })


@exercise(
    "02.2",
    "Sort both formulas by eps_c and eps_null, and compare the factors.",
    "Papers that write (1 + w) eps_c - w eps_null have s = 1 + w.",
    numbers={"w": [1.5, 0.5, 0.75, 2.0, 2.5, 3.0, 4.0, 6.5, 7.5]},
)
def _paper_scale(s, numbers):
    w = numbers["w"]
    return compare_value(s, 1 + w, {
        "w and s are not the same: at w = 0 the paper samples conditionally, and that is s = 1.": w,
        "You are off in the wrong direction: s is larger than w.": w - 1,
        "The factor of the null prediction is -w = 1 - s; the sign is wrong.": -w,
        "Multiplication is not what happens here; compare the factors of eps_c.": 2 * w,
    }, tolerance=1e-9)


@exercise(
    "02.3",
    "First the guess of the image from x_t and eps; then noise it again, with the same eps, to the earlier degree.",
    "DDIM keeps the noise: sqrt(abar_before) guess + sqrt(1 - abar_before) eps.",
    "guess = (x_t - sqrt(1 - abar) eps) / sqrt(abar).",
)
def _ddim_step(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for now, before in ((600, 400), (300, 0), (999, 900)):
        x, eps = torch.randn(2, 4, 3, 8, 8, generator=generator, dtype=torch.float64)
        abar = ALPHAS_CUMPROD[now]
        cases.append((abar.sqrt() * x + (1 - abar).sqrt() * eps, eps, abar, ALPHAS_CUMPROD[before]))

    def step(x_t, eps, now, before):
        return before.sqrt() * (x_t - (1 - now).sqrt() * eps) / now.sqrt() + (1 - before).sqrt() * eps

    return compare(function, step, cases, {
        "Now and before are exchanged: that step adds noise.": lambda x_t, eps, now, before: step(x_t, eps, before, now),
        "That is the guess of the clean image; noise it again to the earlier degree.":
            lambda x_t, eps, now, before: (x_t - (1 - now).sqrt() * eps) / now.sqrt(),
        "The noise of the earlier degree is missing: add sqrt(1 - abar_before) eps.":
            lambda x_t, eps, now, before: before.sqrt() * (x_t - (1 - now).sqrt() * eps) / now.sqrt(),
        "The noise is added at the degree of x_t: use abar_before, one step earlier.":
            lambda x_t, eps, now, before: before.sqrt() * (x_t - (1 - now).sqrt() * eps) / now.sqrt() + (1 - now).sqrt() * eps,
        "The square roots are missing.":
            lambda x_t, eps, now, before: before * (x_t - (1 - now) * eps) / now + (1 - before) * eps,
        "x_t comes back unchanged.": lambda x_t, eps, now, before: x_t,
    }, tolerance=1e-4)


@exercise(
    "02.4",
    "At s = 0 the label plays no part: what is drawn is independent of what was asked.",
    "The model draws each class equally often, whatever was asked for: how often does the one it draws happen to be right?",
    numbers={"classes": [10, 4, 5, 8, 20, 25, 50]},
)
def _share_at_no_guidance(share, numbers):
    classes = numbers["classes"]
    return compare_value(share, 1 / classes, {
        "Not none: without a label the model still draws, and sometimes the class asked for, by chance.": 0.0,
        "All of them would need the label, which is ignored at s = 0.": 1.0,
        "There are more than two outcomes.": 0.5,
        "That is the share of wrong ones.": 1 - 1 / classes,
        "A share was asked for, not the number of classes.": classes,
    }, tolerance=0.02 if classes == 10 else 2e-3)
