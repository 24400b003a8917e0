"""Chapter 05: ESD's target, SalUn's mask and EraseDiff's weight."""

from __future__ import annotations

import torch

from .checks import exercise
from .comparing import compare


@exercise(
    "05.1",
    "ESD goes away from the class. From where does it start?",
    "Start at the unconditional prediction and go eta times the way from the class's prediction towards it.",
    "null - eta (class - null).",
)
def _esd_target(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = [(*torch.randn(2, 3, 4, generator=generator), eta) for eta in (0.0, 1.0, 2.5)]
    return compare(function, lambda null, target, eta: null - eta * (target - null), cases, {
        "The sign is wrong: that is guidance, which draws more of the class.":
            lambda null, target, eta: null + eta * (target - null),
        "Start at the null prediction, not at the class's.": lambda null, target, eta: target - eta * (target - null),
        "Null and class are exchanged.": lambda null, target, eta: target - eta * (null - target),
        "The starting point is missing: add the null prediction.": lambda null, target, eta: -eta * (target - null),
        "eta is not used.": lambda null, target, eta: 2 * null - target,
        "The class's prediction alone is turned round: its difference to the null prediction is what the class adds.":
            lambda null, target, eta: null - eta * target,
    })


def _top(scores, keep):
    count = round(keep * scores.numel())
    return scores >= scores.flatten().sort().values[-count]


@exercise(
    "05.2",
    "Large means far from zero, on either side.",
    "The largest absolute values, over all entries together: round(keep * number of entries) of them.",
    "Sort gradient.abs().flatten(), take the value in the right place as a threshold, and compare.",
)
def _saliency_mask(function, seed=0):
    gradient = torch.randn(10, 20, generator=torch.Generator().manual_seed(seed))

    def answer(*case):
        mask = function(*case)
        return mask if mask is ... or mask is None else torch.as_tensor(mask).double()

    def as_numbers(mask):
        return lambda gradient, keep: mask(gradient, keep).double()

    return compare(answer if callable(function) else function, as_numbers(lambda g, keep: _top(g.abs(), keep)),
                   [(gradient, 0.1), (gradient, 0.5), (gradient, 0.3)], {
        "Negative entries can be large too: take absolute values.": as_numbers(_top),
        "That is the mask's complement: the smallest are kept.": as_numbers(lambda g, keep: ~_top(g.abs(), keep)),
        "The share is that of the rest: keep, not 1 - keep, of the entries.": as_numbers(lambda g, keep: _top(g.abs(), 1 - keep)),
        "The largest of each row are taken; the threshold is one for all entries.":
            as_numbers(lambda g, keep: torch.stack([_top(row.abs(), keep) for row in g])),
        "keep is a share of the entries, not a threshold.": as_numbers(lambda g, keep: g.abs() > keep),
    })


def _weight(r, f, eta):
    return max(0.0, eta - float(r @ f) / float(f @ f))


@exercise(
    "05.3",
    "Look at the formula's two norms and at its sign: agreeing gradients need less help.",
    "max(0, eta - <g_r, g_f> / |g_f|^2): the norm of g_f is squared.",
)
def _erasediff_weight(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    pairs = [torch.randn(2, 30, generator=generator) for _ in range(5)]
    pairs += [torch.stack([3 * g[1], g[1]]) for g in pairs[:1]]  # agreeing gradients need no help
    pairs += [torch.stack([-0.5 * g[1], g[1]]) for g in pairs[:1]]
    return compare(function, _weight, [(r, f, 0.1) for r, f in pairs], {
        "It is never negative: take max(0, ...).": lambda r, f, eta: eta - float(r @ f) / float(f @ f),
        "The norm is squared: the square is missing.": lambda r, f, eta: max(0.0, eta - float(r @ f) / float(f.norm())),
        "The sign is wrong: where the gradients agree, less of g_f is needed.":
            lambda r, f, eta: max(0.0, eta + float(r @ f) / float(f @ f)),
        "Divided by the norm of g_r; g_f is the one that is scaled.": lambda r, f, eta: max(0.0, eta - float(r @ f) / float(r @ r)),
        "eta is missing: without it nothing is forgotten where the gradients are orthogonal.":
            lambda r, f, eta: max(0.0, -float(r @ f) / float(f @ f)),
        "That is the cosine; the lengths matter here.": lambda r, f, eta: max(0.0, eta - float(r @ f) / float(r.norm() * f.norm())),
    }, tolerance=1e-4)
