"""Attention in a step of training on the CPU: the fused kernel against plain matrix products, forward and backward.

    python speed/attention.py [--threads 1]

Which of them is faster depends on the number of places that attend to one another, on the precision, and on the processor.
`dimum_core.precision.short_attention` takes plain products for few places in bf16.
"""

from __future__ import annotations

import argparse
import time

import pandas as pd
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

SIZES = {4: (128, 2, 64), 16: (48, 3, 64), 64: (48, 4, 64), 256: (16, 4, 64), 1024: (2, 4, 64)}  # places: batch, heads, width


def seconds(shape: tuple[int, ...], dtype: torch.dtype, backend: SDPBackend, repeats: int = 7) -> float:
    """The fastest of several forward and backward passes."""
    q, k, v = (torch.randn(shape, dtype=dtype, requires_grad=True) for _ in range(3))
    taken = []
    with sdpa_kernel(backend):
        for _ in range(repeats):
            started = time.perf_counter()
            scaled_dot_product_attention(q, k, v).sum().backward()
            taken.append(time.perf_counter() - started)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    rows = []
    for places, (batch, heads, width) in SIZES.items():
        for dtype in (torch.float32, torch.bfloat16):
            fused, plain = (
                seconds((batch, heads, places, width), dtype, backend) for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)
            )
            rows.append({"places": places, "precision": str(dtype)[6:], "fused ms": fused * 1e3, "plain ms": plain * 1e3,
                         "fused / plain": fused / plain})
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
