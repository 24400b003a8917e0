import numpy as np


def undone(u, r):
    return -(r * u).sum() / (u * u).sum()


def barrier(losses):
    first, last, rest = losses[0], losses[-1], np.arange(len(losses)) / (len(losses) - 1)
    return max(0.0, (losses - (first + (last - first) * rest)).max())


ANSWERS = {
    "11.1": (undone, [
        (lambda u, r: (r * u).sum() / (u * u).sum(), "sign"), (lambda u, r: r.norm() / u.norm(), "how far"),
        (lambda u, r: -(r * u).sum() / u.norm(), "square is missing"),
    ]),
    "11.2": (barrier, [
        (lambda losses: losses.max() - losses.min(), "range"), (lambda losses: losses.max() - losses[0], "first point"),
        (lambda losses: (losses - np.linspace(losses[0], losses[-1], len(losses)))[1:-1].max(), "never negative"),
    ]),
    "11.3": (lambda labels, rows: set(range(rows - 1)) - set(labels), [
        (lambda labels, rows: set(range(rows)) - set(labels), "null row has a gradient"),
        (lambda labels, rows: set(labels), "rows with a gradient"), (lambda labels, rows: {rows - 1}, "always has"),
    ]),
    "11.4": (lambda g_r, g_f, rate: -(rate * g_r) @ g_f, [
        (lambda g_r, g_f, rate: rate * g_r @ g_f, "sign"), (lambda g_r, g_f, rate: -rate * g_f @ g_f, "only g_r"),
        (lambda g_r, g_f, rate: -rate * g_r @ g_f / (g_r.norm() * g_f.norm()), "cosine"),
    ]),
}
