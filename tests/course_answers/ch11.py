from itertools import pairwise

import numpy as np
import torch


def on_the_map(origin, first, second, point):
    """By least squares in the plane's own basis, made orthonormal by QR."""
    axes = torch.linalg.qr(torch.stack([first - origin, second - origin], 1))
    signs = axes.R.diagonal().sign()
    return tuple((signs * (axes.Q.T @ (point - origin))).tolist())


def walked(stations, loss, points, corners=1, total=True, unit=None, ends=True):
    lengths = [unit or float(torch.dist(a, b)) for a, b in pairwise(stations)]
    shares = torch.linspace(0, 1, points).tolist() if ends else [k / points for k in range(points)]
    return [
        (sum(lengths[:leg]) * total + share * lengths[leg], loss(torch.lerp(stations[leg], stations[leg + 1], share)))
        for leg in range(len(lengths)) for share in shares[corners if leg else 0:]
    ]


def ridge(loss, points, seed, fresh=False, places=None):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(8, generator=generator)
    places = np.linspace(0, 1, points) if places is None else places
    losses = [loss(place, torch.randn(8, generator=generator) if fresh and k else noise) for k, place in enumerate(places)]
    return barrier(np.array(losses))


def nearest(original, unlearned, relearned, ends=(0.0, 1.0)):
    """The distance is a parabola's root: find its lowest point from three values."""
    def square(share):
        return float((torch.lerp(unlearned, relearned, torch.tensor(share, dtype=torch.float64)) - original).square().sum())

    bend, slope = (square(1.0) + square(-1.0)) / 2 - square(0.0), (square(1.0) - square(-1.0)) / 2
    share = min(max(-slope / (2 * bend), ends[0]), ends[1])
    return share, square(share) ** 0.5


def at(share, original, unlearned, relearned):
    return share, float(torch.dist(unlearned + share * (relearned - unlearned), original))


def undone(original, unlearned, relearned):
    u, r = unlearned - original, relearned - unlearned
    return at(float((-(r @ u) / (u @ u)).clamp(0, 1)), original, unlearned, relearned)


def first_order(g_r, g_f, rate, clip):
    """The weights are moved by torch's own clipping and SGD."""
    weights = torch.zeros_like(g_r, requires_grad=True)
    weights.grad = g_r.clone()
    torch.nn.utils.clip_grad_norm_([weights], clip)
    torch.optim.SGD([weights], lr=abs(rate)).step()
    return float(weights.detach() @ g_f) * (1 if rate > 0 else -1)


def barrier(losses):
    first, last, rest = losses[0], losses[-1], np.arange(len(losses)) / (len(losses) - 1)
    return max(0.0, (losses - (first + (last - first) * rest)).max())


ANSWERS = {
    "11.1": (nearest, [
        (lambda *case: at(nearest(case[0], case[1], 2 * case[1] - case[2])[0], *case), "sign"),
        (lambda *case: undone(*case), "of the way out"),
        (lambda *case: nearest(*case, ends=(-9.0, 9.0)), "two ends"),
        (lambda *case: (nearest(*case)[0], at(1.0, *case)[1]), "end of the walk"),
        (lambda *case: (nearest(*case)[0], nearest(*case)[0] * torch.dist(case[1], case[2])), "not from the original"),
        (lambda *case: nearest(*case)[0], "TypeError"),
    ]),
    "11.2": (barrier, [
        (lambda losses: losses.max() - losses.min(), "range"), (lambda losses: losses.max() - losses[0], "first point"),
        (lambda losses: (losses - np.linspace(losses[0], losses[-1], len(losses)))[1:-1].max(), "never negative"),
    ]),
    "11.3": (lambda labels, rows: set(range(rows - 1)) - set(labels), [
        (lambda labels, rows: set(range(rows)) - set(labels), "null row has a gradient"),
        (lambda labels, rows: set(labels), "rows with a gradient"), (lambda labels, rows: {rows - 1}, "always has"),
    ]),
    "11.4": (first_order, [
        (lambda g_r, g_f, rate, clip: first_order(g_r, g_f, -rate, clip), "sign"),
        (lambda g_r, g_f, rate, clip: -rate * g_r @ g_f, "not shortened"),
        (lambda g_r, g_f, rate, clip: -rate * clip * torch.nn.functional.normalize(g_r, dim=0) @ g_f, "stays as it is"),
        (lambda g_r, g_f, rate, clip: first_order(g_f, g_f, rate, clip), "only g_r"),
        (lambda g_r, g_f, rate, clip: -rate * g_r @ g_f / (g_r.norm() * g_f.norm()), "cosine"),
        (lambda g_r, g_f, rate, clip: first_order(g_r, g_f, 1.0, clip), "rate is missing"),
    ]),
    "11.5": (on_the_map, [
        (lambda o, a, b, p: tuple(float((p - o) @ (x - o) / (x - o).norm()) for x in (a, b)), "right angle"),
        (lambda *case: on_the_map(*case)[::-1], "swapped"),
        (lambda *case: (on_the_map(*case)[0], -on_the_map(*case)[1]), "points away"),
        (lambda o, a, b, p: on_the_map(o, a, b, p + o), "not measured from the origin"),
    ]),
    "11.6": (walked, [
        (lambda *case: walked(*case, corners=0), "measured twice"),
        (lambda *case: walked(*case, total=False), "starts again"),
        (lambda *case: walked(*case, unit=1.0), "shares of legs"),
        (lambda *case: walked(*case, corners=0, ends=False), "end is missing"),
        (lambda *case: [(distance, 0.0) for distance, _ in walked(*case)], "was expected"),
    ]),
    "11.7": (ridge, [
        (lambda loss, n, seed: ridge(loss, n, seed, True, np.arange(n) / n), "Both faults"),
        (lambda loss, n, seed: ridge(loss, n, seed, True), "barrier of chance"),
        (lambda loss, n, seed: ridge(loss, n, seed, False, np.arange(n) / n), "still missing"),
        (lambda loss, n, seed: ridge(lambda place, noise: loss(place, 0 * noise), n, seed), "was expected"),
        (lambda loss, n, seed: ridge(loss, n, 0), "was expected"),
        (lambda loss, n, seed: 0.0, "was expected"),
    ]),
}
