"""A training step: the package's loop against the loop of diffusers' unconditional example and against denoising-diffusion-pytorch.

    python speed/training.py [--preset cifar10-small] [--steps 12]

All of them train a UNet of the preset's size at the preset's batch size on the same random images. The first two share the very
network, so their ratio is the loop's alone; the third (measured if it is installed: pip install denoising-diffusion-pytorch) has
a network of its own on unfolded images, of about as many parameters, and is what a reader would take instead of the whole. The last
column is the share of the machine's best float32 matrix product that a step's convolutions reach.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional as F

from dimum_core import train_base
from dimum_core.data import ImageSet, from_uint8
from dimum_core.doctor import matmul_gflops
from dimum_core.models.denoiser import Preset, build_denoiser, get_preset
from dimum_core.models.diffusion import SCHEDULER_CONFIG


def random_images(preset: Preset, count: int) -> ImageSet:
    pixels = torch.randint(256, (count, 3, preset.image_size, preset.image_size), generator=torch.Generator().manual_seed(0))
    return from_uint8("random", pixels.byte().numpy(), [i % 10 for i in range(count)], map(str, range(10)))


def our_loop(preset: Preset, data: ImageSet, steps: int, precision: str) -> None:
    train_base(preset, data=data, steps=steps, precision=precision, progress=False)


def example_loop(preset: Preset, data: ImageSet, steps: int) -> None:
    """As in diffusers' examples/unconditional_image_generation: float32, AdamW, clipping, EMA."""
    unet = build_denoiser(preset, 10, 3)
    scheduler, ema = DDPMScheduler(**SCHEDULER_CONFIG), EMAModel(unet.parameters(), decay=0.9999, use_ema_warmup=True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    batch = preset.training.batch_size
    for _ in range(steps):
        x = F.pixel_unshuffle(data.images[:batch], preset.patch_size)
        noise, t = torch.randn(x.shape), torch.randint(0, 1000, (batch,))
        loss = F.mse_loss(unet(scheduler.add_noise(x, noise, t), t, class_labels=data.labels[:batch]).sample.float(), noise.float())
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        ema.step(unet.parameters())


def peer_loop(preset: Preset, data: ImageSet, steps: int) -> None:
    """denoising-diffusion-pytorch's UNet on the images themselves."""
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet

    model = GaussianDiffusion(Unet(dim=44, dim_mults=(1, 2, 4)), image_size=preset.image_size, timesteps=1000)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for _ in range(steps):
        model((data.images[: preset.training.batch_size] + 1) / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def seconds_a_step(loop, *arguments, steps: int) -> float:
    """The difference of a long and a short run, so that building the model does not count."""
    def run(count: int) -> float:
        started = time.perf_counter()
        loop(*arguments[:2], count, *arguments[2:])
        return time.perf_counter() - started

    run(1)
    return (run(steps + 2) - run(2)) / steps


def step_gflop(preset: Preset) -> float:
    """Floating-point operations of forward and backward, counted by torch on the real network."""
    from torch.utils.flop_counter import FlopCounterMode

    unet: UNet2DModel = build_denoiser(preset, 10, 3)
    x: Tensor = F.pixel_unshuffle(torch.randn(8, 3, preset.image_size, preset.image_size), preset.patch_size)
    with FlopCounterMode(display=False) as counter:
        unet(x, torch.zeros(8).long(), class_labels=torch.zeros(8).long()).sample.mean().backward()
    return counter.get_total_flops() / 8 * preset.training.batch_size / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cifar10-small")
    parser.add_argument("--steps", type=int, default=12)
    args = parser.parse_args()
    preset = get_preset(args.preset)
    preset = replace(preset, training=replace(preset.training, warmup_steps=0))
    data, peak, work = random_images(preset, 512), matmul_gflops(torch.device("cpu")), step_gflop(preset)
    rows = {
        "dimum, automatic precision": seconds_a_step(our_loop, preset, data, "auto", steps=args.steps),
        "dimum, float32": seconds_a_step(our_loop, preset, data, "fp32", steps=args.steps),
        "diffusers' example loop": seconds_a_step(example_loop, preset, data, steps=args.steps),
    }
    try:
        rows["denoising-diffusion-pytorch"] = seconds_a_step(peer_loop, preset, data, steps=max(2, args.steps // 4))
    except ImportError:
        print("denoising-diffusion-pytorch is not installed, so it is left out")
    print(f"{preset.name}: {work:.0f} GFLOP a step of {preset.training.batch_size} images; matrix product {peak:.0f} GFLOP/s")
    print("| loop | s a step | time against dimum | share of matmul peak |\n|---|---|---|---|")
    ours = rows["dimum, automatic precision"]
    for name, seconds in rows.items():
        share = f"{work / seconds / peak:.0%}" if "pytorch" not in name else ""
        print(f"| {name} | {seconds:.3f} | {seconds / ours:.2f} | {share} |")


if __name__ == "__main__":
    main()
