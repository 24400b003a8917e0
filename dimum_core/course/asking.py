"""How to judge a training loss that draws its own randomness: by what it asks a network that records every question.

The noise in x_t follows from x and t; whether it is normal, and belongs to that t, shows from a large batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch

from ..models.diffusion import ALPHAS_CUMPROD
from .checks import Unanswered
from .comparing import compare


class Asked:
    """A denoiser that records what it is asked. Its answer depends on every part of the question."""

    def __init__(self):
        self.calls: list[tuple] = []

    def __call__(self, x_t, t, labels):
        self.calls.append((x_t, t, labels))
        return denoised(x_t, t, labels)


def denoised(x_t, t, labels):
    sign = torch.where(labels % 2 == 0, 1.0, -1.0)
    return torch.tanh(x_t) * 0.5 + ((0.3 * sign + t / 2000).to(x_t.dtype)).view(-1, *[1] * (x_t.ndim - 1))


def table_network(table):
    """A denoiser with one number to learn for each label. Its answer depends on that number, on x_t and on t."""
    def denoise(x_t, t, labels):
        each = (-1, *[1] * (x_t.ndim - 1))
        return torch.tanh(x_t + table[labels].view(each)) * (1 + t.view(each) / 1000)

    return denoise


def compare_loss(function, reference: Callable, cases: list[tuple], mistakes: Mapping[str, Callable], tolerance: float = 1e-3):
    """As `compare`, for a loss whose first argument is such a network. Each case begins with the table of the network.

    If the answer has a gradient, the gradients are compared as well: they show what was held constant. A student's process sends
    values only.
    """
    if not callable(function):
        return compare(function, reference, [])
    table, *rest = copy.deepcopy(cases[0])
    loss = function(table_network(table.requires_grad_()), *rest)
    if loss is not ... and loss is not None and not (getattr(loss, "requires_grad", False) or hasattr(function, "values_only")):
        return "No gradient reaches the network, so it could not learn: is the last prediction under torch.no_grad(), or detached?"
    read = [_value, _with_gradient] if isinstance(loss, torch.Tensor) and loss.requires_grad else [_value]
    for seen in read:
        found = compare(seen(function), seen(reference), cases, {said: seen(each) for said, each in mistakes.items()}, tolerance)
        if found is not True:
            return found
    return True


def _value(loss_of):
    return lambda table, *rest: loss_of(table_network(table), *rest)


def _with_gradient(loss_of):
    def both(table, *rest):
        loss = loss_of(table_network(table.requires_grad_()), *rest)
        gradient = torch.autograd.grad(loss, table, allow_unused=True)[0] if loss.requires_grad else None
        return float(loss.detach()), torch.zeros_like(table) if gradient is None else gradient

    return both


def loss_of(function, x, labels, last, seed: int) -> tuple | str:
    """Call a loss that draws for itself. Returns its value and what it asked the network (x_t, t, labels), or what is wrong."""
    asked = Asked()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loss = function(asked, x.clone(), labels.clone(), last)
    if loss is ...:
        raise Unanswered
    if len(asked.calls) != 1:
        return f"The network should be asked once, with x_t, t and labels; it was asked {len(asked.calls)} times."
    x_t, t, told = asked.calls[0]
    if not all(isinstance(part, torch.Tensor) for part in asked.calls[0]) or not t.shape == told.shape == x_t.shape[:1]:
        return "The network wants three tensors: x_t, and one t and one label for each item."
    if loss is None:
        return "Does your function return its result?"
    return float(loss), x_t, t, told


def drawn_t(t) -> str:
    """What is wrong with the degrees of a large batch."""
    if len(t.unique()) == 1:
        return "All items have the same t: draw one for each."
    edge = min(60, -(-23_000 // len(t)))  # so many degrees at an end are all missed once in 10^10 times
    if not 0 <= int(t.min()) < edge or not 999 - edge < int(t.max()) < 1000 or abs(float(t.float().mean()) - 499.5) > 40:
        return f"t should be drawn evenly from 0 to 999; yours lie between {int(t.min())} and {int(t.max())}."
    shares = torch.bincount(t.long() // 100, minlength=10) / len(t)
    if float((shares - 0.1).abs().max()) > 6 * (0.09 / len(t)) ** 0.5:  # standard deviations
        return "t should be drawn evenly from 0 to 999; yours crowd in some places."
    return ""


def drawn_eps(x_t, x, t) -> tuple[torch.Tensor, str]:
    """The noise that must be in x_t (N x D), and what is wrong with it. From 3,000 numbers on, normal noise is not refused: each
    bound lies at least six standard deviations away."""
    abar = ALPHAS_CUMPROD[t][:, None]
    eps = (x_t.double() - abar.sqrt() * x.double()) / (1 - abar).sqrt()
    mean, spread, far = float(eps.mean()), float(eps.std()), float((eps.abs() > 2).double().mean())
    wrong = ""
    if torch.allclose(x_t.double(), abar.sqrt() * x.double(), atol=1e-4):
        wrong = "No noise was added."
    elif float(eps.std(0).max()) < 0.1:
        wrong = "All items have the same noise: draw it for each."
    elif abs(mean) > 0.15 or abs(spread - 1) > 0.1:
        wrong = (f"If x_t is x noised to the t that the network is told, its noise has mean {mean:.2f} and standard deviation "
                 f"{spread:.2f}, not 0 and 1.")
    elif float(eps.std(1).max()) < 0.1:
        wrong = "All coordinates of an item have the same noise: draw it for each of them."
    elif float(torch.corrcoef(eps.T).fill_diagonal_(0).abs().max()) > 0.25:
        wrong = "The noise of one coordinate depends on that of another: draw each by itself."
    elif not 0.02 < far < 0.08:
        wrong = f"{far:.1%} of the noise lies beyond 2 and -2; of a normal distribution it is 4.6 %. Draw it with torch.randn."
    return eps.float(), wrong


def hidden_labels(told, labels, null_label: int) -> str:
    """What is wrong with how labels were hidden."""
    changed = told != labels
    share = float(changed.float().mean())
    if share == 0:
        return "No label was hidden: one in ten should become the null label."
    if not bool((told[changed] == null_label).all()):
        return f"Labels were changed to something other than the null label, {null_label}."
    if abs(share - 0.1) > 0.04:
        return f"{share:.0%} of the labels were hidden: it should be one in ten, drawn for each item by itself."
    return ""


def right_loss(loss: float, eps, predicted, x) -> bool | str:
    """Whether the loss is the mean square of eps minus what the network predicted."""
    square = (eps - predicted).square()
    kinds = {
        "": square.mean(), "That is the sum of the squares; take the mean over all elements.": square.sum(),
        "That is the sum over each item; take the mean over all elements.": square.flatten(1).sum(1).mean(),
        "The network predicts the noise, so compare it with eps, not with the image.": (x - predicted).square().mean(),
        "That is the mean of the differences; square them first.": (eps - predicted).mean(),
        "That is the mean distance; the loss has squares.": (eps - predicted).abs().mean(),
    }
    for said, value in kinds.items():
        if abs(loss - float(value)) <= 2e-3 * max(1.0, abs(float(value))):
            return said or True
    return f"For what you drew and what the network said, the loss should be {float(kinds['']):.4g}, not {loss:.4g}."
