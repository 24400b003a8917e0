"""The forward process and the denoising loss, in the notation of DDPM (Ho et al. 2020, arXiv 2006.11239)."""

from __future__ import annotations

from dataclasses import dataclass, field
from inspect import signature

import torch
from torch import Tensor

from ..errors import ModelError
from ..resuming import digest_of_tensors

NUM_TIMESTEPS = 1000
TIMESTEPS = range(NUM_TIMESTEPS)
BETA_START, BETA_END = 1e-4, 0.02
SCHEDULER_CONFIG = {
    "num_train_timesteps": NUM_TIMESTEPS,
    "beta_start": BETA_START,
    "beta_end": BETA_END,
    "beta_schedule": "linear",
    "prediction_type": "epsilon",
}
LEVELS = (*SCHEDULER_CONFIG, "trained_betas", "rescale_betas_zero_snr")
LEAST_SIGNAL = 2**-24  # abar at which a schedule down to no signal ends, as in diffusers' Euler
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def linear_alphas_cumprod() -> Tensor:
    """abar_t = prod_{s <= t} (1 - beta_s) for the linear schedule; float64, T values falling from 0.9999 to 4e-5."""
    betas = torch.linspace(BETA_START, BETA_END, NUM_TIMESTEPS, dtype=torch.float64)
    return torch.cumprod(1 - betas, dim=0)


ALPHAS_CUMPROD = linear_alphas_cumprod()


@dataclass(frozen=True, eq=False)
class Schedule:
    """The noise levels that a model was trained on, and what it predicts of a noised image.

    alphas_cumprod: abar_t, float64, T. config: what a diffusers scheduler of the same levels, that is given the noise, is made of.
    prediction_type: "epsilon", the noise; "sample", the image; or "v_prediction", v = sqrt(abar_t) eps - sqrt(1 - abar_t) x
        (Salimans and Ho 2022, arXiv 2202.00512).
    """

    alphas_cumprod: Tensor = ALPHAS_CUMPROD
    config: dict = field(default_factory=SCHEDULER_CONFIG.copy)
    prediction_type: str = "epsilon"

    @property
    def fingerprint(self) -> dict:
        """What must stay the same when a training goes on."""
        return {"noise_levels": digest_of_tensors({"abar": self.alphas_cumprod}), "prediction_type": self.prediction_type}

    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t at these levels (see `add_noise`)."""
        return add_noise(x, eps, t, self.alphas_cumprod)

    def told(self, t: Tensor) -> Tensor:
        """The time that the network is told at level t."""
        return t

    def epsilon(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise that a network's output says x_t holds, whatever it predicts; shapes as in `add_noise`."""
        if self.prediction_type == "epsilon":
            return output
        signal, noise = factors(self.alphas_cumprod, x_t, t)
        return signal * output + noise * x_t if self.prediction_type == "v_prediction" else (x_t - signal * output) / noise

    def wanted(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """What the network should say of x noised by eps: what its denoising loss compares its output with."""
        if self.prediction_type == "epsilon":
            return eps
        signal, noise = factors(self.alphas_cumprod, x, t)
        return signal * eps - noise * x if self.prediction_type == "v_prediction" else x

    @classmethod
    def of(cls, scheduler) -> Schedule:
        """That of a diffusers scheduler; ModelError for one that has no T discrete levels of noise.

        diffusers computes abar_t in float32: where it means DDPM's own, that is taken in full precision. One that goes down
        to no signal at all ends just above.
        """
        name, known = type(scheduler).__name__, "take one of DDPM's family, such as DDIMScheduler"
        levels, predicts = getattr(scheduler, "alphas_cumprod", None), scheduler.config.get("prediction_type", "epsilon")
        if not isinstance(levels, Tensor):
            raise ModelError(f"{name} has no alphas_cumprod, so it is of another kind of diffusion than these models: {known}.")
        if len(levels) != NUM_TIMESTEPS:
            raise ModelError(f"{name} has {len(levels)} noise levels, and only models with {NUM_TIMESTEPS} are supported.")
        if predicts not in PREDICTIONS:
            raise ModelError(f"Models predict one of {', '.join(PREDICTIONS)} here, and this one predicts {predicts}.")
        if needed := [p.name for p in signature(scheduler.step).parameters.values() if p.default is p.empty][3:]:
            raise ModelError(f"{name} needs {', '.join(needed)} in every step: {known}.")
        levels = levels.detach().cpu().double()
        if torch.allclose(levels, ALPHAS_CUMPROD, rtol=1e-5, atol=0):
            return cls(prediction_type=predicts)
        config = {key: value for key in LEVELS if (value := scheduler.config.get(key)) is not None}
        if levels[-1] <= LEAST_SIGNAL:  # for DDIM, which divides by the signal
            levels = levels.clamp_min(LEAST_SIGNAL)
            config = {"trained_betas": (1 - levels / torch.cat([levels.new_ones(1), levels[:-1]])).tolist()}
        return cls(levels, config | {"prediction_type": "epsilon"}, predicts)


def add_noise(x: Tensor, eps: Tensor, t: Tensor, alphas_cumprod: Tensor = ALPHAS_CUMPROD) -> Tensor:
    """x_t = sqrt(abar_t) x + sqrt(1 - abar_t) eps  (DDPM, eq. 4).

    x, eps: B x ...; t: int64, B, in [0, 1000). Returns the shape of x.
    """
    if x.shape != eps.shape or t.shape != x.shape[:1]:
        raise ValueError(f"x {tuple(x.shape)} and eps {tuple(eps.shape)} need one shape, and t one value for each item.")
    signal, noise = factors(alphas_cumprod, x, t)
    return signal * x + noise * eps


def factors(alphas_cumprod: Tensor, like: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(abar_t) and sqrt(1 - abar_t), B x 1 x ..., to multiply what is like x with: B x ..."""
    shape = (-1, *[1] * (like.ndim - 1))  # rounded before they move: not every device has float64
    return tuple(part.sqrt().to(like.device, like.dtype)[t].view(shape) for part in (alphas_cumprod, 1 - alphas_cumprod))


def draw_noise(x: Tensor, generator: torch.Generator, timesteps: range = TIMESTEPS) -> tuple[Tensor, Tensor]:
    """eps ~ N(0, I) of x's shape and t, evenly from `timesteps`, drawn on the CPU so that every device sees the same."""
    eps = torch.randn(x.shape, generator=generator)
    t = torch.randint(timesteps.start, timesteps.stop, (len(x),), generator=generator)
    return eps.to(x.device, x.dtype), t.to(x.device)


def denoising_loss(denoiser, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """L_den = mean over every element of |eps - eps(x_t, t, c)|^2  (DDPM, eq. 14).

    denoiser: a diffusers network called as denoiser(x_t, t, class_labels=labels).sample
    x: B x C x H x W; labels: int64, B.
    """
    eps, t = draw_noise(x, generator)
    predicted = denoiser(add_noise(x, eps, t), t, class_labels=labels).sample
    return (eps - predicted.float()).square().mean()


def drop_labels(labels: Tensor, null_label: int, probability: float, generator: torch.Generator) -> Tensor:
    """Replace a random share of the labels by the null condition (classifier-free guidance, arXiv 2207.12598)."""
    dropped = torch.rand(labels.shape, generator=generator) < probability
    return torch.where(dropped.to(labels.device), null_label, labels)
