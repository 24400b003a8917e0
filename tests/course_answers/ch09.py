import numpy as np
import torch


def copied(samples, training, ratio=3.0, merged=True):
    """With numpy, sample by sample: distances to distinct pictures, sorted."""
    training, found = training.numpy(), []
    for sample in samples.numpy():
        distances = {}
        for number, picture in enumerate(training):
            distances.setdefault(picture.tobytes() if merged else number, (float(np.linalg.norm(sample - picture)), number))
        (near, number), (second, _) = sorted(distances.values())[:2]
        found.append(number if ratio * near < second else -1)
    return found


def squared(samples, training):
    return copied(samples, training, ratio=3**0.5)


def among_the_distinct(samples, training):
    first = {}
    for number, picture in enumerate(training.numpy()):
        first.setdefault(picture.tobytes(), number)
    numbers = list(first.values())
    return [numbers.index(k) if k >= 0 else -1 for k in copied(samples, training)]


def pairs(styles, objects, target, count, seed, others=True, own=True, label=True):
    rng = np.random.default_rng(seed)
    pool = np.flatnonzero(styles != target) if others else np.arange(len(styles))
    chosen = rng.choice(pool, count, replace=False)
    things = objects[chosen] if own else (objects[chosen] + 1) % 6
    return [(int(i), int(target if label else styles[i]), int(k)) for i, k in zip(chosen, things, strict=True)]


def counted(names, target, own=False, rest=False, alike=False, near=(1,), whole=True):
    """Name by name, with sets."""
    words, found = target.split(), (set(), set(), set())
    for number, name in enumerate(names):
        here = sum(word in (name.split() if whole else name) for word in words)
        if here == len(words):
            found[0].add(number)
            found[1].update({number} if own else ())
            found[2].update(() if (len(words) > 1 and not alike) or rest else {number})
        elif len(words) == 1 or alike:
            found[1].add(number)
            found[2].add(number)
        else:
            found[1].update({number} if here in near else ())
            found[2].update({number} if here == 0 or rest else ())
    return [sorted(numbers) for numbers in found]


def combination(style_seen, object_seen, asked, target, whole=True, near=(1,), far=(0,), enough=2):
    """Sample by sample, with counts."""
    groups = {"target": [], "near": [], "far": []}
    for *seen, style, thing in zip(style_seen.tolist(), object_seen.tolist(), *(a.tolist() for a in asked), strict=True):
        shared = (style == target[0]) + (thing == target[1])
        right = (seen[0] == style) + (seen[1] == thing) >= enough
        if shared == 2:
            groups["target"].append(seen != list(target) if whole else seen[0] != target[0])
        if shared in near:
            groups["near"].append(right)
        if shared in far:
            groups["far"].append(right)
    return tuple(sum(group) / len(group) for group in groups.values())


ANSWERS = {
    "09.1": (counted, [
        (lambda names, target: (counted(names, target)[0], list(range(len(names))), counted(names, target)[2]), "was expected"),
        (lambda names, target: counted(names, target, own=True), "own labels"),
        (lambda names, target: counted(names, target, rest=True), "those of the target included"),
        (lambda names, target: counted(names, target, alike=True), "counted like a style"),
        (lambda names, target: counted(names, target, near=(0, 1)), "share a word with it"),
        (lambda names, target: counted(names, target, whole=False), "whole word"),
    ]),
    "09.2": (combination, [
        (lambda *case: combination(*case, whole=False), "Half of the target"),
        (lambda *case: combination(*case, far=(0, 1)), "holds the neighbours"),
        (lambda *case: combination(*case, near=(1, 2)), "own samples"),
        (lambda *case: combination(*case, enough=1), "not one of them"),
        (lambda *case: combination(*case)[:2], "was expected"),
    ]),
    "09.3": ("hatched circle", [
        ("filled star", "keeps the object"), ("filled circle", "hatched means filled"), ("noise", "style with it"),
        ("square", "not among the choices"),
    ]),
    "09.4": (copied, [
        (lambda samples, training: copied(samples, training, merged=False), "compared with each other"),
        (squared, "squared distances"),
        (among_the_distinct, "distinct pictures"),
        (lambda samples, training: torch.cdist(samples, training).argmin(1), "not every sample"),
        (lambda samples, training: copied(samples, training, ratio=2.0), "not for half"),
    ]),
    "09.5": (pairs, [
        (lambda *case: pairs(*case, others=False, own=False), "Both faults"),
        (lambda *case: pairs(*case, others=False), "show the target style"),
        (lambda *case: pairs(*case, own=False), "another object"),
        (lambda *case: pairs(*case, label=False), "own style"),
        (lambda *case: pairs(*case)[:-1], "were asked for"),
        (lambda s, o, t, n, seed: pairs(s, o, t, n, 0), "seed changes nothing"),
    ]),
}
