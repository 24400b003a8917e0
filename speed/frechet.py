"""Frechet distance against the arithmetic of pytorch-fid, on the same features in the same run.

    python speed/frechet.py [--dims 64 256 2048] [--items 500 5000]

pytorch-fid takes scipy's general matrix square root of the product of the covariances; we take the singular
values of the product of two factors. Both start from features. OMP_NUM_THREADS=1 gives those of one thread.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy import linalg

from dimum_core.metrics import frechet_distance

try:
    from pytorch_fid.fid_score import calculate_frechet_distance as from_moments
except ImportError:

    def from_moments(mean_a, covariance_a, mean_b, covariance_b, eps: float = 1e-6) -> float:
        """The computation of pytorch-fid 0.3's calculate_frechet_distance, which need not be installed."""
        root = linalg.sqrtm(covariance_a @ covariance_b)
        if not np.isfinite(root).all():
            offset = np.eye(len(mean_a)) * eps
            root = linalg.sqrtm((covariance_a + offset) @ (covariance_b + offset))
        if np.iscomplexobj(root) and not np.allclose(np.diagonal(root).imag, 0, atol=1e-3):
            raise ValueError(f"Imaginary component {np.abs(root.imag).max()}")
        difference, traces = mean_a - mean_b, np.trace(covariance_a) + np.trace(covariance_b)
        return float(difference @ difference + traces - 2 * np.trace(root.real))


def pytorch_fid(a: np.ndarray, b: np.ndarray) -> float:
    """From features; NaN where pytorch-fid refuses, as the square root has too large an imaginary part."""
    try:
        return from_moments(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    except ValueError:
        return float("nan")


def timed(function, *arguments) -> tuple[float, float]:
    """Best of three runs in seconds, or the only one if it takes more than five; and the value."""
    best = np.inf
    for _ in range(3):
        started = time.perf_counter()
        value = function(*arguments)
        best = min(best, time.perf_counter() - started)
        if best > 5:
            break
    return best, value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 256, 2048], help="features")
    parser.add_argument("--items", type=int, nargs="+", help="default: half and twice the features")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| features | items | pytorch-fid's arithmetic | dimum | ratio | distance | absolute difference |")
    print("|---|---|---|---|---|---|---|")
    for dim in args.dims:
        mixing = rng.normal(size=(dim, dim)) / np.sqrt(dim)
        for items in args.items or (dim // 2, 2 * dim):
            a, b = (rng.normal(loc, size=(items, dim)) @ mixing for loc in (0.0, 0.1))
            (theirs, expected), (ours, value) = timed(pytorch_fid, a, b), timed(frechet_distance, a, b)
            print(
                f"| {dim} | {items} | {theirs:.4f} s | {ours:.4f} s | {theirs / ours:.1f} | {value:.3f} "
                f"| {abs(value - expected):.1e} |", flush=True,
            )


if __name__ == "__main__":
    main()
