"""Checks of chapters 11 and 12: geometry, stopping by luck, matched cost and the capstone's score."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy.stats import binom

from ..geometry import barrier
from .checks import exercise
from .comparing import compare


def _pairs(seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 40, generator=generator, dtype=torch.float64) for _ in range(3)]


def _nearest(original, unlearned, relearned, *, sign=-1.0, share_of_out=False, clip=True, end=False, from_start=False):
    u, r = unlearned - original, relearned - unlearned
    share = sign * float(r @ u) / float(u @ u if share_of_out else r @ r)
    share = min(max(share, 0.0), 1.0) if clip else share
    return share, float(((0 if from_start else u) + (1.0 if end else share) * r).norm())


@exercise(
    "11.1",
    "The distance from home at the share k of the walk is |u + k r|. Where is its square smallest?",
    "The square is |u|^2 + 2 k <u, r> + k^2 |r|^2. Set its derivative by k to zero.",
    "k = -<u, r> / |r|^2. The walk has two ends: k is never below 0 or above 1.",
)
def _nearest_to_home(function, seed=0):
    cases = []
    for u, r in _pairs(seed):
        home = torch.ones_like(u)
        across = r - (r @ u) / (u @ u) * u
        steps = across - 0.6 * u, 0.1 * across - u, -0.25 * u, 0.5 * u  # the third ends before it is nearest, the last leads away
        cases += [(home, home + u, home + u + step) for step in steps]

    def way(**fault):
        return lambda *case: _nearest(*case, **fault)

    return compare(function, way(), cases, {
        "The sign is wrong: the walk comes nearer to home where r points against u.": way(sign=1.0),
        "That share is one of the way out; divide by the square of the walk's own length, |r|.": way(share_of_out=True),
        "The walk has two ends: the share is never below 0 or above 1.": way(clip=False),
        "That is the distance from home at the end of the walk, not at the nearest place.": way(end=True),
        "That is the distance from the unlearned weights, not from the original ones.": way(from_start=True),
    }, read=lambda found: tuple(float(number) for number in found))


def _above(losses, first=0):
    return float((losses - np.linspace(losses[0], losses[-1], len(losses)))[first:len(losses) - first].max())


@exercise(
    "11.2",
    "Higher than what? Than one who walks evenly from the first loss to the last.",
    "Subtract the straight line from the first loss to the last, and take the highest point; never below zero.",
)
def _barrier(function, seed=0):
    lines = [[1.0, 3.0, 2.0], [0.0, 1.0, 4.0, 9.0], [2.0, 2.0, 2.0], [5.0, 4.0, 6.0, 1.0, 0.0]]
    lines += np.random.default_rng(seed).uniform(0, 5, (3, 6)).tolist()
    return compare(function, barrier, [(np.array(line),) for line in lines], {
        "That is the range of the losses; compare with the straight line between the ends.": lambda x: x.max() - x.min(),
        "That is the height above the first point; compare with the straight line to the last.": lambda x: x.max() - x[0],
        "Without a barrier it is zero, never negative.": lambda x: _above(x, first=1),
        "That is the highest loss itself; subtract the straight line.": lambda x: x.max(),
    })


@exercise(
    "11.3",
    "A row of the table has a gradient only if something in the batch used it.",
    "A row has a gradient if its label is in the batch. The last one, null, is always: labels are dropped to it.",
)
def _rows_without_gradient(function, seed=0):
    rng = np.random.default_rng(seed)
    cases = [([0, 1, 1, 4], 6), ([0, 1, 2, 3], 5), ([2, 2], 4), (rng.integers(0, 6, 3).tolist(), 7)]

    return compare(function, lambda y, rows: sorted(set(range(rows - 1)) - set(y)), cases, {
        "The null row has a gradient too: labels are dropped to it.": lambda y, rows: sorted(set(range(rows)) - set(y)),
        "Those are the rows with a gradient; the others were asked for.": lambda y, rows: sorted(set(y)),
        "That is the null row, and it always has a gradient.": lambda y, rows: [rows - 1],
    }, read=lambda rows: sorted(int(k) for k in rows))


def _first_order(r, f, rate, clip, *, longer=True, shorter=False):
    long = float(r.norm()) > clip
    return -rate * float(r @ f) * (clip / float(r.norm()) if (longer if long else shorter) else 1.0)


@exercise(
    "11.4",
    "First how far the weights go, then what this does to the target's loss.",
    "The weights change by -rate times the shortened g_r, and the target's loss, to first order, by <g_f, change>.",
)
def _change_of_the_loss(function, seed=0):
    cases = [(*pair, 0.01, clip) for pair in _pairs(seed + 1) for clip in (1.0, 100.0)]  # lengths of about 6
    return compare(function, _first_order, cases, {
        "The sign is wrong: the attacker descends.": lambda *case: -_first_order(*case),
        "The gradient is not shortened where it is longer than clip.": lambda *case: _first_order(*case, longer=False),
        "A gradient that is shorter than clip stays as it is.": lambda *case: _first_order(*case, shorter=True),
        "That is a step on the target's own gradient; the attacker has only g_r.":
            lambda r, f, rate, clip: _first_order(f, f, rate, clip),
        "That is the cosine; the lengths of both gradients matter.":
            lambda r, f, rate, clip: -rate * float(r @ f) / float(r.norm() * f.norm()),
        "The rate is missing.": lambda r, f, rate, clip: _first_order(r, f, 1.0, clip),
    })


def _on_the_map(origin, first, second, point, *, upright=True, unit=True, swap=False, sign=1.0, shift=True):
    across, up = first - origin, second - origin
    if unit:
        across = across / across.norm()
    if upright:
        up = up - (up @ across) / (across @ across) * across
    up, offset = (up / up.norm() if unit else up), point - origin if shift else point
    both = float(offset @ across), sign * float(offset @ up)
    return both[::-1] if swap else both


@exercise(
    "11.5",
    "Two unit vectors at a right angle make a map; a coordinate is an inner product.",
    "The first axis: first - origin, divided by its length.",
    "The second: take from second - origin its part along the first axis, then divide by the length of what is left.",
)
def _map(function, seed=0):
    generator = torch.Generator().manual_seed(seed)
    cases = [tuple(torch.randn(4, 30, generator=generator, dtype=torch.float64)) for _ in range(3)]
    return compare(function, _on_the_map, cases, {
        "The second axis is not at a right angle to the first: take off its part along it.":
            lambda *case: _on_the_map(*case, upright=False),
        "The axes do not have length 1, so distances on the map are not true.": lambda *case: _on_the_map(*case, unit=False),
        "The two coordinates are swapped.": lambda *case: _on_the_map(*case, swap=True),
        "The second axis points away from second.": lambda *case: _on_the_map(*case, sign=-1.0),
        "The point is not measured from the origin.": lambda *case: _on_the_map(*case, shift=False),
    }, tolerance=1e-6)


def _walked(stations, loss, points, *, twice=False, restart=False, shares=False, end=True):
    found, travelled = [], 0.0
    for number, (start, stop) in enumerate(itertools.pairwise(stations)):
        length = 1.0 if shares else float((stop - start).norm())
        for share in (np.linspace(0, 1, points) if end else np.arange(points) / points)[(number > 0 and not twice and end):]:
            place = float(share) * length + (0.0 if restart else travelled)
            found += [place, float(loss(start + float(share) * (stop - start)))]
        travelled += length
    return found


@exercise(
    "11.6",
    "On each leg the weights are start + share * (stop - start), with a share from 0 to 1.",
    "A corner ends one leg and begins the next: measure it once.",
    "The distance at a place: the lengths of all legs before it, and the share of this leg's length.",
)
def _walk_the_line(function, seed=0):
    stations = list(torch.randn(4, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))

    def loss(weights):
        return float((weights**2).sum().sqrt())

    def way(**fault):
        return lambda *case: _walked(*case, **fault)

    return compare(function, way(), [(stations[:2], loss, 5), (stations, loss, 2), (stations[:3], loss, 4)], {
        "A corner is measured twice, at the end of one leg and at the beginning of the next.": way(twice=True),
        "The distance starts again at each leg; it should be the one travelled since the first station.": way(restart=True),
        "Those are shares of legs; the distance is in units of the weights.": way(shares=True),
        "The end is missing: the last station belongs to the walk.": way(end=False),
    }, tolerance=1e-6, read=lambda walked: [float(number) for pair in walked for number in pair])


def _ridge(loss, points, seed, *, fresh=False, last=True):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(8, generator=generator)
    places = np.linspace(0, 1, points) if last else np.arange(points) / points
    losses = []
    for number, place in enumerate(places):
        losses.append(loss(place, torch.randn(8, generator=generator) if fresh and number else noise))
    return barrier(losses)


@exercise(
    "11.7",
    "What differs between two places of the line? Only the weights should.",
    "Draw the noise once, before the walk. And look at the last of the places: is it the end of the line?",
)
def _mended_ridge(function, seed=0):
    def loss(place, noise):
        return float((noise - 2 * place).square().mean() + 20 * noise.square().mean() * place**2 * (1 - place))

    def way(**faults):
        return lambda *case: _ridge(*case, **faults)

    return compare(function, way(), [(loss, 5, 1), (loss, 9, 2), (loss, 6, 3)], {
        "Both faults are still there.": way(fresh=True, last=False),
        "Each place is still measured with noise of its own: a barrier of chance.": way(fresh=True),
        "The end of the line is still missing.": way(last=False),
    }, tolerance=1e-5)


def _stopped(u, samples, checks, until, *, strict=False, down=False, of=lambda once, checks: 1 - (1 - once) ** checks):
    enough = [k for k in range(samples + 1) if (k / samples > until if strict else k / samples >= until)]
    return float(of(binom.sf(enough[0] - 1 - down, samples, u), checks))


@exercise(
    "12.1",
    "Begin with a single check: how many of its samples must not show the target, and how likely is it that so many do not?",
    "The number of samples that do not show the target is binomial. Add the probabilities of every number that is large enough.",
    "The method is stopped unless all checks fall short.",
)
def _stopped_by_luck(function, seed=0):
    rng = np.random.default_rng(seed)
    cases = [(0.8, 32, 25, 0.9), (0.8, 20, 5, 0.9), (0.7, 16, 4, 0.75)]
    cases += [(rng.uniform(0.6, 0.85), int(rng.integers(12, 41)), int(rng.integers(2, 20)), 0.9) for _ in range(4)]
    return compare(function, _stopped, cases, {
        "That is the probability for a single check; there are more of them.":
            lambda *case: _stopped(*case, of=lambda once, _: once),
        "Probabilities of several checks do not add up: with enough checks the sum passes 1.":
            lambda *case: _stopped(*case, of=lambda once, checks: once * checks),
        "That is the probability that every check shows it; one check is enough.":
            lambda *case: _stopped(*case, of=lambda once, checks: once**checks),
        "That is the probability that it is never stopped.": lambda *case: 1 - _stopped(*case),
        "A share of exactly `until` stops the training, too.": lambda *case: _stopped(*case, strict=True),
        "The number of samples was rounded down: 28 of 32 is less than 0.9.":
            lambda u, samples, checks, until: _stopped(u, samples, checks, until, down=until * samples % 1 > 1e-9),
    })


@exercise(
    "12.2",
    "What is paid only once? What has to be paid for every step?",
    "Take what is paid before the first step off the budget, divide by the price of a step, and round down.",
)
def _steps_for_a_budget(function, seed=0):
    cases = [(48, 10, 2), (48, 0, 2), (47, 10, 3), (10, 10, 2), (5, 10, 2)]
    cases += [tuple(int(k) for k in row) for row in np.random.default_rng(seed).integers([50, 0, 2], [100, 20, 5], (3, 3))]
    return compare(function, lambda budget, before, each: max(0, budget - before) // each, cases, {
        "What is paid before the first step is not taken off.": lambda budget, before, each: budget // each,
        "A step that cannot be paid in full is not taken: round down.": lambda budget, before, each: max(0, budget - before) / each,
        "Nobody takes a negative number of steps.": lambda budget, before, each: (budget - before) // each,
        "You are off by one step.": lambda budget, before, each: (budget - before) / each + 1,
    })


def _unmasked(looks, *, chosen=min, scale=100.0, area_of=lambda area: 1 - area):
    return chosen([float(np.mean([scale * ua * ra * area_of(area) for ua, ra, area in seeds])) for seeds in looks.values()])


def _score_of_means(looks):
    return min(100 * ua * ra * (1 - area) for ua, ra, area in (np.mean(seeds, axis=0) for seeds in looks.values()))


def _luckiest(looks):
    scores = [[100 * ua * ra * (1 - area) for ua, ra, area in seeds] for seeds in looks.values()]
    return float(np.min(scores, axis=0).mean())


@exercise(
    "12.3",
    "Three things happen: a product, a mean and a choice. In which order?",
    "The score of each seed first, then its mean over seeds for each way, then the lowest of these means.",
)
def _score_without_masks(function, seed=0):
    rng = np.random.default_rng(seed)
    ways = ["as it is", "old row back", "published seed's row"]
    cases = [({"as it is": [(1.0, 1.0, 0.0), (0.9, 1.0, 0.1)], "old row back": [(0.0, 1.0, 0.9), (0.8, 0.9, 0.2)]},)]
    cases += [({way: [tuple(row) for row in rng.uniform(0.1, 0.9, (4, 3)).tolist()] for way in ways},) for _ in range(5)]
    return compare(function, _unmasked, cases, {
        "That is the way that suits the method best; the attacker chooses.": lambda looks: _unmasked(looks, chosen=max),
        "That is the mean over all ways; the attacker takes the worst for you.":
            lambda looks: _unmasked(looks, chosen=lambda means: float(np.mean(means))),
        "Only the first way was looked at, and there a mask looks like forgetting.":
            lambda looks: _unmasked(looks, chosen=lambda means: means[0]),
        "The attacker chose anew on each seed; they take one way for all seeds.": _luckiest,
        "Score each seed first, then take the mean: the product of means is not the mean of products.": _score_of_means,
        "The area is what came back: 1 - area is what counts.": lambda looks: _unmasked(looks, area_of=lambda area: area),
        "The score goes up to 100.": lambda looks: _unmasked(looks, scale=1.0),
    })


def _fitting(controls, taught):
    return controls["with alternatives" if taught else "retrained"]


def _lead(suspect, controls, taught, *, pick=max, of=lambda share, known: share - known, unmet=None):
    control = _fitting(controls, taught)
    met = [attack for attack in suspect if unmet is not None or attack in control]
    return float(pick([of(suspect[attack], control.get(attack, unmet)) for attack in met]))


def _shares(rng, attacks):
    return {attack: float(share) for attack, share in zip(attacks, rng.uniform(0, 0.9, len(attacks)), strict=True)}


@exercise(
    "12.4",
    "Which of the two controls differs from the suspect in one thing only?",
    "A lead is a difference under one and the same attack. Take the differences first, and then the largest.",
)
def _largest_lead(function, seed=0):
    rng = np.random.default_rng(seed)
    attacks = ["none", "relearning", "few-shot", "trained-row", "initial-noise"]
    known = {"retrained": {"few-shot": 0.9, "relearning": 0.0}, "with alternatives": {"few-shot": 0.6, "relearning": 0.1}}
    suspect = {"few-shot": 1.0, "relearning": 0.3, "inversion": 0.9}
    lower = {"few-shot": 0.4, "relearning": 0.05}
    cases = [(who, known, taught) for who in (suspect, lower) for taught in (True, False)]
    for number in range(4):
        controls = {name: _shares(rng, attacks[1:]) for name in known}
        cases.append((_shares(rng, attacks), controls, bool(number % 2)))
    return compare(function, _lead, cases, {
        "The other control fits: its label must have been treated like the suspect's.":
            lambda suspect, controls, taught: _lead(suspect, controls, not taught),
        "Choose the control by `taught`; the usual one is not always right.":
            lambda suspect, controls, taught: _lead(suspect, controls, False),
        "Choose the control by `taught`; the one with alternatives is not always right.":
            lambda suspect, controls, taught: _lead(suspect, controls, True),
        "That is the largest share; an attack that teaches gives it with any model.": lambda *case: _lead(*case, of=lambda a, _: a),
        "The largest share of each may belong to two attacks: subtract under the same attack first.":
            lambda suspect, controls, taught: max(suspect.values()) - max(_fitting(controls, taught).values()),
        "That is the mean lead; the attacker takes the largest.": lambda *case: _lead(*case, pick=np.mean),
        "A lead has a sign: below 0 the control gave more.": lambda *case: _lead(*case, of=lambda a, b: abs(a - b)),
        "An attack that the control did not meet proves nothing: leave it out.": lambda *case: _lead(*case, unmet=0.0),
    })
