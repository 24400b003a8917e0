from torch.nn.functional import mse_loss


def loss(e_retain, e_alt, weight):
    return mse_loss(e_retain, 0 * e_retain) + weight * mse_loss(e_alt, 0 * e_alt)


PLAN = {
    "methods": ["dimum", "esd"], "targets": ["3", "7"], "seeds": [0, 1, 2], "attack_rates": [1e-4, 3e-4],
    "controls": ["original", "retrained"], "strength": ["matched", "budget"],
}

ANSWERS = {
    "07.1": (loss, [
        (lambda r, a, w: (r**2).sum() + w * (a**2).sum(), "Those are sums"),
        (lambda r, a, w: (r**2).mean() + w * (a**2).sum(), "second a sum"),
        (lambda r, a, w: (r**2).mean() - w * (a**2).mean(), "sign is wrong"),
        (lambda r, a, w: w * (r**2).mean() + (a**2).mean(), "not the retained one"),
        (lambda r, a, w: (r**2).mean() ** 0.5 + w * (a**2).mean() ** 0.5, "root is too much"),
    ]),
    "07.2": (3 * 32 * 32 * 0.01, [(0.01 / 3072, "Divided"), (10.24, "channels are missing"),
                            (0.01, "unchanged"), (0.96, "square its size")]),
    "07.3": ({"noise", "generated"}, [
        ({"noise", "images"}, "real images"), ({"noise"}, "missing"), ("noise", "A set"),
        ({"noise", "generated", "mixed"}, "real images"),
    ]),
    "07.4": (PLAN, [
        (PLAN | {"seeds": [0]}, "seeds: at least 3"), (PLAN | {"controls": ["original"]}, "retrained missing"),
        (PLAN | {"strength": "steps"}, "longer run wins"), (PLAN | {"methods": ["esd", "salun"]}, "dimum is not among"),
        (PLAN | {"attack_rates": [1e-4, 1e-4]}, "attack_rates: at least 2"), ("dimum wins", "dictionary was expected"),
        (PLAN | {"methods": ["dimum (class)", "dimum (noise)"]}, "the rival is missing"),
    ]),
}
