"""The presets: sizes as the papers have them, the null label last, folding that loses nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dimum_core.errors import SettingError, UnknownName
from dimum_core.models.denoiser import PRESETS, build_denoiser, get_preset


@pytest.mark.parametrize(("name", "low", "high"), [
    ("digits", 2e6, 3e6), ("cifar10-small", 10e6, 12e6), ("cifar10", 35e6, 40e6),
])
def test_parameters_are_of_the_expected_number(name, low, high):
    with torch.device("meta"):
        unet = build_denoiser(PRESETS[name], 10, 3)
    assert low < sum(p.numel() for p in unet.parameters()) < high


def test_the_cifar10_preset_is_the_papers_network():
    with torch.device("meta"):
        config = build_denoiser(PRESETS["cifar10"], 10, 3).config
    assert config.block_out_channels == (128, 256, 256, 256) and config.layers_per_block == 2
    assert [("Attn" in block) for block in config.down_block_types] == [False, True, False, False]  # 32, 16, 8, 4
    assert config.dropout == 0.1 and config.sample_size == 32


def test_the_null_label_is_the_last_row_and_every_row_matters(tiny_preset):
    unet = build_denoiser(tiny_preset, 3, 1).eval()
    assert unet.class_embedding.num_embeddings == 4
    x, t = torch.randn(1, 4, 4, 4).expand(4, -1, -1, -1), torch.full((4,), 10)
    out = unet(x, t, class_labels=torch.arange(4)).sample
    assert out.shape == x.shape
    assert all(not torch.allclose(out[i], out[j]) for i in range(4) for j in range(i))


def test_the_seed_decides_the_weights_and_leaves_the_global_stream_alone(tiny_preset):
    before = torch.random.get_rng_state()
    a, b, c = (build_denoiser(tiny_preset, 3, 1, seed).state_dict() for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)


def test_a_level_too_narrow_to_attend_is_refused(tiny_preset):
    for channels, attention in (((32, 32), (False, False)), ((32, 64), (True, False))):
        with pytest.raises(SettingError, match="Attending levels of tiny, such as the last, need 64 channels, not 32"):
            build_denoiser(replace(tiny_preset, channels=channels, attention=attention), 3, 1)


def test_an_unknown_preset_is_named_with_the_nearest_choice():
    with pytest.raises(UnknownName, match="cifar10-smal.*Did you mean 'cifar10-small'"):
        get_preset("cifar10-smal")
