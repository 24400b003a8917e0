"""Chapter 00: where knowledge sits, and what an attack brings back."""

from __future__ import annotations

import numpy as np

from .checks import exercise
from .comparing import choose, compare


@exercise(
    "00.1",
    "This model never saw a 3. What did the attack add?",
    "Only one of the three can have shown the model threes.",
)
def _where_knowledge_came_from(word):
    return choose(word, {"data"}, {
        "weights": "The weights were trained without a single 3, so before the attack they cannot have known it.",
        "noise": "Noise is drawn afresh, whatever the class; it cannot carry a picture.",
    })


@exercise(
    "00.2",
    "How much was lost? How much of that is there again?",
    "What was lost is a - u; what came back of it is r - u.",
)
def _share_that_came_back(function, seed=0):
    rng = np.random.default_rng(seed)
    cases = [(0.9, 0.1, 0.5), (1.0, 0.0, 0.25), (0.8, 0.2, 0.2)]
    cases += [(float(u + lost), float(u), float(r)) for u, lost, r in rng.uniform([0, 0.3, 0], [0.4, 0.6, 1], (4, 3))]
    return compare(function, lambda a, u, r: (r - u) / (a - u), cases, {
        "That is the level after the attack, relative to the start; subtract what was still there before it.":
            lambda a, u, r: r / a,
        "That is what came back, not its share of what was lost: divide by the loss.": lambda a, u, r: r - u,
        "The sign is wrong: recovery is a gain, r minus u.": lambda a, u, r: (u - r) / (a - u),
        "That is the share that did not come back.": lambda a, u, r: (a - r) / (a - u),
        "What was lost is a - u, not a: something was left.": lambda a, u, r: (r - u) / a,
    })


def _most_robust(table: dict) -> str:
    forgot = {name: (after - unlearned) for name, (unlearned, after) in table.items() if unlearned <= 0.1}
    return min(forgot, key=forgot.get)


@exercise(
    "00.3",
    "A model that never forgot has nothing to recover: look at the first number before you compare the second.",
    "Keep only models with at most 0.1 after unlearning, and take the one with the smallest gain.",
)
def _robust_model(function, seed=0):
    rng = np.random.default_rng(seed)
    tables = [
        {"kept": (0.9, 0.9), "fragile": (0.02, 0.6), "sturdy": (0.08, 0.15), "low": (0.3, 0.12)},
        {"kept": (0.6, 0.6), "fragile": (0.1, 0.3), "sturdy": (0.0, 0.1), "low": (0.2, 0.05)},
        {"kept": (0.7, 0.7), "fragile": (0.05, 0.5), "sturdy": (0.1, 0.2), "low": (0.3, 0.15)},
    ]
    for _ in range(4):
        names = [str(name) for name in rng.permutation(["a", "b", "c", "d"])]
        first, second, third = rng.uniform(0.0, 0.1, 3)
        tables.append({names[0]: (0.8, 0.8), names[1]: (first, first + 0.5), names[2]: (second, second + 0.06),
                       names[3]: (third, third + 0.25)})
    return compare(function, _most_robust, [(table,) for table in tables], {
        "That one never forgot: its accuracy was above 0.1 before any attack.":
            lambda table: min(table, key=lambda name: table[name][1] - table[name][0]),
        "That is the lowest accuracy after the attack, whether or not the model had forgotten.":
            lambda table: min(table, key=lambda name: table[name][1]),
        "That is the model from which most came back.": lambda table: max(table, key=lambda name: table[name][1] - table[name][0]),
        "That one forgot best before the attack; the question is what came back.":
            lambda table: min(table, key=lambda name: table[name][0]),
    })
