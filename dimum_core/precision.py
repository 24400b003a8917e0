"""In which precision a device computes, and by which kernels."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

PLAIN_ATTENTION = range(17, 65)  # places for which it is the faster; for fewer there is nothing to gain


def same_device(one: torch.device, other: torch.device) -> bool:
    """Whether two devices are one: "cuda", without a number, is the GPU that is the current one."""
    if one.type != other.type or one.index == other.index:
        return one == other
    now = torch.accelerator.current_device_index()
    return (now if one.index is None else one.index) == (now if other.index is None else other.index)


def native_precision(device: torch.device) -> str:
    """The fastest precision that this device computes natively: emulated bf16 is slower than fp32."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if device.type == "cpu" and supported() else "fp32"


def has_bf16(network: nn.Module) -> bool:
    return any(weight.dtype == torch.bfloat16 for weight in network.parameters())


def resolved_precision(network: nn.Module, device: torch.device, precision: str = "auto") -> str:
    """What a network computes in on a device. One with weights in bf16 always computes in bf16: its layers take no other."""
    if has_bf16(network):
        return "bf16"
    return native_precision(device) if precision == "auto" else precision


def autocast(network: nn.Module, precision: str = "auto") -> torch.autocast:
    """The context in which a network computes where it is."""
    device = next(network.parameters()).device
    precision = resolved_precision(network, device, precision)
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def as_its_weights(network: nn.Module) -> contextlib.AbstractContextManager:
    """The context in which a network with weights in bf16 takes float32; for any other nothing changes."""
    return autocast(network, "bf16") if has_bf16(network) else contextlib.nullcontext()


def in_fp16(device: torch.device) -> bool:
    """Whether networks compute in fp16 on a device just now: at most 65504, and zero below 6e-8."""
    return torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16


def short_attention(x_t: Tensor) -> contextlib.AbstractContextManager:
    """Plain matrix products in place of fused attention, where a step of training gains by them: on a CPU, in bf16, at few places.

    There the fused backward pass takes up to ten times as long (speed/attention.py); at 256 places it is the faster one.
    x_t: what the network is about to see, B x C x H x W.
    """
    few = x_t.shape[-2] * x_t.shape[-1] in PLAIN_ATTENTION
    slow = few and x_t.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
    return sdpa_kernel(SDPBackend.MATH) if slow else contextlib.nullcontext()
