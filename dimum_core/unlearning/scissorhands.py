"""Scissorhands: start the most sensitive weights anew, then repair without relearning (Wu and Harandi 2024, arXiv 2401.06187)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from ..errors import SettingError
from .base import Method, Step, follow, gradient, parameters_that_train, ranged, register


@register("scissorhands")
@dataclass(frozen=True)
class Scissorhands(Method):
    """First, `share` of self-attention's weights, those with the largest |theta * gradient of L_den(D_f)|, are initialised anew.

    The authors' code for diffusion trims there, too (in two blocks of Stable Diffusion). Among all weights a small network loses
    what it cannot learn again in a few dozen steps: scales of normalisation, whose channels are then dead, or its last kernels.

    Then L_den(D_r) - forget_weight * L_den(D_f) is minimised. Its gradient is projected (as in gradient episodic memory) so that
    no step lowers the forget loss of the trimmed model: if <g, m> < 0 for m, the gradient of -L_den(D_f) there,
    g <- g - <g, m> / |m|^2 m.

    Published for CIFAR-10 classifiers: share 0.03, forget_weight 0.05, one batch each for sensitivity and memory.
    """

    share: float = ranged(0.03, 0, 1)
    forget_weight: float = ranged(0.05, low=0)
    batches: int = 4
    needs: ClassVar[frozenset[str]] = frozenset({"forget", "retain"})
    compares_noise: ClassVar[bool] = False

    @property
    def prepare_batches(self) -> int:
        return self.batches

    def prepare(self, steps: list[Step]) -> dict:
        """Trims the student, and remembers the gradient that would lower its forget loss."""
        model = steps[0].model
        attention = _self_attention(model)
        climb = sum(gradient(step.denoising(*step.batch("forget")), model) for step in steps) / len(steps)
        parameters = [parameter for _, parameter in parameters_that_train(model)]
        weights = torch.cat([parameter.detach().flatten() for parameter in parameters])
        within = torch.cat([torch.full((p.numel(),), id(p) in attention) for p in parameters]).to(weights.device)
        score = (weights * climb).abs().masked_fill(~within, -1)
        sensitive = torch.zeros_like(weights, dtype=torch.bool)
        sensitive[score.topk(round(self.share * int(within.sum()))).indices] = True
        _start_anew(model, sensitive, steps[0].generator)
        memory = -sum(gradient(step.denoising(*step.batch("forget")), model) for step in steps) / len(steps)
        return {"memory": memory}

    def loss(self, step: Step) -> Tensor:
        value = step.retained() - self.forget_weight * step.denoising(*step.batch("forget"))
        g, memory = gradient(value, step.model), step.state["memory"].to(step.device)
        along = (g * memory).sum()
        if along < 0:
            g = g - along / memory.square().sum() * memory
        return follow(g, step.model, value)


def _self_attention(model: nn.Module) -> set[int]:
    """The ids of the matrices of self-attention. SettingError for a network without any, or whose own do not train."""
    blocks = [module for module in model.modules() if isinstance(module, Attention) and not module.is_cross_attention]
    found = {
        id(p) for block in blocks for name, p in block.named_parameters()
        if p.ndim > 1 and p.requires_grad and "lora_" not in name  # which are updates
    }
    if not found:
        raise SettingError("scissorhands starts weights of self-attention anew, and no such weights train in this network.")
    return found


@torch.no_grad()
def _start_anew(model: nn.Module, chosen: Tensor, generator: torch.Generator) -> None:
    """Fresh values for the chosen weights of matrices and kernels: uniform within 1 / sqrt(fan-in)."""
    parameters = [parameter for _, parameter in parameters_that_train(model)]
    for parameter, mask in zip(parameters, chosen.split([p.numel() for p in parameters]), strict=True):
        if parameter.ndim > 1:
            fresh = (torch.rand(parameter.shape, generator=generator) * 2 - 1) / math.sqrt(parameter[0].numel())
            parameter.copy_(torch.where(mask.view_as(parameter), fresh.to(parameter.device), parameter))
