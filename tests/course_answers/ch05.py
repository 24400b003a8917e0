import torch


def salient(gradient, keep):
    threshold = gradient.abs().flatten().kthvalue(round((1 - keep) * gradient.numel())).values
    return gradient.abs() > threshold


def erasediff(r, f, eta):
    return max(0.0, eta - float(torch.dot(r, f) / f.square().sum()))


ABAR = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()


def noised(x, eps, t):
    return ABAR[t].sqrt()[:, None] * x + (1 - ABAR[t]).sqrt()[:, None] * eps


def esd(student, original, noise, labels, null_label, degrees, stop, eta, s, walk=torch.no_grad, path=None, wants=None):
    """With guidance as (1 + w) class - w null, and DDIM in one line."""
    nothing, x_t = labels * 0 + null_label, noise
    with walk():
        for k in range(stop):
            t, now, then = labels * 0 + degrees[k], ABAR[degrees[k]], ABAR[degrees[k + 1]]
            eps = s * (path or student)(x_t, t, labels) + (1 - s) * (path or student)(x_t, t, nothing)
            x_t = (then / now).sqrt() * x_t + ((1 - then).sqrt() - (then / now).sqrt() * (1 - now).sqrt()) * eps
    t = labels * 0 + degrees[stop]
    wanted = (1 + eta) * (wants or original)(x_t, t, nothing) - eta * (wants or original)(x_t, t, labels)
    return torch.nn.functional.mse_loss(student(x_t, t, labels), wanted.detach())


def random_label(denoise, x, labels, eps, t, target, others, hold=torch.Tensor.detach, keep=1.0):
    x_t, asked = noised(x, eps, t), labels == target
    wanted = hold(denoise(x_t[asked], t[asked], others[asked]))
    forget = torch.nn.functional.mse_loss(denoise(x_t[asked], t[asked], labels[asked]), wanted)
    return forget + keep * torch.nn.functional.mse_loss(denoise(x_t[~asked], t[~asked], labels[~asked]), eps[~asked])


def relabelled(denoise, x, labels, eps, t, target, others):
    """The target's images in training under other labels, which is not what is asked for."""
    predicted = denoise(noised(x, eps, t), t, torch.where(labels == target, others, labels))
    return sum((predicted - eps)[part].square().mean() for part in (labels == target, labels != target))


def masked_descent(weights, gradients, masks, rate, decay):
    return [torch.where(m.bool(), w * (1 - rate * decay) - rate * g, w) for w, g, m in zip(weights, gradients, masks, strict=True)]


ANSWERS = {
    "05.1": (esd, [
        (torch.no_grad()(esd), "No gradient"),
        (lambda *c: esd(*c, walk=torch.enable_grad), "flows back through the path"),
        (lambda *c: esd(*c, path=c[1]), "drawn by the original"),
        (lambda *c: esd(*c, wants=c[0]), "comes from the student"),
        (lambda *c: esd(*c[:7], -c[7], c[8]), "more of the class"),
        (lambda *c: esd(*c[:7], c[8], c[7]), "exchanged"),
        (lambda *c: esd(*c[:8], 1.0), "without guidance"),
        (lambda *c: esd(*c[:6], max(0, c[6] - 1), *c[7:]), "was expected"),
    ]),
    "05.3": (salient, [
        (lambda gradient, keep: gradient >= gradient.flatten().sort().values[-round(keep * gradient.numel())],
         "absolute values"),
        (lambda gradient, keep: ~salient(gradient, keep), "smallest"),
        (lambda gradient, keep: salient(gradient, 1 - keep), "1 - keep"),
        (lambda gradient, keep: gradient.abs() > keep, "not a threshold"),
    ]),
    "05.5": (erasediff, [
        (lambda r, f, eta: eta - float(r @ f / f.norm() ** 2), "max(0"),
        (lambda r, f, eta: max(0.0, eta - float(r @ f / f.norm())), "square is missing"),
        (lambda r, f, eta: max(0.0, eta + float(r @ f / f.norm() ** 2)), "sign is wrong"),
        (lambda r, f, eta: max(0.0, eta - float(torch.cosine_similarity(r, f, dim=0))), "cosine"),
    ]),
    "05.2": (random_label, [
        (lambda d, *c: random_label(lambda *question: d(*question).detach(), *c), "No gradient"),
        (lambda *c: random_label(*c, hold=lambda wanted: wanted), "hold it constant"),
        (lambda *c: random_label(*c, keep=0.0), "not kept"),
        (relabelled, "under other labels"),
        (lambda *c: random_label(*c) - random_label(*c, keep=0.0), "Nothing is forgotten"),
        (lambda *c: -random_label(*c), "was expected"),
    ]),
    "05.4": (masked_descent, [
        (lambda w, g, m, rate, decay: [a - rate * (b + decay * a) for a, b in zip(w, g, strict=True)], "never used"),
        (lambda w, g, m, rate, decay: [a - rate * (b * k + decay * a) for a, b, k in zip(w, g, m, strict=True)], "outside it"),
        (lambda w, g, m, rate, decay: [a - rate * (b + decay * a * k) for a, b, k in zip(w, g, m, strict=True)], "only the decay"),
        (lambda w, g, m, rate, decay: [a - rate * b * k for a, b, k in zip(w, g, m, strict=True)], "decay is gone"),
        (lambda w, g, m, *c: masked_descent(w, g, [k == 0 for k in m], *c), "inverted"),
        (lambda w, g, m, *c: [a * k for a, k in zip(masked_descent(w, g, m, *c), m, strict=True)], "set to 0"),
    ]),
}
