import numpy as np


def others_best(table, choose=max):
    values = []
    for seed in range(len(next(iter(table.values())))):
        rate = choose(table, key=lambda r: sum(v for s, v in enumerate(table[r]) if s != seed))
        values.append(table[rate][seed])
    return sum(values) / len(values)


def each(ua, ra, area):
    return (1 - area) * ra * ua * 100


def masked_no_more(looks, pick=0):
    means = sorted(sum(each(*triple) for triple in seeds) / len(seeds) for seeds in looks.values())
    return means[pick]


ANSWERS = {
    "12.1": (others_best, [
        (lambda table: float(np.mean(np.max(list(table.values()), axis=0))), "luck"),
        (lambda table: float(np.mean(list(table.values()))), "may choose"),
        (lambda table: max(float(np.mean(v)) for v in table.values()), "reported on"),
        (lambda table: others_best(table, choose=min), "helps them least"),
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
}
