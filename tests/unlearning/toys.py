"""A network that can be worked by hand, and its steps."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from dimum_core.models.codec import Codec
from dimum_core.models.diffusion import drop_labels
from dimum_core.unlearning import Step, gradient
from dimum_core.unlearning.base import ClassConditions


class Toy(nn.Module):
    """eps(x_t, t, c) = w_c x_t: a network that can be worked by hand."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, x_t, t, class_labels):
        return SimpleNamespace(sample=self.weights[class_labels].view(-1, 1, 1, 1) * x_t)


def latent_shape(pipe):
    return pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size


def toy_step(tiny_data, target=1, student=(0.1, 0.2, 0.3, 0.4), original=(0.5, 0.6, 0.7, 0.8)):
    sets = {"forget": tiny_data.only(target), "retain": tiny_data.without(target), "alternative": tiny_data.only("checks")}
    return Step(Toy(student), Toy(original), ClassConditions(target, 3, Codec(2)), sets, 6, (4, 4, 4), seed=0, index=5)


def replay(tiny_data, kind):
    """The batch and the noise of the first, or of the only, term that draws them."""
    step = toy_step(tiny_data)
    x, labels = step.batch(kind)
    if kind == "retain":
        labels = drop_labels(labels, 3, 0.1, step.generator)
    x_t, eps, t = step.noise(x)
    return x, labels, x_t, eps, t, step


def mean_square(difference):
    return float(sum(v**2 for v in difference.flatten().tolist()) / difference.numel())


def vars_of(step):
    return {k: v for k, v in vars(step).items() if k != "generator"}


def direction(method, step) -> torch.Tensor:
    """The gradient that the loop would see."""
    return gradient(method.loss(step), step.model)


def row_gradient(labels, x_t, wanted, weights):
    """d/dw of mean |wanted - w_c x_t|^2 for the toy, by hand: one entry for each class's weight."""
    by_hand = torch.zeros(4)
    for label, x, y in zip(labels, x_t, wanted, strict=True):
        by_hand[label] += (-2 * (y - weights[label] * x) * x).sum() / x_t.numel()
    return by_hand
