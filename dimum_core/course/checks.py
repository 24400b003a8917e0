"""What a right answer is, computed rather than written down wherever it can be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..diffusion import ALPHAS_CUMPROD, add_noise
from ..errors import UnknownName
from ..metrics import frechet_distance, wilson_interval

_CHECKS: dict[str, tuple[Callable[[object], bool], str]] = {}


def exercise(number: str, hint: str):
    """Register a check: a function of the answer that says whether it is right."""

    def register(right: Callable[[object], bool]):
        _CHECKS[number] = right, hint
        return right

    return register


def check(number: str, answer) -> bool | None:
    """Say whether an answer is right. `...` or None means not answered yet, so that a fresh notebook runs through."""
    if number not in _CHECKS:
        raise UnknownName("exercise", number, _CHECKS)
    if answer is None or answer is ...:
        print(f"Exercise {number}: not answered yet.")
        return None
    right, hint = _CHECKS[number]
    try:
        correct = bool(right(answer))
    except Exception as error:  # a wrong answer may fail in any way; the learner is told which
        print(f"Exercise {number}: not yet. Your answer raised {type(error).__name__}: {error}. {hint}")
        return False
    print(f"Exercise {number}: right." if correct else f"Exercise {number}: not yet. {hint}")
    return correct


@exercise("01.1", "Look for the first t at which alphas_cumprod is below 1/2: there, noise outweighs signal.")
def _half_noise(t) -> bool:
    return int(t) == int((ALPHAS_CUMPROD < 0.5).nonzero()[0])


@exercise("01.2", "Solve x_t = sqrt(abar) x + sqrt(1 - abar) eps for x.")
def _predicted_original(function) -> bool:
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 4, 3, 8, 8, generator=generator)
    t = torch.tensor([3, 100, 400, 800])
    abar = ALPHAS_CUMPROD[t].float().view(-1, 1, 1, 1)
    return torch.allclose(function(add_noise(x, eps, t), eps, abar), x, atol=1e-2)


@exercise("01.3", "For x ~ N(0, s^2), the best guess of eps from x_t is linear; its error is abar s^2 / (abar s^2 + 1 - abar).")
def _least_loss(value) -> bool:
    s = 0.5
    return abs(float(value) - float((ALPHAS_CUMPROD * s**2 / (ALPHAS_CUMPROD * s**2 + 1 - ALPHAS_CUMPROD)).mean())) < 5e-3


@exercise("02.1", "Two forwards become one of twice the batch: the null label and the class, then null + s (class - null).")
def _guided(function) -> bool:
    eps_null, eps_cond = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return all(
        torch.allclose(function(eps_null, eps_cond, s), (1 - s) * eps_null + s * eps_cond, atol=1e-5) for s in (0.0, 1.0, 3.5)
    )


@exercise("02.2", "Papers that write (1 + w) eps_cond - w eps_null have s = 1 + w.")
def _paper_scale(s) -> bool:
    return abs(float(s) - 2.5) < 1e-9


@exercise("02.3", "DDIM keeps the noise: x_prev = sqrt(abar_prev) x_0 + sqrt(1 - abar_prev) eps, x_0 predicted from x_t and eps.")
def _ddim_step(function) -> bool:
    x, eps = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    now, before = ALPHAS_CUMPROD[600], ALPHAS_CUMPROD[400]
    x_t = now.sqrt() * x + (1 - now).sqrt() * eps
    return torch.allclose(function(x_t, eps, now, before), before.sqrt() * x + (1 - before).sqrt() * eps, atol=1e-4)


@exercise("03.1", "Try sample sizes with wilson_interval(round(0.9 * n), n) until the interval is at most 0.04 wide.")
def _samples_needed(n) -> bool:
    def width(count: int) -> float:
        interval = wilson_interval(round(0.9 * count), count)
        return interval.high - interval.low

    return width(int(n)) <= 0.04 and width(int(n) - 60) > 0.04


@exercise("03.2", "In one dimension: (m_a - m_b)^2 + (s_a - s_b)^2, with the unbiased variances.")
def _frechet_1d(function) -> bool:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=200), generator.normal(1.0, 2.0, size=300)
    return bool(np.isclose(function(a, b), frechet_distance(a[:, None], b[:, None]), rtol=1e-6))


@exercise("03.3", "Which of the four falls when a model draws one image of each class again and again, however perfect it is?")
def _collapse_metric(name) -> bool:
    return str(name).strip().lower() in {"recall", "coverage"}
