"""Schedule, noising and loss against diffusers' DDPMScheduler and against sums worked by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from dimum_core.data import step_generator
from dimum_core.models.diffusion import (
    ALPHAS_CUMPROD,
    NUM_TIMESTEPS,
    SCHEDULER_CONFIG,
    add_noise,
    denoising_loss,
    draw_noise,
    drop_labels,
)


def test_the_schedule_is_that_of_diffusers():
    scheduler = DDPMScheduler(**SCHEDULER_CONFIG)
    torch.testing.assert_close(ALPHAS_CUMPROD.float(), scheduler.alphas_cumprod, rtol=2e-5, atol=0)
    assert float(ALPHAS_CUMPROD[0]) == pytest.approx(1 - 1e-4)
    assert float(ALPHAS_CUMPROD[-1]) == pytest.approx(4.0358e-5, rel=1e-3)


def test_noising_agrees_with_diffusers_at_every_timestep():
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, NUM_TIMESTEPS, 3, 4, 4, generator=generator)
    t = torch.arange(NUM_TIMESTEPS)
    torch.testing.assert_close(
        add_noise(x, eps, t), DDPMScheduler(**SCHEDULER_CONFIG).add_noise(x, eps, t), rtol=1e-5, atol=2e-6
    )


def test_noising_keeps_unit_variance():
    t = torch.tensor([0, 300, 999])
    abar = ALPHAS_CUMPROD[t]
    ones, zeros = torch.ones(3, 1, 1, 1), torch.zeros(3, 1, 1, 1)
    signal, noise = add_noise(ones, zeros, t).flatten(), add_noise(zeros, ones, t).flatten()
    torch.testing.assert_close(signal**2 + noise**2, torch.ones(3))
    torch.testing.assert_close((signal**2).double(), abar, rtol=1e-5, atol=1e-7)


def test_noising_refuses_shapes_that_do_not_match():
    with pytest.raises(ValueError, match="one value for each item"):
        add_noise(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64))


def test_the_loss_is_the_mean_over_every_element():
    """A denoiser that always answers 2 has the loss mean((eps - 2)^2) on the very noise that was drawn."""
    x, labels = torch.zeros(4, 3, 8, 8), torch.arange(4)
    seen = {}

    def denoiser(x_t, t, class_labels):
        seen.update(t=t, labels=class_labels)
        return SimpleNamespace(sample=torch.full_like(x_t, 2.0))

    loss = denoising_loss(denoiser, x, labels, step_generator(0, 0))
    eps, t = draw_noise(x, step_generator(0, 0))
    assert float(loss) == pytest.approx(sum((float(e) - 2) ** 2 for e in eps.flatten()) / eps.numel(), rel=1e-5)
    assert torch.equal(seen["t"], t) and torch.equal(seen["labels"], labels)


def test_the_loss_of_the_best_denoiser_of_a_gaussian_is_its_closed_form():
    """For x ~ N(0, s^2), E[eps | x_t] = x_t sqrt(1 - abar) / (abar s^2 + 1 - abar), with error abar s^2 / (same)."""
    s, generator = 0.5, torch.Generator().manual_seed(0)
    x = s * torch.randn(20_000, 1, 4, 4, generator=generator)

    def best(x_t, t, class_labels):
        abar = ALPHAS_CUMPROD[t].float().view(-1, 1, 1, 1)
        return SimpleNamespace(sample=x_t * (1 - abar).sqrt() / (abar * s**2 + 1 - abar))

    expected = (ALPHAS_CUMPROD * s**2 / (ALPHAS_CUMPROD * s**2 + 1 - ALPHAS_CUMPROD)).mean()
    loss = denoising_loss(best, x, torch.zeros(len(x), dtype=torch.int64), generator)
    assert float(loss) == pytest.approx(float(expected), rel=0.02)


def test_timesteps_are_uniform_over_the_whole_range():
    _, t = draw_noise(torch.zeros(100_000, 1), torch.Generator().manual_seed(0))
    counts = torch.bincount(t, minlength=NUM_TIMESTEPS).float()
    assert len(counts) == NUM_TIMESTEPS
    chi_square = float(((counts - 100) ** 2 / 100).sum())
    assert abs(chi_square - 999) < 4 * (2 * 999) ** 0.5


@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_label_dropout_has_its_rate_and_touches_nothing_else(probability):
    labels = torch.arange(10).repeat(2_000)
    dropped = drop_labels(labels, 10, probability, torch.Generator().manual_seed(0))
    share = float((dropped == 10).float().mean())
    assert share == pytest.approx(probability, abs=0.01)
    assert torch.equal(dropped[dropped != 10], labels[dropped != 10])
