"""The pipeline: guidance, folding, solvers and formats, against formulas and diffusers' own behaviour."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from PIL import Image

from dimum_core.errors import UnknownName
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.conditions import draw as draw_directly
from dimum_core.models.denoiser import build_denoiser
from dimum_core.models.diffusion import ALPHAS_CUMPROD
from dimum_core.models.sampling import ClassConditionalPipeline

NAMES = ("left", "top", "checks")


@pytest.fixture
def pipe(tiny_preset):
    return build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, NAMES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_folding_is_inverted_and_moves_every_pixel(pipe):
    images = torch.randn(2, 1, 8, 8)
    latents = pipe.encode(images)
    assert latents.shape == (2, 4, 4, 4)
    assert latents[0, :, 0, 0].tolist() == images[0, 0, :2, :2].flatten().tolist()
    assert torch.equal(pipe.decode(latents), images)


def test_guidance_in_one_batch_is_the_formula_with_two_forwards(pipe):
    x_t, t, labels = torch.randn(3, 4, 4, 4), torch.tensor(500), torch.tensor([0, 1, 2])
    with torch.no_grad():
        cond = pipe.unet(x_t, t, class_labels=labels).sample
        null = pipe.unet(x_t, t, class_labels=torch.full((3,), 3)).sample
        for scale in (0.0, 1.0, 2.5):
            torch.testing.assert_close(
                pipe.predict_noise(x_t, t, labels, scale), null + scale * (cond - null), rtol=1e-4, atol=1e-5
            )


def test_no_guidance_takes_one_forward_of_the_plain_batch(pipe, monkeypatch):
    sizes = []
    forward = pipe.unet.forward
    monkeypatch.setattr(pipe.unet, "forward", lambda x, *a, **k: sizes.append(len(x)) or forward(x, *a, **k))
    pipe(["left"] * 2, guidance_scale=1, num_inference_steps=3)
    assert sizes == [2, 2, 2]
    sizes.clear()
    pipe(["left"] * 2, guidance_scale=2, num_inference_steps=3)
    assert sizes == [4, 4, 4]


def perfect_denoiser(mean: float):
    """The best noise prediction for data that is the constant `mean`: eps = (x_t - sqrt(abar) mean) / sqrt(1 - abar)."""

    def predict(x_t, t, class_labels):
        abar = ALPHAS_CUMPROD[t].float().view(-1, 1, 1, 1)
        return SimpleNamespace(sample=(x_t - abar.sqrt() * mean) / (1 - abar).sqrt())

    return predict


@pytest.mark.parametrize("solver", [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler])
def test_every_solver_finds_the_data_of_a_perfect_denoiser(pipe, monkeypatch, solver):
    monkeypatch.setattr(pipe.unet, "forward", perfect_denoiser(0.3))
    pipe.scheduler = solver.from_config(pipe.scheduler.config)
    images = pipe(["left"] * 4, num_inference_steps=20, generator=seeded(), output_type="pt").images
    torch.testing.assert_close(images, torch.full((4, 1, 8, 8), 0.65), atol=0.01, rtol=0)


def test_ddim_follows_its_own_clipped_image(pipe, monkeypatch):
    """By hand: x_0 is clipped, and the noise of the next x_t is what then separates x_t from it (Song et al. 2021, equation 12)."""
    monkeypatch.setattr(pipe.unet, "forward", lambda x_t, t, class_labels: SimpleNamespace(sample=0.2 * x_t))
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    seen = []
    pipe(["left"], num_inference_steps=2, generator=seeded(), output_type="pt",
         callback_on_step_end=lambda pipe, i, t, kept: seen.append((t, kept["latents"])) or kept)
    (late, _), (early, x_t) = seen[0], (seen[1][0], seen[0][1])
    start = torch.randn((1, 4, 4, 4), generator=seeded())
    before, after = ALPHAS_CUMPROD[late].float(), ALPHAS_CUMPROD[early].float()
    clean = ((start - (1 - before).sqrt() * 0.2 * start) / before.sqrt()).clamp(-1, 1)
    noise = (start - before.sqrt() * clean) / (1 - before).sqrt()
    torch.testing.assert_close(x_t, after.sqrt() * clean + (1 - after).sqrt() * noise, atol=1e-4, rtol=0)


def test_ddpm_with_all_steps_draws_the_variance_of_a_gaussian(pipe, monkeypatch):
    s = 0.25

    def best(x_t, t, class_labels):
        abar = ALPHAS_CUMPROD[t].float().view(-1, 1, 1, 1)
        return SimpleNamespace(sample=x_t * (1 - abar).sqrt() / (abar * s**2 + 1 - abar))

    monkeypatch.setattr(pipe.unet, "forward", best)
    pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config, clip_sample=False)
    images = pipe(["left"] * 50, guidance_scale=1, num_inference_steps=1000, generator=seeded(), output_type="pt").images
    assert float(images.std()) == pytest.approx(s / 2, rel=0.05)  # pixels in [0, 1]
    assert float(images.mean()) == pytest.approx(0.5, abs=0.01)


def test_the_same_generator_gives_the_same_images_and_another_one_others(pipe):
    draw = lambda seed: pipe(["left"], num_inference_steps=2, generator=seeded(seed), output_type="pt").images  # noqa: E731
    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


def draw_images(pipe):
    return draw_directly(pipe, ["left", 2], num_inference_steps=2, generator=seeded())  # in [-1, 1]


def test_formats(pipe):
    draw = lambda kind: pipe(["left", 2], num_inference_steps=2, generator=seeded(), output_type=kind).images  # noqa: E731
    tensor, array, pictures = draw("pt"), draw("np"), draw("pil")
    assert tensor.shape == (2, 1, 8, 8) and tensor.min() >= 0 and tensor.max() <= 1
    np.testing.assert_allclose(array, tensor.permute(0, 2, 3, 1).numpy(), atol=1e-6)
    assert torch.equal(pipe.to_images(draw("latent")), draw_images(pipe)) and float(draw_images(pipe).min()) < 0
    torch.testing.assert_close((draw_images(pipe) + 1) / 2, tensor)
    assert isinstance(pictures[0], Image.Image) and pictures[0].size == (8, 8)
    np.testing.assert_array_equal(np.asarray(pictures[1]), (array[1, :, :, 0] * 255).round())
    with pytest.raises(ValueError, match="output_type"):
        draw("jpeg")


def test_the_callback_sees_every_step_and_may_change_it(pipe):
    seen = []

    def callback(_, i, t, values):
        seen.append((i, t))
        return {"latents": torch.zeros_like(values["latents"])}

    images = pipe(["left"], num_inference_steps=4, callback_on_step_end=callback, output_type="pt").images
    assert [i for i, _ in seen] == [0, 1, 2, 3] and seen[0][1] == 999 and (images == 0.5).all()


def test_labels_by_name_number_and_none(pipe):
    assert pipe.label_tensor(["checks", 0, None]).tolist() == [2, 0, 3]
    with pytest.raises(UnknownName, match="'check'.*Did you mean 'checks'"):
        pipe(["check"])
    with pytest.raises(UnknownName, match="class 3"):
        pipe([3])


def test_given_starting_noise_is_used_and_checked(pipe):
    latents = torch.randn(2, 4, 4, 4)
    draw = lambda noise: pipe(["left"] * 2, num_inference_steps=2, latents=noise, output_type="pt").images  # noqa: E731
    assert torch.equal(draw(latents), draw(latents.clone()))
    with pytest.raises(ValueError, match="latents must have shape"):
        draw(latents[:, :, :2])


def test_saving_and_loading_gives_the_same_images(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    again = ClassConditionalPipeline.from_pretrained(tmp_path)
    assert again.class_names == NAMES and again.config.guidance_scale == pipe.config.guidance_scale
    for p in (pipe, again):
        p.unet.eval()
    draw = lambda p: p(["left"], num_inference_steps=3, generator=seeded(), output_type="pt").images  # noqa: E731
    assert torch.equal(draw(pipe), draw(again))


def test_what_the_pipelines_cannot_do_diffusers_says_in_a_sentence(pipe, prompted):
    """They draw where their networks are, so that nothing would come to the GPU by itself."""
    for each in (pipe, prompted):
        with pytest.raises(ValueError, match="Model CPU offload cannot be enabled"):
            each.enable_model_cpu_offload()
