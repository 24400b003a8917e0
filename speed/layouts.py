"""One step of training, and one prediction, computed in several ways: does another layout or precision save time?

    python speed/layouts.py [--preset cifar10-small] [--rounds 7]

All ways take turns in one process, on one thread and in processor seconds, so that their ratios hold on a busy machine, too. "Half
weights" keeps the network in bf16 and float32 copies for the optimiser, so that nothing is cast on the way.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import time

import pandas as pd
import torch
from torch import Tensor, nn

from dimum_core.models.denoiser import build_denoiser, get_preset
from dimum_core.precision import autocast, resolved_precision


class Way:
    """A network with its optimiser. half: whether its weights are bf16."""

    def __init__(self, unet: nn.Module, batch: tuple[Tensor, ...], layout=torch.contiguous_format, half=False):
        self.unet = copy.deepcopy(unet).to(memory_format=layout)
        self.masters = [p.detach().clone() for p in self.unet.parameters()] if half else []
        self.half = half
        self.x, self.t, self.labels = batch
        if half:
            self.unet, self.x = self.unet.bfloat16(), self.x.bfloat16()
        self.optimizer = torch.optim.AdamW(self.masters if half else self.unet.parameters(), lr=1e-4, fused=True)

    def predict(self) -> Tensor:
        precision = resolved_precision(torch.device("cpu"), "auto")
        with contextlib.nullcontext() if self.half else autocast(torch.device("cpu"), precision):
            return self.unet(self.x, self.t, class_labels=self.labels).sample

    def step(self) -> None:
        self.predict().float().square().mean().backward()
        if self.half:
            for master, p in zip(self.masters, self.unet.parameters(), strict=True):
                master.grad, p.grad = p.grad.float(), None
        self.optimizer.step()
        if self.half:
            with torch.no_grad():
                for master, p in zip(self.masters, self.unet.parameters(), strict=True):
                    p.copy_(master)
        self.optimizer.zero_grad(set_to_none=True)


def seconds(work) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cifar10-small")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    preset, generator = get_preset(args.preset), torch.Generator().manual_seed(0)
    unet = build_denoiser(preset, 10, 3)
    side, count = unet.config.sample_size, preset.training.batch_size
    batch = (torch.randn((count, unet.config.in_channels, side, side), generator=generator),
             torch.randint(1000, (count,), generator=generator), torch.randint(10, (count,), generator=generator))
    ways = {
        "as it is": Way(unet, batch),
        "channels-last": Way(unet, batch, torch.channels_last),
        "half weights": Way(unet, batch, half=True),
    }
    rows = []
    for number in range(args.rounds + 1):
        for name, way in ways.items():
            with torch.no_grad():
                predicted = seconds(way.predict)
            rows.append({"way": name, "round": number, "step": seconds(way.step), "prediction": predicted})
    table = pd.DataFrame(rows).query("round > 0").groupby("way", sort=False)[["step", "prediction"]].agg(["min", "median", "max"])
    print(table.to_string(float_format="{:.3f}".format))
    medians = table.xs("median", axis=1, level=1)
    print("\nspeed against as it is\n" + (medians.loc["as it is"] / medians).to_string(float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
