"""Chapter 10: guidance away from prompts, a closed form, the search for an embedding, and what it proves."""

from __future__ import annotations

import numpy as np
import torch

from .checks import exercise
from .comparing import compare, compare_value


def _guided(null, negatives, prompt, s, strengths, *, tied=lambda s, count: (s - 1) / count, sign=1.0, origin=None, many=True):
    strengths = [tied(s, len(negatives))] * len(negatives) if strengths is None else strengths
    start = null if origin is None else prompt
    pairs = list(zip(strengths, negatives, strict=True))[: None if many else 1]
    return null + s * (prompt - null) - sign * sum(strength * (negative - start) for strength, negative in pairs)


@exercise(
    "10.1",
    "Write the formula above as s prompt + (1 - s) negative. How much of null does it hold?",
    "null + s (prompt - null) - w (negative - null): for which w does null drop out?",
    "w = s - 1, and null drops out. Several negative prompts get (s - 1) / len(negatives) each.",
)
def _free_strengths(function, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def case(count, s, strengths):
        null, prompt, *negatives = torch.randn(count + 2, 12, generator=generator)
        return null, negatives, prompt, s, strengths

    cases = [case(1, 3.0, None), case(1, 1.0, None), case(3, 7.0, None), case(1, 2.0, [0.5]), case(2, 4.0, [1.5, 0.0])]
    cases.append(case(2, 3.0, [0.5, 2.0]))

    def way(**fault):
        return lambda *arguments: _guided(*arguments, **fault)

    return compare(function, way(), cases, {
        "Without strengths, one negative prompt should give the formula of the chapter: at s = 1 it must not matter at all.":
            way(tied=lambda s, count: s / count),
        "Several negative prompts share the strength evenly; yours take all of it, each.": way(tied=lambda s, count: s - 1),
        "That goes towards the negative prompts.": way(sign=-1.0),
        "The steps away start at null, not at the prompt.": way(origin="prompt"),
        "Only the first negative prompt counts.": way(many=False),
    }, tolerance=1e-4)


@exercise(
    "10.2",
    "Write both predictions as null plus a multiple of d, and put them into the formula for negative prompts.",
    "negative = null - d, prompt = null. So null - d + s (null - (null - d)).",
)
def _turned_back(value):
    return compare_value(value, 2.0, {
        "The formula starts at the negative prompt's prediction, which is null - d itself.": 3.0,
        "Mind the sign: guidance goes away from the negative prompt.": -2.0,
        "That is the negative prompt's own prediction, without guidance.": -1.0,
    })


@exercise(
    "10.3",
    "Set the derivative by W' to zero: (W' c - W a) c^T + p (W' - W) = 0.",
    "Bring what has W' in it to one side: W' (c c^T + p I) = W a c^T + p W. Then solve.",
)
def _edited(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = [(torch.randn(3, 4, generator=generator), *torch.randn(2, 4, generator=generator), p) for p in (0.1, 1.0, 5.0)]
    identity = torch.eye(4)

    def solved(right, gram):
        return torch.linalg.solve(gram, right.T).T

    return compare(
        function,
        lambda w, c, a, p: solved(w @ torch.outer(a, c) + p * w, torch.outer(c, c) + p * identity),
        cases,
        {
            "The term that keeps W where it was is missing on the right: p W.":
                lambda w, c, a, p: solved(w @ torch.outer(a, c), torch.outer(c, c) + p * identity),
            "Concept and anchor are exchanged.":
                lambda w, c, a, p: solved(w @ torch.outer(c, a) + p * w, torch.outer(a, a) + p * identity),
            "The weight p is missing.": lambda w, c, a, p: solved(w @ torch.outer(a, c) + w, torch.outer(c, c) + identity),
            "The outer product on the right is the wrong way round: a c^T.":
                lambda w, c, a, p: solved(w @ torch.outer(c, a) + p * w, torch.outer(c, c) + p * identity),
        },
        tolerance=1e-4,
    )


def _descended(w, c, a, k, p, steps, *, goal=True, keep=True, stay=True, sign=1.0, moving=False, half=1.0):
    rate = 1 / (2 * torch.linalg.eigvalsh(c.T @ c + k.T @ k + p * torch.eye(w.shape[1], dtype=w.dtype)).max())
    new = w
    for _ in range(steps):
        old = new if moving else w
        gradient = 2 * (new @ c.T - old @ (a if goal else c).T) @ c
        gradient = gradient + keep * 2 * (new - w) @ k.T @ k + stay * 2 * p * (new - w)
        new = new - sign * half * rate * gradient
    return new


@exercise(
    "10.4",
    "Three terms, three gradients. What stands still, W or W'?",
    "The first term's gradient by W' is 2 (W' c^T - W a^T) c, for rows c and a. W stays what it was before the first step.",
    "The step 1 / L: L is twice the largest eigenvalue of c^T c + k^T k + p I (torch.linalg.eigvalsh).",
)
def _uce_by_descent(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = [
        (*(torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (3, 2, 2, 5)), p, steps)
        for p, steps in ((0.5, 1), (2.0, 7), (0.5, 400))
    ]

    def way(**fault):
        return lambda *case: _descended(*case, **fault)

    by_hand = torch.no_grad()(function) if callable(function) else function
    return compare(by_hand, way(), cases, {
        "The forgotten captions are sent where they were already: the anchor is missing.": way(goal=False),
        "The captions to be kept are missing.": way(keep=False),
        "The term that holds W' near W is missing.": way(stay=False),
        "That climbs: go against the gradient.": way(sign=-1.0),
        "The anchor's answer moves with W'; it should be that of W, before the edit.": way(moving=True),
        "The factor 2 of the squares is missing from the gradient, so that your steps are half as long.": way(half=0.5),
    }, tolerance=1e-6)


def _sought(a, b, images, abar, draws, start, rate, *, sign=1.0, stuck=False, image=False, noise=True, total=False):
    e = start
    for number, t, eps in draws:
        x_t = abar[t].sqrt() * images[number] + noise * (1 - abar[t]).sqrt() * eps
        error = a @ x_t + b @ (start if stuck else e) - (images[number] if image else eps)
        e = e - sign * rate * 2 * b.T @ error / (1 if total else len(eps))
    return e


@exercise(
    "10.5",
    "It is a training loop in which the network stands still and its input learns.",
    "x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps; the prediction is A x_t + B e; the loss is its mean squared error against eps.",
    "Let torch.autograd.grad differentiate the loss by e, or write the gradient down: 2 B^T (prediction - eps) / len(eps).",
)
def _embedding_search(function, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cases = []
    for steps in (1, 4, 20):
        times = torch.randint(10, (steps,), generator=generator).tolist()
        draws = [(k % 3, t, normal(6)) for k, t in enumerate(times)]
        cases.append((normal(6, 6), normal(6, 4), normal(3, 6), torch.linspace(0.98, 0.05, 10).double(), draws, normal(4), 0.1))

    def way(**fault):
        return lambda *case: _sought(*case, **fault)

    return compare(function, way(), cases, {
        "That makes the pictures harder to denoise: go against the gradient.": way(sign=-1.0),
        "Each gradient is taken at the start; take it where the embedding is now.": way(stuck=True),
        "The network predicts noise: compare with eps, not with the picture.": way(image=True),
        "The pictures are not noised: eps is missing in x_t.": way(noise=False),
        "The loss is a mean over the entries, not a sum.": way(total=True),
    }, tolerance=1e-6)


def _read(found, silent, known, *, best=False, negative=True, positive=True):
    quiet = [k for k in range(len(found)) if all(share <= 0.1 for share in silent[:k + 1])] if negative else range(len(found))
    if not quiet:
        return "search too strong"
    share, can = (max(found), max(known)) if best else (found[quiet[-1]], known[quiet[-1]])
    if positive and can < 0.5:
        return "search too weak"
    return "still there" if share >= 0.5 else "not found"


@exercise(
    "10.6",
    "What may a find mean if the network that never saw the style shows it too? And a miss, if the search finds nothing anywhere?",
    "Read both other curves at the last step up to which the control has stayed silent. No such step: the search is too strong.",
)
def _mended_verdict(function, seed=0):
    rng = np.random.default_rng(seed)
    cases = [
        ([0.0, 0.2, 0.8], [0.0, 0.0, 0.0], [0.0, 0.6, 0.9]), ([0.0, 0.2, 0.8], [0.0, 0.05, 0.4], [0.1, 0.7, 0.9]),
        ([0.0, 0.1, 0.1], [0.0, 0.0, 0.0], [0.0, 0.1, 0.2]), ([0.0, 0.7, 0.3], [0.0, 0.0, 0.1], [0.0, 0.8, 0.9]),
        ([0.3, 0.9, 0.9], [0.2, 0.0, 0.0], [0.5, 0.9, 0.9]), ([0.0, 0.6, 0.9], [0.0, 0.3, 0.0], [0.2, 0.9, 0.9]),
        ([0.0, 0.6, 0.9], [0.0, 0.05, 0.6], [0.0, 0.2, 0.9]),
    ]
    cases += [(rng.random(5).round(2).tolist(), (0.03 * np.arange(5)).tolist(), [0.0, 0.3, 0.6, 0.8, 0.9]) for _ in range(3)]

    def way(**fault):
        return lambda *case: _read(*case, **fault)

    return compare(function, way(), cases, {
        "All three faults are still there.": way(best=True, negative=False, positive=False),
        "The network that never saw the style is not asked: a strong search finds it in any network.": way(negative=False),
        "The search is not asked whether it can find a style that is known to be there: a miss may mean that it is weak.":
            way(positive=False),
        "The best step was picked; read at the last one up to which the control was silent.": way(best=True),
    })
