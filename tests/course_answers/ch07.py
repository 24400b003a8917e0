import torch
from torch.nn.functional import mse_loss

ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()


def noised(x, eps, t):
    return ABAR[t].sqrt()[:, None] * x + (1 - ABAR[t]).sqrt()[:, None] * eps


def dimum(denoise, retained, alternative, target, weight, name=None, shown=noised, keep=1.0, reduction="mean"):
    x, labels, eps, t = retained
    loss = keep * mse_loss(denoise(shown(x, eps, t), t, labels), eps, reduction=reduction)
    x, own, eps, t = alternative
    asked = own * 0 + target if name is None else name(own)
    return loss + weight * mse_loss(denoise(shown(x, eps, t), t, asked), eps, reduction=reduction)


def settled(steps, memorised, ordinary, window, share, curves=2, fewer=0, lowest_of=min):
    for k, step in enumerate(steps[:len(steps) - window + fewer]):
        lowest = [lowest_of(curve[k + 1:k + 1 + window]) / curve[k] for curve in (memorised, ordinary)[:curves]]
        if all(low >= 1 - share for low in lowest):
            return step
    return None


PLAN = {
    "methods": ["dimum", "esd"], "targets": ["3", "7", "0"], "seeds": [0, 1, 2, 3, 4], "attack_rates": [3e-5, 1e-4, 3e-4],
    "controls": ["original", "retrained"], "strength": ["matched", "budget"], "steps": {"unlearning": 60, "attack": 100},
}
MANY = [f"rival {k}" for k in range(900)]

ANSWERS = {
    "07.1": (dimum, [
        (lambda *c: dimum(*c, name=lambda own: own), "their own labels"),
        (lambda *c: dimum(*c, shown=lambda x, eps, t: x), "clean images"),
        (lambda *c: dimum(*c, reduction="sum"), "Those are sums"),
        (lambda *c: dimum(*c[:4], -c[4]), "sign is wrong"),
        (lambda *c: dimum(*c, keep=0.0), "retained term is missing"),
        (lambda d, r, a, c, w: dimum(d, r, a, c, 1.0, keep=w), "not the retained one"),
        (lambda d, r, a, c, w: w * dimum(d, r, a, c, 1.0), "weighs both"),
    ]),
    "07.2": (3 * 32 * 32 * 0.01, [(0.01 / 3072, "Divided"), (10.24, "channels are missing"),
                            (0.01, "unchanged"), (0.96, "square its size")]),
    "07.3": ({"noise", "generated"}, [
        ({"noise", "images"}, "real images"), ({"noise"}, "missing"), ("noise", "A set"),
        ({"noise", "generated", "mixed"}, "real images"),
    ]),
    "07.4": (PLAN, [
        (PLAN | {"seeds": [0]}, "seeds: at least 2"), (PLAN | {"controls": ["original"]}, "retrained missing"),
        (PLAN | {"strength": "steps"}, "longer run wins"), (PLAN | {"methods": ["esd", "salun"]}, "dimum is not among"),
        (PLAN | {"attack_rates": [1e-4, 3e-4]}, "attack_rates: at least 3"), ("dimum wins", "dictionary was expected"),
        (PLAN | {"methods": ["dimum (class)", "dimum (noise)"]}, "the rival is missing"),
        (PLAN | {"targets": ["3", "7"], "seeds": [0, 1, 2]}, "6 pairs give no p below 0.031"),  # what this exercise once accepted
        (PLAN | {"methods": ["dimum", *MANY]}, "No result could show anything"),
        (PLAN | {"attack_rates": [3e-5, 3e-4, 3e-3]}, "2 lie below 0.001"),
        (PLAN | {"attack_rates": [3e-6, 3e-5, 3e-4]}, "factor of four"),
        (PLAN | {"steps": {"unlearning": 60, "attack": 40}}, "shorter than the unlearning"),
        (PLAN | {"steps": 60}, "say how many"),
        (PLAN | {"steps": {"unlearning": 1, "attack": 1}}, "so few unlearn nothing"),
        (PLAN | {"attack_rates": [1e-9, 2e-9, 4e-9]}, "hardly moves the weights"),
        (PLAN | {"methods": ["dimum", "retrained"]}, "controls, not rivals"),
    ]),
    "07.5": (settled, [
        (lambda *c: settled(*c, curves=1), "Only the memorised loss"),
        (lambda *c: settled(*c, lowest_of=lambda values: values[-1]), "Only the last point"),
        (lambda s, m, o, w, share: next((a for a, b, c in zip(s, m, o, strict=True) if b <= c), None), "losses meet"),
        (lambda s, m, o, w, share: settled(s, m, o, 1, share), "one point wavers"),
        (lambda *c: settled(*c) or c[0][-1], "not the last step"),
        (lambda *c: settled(*c, fewer=1), "at least `window` points"),
        (lambda *c: settled(*c, fewer=2), "None was expected"),
        (lambda *c: 0, "was expected"),
    ]),
    "07.6": (lambda x, y, target, count, order: torch.stack([x[k] for k in order if y[k] != target][:count]), [
        (lambda x, y, target, count, order: x[order][:count][y[:count] != target], "Both faults"),
        (lambda x, y, target, count, order: x[order][y != target][:count], "not shuffled with the images"),
        (lambda x, y, target, count, order: torch.stack([x[k] for k in order[:count] if y[k] != target]), "too few"),
        (lambda x, y, target, count, order: x[y != target][:count], "not shuffled any more"),
        (lambda x, y, target, count, order: torch.stack([x[k] for k in order if y[k] == target][:count]), "of the target"),
    ]),
}
