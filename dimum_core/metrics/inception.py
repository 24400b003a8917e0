"""Inception-v3 features, on which "FID" is defined. Optional: `pip install 'dimum[inception]'`, and it wants a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .fidelity import FrechetStatistics
from .intervals import MetricError


def as_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1], N x C x H x W, as uint8 RGB: one fixed scale for all, grey repeated to three channels."""
    pixels = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels


@torch.no_grad()
def inception_features(images: Tensor, batch_size: int = 64) -> np.ndarray:
    """The 2048 pooled features of torch-fidelity's port of the original network, which resizes to 299 x 299 itself; N x 2048."""
    extractor = _extractor()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extractor = extractor.to(device).eval()
    batches = as_uint8(images).split(batch_size)
    features = [extractor(batch.to(device))[0].cpu() for batch in tqdm(batches, desc="Inception", unit="batch", leave=False)]
    return torch.cat(features).double().numpy()


def _extractor():
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MetricError("Inception features need torch-fidelity: pip install 'dimum[inception]'.") from error
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])


def reference_statistics(data, cache: Path | None = None) -> FrechetStatistics:
    """Inception statistics of an ImageSet, kept on disk under the digest of its content."""
    import pooch

    folder = Path(pooch.os_cache("dimum")) / "inception" if cache is None else Path(cache)
    path = folder / f"{data.name}-{data.digest}.npz"
    if path.exists():
        return FrechetStatistics.load(path)
    statistics = FrechetStatistics.of(inception_features(data.images))
    folder.mkdir(parents=True, exist_ok=True)
    statistics.save(path)
    return statistics
