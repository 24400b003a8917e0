import torch


def guided(*case, tied=lambda s: s - 1, shared=True, sign=1.0, seen_from=0, many=True):
    """Factor by factor: how much of null, of the prompt and of each negative prompt the prediction holds."""
    null, negatives, prompt, s, strengths = case
    if strengths is None:
        strengths = [tied(s) / (len(negatives) if shared else 1) for _ in negatives]
    found = (1 - s) * null + s * prompt
    for strength, negative in list(zip(strengths, negatives, strict=True))[: len(negatives) if many else 1]:
        found = found + sign * strength * case[seen_from] - sign * strength * negative
    return found


def edited(w, c, a, p):
    """By Sherman and Morrison: W' = W + (W a - W c) c^T / (p + c.c)."""
    return w + torch.outer(w @ a - w @ c, c) / (p + c @ c)


def loss_of(new, w, c, a, k, p, keep=1.0, anchored=1.0):
    goal = w @ (anchored * a + (1 - anchored) * c).T
    return (new @ c.T - goal).square().sum() + keep * (new @ k.T - w @ k.T).square().sum() + p * (new - w).square().sum()


def automatic(w, c, a, k, p, steps, sign=1.0, stay=1.0, faster=1.0, **fault):
    """By autograd, which the exercise forbids, with the rate from the singular values of all rows on top of each other."""
    held = torch.cat([c, k, p**0.5 * torch.eye(w.shape[1], dtype=w.dtype)])
    rate, new = 1 / (2 * torch.linalg.svdvals(held).max() ** 2), w.clone()
    for _ in range(steps):
        new = new.detach().requires_grad_()
        new = new - sign * faster * rate * torch.autograd.grad(loss_of(new, w, c, a, k, stay * p, **fault), new)[0]
    return new.detach()


descended = torch.enable_grad()(automatic)


def sought(a, b, images, abar, draws, start, rate, sign=1.0, image=False, noise=1.0, total=False, stuck=False):
    e = start.clone()
    for number, t, eps in draws:
        e = e.detach().requires_grad_()
        x_t = abar[t] ** 0.5 * images[number] + noise * (1 - abar[t]) ** 0.5 * eps
        error = (a @ x_t + b @ ((e - e.detach() + start) if stuck else e) - (images[number] if image else eps)).square()
        e = e - sign * rate * torch.autograd.grad(error.sum() if total else error.mean(), e)[0]
    return e.detach()


def read(found, silent, known, control=True, able=True, best=False):
    last = -1
    while last + 1 < len(found) and (not control or silent[last + 1] <= 0.1):
        last += 1
    if last < 0:
        return "search too strong"
    if able and (max(known) if best else known[last]) < 0.5:
        return "search too weak"
    return "still there" if (max(found) if best else found[last]) >= 0.5 else "not found"


ANSWERS = {
    "10.1": (guided, [
        (lambda *case: guided(*case, tied=lambda s: s), "must not matter at all"),
        (lambda *case: guided(*case, shared=False), "share the strength evenly"),
        (lambda *case: guided(*case, sign=-1.0), "towards the negative prompts"),
        (lambda *case: guided(*case, seen_from=2), "not at the prompt"),
        (lambda *case: guided(*case, many=False), "Only the first"),
        (lambda null, negatives, prompt, s, strengths: null + s * (prompt - null), "was expected"),
    ]),
    "10.2": (2.0, [(3.0, "starts at the negative"), (-2.0, "sign"), (-1.0, "without guidance"), (10.0, "too large")]),
    "10.3": (edited, [
        (lambda w, c, a, p: w @ torch.outer(a, c) @ torch.linalg.inv(torch.outer(c, c) + p * torch.eye(4)), "p W"),
        (lambda w, c, a, p: edited(w, a, c, p), "exchanged"),
        (lambda w, c, a, p: edited(w, c, a, 1.0) if p != 1 else edited(w, c, a, p), "p is missing"),
        (lambda w, c, a, p: (w @ torch.outer(c, a) + p * w) @ torch.linalg.inv(torch.outer(c, c) + p * torch.eye(4)),
         "wrong way round"),
    ]),
    "10.4": (descended, [
        (automatic, "does not require grad"),
        (lambda *case: descended(*case, anchored=0.0), "anchor is missing"),
        (lambda *case: descended(*case, keep=0.0), "to be kept are missing"),
        (lambda *case: descended(*case, stay=0.0), "holds W' near W"),
        (lambda *case: descended(*case, sign=-1.0), "climbs"),
        (lambda *case: descended(*case, faster=0.5), "factor 2"),
    ]),
    "10.5": (sought, [
        (lambda *case: sought(*case, sign=-1.0), "harder to denoise"),
        (lambda *case: sought(*case, stuck=True), "taken at the start"),
        (lambda *case: sought(*case, image=True), "predicts noise"),
        (lambda *case: sought(*case, noise=0.0), "not noised"),
        (lambda *case: sought(*case, total=True), "not a sum"),
    ]),
    "10.6": (read, [
        (lambda found, silent, known: "still there" if max(found) >= 0.5 else "not found", "All three"),
        (lambda *case: read(*case, control=False), "is not asked: a strong search"),
        (lambda *case: read(*case, able=False), "known to be there"),
        (lambda *case: read(*case, best=True), "best step"),
        (lambda *case: "not found", "was expected"),
    ]),
}
