"""Chapter 04: the three numbers and the sets of forgetting."""

from __future__ import annotations

import torch

from .checks import exercise
from .comparing import choose, compare


@exercise(
    "04.1",
    "Which samples count? And what does unlearning accuracy call a success?",
    "Count only samples that were asked for under c; UA is the share of them that the judge does not call c.",
)
def _unlearning_accuracy(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (200,), generator=generator)
    judged = torch.where(torch.rand(200, generator=generator) < 0.6, labels, torch.randint(-1, 4, (200,), generator=generator))
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
        "better": "Better than the definition? Answering the unknown label in another way than one who never knew is a trace.",
        "worse": "Worse at what? It draws the target less often than a model that never saw it; beyond the standard is no ranking.",
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
