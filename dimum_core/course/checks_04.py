"""Chapter 04: the numbers and sets of forgetting, runs that can be told apart, and a naive unlearner."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch

from ..models.diffusion import add_noise
from .asking import compare_loss
from .checks import exercise
from .comparing import choose, compare, judged_samples


@exercise(
    "04.1",
    "Which samples count? And what does unlearning accuracy call a success?",
    "Count only samples that were asked for under c; UA is the share of them that the judge does not call c.",
)
def _unlearning_accuracy(function, seed=0):
    judged, labels = judged_samples(torch.Generator().manual_seed(seed), 200, classes=4, right=0.6)
    cases = [(judged, labels, c) for c in range(4)]
    return compare(function, lambda judged, labels, c: (judged[labels == c] != c).float().mean(), cases, {
        "That is the accuracy on the target; UA is one minus it.":
            lambda judged, labels, c: (judged[labels == c] == c).float().mean(),
        "Samples of other classes are counted too: only those asked for under c belong here.":
            lambda judged, labels, c: (judged != c).float().mean(),
        "That is divided by the number of all samples, not of those asked for under c.":
            lambda judged, labels, c: (judged[labels == c] != c).float().sum() / len(labels),
        "The selection is by the verdict; select by what was asked for.":
            lambda judged, labels, c: (labels[judged == c] != c).float().mean(),
        "That is the number of samples, not their share.": lambda judged, labels, c: (judged[labels == c] != c).float().sum(),
        "None of these (-1) counts as forgotten: do not leave it out.":
            lambda judged, labels, c: (judged[(labels == c) & (judged >= 0)] != c).float().mean(),
    })


@exercise(
    "04.2",
    "The retrained model is the definition of having forgotten. Can one forget more than that?",
    "Whoever compares the two models can tell them apart.",
)
def _beyond_the_gold_standard(word):
    return choose(word, {"different"}, {
        "better": "Better than the definition? A model that answers the unknown label unlike one that never saw it leaves a trace.",
        "worse": "Worse at what? It draws the target less often than a model that never saw it; nothing ranks beyond the standard.",
        "equal": "The two numbers differ.",
    })


@exercise(
    "04.3",
    "Images and labels must stay together.",
    "Index both tensors with the same boolean mask, and return both.",
)
def _retain_set(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.tensor([0, 1, 2, 1, 0, 2]), torch.randint(3, (20,), generator=generator)])
    images = torch.randn(len(labels), 4, generator=generator)

    def emptied(images, labels, c):
        return torch.where((labels == c)[:, None], torch.zeros(()), images), labels

    def renumbered(images, labels, c):
        kept = labels[labels != c]
        return images[labels != c], kept - (kept > c).long()

    return compare(function, lambda x, y, c: (x[y != c], y[y != c]), [(images, labels, c) for c in range(3)], {
        "That is the forget set.": lambda x, y, c: (x[y == c], y[y == c]),
        "The labels were not filtered, so they no longer fit the images.": lambda x, y, c: (x[y != c], y),
        "Both are wanted, images and labels.": lambda x, y, c: x[y != c],
        "The labels were renumbered; the network knows them by their numbers.": renumbered,
        "The images are blacked out but still there.": emptied,
    })


def _apart(a, b):
    return float(np.abs(a.mean(0) - b.mean(0)).sum() / 2)


def _p_value(a, b, *, sides=_apart, strict=False):
    """The share of all ways to part the runs into two groups whose distance is at least that of the true groups."""
    runs, size = np.concatenate([a, b]), len(a)
    groups = [list(group) for group in combinations(range(len(runs)), size)]
    found = [sides(runs[group], np.delete(runs, group, axis=0)) for group in groups]
    return float(np.mean([value > found[0] + 1e-9 if strict else value >= found[0] - 1e-9 for value in found]))


@exercise(
    "04.4",
    "If both groups came from one distribution, any other way to part the runs would be as good.",
    "itertools.combinations(range(n), len(a)) gives all first groups; the true one is among them and counts.",
    "The share of ways with a distance of at least the true one, less 1e-9 for rounding.",
)
def _told_apart(function, seed=0):
    rng = np.random.default_rng(seed)
    cases = [(rng.dirichlet(np.ones(5), 3), rng.dirichlet(np.ones(5), 4)),
             (rng.dirichlet(np.r_[np.full(4, 2), 9], 3), rng.dirichlet(np.ones(5), 3)),
             (rng.dirichlet(np.r_[30, np.ones(4)], 4), rng.dirichlet(np.r_[np.ones(4), 30], 4))]
    return compare(function, _p_value, cases, {
        "The true way is not counted: with few runs the share could be 0, which no test can give.":
            lambda a, b: _p_value(a, b, strict=True),
        "That is the distance of the groups; how often would chance give as much?": _apart,
        "That is the share of ways that are less far apart.": lambda a, b: 1 - _p_value(a, b),
        "Only the first column is compared; all of them count.":
            lambda a, b: _p_value(a, b, sides=lambda p, q: abs(float(p[:, 0].mean() - q[:, 0].mean()))),
    }, tolerance=1e-6)


def _redirect(denoise, x, labels, eps, t, target, stand_in, *, told="target", forget=True, retain=True, rename=False):
    """Half of the loss teaches the stand-in's images under the target's label; the other half keeps the rest as it is."""
    def loss(chosen, names):
        return (eps[chosen] - denoise(add_noise(x[chosen], eps[chosen], t[chosen]), t[chosen], names)).square().mean()

    borrowed, kept = labels == (target if rename else stand_in), labels != target
    names = torch.full_like(labels[borrowed], target if told == "target" else stand_in)
    return forget * loss(borrowed, names) + retain * loss(kept, labels[kept])


@exercise(
    "04.5",
    "Two losses of ordinary training, each over its own part of the batch; add them.",
    "First: images of stand_in, told that they are target. Second: all images but target's, under their own labels.",
)
def _naive_unlearner(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, eps = torch.randn(2, 24, 3, generator=generator)
    labels, t = torch.arange(24) % 4, torch.randint(1000, (24,), generator=generator)
    cases = [(torch.randn(4, generator=generator), x, labels, eps, t, target, stand_in) for target, stand_in in ((3, 2), (0, 1))]
    return compare_loss(function, _redirect, cases, {
        "The stand-in's images are told their own label: nothing is taught under the target's.":
            lambda *case: _redirect(*case, told="stand_in"),
        "The rest is not kept: add the loss of all images but target's, under their own labels.":
            lambda *case: _redirect(*case, retain=False),
        "Nothing is taught under the target's label: that is 'look away'.": lambda *case: _redirect(*case, forget=False),
        "Those are the target's images under the stand-in's label: that teaches the stand-in the forbidden look.":
            lambda *case: _redirect(*case, told="stand_in", rename=True),
        "Those are the target's images under their own label: that practises what should be forgotten.":
            lambda *case: _redirect(*case, rename=True),
    }, tolerance=1e-4)


@exercise(
    "04.6",
    "Whose samples belong to RA? And what does the judge say of a sample that shows nothing?",
    "RA counts samples that were asked for under another label than c; -1 is a wrong answer like any other.",
)
def _mended_retained(function, seed=0):
    judged, asked = judged_samples(torch.Generator().manual_seed(seed), 200, classes=4, right=0.6)

    def share(judged, asked, chosen):
        return (judged[chosen] == asked[chosen]).float().mean()

    return compare(function, lambda judged, asked, c: share(judged, asked, asked != c), [(judged, asked, c) for c in range(4)], {
        "Both faults are still there.": lambda j, a, c: share(j, a, (j != c) & (j >= 0)),
        "None of these is still left out; it is a wrong answer.": lambda j, a, c: share(j, a, (a != c) & (j >= 0)),
        "Samples are still chosen by the verdict; choose by what was asked for.": lambda j, a, c: share(j, a, j != c),
        "The target's samples are counted, too.": lambda j, a, c: share(j, a, a == a),
        "That is the share of wrong ones.": lambda j, a, c: 1 - share(j, a, a != c),
    })
