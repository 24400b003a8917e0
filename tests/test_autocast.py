"""Reduced precision leaves no weight out, on any torch that pyproject.toml admits."""

from __future__ import annotations

import torch

from dimum_core.data import Dataset
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.denoiser import build_denoiser
from dimum_core.unlearning import unlearn


def test_a_path_of_the_students_own_leaves_no_weight_untrained(tiny_preset, tiny_data):
    """Older torch keeps weights that it cast without a graph, while ESD draws its path, and gives them no gradient in the loss."""
    pipe = build_pipeline(build_denoiser(tiny_preset, 3, 1), tiny_preset, tiny_data.class_names)
    data, settings = Dataset(tiny_data, tiny_data), {"steps": 4, "batch_size": 8, "sampling_steps": 4, "progress": False}
    after = unlearn(pipe, "esd", target="top", data=data, precision="bf16", **settings).unet.state_dict()
    still = [name for name, weight in pipe.unet.named_parameters() if torch.equal(weight, after[name])]
    assert still == []
