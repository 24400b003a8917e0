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
    abar = torch.cumprod(1 - betas, 0)[t].float()[:, None, None, None]
    return abar.sqrt() * x + (1 - abar).sqrt() * eps


def attack(denoise, x, labels, eps, t):
    return torch.nn.functional.mse_loss(denoise(noised(x, eps, t), t, labels), eps)


ANSWERS = {
    "06.1": (area, [
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
        (lambda s, a, level: np.interp(level, a, s), "was expected"),
    ]),
    "06.4": (attack, [
        (lambda d, x, y, eps, t: torch.nn.functional.mse_loss(d(noised(x, eps, t), t, y), eps, reduction="sum"),
         "sum of the squares"),
        (lambda d, x, y, eps, t: torch.nn.functional.mse_loss(d(x, t, y), eps), "clean images"),
        (lambda d, x, y, eps, t: torch.nn.functional.mse_loss(d(noised(x, eps, t), t, y), x), "predicts the noise"),
        (lambda d, x, y, eps, t: -attack(d, x, y, eps, t), "sign is wrong"),
        (lambda d, x, y, eps, t: torch.nn.functional.l1_loss(d(noised(x, eps, t), t, y), eps), "square is missing"),
    ]),
}
