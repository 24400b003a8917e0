"""Chapter 05: ESD's loss, SalUn's mask, EraseDiff's weight, a naive unlearner, and a mask that never applies."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import torch

from ..models.diffusion import ALPHAS_CUMPROD, add_noise
from .asking import compare_loss, table_network
from .checks import exercise
from .comparing import compare


def _esd(student, original, noise, labels, null_label, degrees, stop, eta, s, *, walker=None, held=True, judge=None, sign=1.0):
    """The loss at a point of the student's own path, right or with one mistake."""
    def parts(denoise, x_t, degree):
        t = torch.full((len(x_t),), degree)
        return denoise(x_t, t, torch.full_like(labels, null_label)), denoise(x_t, t, labels)

    x_t = noise
    with torch.no_grad() if held else nullcontext():
        for now, then in pairwise(degrees[:stop + 1]):
            null, cond = parts(walker or student, x_t, now)
            eps = null + s * (cond - null)
            x = (x_t - (1 - ALPHAS_CUMPROD[now]).sqrt() * eps) / ALPHAS_CUMPROD[now].sqrt()
            x_t = (ALPHAS_CUMPROD[then].sqrt() * x + (1 - ALPHAS_CUMPROD[then]).sqrt() * eps).float()
    null, cond = parts(judge or original, x_t, degrees[stop])
    wanted = (null - sign * eta * (cond - null)).detach()
    return (wanted - parts(student, x_t, degrees[stop])[1]).square().mean()


@exercise(
    "05.1",
    "Two parts: a walk from which nothing is learnt, then one squared error at the point where it stops.",
    "The walk is the student's: the guided DDIM steps of exercise 02.6, `stop` of them, under torch.no_grad().",
    "At degrees[stop]: wanted = null - eta (class - null), both by the original; its distance to the student's class prediction.",
)
def _esd_loss(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise, original = torch.randn(4, 3, 2, 2, generator=generator), table_network(torch.randn(5, generator=generator))
    labels, degrees = torch.tensor([2, 2, 0, 1]), [999, 700, 400, 100]
    cases = [(torch.randn(5, generator=generator), original, noise, labels, 4, degrees, stop, eta, s)
             for stop, eta, s in ((2, 1.0, 3.0), (0, 2.0, 3.0), (3, 0.5, 1.5))]
    return compare_loss(function, _esd, cases, {
        "The gradient flows back through the path: walk it under torch.no_grad().": lambda *c: _esd(*c, held=False),
        "The path is drawn by the original; ESD learns at points that the student itself reaches.":
            lambda *c: _esd(*c, walker=c[1]),
        "Your wanted prediction comes from the student; take it from the frozen original.": lambda *c: _esd(*c, judge=c[0]),
        "The sign is wrong: that asks for more of the class.": lambda *c: _esd(*c, sign=-1.0),
        "eta and s are exchanged: s guides the path, eta says how far to go away.":
            lambda *c: _esd(*c[:7], c[8], c[7]),
        "The path is drawn without guidance.": lambda *c: _esd(*c[:8], 1.0),
        "The squares are summed; take the mean.": lambda *c: _esd(*c) * c[2].numel(),
    })


def _top(scores, keep):
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[scores.flatten().topk(round(keep * scores.numel())).indices] = True
    return mask.view_as(scores)


@exercise(
    "05.3",
    "Large means far from zero, on either side.",
    "The largest absolute values, over all entries together: round(keep * number of entries) of them.",
    "gradient.abs().flatten().topk(count).indices are their places: set a flat mask there, and give it the gradient's shape.",
)
def _saliency_mask(function, seed=0):
    gradient = torch.randn(10, 20, generator=torch.Generator().manual_seed(seed))
    return compare(function, lambda g, keep: _top(g.abs(), keep), [(gradient, 0.1), (gradient, 0.5), (gradient, 0.3)], {
        "Negative entries can be large too: take absolute values.": _top,
        "That is the mask's complement: the smallest are kept.": lambda g, keep: ~_top(g.abs(), keep),
        "The share is that of the rest: keep, not 1 - keep, of the entries.": lambda g, keep: _top(g.abs(), 1 - keep),
        "The largest of each row are taken; the threshold is one for all entries.":
            lambda g, keep: torch.stack([_top(row.abs(), keep) for row in g]),
        "keep is a share of the entries, not a threshold.": lambda g, keep: g.abs() > keep,
    }, read=torch.as_tensor)


def _weight(r, f, eta):
    return max(0.0, eta - float(r @ f) / float(f @ f))


@exercise(
    "05.5",
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


def _random_label(denoise, x, labels, eps, t, target, others, *, held=True, taught="answer", keep=True, everyone=False):
    """Answer under the target as under other labels, and keep the rest; right or with one mistake."""
    x_t, forget = add_noise(x, eps, t), labels == target
    predicted, wanted = denoise(x_t, t, labels), denoise(x_t, t, others)
    if taught == "noise":
        predicted, wanted = wanted, eps
    chosen = torch.ones_like(forget) if everyone else forget
    loss = ((wanted.detach() if held else wanted) - predicted)[chosen].square().mean()
    return loss + keep * (eps - denoise(x_t, t, labels))[~forget].square().mean()


@exercise(
    "05.2",
    "Two means over two parts of the batch: the images with the label target, and all others.",
    "The wanted answer to the target's images is the network's own prediction under others, held constant.",
    "wanted = denoise(x_t, t, others).detach(); for the other images the plain loss under their own labels.",
)
def _naive_unlearner(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, eps = torch.randn(2, 16, 3, generator=generator)
    labels, t = torch.arange(16) % 4, torch.randint(1000, (16,), generator=generator)
    cases = [(torch.randn(4, generator=generator), x, labels, eps, t, target,
              (labels + torch.randint(1, 4, (16,), generator=generator)) % 4) for target in (3, 0)]
    return compare_loss(function, _random_label, cases, {
        "The wanted answer moves, too: hold it constant (.detach()), or the other labels are pulled towards the target's.":
            lambda *c: _random_label(*c, held=False),
        "The rest is not kept: add the loss of the other images under their own labels.":
            lambda *c: _random_label(*c, keep=False),
        "That teaches the target's images under other labels; it is the answer under the target's own label that should change.":
            lambda *c: _random_label(*c, taught="noise"),
        "All images are answered as under other labels; only the target's should be.":
            lambda *c: _random_label(*c, everyone=True),
        "Nothing is forgotten: that is the loss of the other images alone.":
            lambda *c: _random_label(*c) - _random_label(*c, keep=False),
    })


def _masked_step(weights, gradients, masks, rate, decay, *, masked=True, decayed="masked"):
    """Plain gradient descent with weight decay, where a mask allows it."""
    shrink = {"masked": 1, "all": None, "none": 0}[decayed]
    return [w - rate * (g * (m if masked else 1) + decay * w * (m * shrink if shrink is not None else 1))
            for w, g, m in zip(weights, gradients, masks, strict=True)]


@exercise(
    "05.4",
    "Print how many weights changed. What does `gradient = ...` in a loop change: the list, or a name?",
    "The masked gradients are never used. And what does weight decay do to a weight whose gradient is 0?",
    "weight - rate * mask * (gradient + decay * weight), for each; return the list.",
)
def _mended_mask(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((3, 4), (5,), (2, 2, 2))
    weights, gradients = ([torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2))
    masks = [(torch.rand(shape, generator=generator) < 0.5).float() for shape in shapes]
    cases = [(weights, gradients, masks, rate, decay) for rate, decay in ((0.1, 0.5), (0.3, 0.1))]
    return compare(function, _masked_step, cases, {
        "Nothing has changed: the masked gradient is never used, and weight decay moves every weight.":
            lambda *c: _masked_step(*c, masked=False, decayed="all"),
        "The mask stops the gradient, but weight decay still moves the weights outside it.":
            lambda *c: _masked_step(*c, decayed="all"),
        "The mask stops only the decay; it is still not applied to the gradient.": lambda *c: _masked_step(*c, masked=False),
        "The decay is gone inside the mask, too.": lambda *c: _masked_step(*c, decayed="none"),
        "The mask is inverted: it lets the wrong weights change.":
            lambda w, g, m, *c: _masked_step(w, g, [1 - each for each in m], *c),
        "The weights outside the mask are set to 0; they should stay as they are.":
            lambda w, g, m, *c: [new * each for new, each in zip(_masked_step(w, g, m, *c), m, strict=True)],
    }, tolerance=1e-5)
