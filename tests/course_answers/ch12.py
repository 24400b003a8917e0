import math

import numpy as np
from scipy.stats import binom


def luck(u, samples, checks, until, least=None):
    """Walk from check to check, with the chance of still being in training."""
    least = math.ceil(round(until * samples, 9)) if least is None else least
    still = 1.0
    for _ in range(checks):
        still *= binom.cdf(least - 1, samples, u)
    return 1 - still


def once(u, samples, until):
    return luck(u, samples, 1, until)


def each(ua, ra, area):
    return (1 - area) * ra * ua * 100


def masked_no_more(looks, pick=0):
    means = sorted(sum(each(*triple) for triple in seeds) / len(seeds) for seeds in looks.values())
    return means[pick]


def fitting(controls, taught):
    retrained, taught_another = controls["retrained"], controls["with alternatives"]
    return taught_another if taught else retrained


def leads(suspect, controls, taught):
    control = fitting(controls, taught)
    return sorted(share - control[attack] for attack, share in suspect.items() if control.keys() >= {attack})


def lead(*case):
    return leads(*case)[-1]


def shares_first(suspect, controls, taught):
    return max(suspect.values()) - max(fitting(controls, taught).values())


def unmet_is_zero(suspect, controls, taught):
    nought = dict.fromkeys(suspect, 0.0)
    return lead(suspect, {name: nought | control for name, control in controls.items()}, taught)


ANSWERS = {
    "12.1": (luck, [
        (lambda u, samples, checks, until: once(u, samples, until), "single check"),
        (lambda u, samples, checks, until: checks * once(u, samples, until), "do not add up"),
        (lambda u, samples, checks, until: once(u, samples, until) ** checks, "every check"),
        (lambda u, samples, checks, until: 1 - luck(u, samples, checks, until), "never stopped"),
        (lambda u, samples, checks, until: luck(u, samples, checks, until, math.floor(round(until * samples, 9)) + 1), "exactly"),
        (lambda u, samples, checks, until: luck(u, samples, checks, until, math.floor(round(until * samples, 9))), "rounded down"),
    ]),
    "12.2": (lambda budget, before, each: max(0, budget - before) // each, [
        (lambda budget, before, each: budget // each, "taken off"),
        (lambda budget, before, each: (budget - before) / each + 1, "off by one"),
        (lambda budget, before, each: max(0, budget - before) / each, "round down"),
        (lambda budget, before, each: (budget - before) // each, "negative"),
    ]),
    "12.3": (masked_no_more, [
        (lambda looks: masked_no_more(looks, pick=-1), "suits the method best"),
        (lambda looks: float(np.mean([each(*triple) for seeds in looks.values() for triple in seeds])), "mean over all ways"),
        (lambda looks: masked_no_more(dict(list(looks.items())[:1])), "Only the first way"),
        (lambda looks: float(np.mean([min(each(*t) for t in triples) for triples in zip(*looks.values(), strict=True)])), "anew"),
        (lambda looks: min(each(*np.mean(seeds, axis=0)) for seeds in looks.values()), "mean of products"),
        (lambda looks: masked_no_more({way: [(u, r, 1 - a) for u, r, a in seeds] for way, seeds in looks.items()}), "came back"),
        (lambda looks: masked_no_more(looks) / 100, "up to 100"),
    ]),
    "12.4": (lead, [
        (lambda suspect, controls, taught: lead(suspect, controls, not taught), "The other control"),
        (lambda suspect, controls, taught: lead(suspect, controls, False), "the usual one"),
        (lambda suspect, controls, taught: lead(suspect, controls, True), "the one with alternatives"),
        (lambda suspect, controls, taught: max(suspect.values()), "largest share;"),
        (shares_first, "two attacks"),
        (lambda *case: float(np.mean(leads(*case))), "mean lead"),
        (lambda *case: max(map(abs, leads(*case))), "has a sign"),
        (unmet_is_zero, "did not meet"),
    ]),
}
