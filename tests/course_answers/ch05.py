import torch


def salient(gradient, keep):
    threshold = gradient.abs().flatten().kthvalue(round((1 - keep) * gradient.numel())).values
    return gradient.abs() > threshold


def erasediff(r, f, eta):
    return max(0.0, eta - float(torch.dot(r, f) / f.square().sum()))


ANSWERS = {
    "05.1": (lambda null, target, eta: (1 + eta) * null - eta * target, [
        (lambda null, target, eta: null + eta * (target - null), "sign is wrong"),
        (lambda null, target, eta: target - eta * (target - null), "Start at the null"),
        (lambda null, target, eta: target - eta * (null - target), "exchanged"),
        (lambda null, target, eta: eta * (null - target), "starting point is missing"),
        (lambda null, target, eta: 2 * null - target, "eta is not used"),
    ]),
    "05.2": (salient, [
        (lambda gradient, keep: gradient >= gradient.flatten().sort().values[-round(keep * gradient.numel())],
         "absolute values"),
        (lambda gradient, keep: ~salient(gradient, keep), "smallest"),
        (lambda gradient, keep: salient(gradient, 1 - keep), "1 - keep"),
        (lambda gradient, keep: gradient.abs() > keep, "not a threshold"),
    ]),
    "05.3": (erasediff, [
        (lambda r, f, eta: eta - float(r @ f / f.norm() ** 2), "max(0"),
        (lambda r, f, eta: max(0.0, eta - float(r @ f / f.norm())), "square is missing"),
        (lambda r, f, eta: max(0.0, eta + float(r @ f / f.norm() ** 2)), "sign is wrong"),
        (lambda r, f, eta: max(0.0, eta - float(torch.cosine_similarity(r, f, dim=0))), "cosine"),
    ]),
}
