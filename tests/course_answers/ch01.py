import torch

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
ABAR = torch.cumprod(1 - BETAS, 0)


def best_loss() -> float:
    """By simulation, not by the formula: the residual of a linear fit of eps on x_t, averaged over t."""
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 4000, generator=generator, dtype=torch.float64)
    x_t = ABAR.sqrt()[:, None] * 0.5 * x + (1 - ABAR).sqrt()[:, None] * eps
    slope = (x_t * eps).sum(1) / (x_t * x_t).sum(1)
    return float((eps - slope[:, None] * x_t).square().mean())


def noised_at(x, eps, t):
    shape = (-1, *[1] * (x.ndim - 1))
    return ABAR[t].sqrt().float().view(shape) * x + (1 - ABAR[t]).sqrt().float().view(shape) * eps


def loss_of(degrees=lambda n: torch.randint(1000, (n,)), noise=torch.randn_like, hide=lambda n: torch.rand(n) < 0.1, null=None,
            target="eps", reduce=torch.mean, told=lambda t: t):
    """The training loss with one part replaced."""
    def loss(denoise, x, labels, null_label):
        t, eps = degrees(len(x)), noise(x)
        shown = labels.masked_fill(hide(len(x)), null_label if null is None else null)
        error = (eps if target == "eps" else x) - denoise(noised_at(x, eps, t), told(t), shown)
        return reduce(error**2)
    return loss


def shared(rows, columns):
    """Noise of which all coordinates of an item are the same."""
    return torch.randn(rows, 1).expand(rows, columns)


def related(rows, columns):
    return (shared(rows, columns) + torch.randn(rows, columns)) / 2**0.5


def coins(rows, columns):
    """Mean 0 and standard deviation 1, but not normal."""
    return torch.randint(2, (rows, columns)) * 2.0 - 1


def moving(averaged, weights, step, decay):
    rate = 1 - min((step + 1) / (step + 10), decay)
    return [torch.lerp(a, w, rate) for a, w in zip(averaged, weights, strict=True)]


def ddpm(root=torch.sqrt, small=True, order=reversed, same=False):
    """By the form of the mean with the noise (Ho et al., algorithm 2), not by the guess."""
    def sample(denoise, noise, labels, betas):
        x_t = noise[-1]
        for k in order(range(len(betas))):
            abar, past = torch.prod(1 - betas[:k + 1]), torch.prod(1 - betas[:k])
            eps = denoise(x_t, torch.tensor([k] * len(x_t)), labels)
            mean = (x_t - betas[k] / (1 - abar).sqrt() * eps) / (1 - betas[k]).sqrt()
            x_t = mean + root(betas[k] * ((1 - past) / (1 - abar) if small else 1.0)) * noise[-1 if same else k]
        return x_t
    return sample


def hunted(noise=torch.randn, aligned=True):
    def loss(denoise, x, labels, batch_size):
        batch = torch.randint(len(x), (batch_size,))
        t, eps = torch.randint(1000, (batch_size,)), noise(batch_size, x.shape[1])
        told = labels[batch] if aligned else labels[:batch_size]
        return (eps - denoise(noised_at(x[batch], eps, t), t, told)).square().mean()
    return loss


def first_rows(denoise, x, labels, batch_size):
    t, eps = torch.randint(1000, (batch_size,)), torch.randn(batch_size, x.shape[1])
    return (eps - denoise(noised_at(x[:batch_size], eps, t), t, labels[:batch_size])).square().mean()


def by_degree(denoise, x, labels, eps, degrees):
    found = []
    for degree in degrees:
        t = torch.tensor([degree] * len(x))
        found.append(((denoise(noised_at(x, eps, t), t, labels) - eps) ** 2).mean().item())
    return found


ANSWERS = {
    "01.1": (259, [(500, "does not fall evenly"), (260, "off by one step"),
                  (258, "off by one step"), (int((ABAR.sqrt() < 0.5).nonzero()[0]), "squares")]),
    "01.2": (lambda x_t, eps, abar: (x_t - (1 - abar) ** 0.5 * eps) / abar**0.5, [
        (lambda x_t, eps, abar: (x_t - (1 - abar) * eps) / abar, "square roots are missing"),
        (lambda x_t, eps, abar: (x_t + (1 - abar).sqrt() * eps) / abar.sqrt(), "sign"),
        (lambda x_t, eps, abar: x_t - (1 - abar).sqrt() * eps, "scaled down"),
        (lambda x_t, eps, abar: x_t - eps, "noise in x_t is scaled"),
        (lambda x_t, eps, abar: (x_t - abar.sqrt() * eps) / (1 - abar).sqrt(), "exchanged"),
        (lambda x_t, eps, abar: None, "return its result"),
        (lambda x_t, eps, abar: x_t.mean(), "of shape"),
        (0.5, "A function was expected"),
        (lambda x_t, eps: x_t, "TypeError"),
    ]),
    "01.3": (loss_of(), [
        (loss_of(degrees=lambda n: torch.randint(1000, (1,)).expand(n)), "same t"),
        (loss_of(degrees=lambda n: torch.randint(100, (n,))), "evenly from 0 to 999"),
        (loss_of(degrees=lambda n: torch.randint(999, (n,))), "evenly from 0 to 999"),
        (loss_of(degrees=lambda n: torch.randint(1, 1000, (n,))), "evenly from 0 to 999"),
        (loss_of(degrees=lambda n: (500 + 250 * torch.randn(n)).clamp(0, 999).long()), "crowd in some places"),
        (loss_of(noise=torch.rand_like), "not 0 and 1"),
        (loss_of(noise=lambda x: torch.randn(x.shape[1:]).expand(x.shape)), "All items have the same noise"),
        (loss_of(noise=lambda x: shared(*x.shape)), "All coordinates of an item have the same noise"),
        (loss_of(noise=lambda x: related(*x.shape)), "depends on that of another"),
        (loss_of(noise=lambda x: coins(*x.shape)), "normal distribution"),
        (loss_of(noise=lambda x: (torch.rand_like(x) - 0.5) * 12**0.5), "normal distribution"),
        (loss_of(hide=lambda n: torch.rand(n) < 0), "No label was hidden"),
        (loss_of(hide=lambda n: torch.rand(n) > 0.1), "one in ten"),
        (loss_of(hide=lambda n: (torch.rand(1) < 2).expand(n)), "for each item by itself"),
        (loss_of(null=0), "something other than the null label"),
        (loss_of(target="x"), "not with the image"),
        (loss_of(reduce=torch.sum), "sum of the squares"),
        (loss_of(told=lambda t: t.flip(0)), "noised to the t that the network is told"),
        (lambda denoise, x, labels, null_label: torch.tensor(1.0), "asked 0 times"),
    ]),
    "01.4": (moving, [
        (lambda a, w, step, decay: moving(w, a, step, decay), "exchanged"),
        (lambda a, w, step, decay: [decay * p + (1 - decay) * q for p, q in zip(a, w, strict=True)], "warm-up is missing"),
        (lambda a, w, step, decay: w, "nothing is averaged"),
        (lambda a, w, step, decay: moving(a, w, step, 1.0), "at most decay"),
        (lambda a, w, step, decay: [(step * p + q) / (step + 1) for p, q in zip(a, w, strict=True)], "plain mean"),
    ]),
    "01.5": (ddpm(), [
        (ddpm(root=lambda v: 0 * v), "No fresh noise"),
        (ddpm(root=lambda v: v), "take its root"),
        (ddpm(small=False), "is beta_t"),
        (ddpm(order=iter), "wrong way"),
        (lambda denoise, noise, labels, betas: ddpm()(denoise, noise, labels * 0, betas), "do not reach"),
        (ddpm(same=True), "same noise"),
        (lambda denoise, noise, labels, betas: noise[0], "was expected"),
    ]),
    "01.6": (hunted(), [
        (hunted(torch.rand, aligned=False), "first points, whichever were drawn"),
        (hunted(aligned=False), "first points, whichever were drawn"),
        (hunted(torch.rand), "not 0 and 1"),
        (hunted(shared), "All coordinates of an item have the same noise"),
        (hunted(related), "depends on that of another"),
        (hunted(coins), "normal distribution"),
        (first_rows, "never learnt"),
        (lambda denoise, x, labels, n: hunted()(denoise, x, labels[torch.randperm(len(labels))], n), "not those of the points"),
    ]),
    "01.7": (by_degree, [
        (lambda *case: sum(by_degree(*case)) / len(case[4]), "one number for all"),
        (lambda *case: [value * case[1].numel() for value in by_degree(*case)], "sums"),
        (lambda d, x, y, eps, ts: by_degree(lambda a, t, b: d(a, t * 0, b), x, y, eps, ts), "t = 0 throughout"),
        (lambda *case: [value**0.5 for value in by_degree(*case)], "roots"),
        (lambda *case: by_degree(*case)[::-1], "wrong order"),
    ]),
    "01.8": (best_loss(), [
        (0.0, "cannot be reached"), (1.0, "always answers 0"), (0.2125, "too large"),
        (float((ABAR * 0.5 / (ABAR * 0.5 + 1 - ABAR)).mean()), "enters squared"),
        (float(((1 - ABAR) / (ABAR * 0.25 + 1 - ABAR)).mean()), "what remains"),
    ]),
}
