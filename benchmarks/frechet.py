"""Frechet distance against the arithmetic of pytorch-fid, on the same features in the same run.

    python benchmarks/frechet.py [--dims 64 256 1024] [--items 500 5000]

pytorch-fid takes scipy's general matrix square root of the product of the covariances; we take the singular values of the
product of two factors. Both start from the features.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy import linalg

from dimum_core.metrics import frechet_distance


def pytorch_fid_arithmetic(a: np.ndarray, b: np.ndarray, eps: float = 1e-6) -> float:
    """The computation of pytorch-fid 0.3's calculate_frechet_distance, from features."""
    means, covariances = [x.mean(0) for x in (a, b)], [np.cov(x, rowvar=False) for x in (a, b)]
    root = linalg.sqrtm(covariances[0] @ covariances[1])
    if not np.isfinite(root).all():
        offset = np.eye(len(means[0])) * eps
        root = linalg.sqrtm((covariances[0] + offset) @ (covariances[1] + offset))
    difference = means[0] - means[1]
    return float(difference @ difference + sum(map(np.trace, covariances)) - 2 * np.trace(np.real(root)))


def timed(function, *arguments) -> tuple[float, float]:
    best, value = np.inf, np.nan
    for _ in range(3):
        started = time.perf_counter()
        value = function(*arguments)
        best = min(best, time.perf_counter() - started)
    return best, value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--items", type=int, nargs="+", default=[500, 5000])
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| features | items | pytorch-fid's arithmetic | dimum | ratio | relative difference |\n|---|---|---|---|---|---|")
    for dim in args.dims:
        mixing = rng.normal(size=(dim, dim)) / np.sqrt(dim)
        for items in args.items:
            a, b = (rng.normal(loc, size=(items, dim)) @ mixing for loc in (0.0, 0.1))
            (theirs, expected), (ours, value) = timed(pytorch_fid_arithmetic, a, b), timed(frechet_distance, a, b)
            gap = abs(value / expected - 1)
            print(f"| {dim} | {items} | {theirs:.3f} s | {ours:.3f} s | {theirs / ours:.1f} | {gap:.1e} |", flush=True)


if __name__ == "__main__":
    main()
