"""Models that somebody else trained: whatever a network predicts becomes noise, and each kind goes all the way to diffusers."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    UNet2DModel,
)

from dimum_core import evaluate, load_pipeline, relearn, unlearn
from dimum_core.attacks import relearning
from dimum_core.data import Dataset, from_uint8, step_generator
from dimum_core.errors import CheckpointError, DataError, ModelError, SettingError
from dimum_core.judges.classifier import Judge
from dimum_core.models.adopting import adopt
from dimum_core.models.conditions import conditions_of, draw
from dimum_core.models.diffusion import SCHEDULER_CONFIG
from dimum_core.models.history import with_unet
from dimum_core.models.labelled import output_of
from dimum_core.models.sampling import ClassConditionalPipeline
from dimum_core.unlearning.base import Step
from dimum_core.unlearning.choosing import get_method

NAMES = ("left", "top", "checks")
QUICK = {"batch_size": 4, "progress": False}
SCHEDULES = {
    "linear": SCHEDULER_CONFIG, "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "down to no signal": {
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "rescale_betas_zero_snr": True
    },
}


def unet_of(**changes) -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(**{
        "sample_size": 8, "in_channels": 1, "out_channels": 1, "block_out_channels": (16, 32), "layers_per_block": 1,
        "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "norm_num_groups": 8, **changes,
    }).eval()


def labelled(prediction_type: str = "epsilon", rows: int = 4, **schedule) -> ClassConditionalPipeline:
    scheduler = DDIMScheduler(**SCHEDULER_CONFIG | schedule | {"prediction_type": prediction_type})
    return adopt(DDPMPipeline(unet_of(num_class_embeds=rows), scheduler), NAMES)


def transformer(classes: int = 3) -> DiTPipeline:
    torch.manual_seed(0)
    network = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=4, patch_size=2,
        num_embeds_ada_norm=classes, norm_num_groups=1,
    )
    vae = AutoencoderKL(
        in_channels=1, out_channels=1, block_out_channels=(8, 16), latent_channels=4, norm_num_groups=4, sample_size=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )
    return DiTPipeline(network, vae, DDIMScheduler(clip_sample=False), {0: "left", 1: "top, above", 2: "checks"})


@pytest.fixture
def judge():
    torch.manual_seed(0)
    return Judge(8, 1, NAMES, (8, 8), (2, 2))


@pytest.fixture
def data(tiny_data):
    return Dataset(tiny_data.select(torch.arange(30)), tiny_data.select(torch.arange(30, 60)))


# What a network predicts, as noise --------------------------------------------------------------------------------------



class Oracle(torch.nn.Module):
    """Says of one image, noised by one eps, what a perfect network of its kind would."""

    def __init__(self, said):
        super().__init__()
        self.said, self.weight = said, torch.nn.Parameter(torch.zeros(1))

    def forward(self, x_t, t, class_labels):
        return type("Output", (), {"sample": self.said + 0 * self.weight})


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_methods_see_noise_and_the_denoising_loss_is_in_the_networks_own_terms(kind):
    pipe = labelled(kind, beta_schedule="squaredcos_cap_v2")
    conditions, x = conditions_of(pipe, "top"), torch.randn(4, 1, 8, 8)
    step = Step(pipe.unet, pipe.unet, conditions, {}, 4, (1, 8, 8), 0, 0)
    x_t, eps, t = step.noise(x)
    perfect = Oracle(conditions.schedule.wanted(x, eps, t))
    step.model = perfect
    labels = torch.zeros(4).long()
    torch.testing.assert_close(step.predict(x_t, t, labels), eps, rtol=1e-3, atol=1e-3)
    step.model = pipe.unet
    with torch.no_grad():
        wrong = output_of(pipe.unet, x_t, t, labels)
    fresh = Step(pipe.unet, pipe.unet, conditions, {}, 4, (1, 8, 8), 0, 0)  # whose stream draws the same noise
    theirs = {"epsilon": eps, "sample": x, "v_prediction": pipe.scheduler.get_velocity(x, eps, t)}[kind]
    torch.testing.assert_close(fresh.denoising(x, labels), (theirs - wrong).square().mean(), rtol=1e-3, atol=1e-5)


def test_esds_path_begins_without_any_signal_where_the_pipelines_own_does():
    """Noise and v are told from one another by dividing by the signal, which is none at all at the last level."""
    pipe = labelled("v_prediction", **SCHEDULES["down to no signal"])
    method, conditions = get_method("esd", sampling_steps=4), conditions_of(pipe, "top")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing", clip_sample=True)
    for index in range(8):
        step, path = Step(pipe.unet, pipe.unet, conditions, {}, 3, (1, 8, 8), 0, index), []
        x_t, t, condition = method.point_on_the_path(step)
        again = step_generator(0, index)
        torch.randint(4, (1,), generator=again)
        path.append(torch.randn(x_t.shape, generator=again))
        pipe(condition.tolist(), 3.0, 4, latents=path[0], output_type="latent",
             callback_on_step_end=lambda pipe, i, t, kept, path=path: path.append(kept["latents"]) or kept)
        torch.testing.assert_close(x_t, path[pipe.scheduler.timesteps.tolist().index(int(t[0]))], atol=2e-3, rtol=0)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)  # which mends its own levels, not its config
    again = DDIMScheduler(**conditions_of(pipe).scheduler_config).alphas_cumprod
    torch.testing.assert_close(again, pipe.scheduler.alphas_cumprod, rtol=1e-3, atol=1e-9)
    assert again.min() > 0


# All the way ------------------------------------------------------------------------------------------------------------

KINDS = {
    "epsilon": labelled, "v-prediction": lambda: labelled("v_prediction"), "sample": lambda: labelled("sample"),
    "cosine": lambda: labelled("v_prediction", beta_schedule="squaredcos_cap_v2"), "no null row": lambda: labelled(rows=3),
    "transformer": lambda: adopt(transformer()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_each_kind_is_unlearned_attacked_measured_saved_and_plain_diffusers_has_it(kind, data, judge, tmp_path):
    pipe = KINDS[kind]()
    if kind == "transformer":
        pipe.register_to_config(id2label=dict(zip("012", NAMES, strict=True)))
    before = copy.deepcopy(pipe.unet.state_dict())
    unlearned = unlearn(pipe, "dimum", target="top", data=data, steps=2, learning_rate=1e-3, **QUICK)
    assert all(torch.equal(value, before[key]) for key, value in pipe.unet.state_dict().items())
    attack = relearn(unlearned, data.without("top"), steps=2, samples=2, num_inference_steps=2, judge=judge, **QUICK)
    assert attack.curve["distance"].iloc[-1] > 0
    measured = evaluate(
        attack.pipeline, target="top", judge=judge, per_class=2, num_inference_steps=2, progress=False, guidance_scale=1.0
    )
    assert 0 <= measured["UA"] <= 1
    attack.pipeline.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    assert again.class_names == NAMES and again.null_label == pipe.null_label and again.history.forgotten[-1].target.name == "top"
    sampling = {"generator": torch.Generator().manual_seed(0), "num_inference_steps": 3, "guidance_scale": 1.0}
    ours = draw(again, [2], **sampling)
    network = (DiTTransformer2DModel if kind == "transformer" else UNet2DModel).from_pretrained(tmp_path, subfolder="unet")
    scheduler = DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    torch.testing.assert_close(ours, plainly(network.eval(), scheduler, again), rtol=1e-3, atol=1e-3)


@torch.no_grad()
def plainly(network, scheduler, pipe) -> torch.Tensor:
    """What diffusers' own parts draw under label 2 from seed 0 in three steps."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, network.config.in_channels, network.config.sample_size, network.config.sample_size, generator=generator)
    scheduler.set_timesteps(3)
    for t in scheduler.timesteps:
        output = network(x, t[None], class_labels=torch.tensor([2])).sample.chunk(2 if pipe.vae else 1, dim=1)[0]
        x = scheduler.step(output, t, x, generator=generator, use_clipped_model_output=True).prev_sample
    return (x if pipe.vae is None else pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample).clamp(-1, 1)


@pytest.mark.parametrize("kind", ["epsilon", "v-prediction", "sample", "transformer"])
@pytest.mark.parametrize("method", ["esd", "random-label", "erasediff", "selective-amnesia", "concept-ablation"])
def test_methods_of_each_sort_run_on_each_kind(kind, method, data):
    pipe = KINDS[kind]()
    if kind == "transformer":
        pipe.register_to_config(id2label=dict(zip("012", NAMES, strict=True)))
    losses = unlearn(pipe, method, target="top", data=data, steps=2, **QUICK).unlearning["log"]["loss"]
    assert losses.dropna().map(lambda loss: 0 <= loss < 1e4).all()


def test_a_v_prediction_model_learns_from_the_attacks_loss_and_not_from_anothers(data, judge):
    """Trained as if it said noise, it read as successful forgetting: RA 0.99 became 0.15."""
    pipe = labelled("v_prediction", beta_schedule="squaredcos_cap_v2")
    scheduler, x = DDPMScheduler.from_config(pipe.scheduler.config), data.train.images
    eps, t = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)), torch.arange(0, 990, 33)

    @torch.no_grad()
    def own_loss(network) -> float:
        velocity = scheduler.get_velocity(x, eps, t)
        said = network(scheduler.add_noise(x, eps, t), t, class_labels=data.train.labels).sample
        return float((velocity - said).square().mean())

    attack = relearn(
        pipe, data.without("top"), target="top", steps=30, learning_rate=3e-3, samples=1, num_inference_steps=2, judge=judge,
        **QUICK,
    )
    assert own_loss(attack.pipeline.unet) < 0.8 * own_loss(pipe.unet)


# A model without a null row, and one without labels ---------------------------------------------------------------------


def test_without_a_null_row_every_row_is_a_class_and_nothing_is_dropped(data):
    pipe = labelled(rows=3)
    assert pipe.null_label is None and pipe.class_names == NAMES
    conditions = conditions_of(pipe, "top")
    labels = torch.arange(300) % 3
    assert torch.equal(conditions.dropped(labels, torch.Generator().manual_seed(0), 0.5), labels)
    with pytest.raises(SettingError, match="no null condition to guide away from: guidance_scale must be 1, not 3"):
        pipe(["top"], guidance_scale=3, num_inference_steps=1)
    with pytest.raises(SettingError, match="no null condition, so it draws nothing without a class"):
        pipe([None], num_inference_steps=1)
    with pytest.raises(ModelError, match="no null condition, and this needs one: take a method that learns from images alone"):
        unlearn(pipe, "esd", target="top", data=data, steps=1, **QUICK)


def unconditional() -> tuple:
    """A model of images without labels, and its data: one class, everything."""
    pixels = torch.randint(256, (30, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte().numpy()
    images = from_uint8("images", pixels, [0] * len(pixels), ("images",))
    return adopt(DDPMPipeline(unet_of(), DDPMScheduler()), ("images",)), Dataset(images, images.select([0]))


def test_a_model_without_labels_forgets_single_images_and_nothing_else(tmp_path):
    pipe, images = unconditional()
    single = images.train.select([2])
    unlearned = unlearn(pipe, "dimum", target=single, data=images, steps=2, **QUICK)
    attack = relearn(
        unlearned, images.train.without(single), target=single, steps=2, samples=2, num_inference_steps=2,
        judge=Judge(8, 1, ("images",), (8,), (2,)), **QUICK,
    )
    assert attack.curve["distance"].iloc[-1] > 0 and attack.curve["target accuracy"].between(0, 1).all()
    attack.pipeline.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    ours = draw(again, [0, 0], num_inference_steps=2, generator=torch.Generator().manual_seed(0))
    plain = DDPMPipeline(
        UNet2DModel.from_pretrained(tmp_path, subfolder="unet"), DDPMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    )
    plain.set_progress_bar_config(disable=True)
    theirs = plain(2, num_inference_steps=2, generator=torch.Generator().manual_seed(0), output_type="np").images
    assert abs(theirs[..., 0] - (ours[:, 0].numpy() + 1) / 2).max() < 1e-4
    with pytest.raises(DataError, match="no retain images for the target 'images'"):
        unlearn(pipe, "finetune", target="images", data=images, steps=1, **QUICK)
    with pytest.raises(DataError, match="There is no other class to put in the target's place"):
        unlearn(pipe, "random-label", target=single, data=images, steps=1, **QUICK)


def test_copies_of_single_images_are_counted_where_no_judge_fits(tmp_path, monkeypatch):
    pipe, images = unconditional()
    single = images.train.select([2])
    monkeypatch.setattr(relearning, "draw_samples", lambda pipe, labels, **_: single.images.expand(len(labels), -1, -1, -1))

    def attacked(**settings):
        rest = images.train.without(single)
        return relearn(pipe, rest, target=single, steps=2, samples=3, out=tmp_path, **settings, **QUICK).curve

    curve = attacked()
    assert (curve["target accuracy"] == 1).all() and curve["retained accuracy"].isna().all() and curve["step"].tolist() == [0, 1, 2]
    pd.testing.assert_frame_equal(attacked(resume=True), curve)
    with pytest.raises(CheckpointError, match="No shipped judge"):
        relearn(pipe, images, target="images", allow_target=True, steps=1, **QUICK)

    def damaged(*_):
        raise CheckpointError("a judge is damaged")

    monkeypatch.setattr(relearning, "judge_for", damaged)
    with pytest.raises(CheckpointError, match="a judge is damaged"):  # which is not the same as none
        attacked(resume=True)


# Folders of others ------------------------------------------------------------------------------------------------------


def test_a_folder_of_diffusers_own_says_its_classes_or_is_told(tmp_path):
    pipe = DDPMPipeline(unet_of(num_class_embeds=4), DDPMScheduler())
    pipe.save_pretrained(tmp_path / "ddpm")
    with pytest.raises(CheckpointError, match="4 label rows, and does not say what they are.*with 4 names .*, or with 3 if"):
        load_pipeline(tmp_path / "ddpm")
    assert load_pipeline(tmp_path / "ddpm", class_names=NAMES).null_label == 3
    assert load_pipeline(tmp_path / "ddpm", class_names=[5, 6, 7]).class_names == ("5", "6", "7")
    with pytest.raises(SettingError, match="class_names must be a list of class names"):
        load_pipeline(tmp_path / "ddpm", class_names=np.array(NAMES))
    with pytest.raises(SettingError, match="adapters must be a list of folders, not 'forget'"):
        load_pipeline(tmp_path / "ddpm", class_names=NAMES, adapters="forget")
    assert load_pipeline(tmp_path / "ddpm", class_names=[*NAMES, "dots"]).null_label is None
    with pytest.raises(CheckpointError, match="2 classes need 2 label rows, or 3 .*has 4"):
        load_pipeline(tmp_path / "ddpm", class_names=NAMES[:2])
    DDPMPipeline(unet_of(), DDPMScheduler()).save_pretrained(tmp_path / "none")
    with pytest.raises(CheckpointError, match="draws images of no class: give a name to all that it draws"):
        load_pipeline(tmp_path / "none")
    transformer().save_pretrained(tmp_path / "dit")
    loaded = load_pipeline(tmp_path / "dit", class_names=NAMES)
    assert loaded.null_label == 3 and loaded.config.guidance_scale == 4.0 and loaded.image_shape == (1, 8, 8)


def test_a_transformers_own_names_are_kept_and_its_guidance_is_diffusers_own():
    theirs = transformer(1000)  # diffusers' own pipeline takes row 1,000 for the null condition, whatever the network
    ours = adopt(theirs)
    assert ours.class_names[:4] == ("left", "above", "checks", "3") and ours.null_label == 1000
    theirs.set_progress_bar_config(disable=True)
    x_t, t = torch.randn(1, 4, 4, 4), torch.tensor(500)
    with torch.no_grad():
        guided = ours.predict_noise(x_t, t, torch.tensor([2]), 4.0)
        both = theirs.transformer(torch.cat([x_t, x_t]), t.expand(2), class_labels=torch.tensor([2, 1000])).sample[:, :4]
    torch.testing.assert_close(guided, both[1:] + 4 * (both[:1] - both[1:]))
    images = [theirs([2], generator=torch.Generator().manual_seed(0), num_inference_steps=2, output_type="np").images[0]]
    images.append(ours([2], generator=torch.Generator().manual_seed(0), num_inference_steps=2, output_type="np").images[0])
    assert abs(images[0] - images[1]).max() < 1e-4


def test_a_transformer_in_training_drops_no_labels_by_itself():
    pipe = adopt(transformer())
    network, x = copy.deepcopy(with_unet(pipe, pipe.unet).unet).train(), torch.randn(64, 4, 4, 4)
    t, labels = torch.full((64,), 10), torch.full((64,), 2)
    with torch.no_grad():
        assert torch.equal(network(x, t, class_labels=labels).sample, network(x, t, class_labels=labels).sample)
