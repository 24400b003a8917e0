import copy
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch


def area(steps, accuracy):
    total = 0.0
    for k in range(1, len(steps)):
        total += (steps[k] - steps[k - 1]) * (accuracy[k] + accuracy[k - 1]) / 2
    return total / steps[-1]


def first_reach(steps, accuracy, level):
    if accuracy[0] >= level:
        return steps[0]
    for k in range(1, len(steps)):
        if accuracy[k] >= level:
            return steps[k - 1] + (level - accuracy[k - 1]) / (accuracy[k] - accuracy[k - 1]) * (steps[k] - steps[k - 1])
    return None


def noised(x, eps, t):
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = torch.cumprod(1 - betas, 0)[t].float()[:, None]
    return abar.sqrt() * x + (1 - abar).sqrt() * eps


class Small(torch.nn.Module):
    def __init__(self, table, mix):
        super().__init__()
        self.label, self.mix = torch.nn.Embedding.from_pretrained(table.clone(), freeze=False), torch.nn.Parameter(mix.clone())

    def forward(self, x_t, t, class_labels):
        hidden = self.label(class_labels) + torch.einsum("ni,ij->nj", x_t, self.mix)
        return SimpleNamespace(sample=torch.tanh(hidden) * (300 + t[:, None]) / 300)


def adapted(attack, **settings):
    """As the chapter hands an attack in: the weights that it returns, and those of the network that it was given."""
    def weights(unet):
        return torch.cat([unet.label.weight.flatten(), unet.mix.flatten()]).detach()

    def outcome(table, mix, batches, null_label, rate):
        given = Small(table, mix)
        trained = attack(given, batches, null_label, rate, **settings)
        return weights(trained), weights(given)

    return outcome


def clipped(gradients, at=1.0):
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    return [g * min(1.0, at / float(norm + 1e-6)) for g in gradients]


def attack(
    unet, batches, null_label, rate, kind=torch.optim.Adam, labels_of=None, clean=False, ours=True, limit=clipped, of="mean",
):
    attacked = copy.deepcopy(unet) if ours else unet
    weights = list(attacked.parameters())
    optimizer = kind(weights, lr=rate)
    for x, labels, hidden, eps, t in batches:
        told = labels.clone()
        told[hidden] = null_label
        told = labels_of(labels, hidden, null_label) if labels_of else told
        x_t = x if clean else noised(x, eps, t)
        loss = torch.nn.functional.mse_loss(attacked(x_t, t, class_labels=told).sample, eps, reduction=of)
        for weight, gradient in zip(weights, limit(torch.autograd.grad(loss, weights)), strict=True):
            weight.grad = gradient
        optimizer.step()
    return attacked


def hasty(unet, batches, null_label, rate, kind=torch.optim.SGD, held=None, where=None):
    """As the chapter prints it, with a part of its faults."""
    attacked = copy.deepcopy(unet)
    optimizer = kind((held or (lambda given, copied: given))(unet, attacked).parameters(), lr=rate)
    for x, labels, hidden, eps, t in batches:
        labels = (where or (lambda hidden, labels: torch.where(hidden, labels, null_label)))(hidden, labels)
        loss = (eps - attacked(noised(x, eps, t), t, class_labels=labels).sample).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return attacked


def piling_up(unet, batches, null_label, rate, kind, clip=False):
    attacked = copy.deepcopy(unet)
    optimizer = kind(attacked.parameters(), lr=rate)
    for x, labels, hidden, eps, t in batches:
        told = torch.where(hidden, null_label, labels)
        (eps - attacked(noised(x, eps, t), t, class_labels=told).sample).square().mean().backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(attacked.parameters(), 1.0)
        optimizer.step()
    return attacked


def own_labels(labels, hidden, null_label):
    return labels


SGD, ADAM = torch.optim.SGD, torch.optim.Adam


ANSWERS = {
    "06.5": (area, [
        (lambda steps, accuracy: np.mean(accuracy), "mean of the points"),
        (lambda steps, accuracy: area(steps, accuracy) * steps[-1], "Not divided"),
        (lambda steps, accuracy: sum(np.diff(steps) * accuracy[:-1]) / steps[-1], "left end"),
        (lambda steps, accuracy: sum(np.diff(steps) * accuracy[1:]) / steps[-1], "right end"),
        (lambda steps, accuracy: 2 * area(steps, accuracy), "halves are missing"),
    ]),
    "06.2": (0.625, [(0.55 / 0.85, "not taken off"),
                     (0.5 / 0.85, "numerator only"), (0.6875, "denominator only"), (0.5, "not the ratio"),
                     (1.6, "exchanged")]),
    "06.3": (first_reach, [
        (lambda s, a, level: next((float(x) for x, y in zip(s, a, strict=True) if y >= level), None), "first measured point"),
        (lambda s, a, level: next((float(s[max(0, k - 1)]) for k in range(len(s)) if a[k] >= level), None), "off by one step"),
        (lambda s, a, level: s[-1] if first_reach(s, a, level) is None else first_reach(s, a, level), "censored"),
        (lambda s, a, level: s[-1], "last step"),
        (lambda s, a, level: None if (found := first_reach(s, a, level)) is None or max(a) == level else found, "was expected"),
        (lambda s, a, level: np.interp(level, a, s), "was expected"),
    ]),
    "06.1": (adapted(attack), [
        (adapted(attack, ours=False), "train a copy"),
        (adapted(hasty, kind=ADAM), "weights of another network"),
        (adapted(piling_up, kind=ADAM, clip=True), "pile up"),
        (adapted(attack, limit=list), "not clipped"),
        (adapted(attack, limit=partial(clipped, at=0.5)), "was expected"),
        (adapted(attack, of="sum"), "sum of the squared errors"),
        (adapted(attack, clean=True), "clean images"),
        (adapted(attack, labels_of=own_labels), "No label is hidden"),
        (adapted(attack, kind=SGD), "plain gradient descent"),
        (adapted(attack, kind=partial(ADAM, maximize=True)), "climbed"),
        (adapted(lambda unet, batches, *rest: attack(unet, batches[:1], *rest)), "was expected"),
    ]),
    "06.4": (adapted(attack, kind=SGD, limit=list), [
        (adapted(hasty), "Nothing is trained yet"),
        (adapted(hasty, held=lambda given, copied: copied), "under the null label nearly always"),
        (adapted(hasty, where=lambda hidden, labels: torch.where(hidden, 4, labels)), "Nothing is trained yet"),
        (adapted(attack, kind=SGD, limit=list, ours=False), "train the copy"),
        (adapted(piling_up, kind=SGD), "pile up"),
        (adapted(attack, kind=SGD, limit=list, labels_of=own_labels), "No label is hidden"),
    ]),
}
