"""Inception-v3 features, on which "FID" is defined; optional: `pip install -e '.[inception]'`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .intervals import MetricError


def as_uint8(images: Tensor) -> Tensor:
    """Images as uint8 RGB in 0..255: one fixed scale for all, grey repeated to three channels; N x 3 x H x W.

    images: float in [-1, 1], N x C x H x W, C of 1 or 3. Exact for images that were uint8 once.
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] not in (1, 3) or not images.is_floating_point() or not images.numel():
        raise MetricError(f"Inception needs float images, N x 1 or 3 x H x W, not {images.dtype} {shape}.")
    low, high = images.aminmax()
    if not (low >= -1 and high <= 1):  # also refuses NaN
        raise MetricError(f"Inception needs finite pixels in [-1, 1], not in [{low:.3g}, {high:.3g}].")
    return ((images + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1)


@torch.no_grad()
def inception_features(images: Tensor, batch_size: int = 64) -> np.ndarray:
    """The 2048 pooled features of torch-fidelity's port of the original network; float64, N x 2048.

    images: float in [-1, 1], N x C x H x W. The network resizes to 299 x 299 itself; its weights are
    downloaded once.
    """
    batches = [as_uint8(batch) for batch in images.split(batch_size)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extractor = _extractor().to(device).eval()
    progress = tqdm(batches, desc="Inception", unit="batch", leave=False)
    return torch.cat([extractor(batch.to(device))[0].cpu() for batch in progress]).double().numpy()


def _extractor():
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise MetricError("Inception needs torch-fidelity: pip install -e '.[inception]'.") from error
    return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
