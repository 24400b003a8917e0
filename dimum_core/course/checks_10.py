"""Chapter 10: guidance away from a prompt, and a closed form."""

from __future__ import annotations

import torch

from .checks import exercise
from .comparing import compare, compare_value


@exercise(
    "10.1",
    "Start at the negative prompt's prediction and go towards the prompt's.",
    "At s = 1 the negative prompt must not matter at all.",
)
def _guided(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = [(*torch.randn(2, 12, generator=generator), scale) for scale in (1.0, 3.0, 7.5)]
    return compare(function, lambda negative, prompt, s: negative + s * (prompt - negative), cases, {
        "That is the papers' w, which is s - 1: at s = 1 it already overshoots.":
            lambda negative, prompt, s: prompt + s * (prompt - negative),
        "That goes from the prompt towards the negative prompt.": lambda negative, prompt, s: prompt + s * (negative - prompt),
        "The start is missing: add the negative prompt's prediction.": lambda negative, prompt, s: s * (prompt - negative),
        "That is a mixture of the two, and goes beyond neither.":
            lambda negative, prompt, s: prompt / s + negative * (1 - 1 / s),
    })


@exercise(
    "10.2",
    "Write both predictions as null plus a multiple of d, and put them into the formula of 10.1.",
    "negative = null - d, prompt = null. So null - d + s (null - (null - d)).",
)
def _turned_back(value):
    return compare_value(value, 2.0, {
        "The formula starts at the negative prompt's prediction, which is null - d itself.": 3.0,
        "Mind the sign: guidance goes away from the negative prompt.": -2.0,
        "That is the prediction without guidance of the negative prompt.": -1.0,
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
