def ddim(x_t, eps, abar, abar_before):
    guess = (x_t - (1 - abar).sqrt() * eps) / abar.sqrt()
    return abar_before.sqrt() * guess + (1 - abar_before).sqrt() * eps


ANSWERS = {
    "02.1": (lambda null, cond, s: (1 - s) * null + s * cond, [
        (lambda null, cond, s: (1 + s) * cond - s * null, "other convention"),
        (lambda null, cond, s: (1 - s) * cond + s * null, "exchanged"),
        (lambda null, cond, s: null - s * (cond - null), "sign is wrong"),
        (lambda null, cond, s: s * (cond - null), "starting point"),
        (lambda null, cond, s: cond, "s is not used"),
    ]),
    "02.2": (2.5, [(1.5, "not the same"), (0.5, "wrong direction"), (-1.5, "sign"), (3.0, "factors of eps_c"), (4.0, "too large")]),
    "02.3": (ddim, [
        (lambda x_t, eps, a, b: ddim(x_t, eps, b, a), "exchanged"),
        (lambda x_t, eps, a, b: (x_t - (1 - a).sqrt() * eps) / a.sqrt(), "noise it again"),
        (lambda x_t, eps, a, b: b.sqrt() * (x_t - (1 - a).sqrt() * eps) / a.sqrt() + (1 - a).sqrt() * eps, "one step earlier"),
        (lambda x_t, eps, a, b: b * (x_t - (1 - a) * eps) / a + (1 - b) * eps, "square roots are missing"),
        (lambda x_t, eps, a, b: x_t, "unchanged"),
    ]),
    "02.4": (0.1, [(0.0, "Not none"), (0.5, "more than two"), (1, "ignored at s = 0"),
                   (0.9, "wrong ones"), (10, "not the number")]),
}
