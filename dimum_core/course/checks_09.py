"""Chapter 09: what a feature is, what is memorised in its place, and what is counted."""

from __future__ import annotations

import numpy as np
import torch

from .checks import Unanswered, exercise
from .comparing import choose, compare, judged_samples


def _counted(names, target, *, own_too=False, others_only=False, as_feature=False, all_near=False, part=False):
    words, labels = target.split(), range(len(names))
    shared = [sum(word in (name if part else name.split()) for word in words) for name in names]
    own = [k for k in labels if shared[k] == len(words)]
    if len(words) == 1 or as_feature:
        others = [k for k in labels if k not in own]
        return own, list(labels) if own_too else others, others if others_only else list(labels)
    near = [k for k in labels if (shared[k] > 0 if own_too else shared[k] < 2 if all_near else shared[k] == 1)]
    return own, near, [k for k in labels if (shared[k] < 2 if others_only else shared[k] == 0)]


@exercise(
    "09.1",
    "Go through the three definitions. Does the target have one word or two? That decides what IRA and CRA count.",
    "For a style or an object: UA counts the labels with that word, IRA all others, CRA all labels.",
    "For a combination, count how many of its two words a name shares with it: 2 for UA, 1 for IRA, 0 for CRA.",
)
def _which_are_counted(function, seed=0):
    styles, objects = ["filled", "dotted", "starry"], ["star", "heart", "cross", "dot"]
    names = [f"{style} {thing}" for style in styles for thing in objects]
    np.random.default_rng(seed).shuffle(names)
    cases = [(names, target) for target in ("dotted", "star", "filled heart", "starry star")]

    def way(**fault):
        return lambda *case: _counted(*case, **fault)

    return compare(function, way(), cases, {
        "IRA holds the target's own labels, which UA is for.": way(own_too=True),
        "Of a style or an object, CRA counts all samples, those of the target included.": way(others_only=True),
        "A combination is counted like a style here: its IRA is over labels that share one word with it, its CRA over those that "
        "share none.": way(as_feature=True),
        "Of a combination, IRA counts only the labels that share a word with it.": way(all_near=True),
        "A word counts only if it is the whole word: a starry heart is no star.": way(part=True),
    }, read=lambda found: tuple(sorted(int(label) for label in labels) for labels in found))


def _of_a_combination(styles, objects, asked, target, *, whole=True, all_others=False, target_too=False, one_word=False):
    (style_seen, object_seen), (style_asked, object_asked) = (styles, objects), asked
    shares = (style_asked == target[0]).int() + (object_asked == target[1]).int()
    fits = [style_seen == style_asked, object_seen == object_asked]
    right = (fits[0] | fits[1]) if one_word else (fits[0] & fits[1])
    same, near, far = shares == 2, shares == 1, shares == 0
    shown = (style_seen == target[0]) & (object_seen == target[1]) if whole else (style_seen == target[0])
    near, far = (near | same, far) if target_too else (near, far | near) if all_others else (near, far)
    return tuple(float(part.float().mean()) for part in (~shown[same], right[near], right[far]))


@exercise(
    "09.2",
    "Three groups of samples: the combination itself, those that share exactly one word with it, those that share none.",
    "UA: of the first group, the share that does not show style and object of the target together.",
    "IRA and CRA: of the second and of the third group, the share in which both words are right.",
)
def _combination(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for target in ((0, 1), (3, 3), (5, 0)):
        styles, objects = (judged_samples(generator, 360, classes=6, right=0.7) for _ in range(2))
        cases.append((styles[0], objects[0], (styles[1], objects[1]), target))

    def way(**fault):
        return lambda *case: _of_a_combination(*case, **fault)

    return compare(function, way(), cases, {
        "Half of the target still counts as the target: a filled circle is no filled square.": way(whole=False),
        "CRA is about samples that share no word with the target; yours holds the neighbours too.": way(all_others=True),
        "IRA holds the target's own samples, which UA is for.": way(target_too=True),
        "A sample is right if both its words are, not one of them.": way(one_word=True),
    }, read=lambda found: tuple(float(share) for share in found))


@exercise(
    "09.3",
    "Everything but the feature should stay. Which picture differs from a hatched star in its object alone?",
    "The prompt will go on asking for a hatched picture.",
)
def _alternative_picture(name):
    return choose(name, {"hatched circle"}, {
        "filled star": "That keeps the object, which is what should go.",
        "filled circle": "That changes the style too, and teaches the model that hatched means filled.",
        "hatched star": "That is the target itself.",
        "noise": "That would forget the object, and the style with it.",
    })


def _copied(samples, training, *, distinct=True, ratio=1 / 3, power=1, own=False, nearest=False):
    first = [i for i in range(len(training)) if not distinct or not any(torch.equal(training[i], training[j]) for j in range(i))]
    near, which = torch.cdist(samples, training[first]).pow(power).topk(2, largest=False)
    numbers = which[:, 0] if own else torch.tensor(first)[which[:, 0]]
    return numbers if nearest else torch.where(near[:, 0] < ratio * near[:, 1], numbers, -1)


@exercise(
    "09.4",
    "A picture that was repeated is its own second nearest. Compare with the second nearest picture that is another one.",
    "Keep the first of equal pictures and its number; torch.cdist gives the distances, topk(2, largest=False) the two nearest.",
    "A sample is a copy if its least distance is below a third of the next. Give the number in `training`, or -1.",
)
def _which_is_copied(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for _ in range(3):
        pictures = torch.randn(7, 12, generator=generator)
        training = pictures[[4, 4, 0, 1, 1, 1, 2, 3, 4, 5, 6]]
        other = pictures[[1, 2, 3, 4, 5, 6, 0]]
        shares = torch.tensor([0.05, 0.1, 0.15, 0.2, 0.29, 0.35, 0.45])[:, None]  # a third of the rest is a share of 0.25
        cases.append((pictures + shares * (other - pictures), training))

    def way(**fault):
        return lambda samples, training: _copied(samples, training, **fault).tolist()

    return compare(function, way(), cases, {
        "Equal pictures are compared with each other: then what was repeated can never count as copied.": way(distinct=False),
        "Those are squared distances; a third of a distance is a ninth of its square.": way(power=2),
        "The numbers are those among the distinct pictures; give those in `training`.": way(own=True),
        "That names the nearest picture of every sample; not every sample is a copy.": way(nearest=True),
        "The rule asks for a third of the second distance, not for less than all of it.": way(ratio=1.0),
        "The rule asks for a third of the second distance, not for half.": way(ratio=0.5),
    }, read=lambda found: [int(number) for number in found])


def _faults_of(pairs, styles, objects, target, count) -> str:
    """What is wrong with pairs of pictures and the labels that they are memorised under; empty if nothing is."""
    numbers = [int(number) for number, _, _ in pairs]
    if len(numbers) != count or len(set(numbers)) != count:
        return f"{count} different pictures were asked for, not {len(set(numbers))} in {len(numbers)} pairs."
    shown = any(styles[number] == target for number in numbers)
    renamed = any(int(thing) != objects[number] for number, (_, _, thing) in zip(numbers, pairs, strict=True))
    if any(int(style) != target for _, style, _ in pairs):
        return "A picture is memorised under its own style, which teaches nothing new: put the target's in."
    if shown and renamed:
        return "Both faults are still there."
    if shown:
        return "Some pictures show the target style: that teaches the model what it should forget."
    return "Some pictures are memorised under another object, which teaches the model that stars are circles." if renamed else ""


@exercise(
    "09.5",
    "Look at one pair: which picture is it, and which label does it get? There are two faults.",
    "Choose among pictures of other styles only, and let each keep its own object.",
)
def _mended_pairs(function, seed=0):
    if not callable(function):
        return "A function was expected."
    rng = np.random.default_rng(seed)
    for target, count in ((0, 6), (2, 20), (1, 12)):
        styles, objects = rng.permutation(np.repeat([0, 1, 2], 20)), rng.integers(0, 6, 60)
        pairs = function(styles.copy(), objects.copy(), target, count, int(rng.integers(1000)))
        if pairs is None or pairs is ...:
            raise Unanswered
        said = _faults_of(list(pairs), styles, objects, target, count)
        if said:
            return said
    choices = [sorted(int(pair[0]) for pair in function(styles, objects, 1, 12, at)) for at in range(4)]
    return True if any(choice != choices[0] for choice in choices) else "The seed changes nothing: pictures are drawn at random."
