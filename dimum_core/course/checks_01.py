"""Chapter 01: noise, the guess of the image, and the lowest loss."""

from __future__ import annotations

import torch

from ..models.diffusion import ALPHAS_CUMPROD
from .checks import exercise
from .comparing import compare, compare_value


@exercise(
    "01.1",
    "Look for the first t at which alphas_cumprod is below the level; t counts from 0.",
    "(alphas_cumprod < level).nonzero()[0] is a tensor of one number.",
    numbers={"level": [0.5, 0.2, 0.25, 0.3, 0.35, 0.4, 0.6, 0.65, 0.7, 0.75, 0.8]},
)
def _first_below(t, numbers):
    level = numbers["level"]

    def first(values) -> int:
        return int((values < level).nonzero()[0])

    right = first(ALPHAS_CUMPROD)
    return compare_value(t, right, {
        "You are off by one step: t counts from 0, and the level must have been passed.": right + 1,
        "You are off by one step: there the level has not been passed yet.": right - 1,
        "That is where sqrt(abar) passes the level; the squares are compared here.": first(ALPHAS_CUMPROD.sqrt()),
        "That is the middle of the steps; the schedule does not fall evenly.": 500,
        "That is where abar itself is compared with the square of the level.": int((level**2 > ALPHAS_CUMPROD).nonzero()[0]),
    })



def _noised(seed: int):
    """x, eps and abar for four degrees of noise, one item each."""
    generator = torch.Generator().manual_seed(seed)
    x, eps = torch.randn(2, 4, 3, 8, 8, generator=generator)
    t = torch.cat([torch.tensor([3]), torch.randint(50, 800, (3,), generator=generator)])
    return x, eps, ALPHAS_CUMPROD[t].float().view(-1, 1, 1, 1)


@exercise(
    "01.2",
    "Start from the equation of x_t and move the noise to the other side.",
    "Solve x_t = sqrt(abar) x + sqrt(1 - abar) eps for x.",
    "First take away what the noise added, then undo the scaling; both factors are square roots.",
)
def _predicted_original(function, seed=0):
    x, eps, abar = _noised(seed)
    x_t = abar.sqrt() * x + (1 - abar).sqrt() * eps
    return compare(function, lambda x_t, eps, abar: (x_t - (1 - abar).sqrt() * eps) / abar.sqrt(), [(x_t, eps, abar)], {
        "The square roots are missing: abar is a variance, its root is the factor.":
            lambda x_t, eps, abar: (x_t - (1 - abar) * eps) / abar,
        "The sign of the noise is wrong: x_t has it added, so take it away.":
            lambda x_t, eps, abar: (x_t + (1 - abar).sqrt() * eps) / abar.sqrt(),
        "The signal is still scaled down: divide by sqrt(abar).": lambda x_t, eps, abar: x_t - (1 - abar).sqrt() * eps,
        "The noise in x_t is scaled too: take away sqrt(1 - abar) times eps.": lambda x_t, eps, abar: x_t - eps,
        "The two factors are exchanged.": lambda x_t, eps, abar: (x_t - abar.sqrt() * eps) / (1 - abar).sqrt(),
        "Multiplied by sqrt(abar) where it should be divided.":
            lambda x_t, eps, abar: (x_t - (1 - abar).sqrt() * eps) * abar.sqrt(),
    }, tolerance=1e-3)


@exercise(
    "01.3",
    "What remains unknown of eps once x_t is seen? For Gaussians, the best guess is linear.",
    "The error that remains at t is abar s^2 / (abar s^2 + 1 - abar).",
    "Take the mean of that over alphas_cumprod.",
    numbers={"s": [0.5, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9]},
)
def _least_loss(value, numbers):
    s, abar = numbers["s"], ALPHAS_CUMPROD

    def mean_error(spread: float) -> float:
        return float((abar * spread / (abar * spread + 1 - abar)).mean())

    return compare_value(value, mean_error(s**2), {
        "The standard deviation s enters squared: the variance is s^2.": mean_error(s),
        "That is the share of the noise that can be known; the loss is what remains.": 1 - mean_error(s**2),
        "Zero cannot be reached: x_t does not tell signal from noise.": 0.0,
        "That is the loss of a network that always answers 0; x_t tells more.": 1.0,
    }, tolerance=5e-3)


@exercise(
    "01.4",
    "Two factors whose squares add up to one: one for the image, one for the noise.",
    "Take roots: sqrt(abar) and sqrt(1 - abar).",
)
def _noising(function, seed=0):
    x, eps, abar = _noised(seed)
    return compare(function, lambda x, eps, abar: abar.sqrt() * x + (1 - abar).sqrt() * eps, [(x, eps, abar)], {
        "The square roots are missing, so that the variance is not kept.": lambda x, eps, abar: abar * x + (1 - abar) * eps,
        "The two factors are exchanged: noise should grow with t.": lambda x, eps, abar: (1 - abar).sqrt() * x + abar.sqrt() * eps,
        "The sign of the noise is wrong: it is added.": lambda x, eps, abar: abar.sqrt() * x - (1 - abar).sqrt() * eps,
        "The image is not scaled down, so that the variance grows.": lambda x, eps, abar: x + (1 - abar).sqrt() * eps,
        "1 - sqrt(abar) is not sqrt(1 - abar): the squares add up to one, not the factors.":
            lambda x, eps, abar: abar.sqrt() * x + (1 - abar.sqrt()) * eps,
    })
