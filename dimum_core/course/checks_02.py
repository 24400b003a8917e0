"""Chapter 02: guidance, its two conventions, a step of DDIM and the whole sampler."""

from __future__ import annotations

import torch

from ..models.diffusion import ALPHAS_CUMPROD
from .asking import denoised
from .checks import exercise
from .comparing import compare, compare_value


def _guided_case(seed: int):
    generator = torch.Generator().manual_seed(seed)
    x_t, labels = torch.randn(5, 3, 2, 2, generator=generator), torch.tensor([1, 0, 2, 4, 3])
    return x_t, labels, torch.full((5,), 400)


def _guide(denoise, x_t, t, labels, null_label, s, told=None):
    cond, null = denoise(x_t, t, labels), denoise(x_t, t, torch.full_like(labels, null_label) if told is None else told)
    return null + s * (cond - null)


def _shaped(x_t, t, labels):
    """A denoiser that tells every label from every other."""
    return denoised(x_t, t, labels) + (labels * 0.1).view(-1, *[1] * (x_t.ndim - 1))


def _counting(function):
    """The function's answer, and how often it asked the network."""
    def answer(*case):
        calls = []

        def denoise(x_t, t, labels):
            calls.append(t)
            return _shaped(x_t, t, labels)

        value = function(denoise, *case)
        return value if value is ... or value is None else (value, len(calls))

    return answer


@exercise(
    "02.1",
    "The batch holds each item twice: once with the null label, once with its own. x_t and t must be as long as the labels.",
    "torch.cat puts two batches one behind the other, and chunk(2) parts the answer again.",
    "null + s (class - null): s = 0 must give the null prediction, s = 1 the class's. Try both.",
)
def _guided(function, seed=0):
    x_t, labels, t = _guided_case(seed)
    cases = [(x_t, t, labels, null, s) for null, s in ((10, 3.5), (6, 0.0), (10, 1.0))]

    def once(scale=lambda s: s, start=1):
        def guide(denoise, x_t, t, labels, null_label, s):
            told = torch.cat([torch.full_like(labels, null_label), labels])
            null, cond = denoise(torch.cat([x_t, x_t]), torch.cat([t, t]), told).chunk(2)
            return start * null + scale(s) * (cond - null)

        return _counting(guide)

    counted = _counting(function) if callable(function) else function
    return compare(counted, once(), cases, {
        "The guidance is right, but the network was called twice: put both batches into one.": _counting(_guide),
        "That is the other convention, (1 + w) class - w null: here s = 1 must give the class's prediction.": once(lambda s: 1 + s),
        "Null and class are exchanged.": once(lambda s: 1 - s),
        "The sign is wrong: guidance goes towards the class.": once(lambda s: -s),
        "The starting point is missing: add the null prediction.": once(start=0),
        "s is not used: that is plain conditional sampling.": _counting(lambda denoise, *question: denoise(*question[:3])),
    })


@exercise(
    "02.2",
    "In both formulas, collect the terms with eps_c and those with eps_null. Then compare their factors.",
    "Papers that write (1 + w) eps_c - w eps_null have s = 1 + w.",
    numbers={"w": [1.5, 0.5, 0.75, 2.0, 2.5, 3.0, 4.0, 6.5, 7.5]},
)
def _paper_scale(s, numbers):
    w = numbers["w"]
    return compare_value(s, 1 + w, {
        "w and s are not the same: at w = 0 the paper samples conditionally, and that is s = 1.": w,
        "You are off in the wrong direction: s is larger than w.": w - 1,
        "The factor of the null prediction is -w = 1 - s; the sign is wrong.": -w,
        "Nothing is doubled here; compare the factors of eps_c.": 2 * w,
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
    "What is drawn does not depend on what was asked for: how often does the class asked for happen to be the one drawn?",
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
    }, tolerance=2e-3)


@exercise(
    "02.5",
    "Two predictions, one with the labels and one with as many null labels; then the line through both.",
    "null_labels = torch.full_like(labels, null_label), and w = 0 is the class's prediction.",
)
def _mended_guidance(function, seed=0):
    x_t, labels, t = _guided_case(seed)
    cases = [(_shaped, x_t, t, labels, null, w) for null, w in ((10, 3.0), (6, 0.0), (10, 1.0))]
    return compare(function, lambda d, x, t, y, n, w: _guide(d, x, t, y, n, 1 + w), cases, {
        "Both faults are still there: class 0 stands for the null label, and w is taken for s.":
            lambda d, x, t, y, n, w: _guide(d, x, t, y, n, w, told=torch.zeros_like(y)),
        "Class 0 still stands for the null label.": lambda d, x, t, y, n, w: _guide(d, x, t, y, n, 1 + w, told=torch.zeros_like(y)),
        "w is still taken for s: w = 0 must give the class's prediction.": _guide,
        "Null and class are exchanged.": lambda d, x, t, y, n, w: _guide(d, x, t, y, n, -w),
        "There is no guidance: that is the class's prediction.": lambda d, x, t, y, n, w: d(x, t, y),
    }, tolerance=1e-4)


def _ddim(denoise, x_t, labels, null_label, s, degrees, *, last=True, shift=0, s_of=lambda s: s, renoised=True):
    """The whole sampler, right or with one mistake."""
    steps = degrees if last else degrees[:-1]
    for k, degree in enumerate(steps):
        abar = ALPHAS_CUMPROD[degree]
        before = ALPHAS_CUMPROD[degrees[k + 1]] if k + 1 < len(degrees) else torch.ones(())
        eps = _guide(denoise, x_t, torch.full((len(x_t),), degree + shift), labels, null_label, s_of(s))
        x = (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()
        x_t = before.sqrt() * x + (1 - before).sqrt() * eps if renoised else x
    return x_t


@exercise(
    "02.6",
    "One pass of the loop for each degree: the guided noise, the guess, and the guess noised to the next degree of the list.",
    "After the last degree there is no noise left: there abar_before is 1, and the guess itself is the sample.",
    "t = torch.full((len(x_t),), degree); the two lines of exercise 02.3 do the rest.",
)
def _guided_sampler(function, seed=0):
    x_t, labels, _ = _guided_case(seed)
    cases = [(_shaped, x_t, labels, 10, s, degrees) for s, degrees in ((2.0, [900, 500, 100]), (3.5, [999, 700, 400, 20]))]
    return compare(function, _ddim, cases, {
        "The last degree is left out: there the guess itself is the sample.": lambda *case: _ddim(*case, last=False),
        "There is no guidance: that is the sampler at s = 1.": lambda *case: _ddim(*case, s_of=lambda s: 1.0),
        "The guess is not noised again on the way.": lambda *case: _ddim(*case, renoised=False),
        "The chain goes the wrong way: keep the order of the degrees.": lambda *case: _ddim(*case[:5], case[5][::-1]),
        "s is one too large: at s = 1 the null prediction should drop out.": lambda *case: _ddim(*case, s_of=lambda s: 1 + s),
        "The network is told the wrong t.": lambda *case: _ddim(*case, shift=-1),
    }, tolerance=1e-3)
