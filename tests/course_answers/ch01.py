import torch

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ABAR = torch.cumprod(1 - BETAS, 0)


def best_loss() -> float:
    """By simulation, not by the formula: the residual of a linear fit of eps on x_t, averaged over t."""
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 4000, generator=generator, dtype=torch.float64)
    x_t = ABAR.sqrt()[:, None] * 0.5 * x + (1 - ABAR).sqrt()[:, None] * eps
    slope = (x_t * eps).sum(1) / (x_t * x_t).sum(1)
    return float((eps - slope[:, None] * x_t).square().mean())


ANSWERS = {
    "01.1": (259, [(500, "does not fall evenly"), (260, "off by one step"),
                  (258, "off by one step"), (int((ABAR.sqrt() < 0.5).nonzero()[0]), "squares")]),
    "01.2": (lambda x_t, eps, abar: (x_t - (1 - abar) ** 0.5 * eps) / abar**0.5, [
        (lambda x_t, eps, abar: (x_t - (1 - abar) * eps) / abar, "square roots are missing"),
        (lambda x_t, eps, abar: (x_t + (1 - abar).sqrt() * eps) / abar.sqrt(), "sign"),
        (lambda x_t, eps, abar: x_t - (1 - abar).sqrt() * eps, "scaled down"),
        (lambda x_t, eps, abar: x_t - eps, "noise in x_t is scaled"),
        (lambda x_t, eps, abar: (x_t - abar.sqrt() * eps) / (1 - abar).sqrt(), "exchanged"),
        (lambda x_t, eps, abar: None, "return its result"),
        (lambda x_t, eps, abar: x_t.mean(), "of shape"),
        (0.5, "A function was expected"),
        (lambda x_t, eps: x_t, "TypeError"),
    ]),
    "01.3": (best_loss(), [
        (0.0, "cannot be reached"), (1.0, "always answers 0"), (0.2125, "too large"),
        (float((ABAR * 0.5 / (ABAR * 0.5 + 1 - ABAR)).mean()), "enters squared"),
        (float(((1 - ABAR) / (ABAR * 0.25 + 1 - ABAR)).mean()), "what remains"),
    ]),
    "01.4": (lambda x, eps, abar: torch.sqrt(abar) * x + torch.sqrt(1 - abar) * eps, [
        (lambda x, eps, abar: abar * x + (1 - abar) * eps, "square roots are missing"),
        (lambda x, eps, abar: (1 - abar).sqrt() * x + abar.sqrt() * eps, "exchanged"),
        (lambda x, eps, abar: abar.sqrt() * x - (1 - abar).sqrt() * eps, "sign"),
        (lambda x, eps, abar: abar.sqrt() * x + (1 - abar.sqrt()) * eps, "squares add up to one"),
    ]),
}
