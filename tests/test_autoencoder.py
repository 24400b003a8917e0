"""Latents in place of pixels: the autoencoder, the codec, and a pipeline and a training that use them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler
from torch import nn
from torch.nn import functional as F

from dimum_core import pretraining
from dimum_core.autoencoder import (
    AUTOENCODER_PRESETS,
    ReconstructionObjective,
    build_autoencoder,
    encoded,
    load_autoencoder,
    psnr,
    reconstructed,
    train_autoencoder,
)
from dimum_core.data import Dataset, draw_batch
from dimum_core.errors import CheckpointError, DataError, SettingError
from dimum_core.models.checkpoints import load_pipeline, save_checkpoint
from dimum_core.models.codec import Codec
from dimum_core.pretraining import encoded_both_ways, new_model, train_base
from dimum_core.training import TrainConfig

TINY = replace(
    AUTOENCODER_PRESETS["cifar10-autoencoder"], image_size=8, channels=16, blocks=(1, 1), latent_channels=4,
    training=TrainConfig(steps=60, batch_size=16, learning_rate=3e-3, warmup_steps=5, ema_decay=0.0, precision="fp32"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("autoencoder")


@pytest.fixture
def vae(tiny_data, folder):
    """Trained once, by the call that a user makes, and loaded from its folder."""
    if not (folder / "card.json").exists():
        train_autoencoder(TINY, folder, data=Dataset(tiny_data, tiny_data.select(range(0, 60, 7))), progress=False)
    return load_autoencoder(folder)


@pytest.fixture
def latent_preset(tiny_preset, folder, vae):
    return replace(tiny_preset, autoencoder=str(folder), flip=True)


def test_training_brings_images_back_and_plain_diffusers_loads_it(vae, tiny_data, folder):
    before = psnr(tiny_data.images, reconstructed(Codec(2, build_autoencoder(TINY, 1)), tiny_data.images)).mean()
    after = psnr(tiny_data.images, reconstructed(Codec(2, vae), tiny_data.images)).mean()
    assert after > before + 3
    plain = AutoencoderTiny.from_pretrained(folder)
    x = F.pixel_unshuffle(tiny_data.images[:4], 2)
    assert torch.equal(plain.encode(x).latents, vae.encode(x).latents)


def test_latents_keep_near_mean_0_and_variance_1(vae, tiny_data):
    latents = encoded(Codec(2, vae), tiny_data.images)
    assert latents.mean((0, 2, 3)).abs().max() < 0.3 and (latents.std((0, 2, 3)) - 1).abs().max() < 0.3


def test_the_objective_by_hand(tiny_data):
    """With an autoencoder that gives back its latents as they are, the error is the noise, and the scale is that of the pixels."""
    class Through(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def encode(self, x):
            return SimpleNamespace(latents=x * self.weight)

        def decode(self, latents):
            return SimpleNamespace(sample=latents)

    objective = ReconstructionObjective(tiny_data, 40, 2, False, absolute_weight=0.5, noise=0.1, scale_weight=2.0)
    images, _ = draw_batch(tiny_data, 40, 0, 3)
    x = F.pixel_unshuffle(images, 2)
    scale = x.mean((0, 2, 3)).square().mean() + x.var((0, 2, 3)).log().square().mean()
    expected = 0.1**2 + 0.5 * 0.1 * (2 / torch.pi) ** 0.5 + 2 * scale  # E e^2 and E |e| of e ~ N(0, 0.1^2)
    assert float(objective(Through(), 0, 3).detach()) == pytest.approx(float(expected), rel=0.03)


def test_psnr_by_hand():
    images = torch.zeros(2, 1, 2, 2)
    others = torch.tensor([0.2, 0.02])[:, None, None, None].expand_as(images)
    assert torch.allclose(psnr(images, others), torch.tensor([20.0, 40.0]))  # 10 log10(2^2 / 0.2^2) = 20


@pytest.fixture
def kl_vae():
    """Such as Stable Diffusion has, with random weights."""
    return AutoencoderKL(
        in_channels=4, out_channels=4, block_out_channels=(16, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, scaling_factor=0.5, shift_factor=0.25,
    ).requires_grad_(False)


def test_folding_is_undone_exactly_and_a_shift_and_a_scale_are_those_of_the_autoencoder(kl_vae, tiny_data):
    images = tiny_data.images[:4]
    assert torch.equal(Codec(2).decode(Codec(2).encode(images)), images)
    codec, x = Codec(2, kl_vae), F.pixel_unshuffle(images, 2)
    mode = kl_vae.encode(x).latent_dist.mean
    assert torch.allclose(codec.encode(images), (mode - 0.25) * 0.5, atol=1e-6)
    assert torch.allclose(codec.decode(codec.encode(images)), F.pixel_shuffle(kl_vae.decode(mode).sample, 2), atol=1e-5)
    assert (codec.factor, codec.image_channels(4)) == (4, 1)


def test_a_pipeline_of_latents_draws_is_saved_and_comes_back(latent_preset, tiny_data, tmp_path):
    _, pipe = new_model(latent_preset, tiny_data, seed=0)
    assert pipe.image_shape == (1, 8, 8) and pipe.unet.config.in_channels == 4 and pipe.unet.config.sample_size == 2
    save_checkpoint(pipe, tmp_path, {"title": "t", "summary": "s", "kind": "denoiser"})
    again = load_pipeline(tmp_path)
    draws = [p(["left", "top"], generator=torch.Generator().manual_seed(1), output_type="pt").images for p in (pipe, again)]
    assert draws[0].shape == (2, 1, 8, 8) and torch.allclose(*draws, atol=5e-3)
    assert not again.scheduler.config.thresholding  # pixels have a range, latents have none


def test_latents_that_were_encoded_once_are_those_encoded_in_each_step(latent_preset, tiny_data):
    from dimum_core.models.conditions import conditions_of
    from dimum_core.pretraining import DenoisingObjective

    _, pipe = new_model(latent_preset, tiny_data, seed=0)
    plain = DenoisingObjective(tiny_data, 16, conditions_of(pipe), flip=True)
    cached = replace(plain, encoded=encoded_both_ways(pipe.codec, tiny_data))
    other = replace(cached, encoded=cached.encoded[::-1])  # the mirrored ones in place of the others: told apart
    for step in range(3):
        (x, labels), (same, again), (mirrored, _) = (objective.batch(0, step) for objective in (plain, cached, other))
        assert torch.allclose(x, same, atol=0.02) and torch.equal(labels, again)
        assert not torch.allclose(x, mirrored, atol=0.05)
    assert "vae" in plain.fingerprint  # another autoencoder is another training


def test_an_autoencoder_encodes_on_the_accelerator_and_is_then_back_where_it_was(tiny_data, monkeypatch):
    home, fast = torch.device("cpu"), torch.device("meta")

    class Elsewhere:
        device = home

        def to(self, device):
            self.device = device

        def modules(self):
            return [self]

    vae, places = Elsewhere(), []
    monkeypatch.setattr(pretraining, "Accelerator", lambda: SimpleNamespace(device=fast))
    monkeypatch.setattr(pretraining, "encoded", lambda codec, images: places.append(codec.vae.device) or images)
    straight, mirrored = encoded_both_ways(SimpleNamespace(vae=vae), tiny_data)
    assert places == [fast, fast] and vae.device == home and torch.equal(mirrored, straight.flip(-1))


def test_a_training_may_start_from_a_checkpoint_and_is_then_another(tiny_preset, tiny_data, tmp_path):
    """With no step to go, the result is the start; on resume, another start is refused."""
    first, _ = train_base(tiny_preset, tmp_path / "first", data=tiny_data, progress=False)
    second, _ = train_base(tiny_preset, tmp_path / "second", data=tiny_data, start=tmp_path / "first", steps=0, progress=False)
    pairs = zip(first.unet.parameters(), second.unet.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(CheckpointError, match="start"):
        train_base(tiny_preset, tmp_path / "first", data=tiny_data, start=tmp_path / "second", resume=True, progress=False)
    other = replace(tiny_preset, channels=(32, 96))
    with pytest.raises(CheckpointError, match="another shape"):
        train_base(other, tmp_path / "third", data=tiny_data, start=tmp_path / "first", progress=False)


def test_weights_of_other_classes_words_or_noise_are_no_start(tiny_preset, tiny_data, tmp_path):
    pipe, _ = train_base(tiny_preset, data=tiny_data, steps=0, progress=False)
    pipe.save_pretrained(tmp_path / "own")
    start = {"start": tmp_path / "own", "steps": 0, "progress": False}
    train_base(tiny_preset, data=tiny_data.without("top"), **start)  # of which one is not seen now
    with pytest.raises(CheckpointError, match="was trained with other class names, so its weights mean something else"):
        train_base(tiny_preset, data=replace(tiny_data, class_names=("top", "left", "checks")), **start)
    pipe.scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    pipe.save_pretrained(tmp_path / "own")
    with pytest.raises(CheckpointError, match="was trained with other noise levels, prediction type, so"):
        train_base(tiny_preset, data=tiny_data, **start)


@pytest.mark.parametrize(("pick", "error", "said"), [
    (lambda data: data, SettingError, "data must be a data set, such as load_dataset"),
    (lambda data: Dataset(data, data.select([])), DataError, "has no held-out images, by which an autoencoder is measured"),
])
def test_an_autoencoder_that_nothing_would_measure_is_not_trained(pick, error, said, tiny_data, tmp_path):
    with pytest.raises(error, match=said):
        train_autoencoder("cifar10-autoencoder", tmp_path / "out", data=pick(tiny_data), progress=False)
    assert not (tmp_path / "out").exists()


def test_a_base_model_of_latents_trains_and_resumes_bit_for_bit(latent_preset, tiny_data, tmp_path):
    whole, _ = train_base(latent_preset, data=tiny_data, progress=False)
    preset = replace(latent_preset, training=replace(latent_preset.training, decay=False))
    train_base(preset, tmp_path, data=tiny_data, steps=3, progress=False)
    resumed, _ = train_base(preset, tmp_path, data=tiny_data, steps=6, resume=True, progress=False)
    unbroken, _ = train_base(preset, data=tiny_data, steps=6, progress=False)
    same = [torch.equal(a, b) for a, b in zip(resumed.unet.parameters(), unbroken.unet.parameters(), strict=True)]
    assert all(same) and whole.image_shape == (1, 8, 8)
