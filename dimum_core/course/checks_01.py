"""Chapter 01: noise, the training loss, the average of the weights, the sampler, and what the loss can reach."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..models.diffusion import ALPHAS_CUMPROD, add_noise
from .asking import denoised, drawn_eps, drawn_t, hidden_labels, loss_of, right_loss
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
    "Three things are drawn for each item by itself: t, eps (a number for each coordinate), and whether its label is hidden.",
    "torch.randint(1000, (len(x),)), torch.randn_like(x), torch.rand(len(x)) < 0.1.",
    "labels = torch.where(hidden, null_label, labels); denoise is asked about add_noise(x, eps, t); mean square.",
)
def _training_loss(function, seed=0):
    if not callable(function):
        return "A function was expected."
    generator = torch.Generator().manual_seed(seed)
    x, labels = 0.7 * torch.randn(24_000, 3, generator=generator) + 0.5, torch.randint(10, (24_000,), generator=generator)
    found = loss_of(function, x, labels, 10, seed)
    if isinstance(found, str):
        return found
    loss, x_t, t, told = found
    if x_t.shape != x.shape:
        return f"x_t should have the shape of x, {tuple(x.shape)}, not {tuple(x_t.shape)}."
    eps, wrong = drawn_eps(x_t, x, t)
    said = drawn_t(t) or wrong or hidden_labels(told, labels, 10)
    return said or right_loss(loss, eps, denoised(x_t, t, told), x)


@exercise(
    "01.4",
    "Each averaged tensor moves a small way towards the tensor of the weights. `keep` says how small.",
    "keep * a + (1 - keep) * w, for each pair; keep = min(decay, (1 + step) / (10 + step)).",
)
def _moving_average(function, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def tensors():
        return [torch.randn(3, 2, generator=generator), torch.randn(4, generator=generator)]

    def average(keep: Callable):
        return lambda a, w, step, decay: [keep(step, decay) * p + (1 - keep(step, decay)) * q for p, q in zip(a, w, strict=True)]

    def warmed(step, decay):
        return min(decay, (1 + step) / (10 + step))

    cases = [(tensors(), tensors(), step, decay) for step, decay in ((0, 0.995), (7, 0.995), (50_000, 0.995), (200, 0.9))]
    return compare(function, average(warmed), cases, {
        "Average and weights are exchanged: that forgets the past at once.": average(lambda step, decay: 1 - warmed(step, decay)),
        "The warm-up is missing: at step 0 the average should be nearly the new weights.": average(lambda step, decay: decay),
        "That keeps the larger of the two; the decay is the most that is kept.":
            average(lambda step, decay: max(decay, (1 + step) / (10 + step))),
        "The decay is never reached: what is kept is at most decay.": average(lambda step, decay: (1 + step) / (10 + step)),
        "That is the plain mean of all steps: old weights count like new ones.": average(lambda step, decay: step / (step + 1)),
        "Those are the last weights: nothing is averaged.": lambda a, w, step, decay: w,
    }, tolerance=1e-4)


def _chain(denoise, noise, labels, betas, *, variance="posterior", before=-1, upward=False, fresh=True, step=None):
    """DDPM's sampler, right or with one mistake."""
    abar, x_t = torch.cumprod(1 - betas, 0), noise[len(betas)]
    for t in range(len(betas)) if upward else reversed(range(len(betas))):
        past = abar[t + before] if t + before >= 0 else torch.ones(())
        eps = denoise(x_t, torch.full((len(x_t),), t), labels)
        x = (x_t - (1 - abar[t]).sqrt() * eps) / abar[t].sqrt()
        mean = (past.sqrt() * betas[t] * x + (1 - betas[t]).sqrt() * (1 - past) * x_t) / (1 - abar[t])
        spread = betas[t] * ((1 - past) / (1 - abar[t]) if variance != "beta" else 1)
        factor = {"unrooted": spread, "none": 0 * spread}.get(variance, spread.sqrt())
        x_t = step(x_t, eps, x) if step else mean + factor * (noise[t] if fresh else noise[len(betas)])
    return x_t


@exercise(
    "01.5",
    "One line for each: the loop from T - 1 down to 0, eps, the guess of x, the mean, the variance, the new x_t.",
    "abar = torch.cumprod(1 - betas, 0); before the first degree there is no noise: abar is 1 there.",
    "mean = (abar_before.sqrt() * betas[t] * x + (1 - betas[t]).sqrt() * (1 - abar_before) * x_t) / (1 - abar[t]); "
    "the noise of step t is noise[t], times the root of the variance.",
)
def _sampler(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for steps in (6, 9):
        betas = torch.linspace(0.02, 0.3, steps)
        noise, labels = torch.randn(steps + 1, 4, 3, generator=generator), torch.randint(10, (4,), generator=generator)
        cases.append((denoised, noise, labels, betas))

    def mistaken(**how):
        return lambda *case: _chain(*case, **how)

    return compare(function, _chain, cases, {
        "No fresh noise is added: that is not DDPM.": mistaken(variance="none"),
        "The noise is multiplied by the variance; take its root.": mistaken(variance="unrooted"),
        "The variance is beta_t; the formula above has a smaller one, which is 0 at the last step.": mistaken(variance="beta"),
        "The chain goes the wrong way: it begins at the last t, the noisiest.": mistaken(upward=True),
        "abar of t is used for abar before t as well.": mistaken(before=0),
        "The same noise is added at every step.": mistaken(fresh=False),
        "All of the predicted noise is taken off at once; each step should take off a little.":
            mistaken(step=lambda x_t, eps, x: x_t - eps),
        "That is the guess of x at the last step of a chain that jumps to its guess.": mistaken(step=lambda x_t, eps, x: x),
        "The labels do not reach the network.": lambda d, n, y, b: _chain(lambda x, t, _: d(x, t, torch.zeros_like(y)), n, y, b),
    }, tolerance=1e-3)


@exercise(
    "01.6",
    "Look at the two pictures: is the cloud as wide as it should be? And does the colour go with the moon?",
    "Which noise does a sampler begin with? And whose labels does the network see?",
    "torch.randn, not torch.rand; and labels[batch], not the first labels.",
)
def _mended(function, seed=0):
    if not callable(function):
        return "A function was expected."
    generator = torch.Generator().manual_seed(seed)
    x, labels, size = 30 * torch.randn(4000, 2, generator=generator), torch.arange(4000), 1500
    found = loss_of(function, x, labels, size, seed)
    if isinstance(found, str):
        return found
    loss, x_t, t, told = found
    if len(x_t) != size:
        return f"The batch should have {size:,} points, and has {len(x_t):,}."
    first = bool((told == torch.arange(size)).all())
    eps, wrong = drawn_eps(x_t, x[told], t)
    if float(eps.std()) > 3:
        whose = "those of the first points, whichever were drawn" if first else "not those of the points that were drawn"
        return f"The network is told labels that do not belong to its points: they are {whose}."
    if first:
        return "The batch is always the same first points: the rest is never learnt."
    return drawn_t(t) or wrong or right_loss(loss, eps, denoised(x_t, t, told), x[told])


@exercise(
    "01.7",
    "For each t alone: noise all images to it, ask the network, take the mean square.",
    "torch.full((len(x),), t) tells the network the same t for all; add_noise wants it, too.",
)
def _loss_by_t(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x, eps = torch.randn(2, 12, 3, generator=generator)
    cases = [(denoised, x, torch.randint(10, (12,), generator=generator), eps, degrees) for degrees in ([0, 300, 999], [50, 700])]

    def losses(denoise, x, labels, eps, degrees, error=lambda d: d.square().mean(), told=lambda t: t, target=None):
        every = []
        for degree in degrees:
            t = torch.full((len(x),), degree)
            answer = denoise(add_noise(x, eps, t), torch.full((len(x),), told(degree)), labels)
            every.append(float(error((eps if target is None else target) - answer)))
        return every

    return compare(function, losses, cases, {
        "That is one number for all t; a list of one for each is wanted.": lambda *case: sum(losses(*case)) / len(case[4]),
        "Those are sums; take the mean over all elements.": lambda *case: losses(*case, error=lambda d: d.square().sum()),
        "The network is told t = 0 throughout.": lambda *case: losses(*case, told=lambda t: 0),
        "Those are the roots of the losses.": lambda *case: losses(*case, error=lambda d: d.square().mean().sqrt()),
        "The prediction is compared with the image, not with the noise.": lambda *case: losses(*case, target=case[1]),
        "The losses stand in the wrong order: keep that of the degrees.": lambda *case: losses(*case)[::-1],
    }, tolerance=1e-4)


@exercise(
    "01.8",
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
