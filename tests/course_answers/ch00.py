def came_back(a, u, r):
    return (r - u) / (a - u)


def robust(table):
    best, least = None, None
    for name, (unlearned, attacked) in table.items():
        if unlearned > 0.1:
            continue
        if least is None or attacked - unlearned < least:
            best, least = name, attacked - unlearned
    return best


ANSWERS = {
    "00.1": ("data", [("weights", "without a single 3"), ("noise", "drawn afresh"), ("everything", "not among the choices")]),
    "00.2": (came_back, [
        (lambda a, u, r: r / a, "relative to the start"),
        (lambda a, u, r: (u - r) / (a - u), "sign is wrong"),
        (lambda a, u, r: r - u, "divide by the loss"),
        (lambda a, u, r: (r - u) / a, "a - u, not a"),
    ]),
    "00.3": (robust, [
        (lambda table: min(table, key=lambda name: table[name][1] - table[name][0]), "never forgot"),
        (lambda table: sorted(table.items(), key=lambda item: item[1][1])[0][0], "lowest accuracy after the attack"),
        (lambda table: min(table, key=lambda name: table[name][0]), "before the attack"),
        (lambda table: max(table, key=lambda name: table[name][1] - table[name][0]), "most came back"),
        (lambda table: min((n for n, (u, _) in table.items() if u < 0.1), key=lambda n: table[n][1] - table[n][0]), "was expected"),
    ]),
}
