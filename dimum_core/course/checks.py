"""What a right answer is, computed rather than written down wherever it can be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ..diffusion import ALPHAS_CUMPROD, add_noise
from ..errors import UnknownName
from ..metrics import area_under_recovery, frechet_distance, steps_to_recovery, wilson_interval

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


@exercise("00.1", "The attacker's labels and fresh noise are independent of the forgotten class. What was made from it?")
def _where_knowledge_sits(name) -> bool:
    return str(name).strip().lower() == "weights"


@exercise("00.2", "What was lost is a - u; what came back of it is r - u.")
def _share_that_came_back(function) -> bool:
    cases = [(0.9, 0.1, 0.5), (1.0, 0.0, 0.25), (0.8, 0.2, 0.2), (0.8, 0.4, 0.9)]
    return all(abs(float(function(a, u, r)) - (r - u) / (a - u)) < 1e-9 for a, u, r in cases)


@exercise("04.1", "Count only samples that were asked for under c; UA is the share of them that the judge does not call c.")
def _unlearning_accuracy(function) -> bool:
    generator = torch.Generator().manual_seed(0)
    asked = torch.randint(4, (200,), generator=generator)
    judged = torch.where(torch.rand(200, generator=generator) < 0.6, asked, torch.randint(-1, 4, (200,), generator=generator))
    return all(
        abs(float(function(judged, asked, c)) - float((judged[asked == c] != c).float().mean())) < 1e-6 for c in range(4)
    )


@exercise("04.2", "The retrained model is the definition of having forgotten. Can one forget more than that?")
def _beyond_the_gold_standard(word) -> bool:
    return str(word).strip().lower() == "different"


@exercise("04.3", "Index both tensors with the same boolean mask, and return both.")
def _retain_set(function) -> bool:
    images, labels = torch.arange(24.0).view(6, 4), torch.tensor([0, 1, 2, 1, 0, 2])
    kept = labels != 1
    x, y = function(images, labels, 1)
    return torch.equal(x, images[kept]) and torch.equal(y, labels[kept])


@exercise("05.1", "Start at the unconditional prediction and go eta times the way from the class's prediction towards it.")
def _esd_target(function) -> bool:
    null, target = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    return all(torch.allclose(function(null, target, eta), (1 + eta) * null - eta * target, atol=1e-5) for eta in (0.0, 1.0, 2.5))


@exercise("05.2", "The largest absolute values, over all entries together: round(keep * number of entries) of them.")
def _saliency_mask(function) -> bool:
    gradient = torch.randn(10, 20, generator=torch.Generator().manual_seed(0))
    for keep in (0.1, 0.5):
        mask = function(gradient, keep)
        chosen = gradient.abs() >= gradient.abs().flatten().sort().values[-round(keep * 200)]
        if mask.shape != gradient.shape or not torch.equal(mask.bool(), chosen):
            return False
    return True


@exercise("05.3", "max(0, eta - <g_r, g_f> / |g_f|^2): the norm of g_f is squared.")
def _erasediff_weight(function) -> bool:
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 30, generator=generator) for _ in range(4)]
    pairs += [torch.stack([3 * g[1], g[1]]) for g in pairs[:1]]  # agreeing gradients need no help
    expected = [max(0.0, 0.1 - float(r @ f) / float(f @ f)) for r, f in pairs]
    return all(abs(float(function(r, f, 0.1)) - e) < 1e-4 for (r, f), e in zip(pairs, expected, strict=True))


_CURVES = [([0, 10, 30], [0.0, 0.5, 0.5]), ([0, 5, 6, 20], [0.1, 0.1, 0.9, 0.3]), ([0, 1], [0.2, 0.2])]


@exercise("06.1", "A piece is as high as the mean of its two ends. Divide the sum by the last step, not by the number of points.")
def _area(function) -> bool:
    return all(abs(float(function(np.array(s), np.array(a))) - area_under_recovery(s, a)) < 1e-9 for s, a in _CURVES)


@exercise("06.2", "(unlearned - retrained) / (original - retrained).")
def _recovery_ratio(value) -> bool:
    return abs(float(value) - 0.625) < 1e-3


@exercise("06.3", "Find the first pair of points between which the curve reaches the level, and go the right part of the way.")
def _half_way(function) -> bool:
    for steps, accuracy in _CURVES:
        wanted, given = steps_to_recovery(steps, accuracy, 0.4), function(steps, accuracy, 0.4)
        if wanted.censored != (given is None) or (given is not None and abs(float(given) - wanted.steps) > 1e-6):
            return False
    return True


@exercise("07.1", "Each term is the mean of its squared differences; lambda weighs the second.")
def _dimum_loss(function) -> bool:
    generator = torch.Generator().manual_seed(0)
    retain, alternative = torch.randn(8, 3, generator=generator), torch.randn(4, 3, generator=generator)
    first, second = float((retain**2).mean()), float((alternative**2).mean())
    return all(abs(float(function(retain, alternative, w)) - (first + w * second)) < 1e-4 for w in (0.0, 1.0, 7.0))


@exercise("07.2", "A sum over d elements is d times their mean. How many elements has the image?")
def _converted_weight(value) -> bool:
    return abs(float(value) - 30.72) < 1e-2


@exercise("07.3", "Which kinds can be made from the model, or from a random number generator, alone?")
def _no_real_images(names) -> bool:
    return {str(name).strip().lower() for name in names} == {"generated", "noise"}
