import torch


def edited(w, c, a, p):
    """By Sherman and Morrison: W' = W + (W a - W c) c^T / (p + c.c)."""
    return w + torch.outer(w @ a - w @ c, c) / (p + c @ c)


ANSWERS = {
    "10.1": (lambda negative, prompt, s: s * prompt + (1 - s) * negative, [
        (lambda negative, prompt, s: prompt + s * (prompt - negative), "s - 1"),
        (lambda negative, prompt, s: prompt + s * (negative - prompt), "towards the negative"),
        (lambda negative, prompt, s: s * (prompt - negative), "start is missing"),
    ]),
    "10.2": (2.0, [(3.0, "starts at the negative"), (-2.0, "sign"), (-1.0, "without guidance"), (10.0, "too large")]),
    "10.3": (edited, [
        (lambda w, c, a, p: w @ torch.outer(a, c) @ torch.linalg.inv(torch.outer(c, c) + p * torch.eye(4)), "p W"),
        (lambda w, c, a, p: edited(w, a, c, p), "exchanged"),
        (lambda w, c, a, p: edited(w, c, a, 1.0) if p != 1 else edited(w, c, a, p), "p is missing"),
    ]),
}
