from itertools import permutations

import numpy as np
import torch

ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()


def exchanged(a, b, distance=lambda p, q: 0.5 * np.sum(np.abs(np.mean(p, 0) - np.mean(q, 0))), own=1):
    """By going through orders instead of groups: each group comes up equally often."""
    runs, true = np.vstack([a, b]), distance(a, b)
    groups = {frozenset(order[:len(a)]) for order in permutations(range(len(runs)), len(a))}
    far = [distance(runs[[k in g for k in range(len(runs))]], runs[[k not in g for k in range(len(runs))]]) for g in groups]
    return (sum(value >= true - 1e-9 for value in far) - 1 + own) / len(groups)


def redirected(denoise, x, labels, eps, t, target, stand_in, teach=1.0, keep=1.0):
    x_t = ABAR[t].sqrt()[:, None] * x + (1 - ABAR[t]).sqrt()[:, None] * eps

    def error(mask, names):
        return ((denoise(x_t[mask], t[mask], names[mask]) - eps[mask]) ** 2).mean()
    return teach * error(labels == stand_in, labels * 0 + target) + keep * error(labels != target, labels)


def unlearning_accuracy(judged, asked, c):
    return 1 - (judged[asked == c] == c).float().mean()


ANSWERS = {
    "04.1": (unlearning_accuracy, [
        (lambda judged, asked, c: (judged[asked == c] == c).float().mean(), "one minus it"),
        (lambda judged, asked, c: (judged != c).float().mean(), "other classes"),
        (lambda judged, asked, c: ((judged != c) & (asked == c)).float().mean(), "number of all samples"),
        (lambda judged, asked, c: ((judged != c) & (asked == c)).sum(), "not their share"),
        (lambda judged, asked, c: (asked[judged == c] != c).float().mean(), "by the verdict"),
    ]),
    "04.2": ("different", [
        ("better", "than the definition"), ("worse", "nothing ranks"), ("same", "not among the choices"),
        ("equal", "The two numbers differ"),
    ]),
    "04.3": (lambda images, labels, c: (images[labels != c], labels[labels != c]), [
        (lambda images, labels, c: (images[labels == c], labels[labels == c]), "forget set"),
        (lambda images, labels, c: (images[labels != c], labels), "labels were not filtered"),
        (lambda images, labels, c: images[labels != c], "Both are wanted"),
        (lambda images, labels, c: (images * (labels != c)[:, None], labels), "blacked out"),
    ]),
    "04.4": (exchanged, [
        (lambda a, b: 0.5 * np.abs(a.mean(0) - b.mean(0)).sum(), "distance of the groups"),
        (lambda a, b: 1 - exchanged(a, b), "less far apart"),
        (lambda a, b: exchanged(a, b, lambda p, q: abs(p[:, 0].mean() - q[:, 0].mean())), "first column"),
        (lambda a, b: 0.05, "was expected"),
    ]),
    "04.5": (redirected, [
        (lambda *case: redirected(*case, keep=0.0), "rest is not kept"),
        (lambda *case: redirected(*case, teach=0.0), "look away"),
        (lambda d, x, y, eps, t, c, s: redirected(d, x, y, eps, t, c, s, keep=0.0)
         - redirected(d, x, y, eps, t, c, s, teach=0.0), "was expected"),
        (lambda *case: -redirected(*case), "was expected"),
        (torch.no_grad()(redirected), "No gradient"),
    ]),
    "04.6": (lambda judged, asked, c: (judged == asked)[asked != c].float().mean(), [
        (lambda j, a, c: (j == a)[(j != c) & (j != -1)].float().mean(), "Both faults"),
        (lambda j, a, c: (j == a)[(a != c) & (j != -1)].float().mean(), "left out"),
        (lambda j, a, c: (j == a)[j != c].float().mean(), "by the verdict"),
        (lambda j, a, c: (j == a).float().mean(), "counted, too"),
    ]),
}
