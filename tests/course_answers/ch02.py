import torch


def ddim(x_t, eps, abar, abar_before):
    guess = (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()
    return abar_before.sqrt() * guess + (1 - abar_before).sqrt() * eps


def both(denoise, x_t, t, labels, null_label, s, start=1):
    """In one call, as pipelines do it."""
    nothing = labels * 0 + null_label
    null, cond = denoise(torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([nothing, labels])).chunk(2)
    return (start - s) * null + s * cond


def sampler(denoise, x_t, labels, null_label, s, degrees):
    levels = [ABAR[t] for t in degrees] + [torch.tensor(1.0)]
    for k, degree in enumerate(degrees):
        eps = both(denoise, x_t, torch.tensor([degree] * len(x_t)), labels, null_label, s)
        x_t = ddim(x_t, eps, levels[k], levels[k + 1])
    return x_t


ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)

ANSWERS = {
    "02.1": (both, [
        (lambda d, x, t, y, n, s: (1 - s) * d(x, t, y * 0 + n) + s * d(x, t, y), "called twice"),
        (lambda d, x, t, y, n, s: both(d, x, t, y, n, s + 1), "other convention"),
        (lambda d, x, t, y, n, s: both(d, x, t, y, n, 1 - s), "exchanged"),
        (lambda d, x, t, y, n, s: both(d, x, t, y, n, -s), "sign is wrong"),
        (lambda d, x, t, y, n, s: both(d, x, t, y, n, s, start=0), "starting point"),
        (lambda d, x, t, y, n, s: d(x, t, y), "s is not used"),
    ]),
    "02.2": (2.5, [(1.5, "not the same"), (0.5, "wrong direction"), (-1.5, "sign"), (3.0, "factors of eps_c"), (4.0, "too large")]),
    "02.3": (ddim, [
        (lambda x_t, eps, a, b: ddim(x_t, eps, b, a), "exchanged"),
        (lambda x_t, eps, a, b: (x_t - (1 - a).sqrt() * eps) / a.sqrt(), "noise it again"),
        (lambda x_t, eps, a, b: b.sqrt() * (x_t - (1 - a).sqrt() * eps) / a.sqrt() + (1 - a).sqrt() * eps, "one step earlier"),
        (lambda x_t, eps, a, b: b * (x_t - (1 - a) * eps) / a + (1 - b) * eps, "square roots are missing"),
        (lambda x_t, eps, a, b: x_t, "unchanged"),
    ]),
    "02.4": (0.1, [(0.0, "Not none"), (0.5, "more than two"), (1, "ignored at s = 0"),
                   (0.9, "wrong ones"), (10, "not the number"), (1 / 11, "too small"), (1 / 9, "too large")]),
    "02.5": (lambda d, x, t, y, n, w: both(d, x, t, y, n, 1 + w), [
        (lambda d, x, t, y, n, w: both(d, x, t, y, 0, w), "Both faults"),
        (lambda d, x, t, y, n, w: both(d, x, t, y, 0, 1 + w), "Class 0 still"),
        (both, "still taken for s"),
        (lambda d, x, t, y, n, w: d(x, t, y), "no guidance"),
        (lambda d, x, t, y, n, w: both(d, x, t, y, n, -w), "exchanged"),
    ]),
    "02.6": (sampler, [
        (lambda d, x, y, n, s, ts: sampler(d, x, y, n, 1.0, ts), "no guidance"),
        (lambda d, x, y, n, s, ts: sampler(d, x, y, n, s, ts[::-1]), "wrong way"),
        (lambda d, x, y, n, s, ts: sampler(d, x, y, n, s + 1, ts), "one too large"),
        (lambda d, x, y, n, s, ts: sampler(lambda a, t, c: d(a, t - 1, c), x, y, n, s, ts), "wrong t"),
        (lambda d, x, y, n, s, ts: x, "was expected"),
    ]),
}
