import numpy as np


def others_best(table, choose=max):
    values = []
    for seed in range(len(next(iter(table.values())))):
        rate = choose(table, key=lambda r: sum(v for s, v in enumerate(table[r]) if s != seed))
        values.append(table[rate][seed])
    return sum(values) / len(values)


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
    "12.3": (lambda ua, ra, area: 100 * ua * ra * (1 - area), [
        (lambda ua, ra, area: 100 * (ua + ra + 1 - area) / 3, "mean"), (lambda ua, ra, area: 100 * ua * ra * area, "came back"),
        (lambda ua, ra, area: 100 * ua * (1 - area), "retained classes"),
        (lambda ua, ra, area: ua * ra * (1 - area), "up to 100"),
    ]),
}
