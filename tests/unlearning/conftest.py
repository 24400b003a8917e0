"""A tiny pipeline with random weights, and its data."""

from __future__ import annotations

import pytest

from dimum_core.data import Dataset
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.denoiser import build_denoiser


@pytest.fixture
def pipe(tiny_preset):
    return build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, ("left", "top", "checks"))


@pytest.fixture
def data(tiny_data):
    return Dataset(tiny_data, tiny_data)
