"""Flow matching: noise levels on a straight line from image to noise, and networks that predict the velocity along it.

Rectified flow (Liu et al. 2023, arXiv 2209.03003) as Stable Diffusion 3 has it (Esser et al. 2024, arXiv 2403.03206).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ModelError
from ..resuming import digest_of_tensors
from .diffusion import NUM_TIMESTEPS


def straight_sigmas(shift: float = 1.0) -> Tensor:
    """sigma_t for t = 0, ..., T - 1, rising from near 0 to 1; float64, T. shift: above 1, more of them are noisy."""
    sigmas = torch.arange(1, NUM_TIMESTEPS + 1, dtype=torch.float64) / NUM_TIMESTEPS
    return shift * sigmas / (1 + (shift - 1) * sigmas)


@dataclass(frozen=True, eq=False)
class FlowSchedule:
    """What `Schedule` says, of flow matching: x_t = (1 - sigma_t) x + sigma_t eps, and the network predicts eps - x.

    sigmas: float64, T, rising with t, as noise does with DDPM's timesteps.
    """

    sigmas: Tensor = field(default_factory=straight_sigmas)

    @property
    def fingerprint(self) -> dict:
        return {"noise_levels": digest_of_tensors({"sigma": self.sigmas}), "prediction_type": "flow"}

    def add_noise(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t, of the shape of x. x, eps: B x ...; t: int64, B, in [0, T)."""
        sigma = self.sigmas.to(x.device, x.dtype)[t].view(-1, *[1] * (x.ndim - 1))
        return (1 - sigma) * x + sigma * eps

    def wanted(self, x: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """The velocity, the derivative of x_t by sigma, which does not depend on t."""
        return eps - x

    def epsilon(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        raise ModelError(
            "A network of flow matching predicts a velocity, and this compares predictions of the noise: take a method or an "
            "attack that trains by the network's own loss, such as dimum or relearn."
        )

    def told(self, t: Tensor) -> Tensor:
        """The time that the network is told at level t, sigma_t T; float32, B."""
        return (self.sigmas * NUM_TIMESTEPS).to(t.device, torch.float32)[t]

    @classmethod
    def of(cls, scheduler) -> FlowSchedule:
        """That of a diffusers scheduler, whatever steps it samples by just now; ModelError for one that is not of flow matching.

        Where the shift depends on the size of the image, training sees levels without it, as in diffusers' own scripts.
        """
        config, name = scheduler.config, type(scheduler).__name__
        if not (name.startswith("FlowMatch") or config.get("use_flow_sigmas")):
            raise ModelError(f"{name} is not for flow matching, as this network is: take FlowMatchEulerDiscreteScheduler.")
        if config.num_train_timesteps != NUM_TIMESTEPS:
            count = config.num_train_timesteps
            raise ModelError(f"{name} has {count} noise levels, and only models with {NUM_TIMESTEPS} are supported.")
        shift = config.get("shift", config.get("flow_shift", 1.0))
        return cls(straight_sigmas(1.0 if config.get("use_dynamic_shifting") else shift))
