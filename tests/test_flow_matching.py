"""Flow matching: Stable Diffusion 3 and Flux, tiny, of diffusers' own classes, unlearned and attacked by their velocity loss."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    StableDiffusion3Pipeline,
)

from dimum_core import evaluate, load_pipeline, relearn, unlearn
from dimum_core.attacks import ATTACKS, Means, audit, get_attack, search_embedding
from dimum_core.attacks.auditing import AUDITED
from dimum_core.benchmark.nfe import counted
from dimum_core.data import load_unlearn_canvas
from dimum_core.data.targets import find_target
from dimum_core.errors import ModelError, TrainingError
from dimum_core.models.checkpoints import save_checkpoint
from dimum_core.models.conditions import conditions_of, image_size
from dimum_core.models.flow import FlowSchedule
from dimum_core.models.fresh_noise import with_fresh_noise
from dimum_core.models.networks import latent_shape, network_of
from dimum_core.models.sampling import fresh_noise_from
from dimum_core.unlearning import METHODS, Step, get_method
from tests import tiny_pipelines

QUICK = {"batch_size": 2, "progress": False}
KINDS = {"sd3": tiny_pipelines.stable_diffusion_3, "flux": tiny_pipelines.flux}
BY_OWN_LOSS = {"dimum", "finetune", "negative-gradient", "selective-amnesia", "scissorhands", "sealed", "uce"}
ON_TOP = {"weight-distortion", "weight-distance", "cbft", "simulated-attack"}

OURS = sorted(name for name, method in METHODS.items() if method.__module__.startswith("dimum_core"))  # other tests add some


@pytest.fixture(params=KINDS)
def flowing(request, smaller_flux):
    return KINDS[request.param]()


@pytest.fixture
def sd3():
    return tiny_pipelines.stable_diffusion_3()


# The schedule, against diffusers and by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"shift": 3.0}, {"shift": 3.0, "use_dynamic_shifting": True}])
def test_noise_and_times_are_those_of_diffusers(config):
    theirs = FlowMatchEulerDiscreteScheduler(**config)
    used = FlowMatchEulerDiscreteScheduler(**config)
    used.set_timesteps(4, **({"mu": 0.8} if "use_dynamic_shifting" in config else {}))  # as after a drawing
    schedule, t = FlowSchedule.of(used), torch.tensor([0, 17, 500, 998, 999])
    told = schedule.told(t)
    torch.testing.assert_close(told, theirs.timesteps.flip(0)[t], rtol=1e-6, atol=1e-3)
    x, eps = torch.randn(2, 5, 4, 8, 8)
    torch.testing.assert_close(schedule.add_noise(x, eps, t), theirs.scale_noise(x, theirs.timesteps.flip(0)[t], eps))
    assert torch.equal(schedule.add_noise(x, eps, t)[-1], eps[-1])


def test_the_samplers_of_measurement_mean_the_same_levels(sd3):
    levels = FlowSchedule.of(with_fresh_noise(sd3).scheduler).sigmas
    torch.testing.assert_close(levels, FlowSchedule.of(sd3.scheduler).sigmas)
    with pytest.raises(ModelError, match="has 500 noise levels"):
        FlowSchedule.of(FlowMatchEulerDiscreteScheduler(num_train_timesteps=500))


def test_the_velocity_loss_by_hand(sd3, canvas):
    """shift 1, t = 249: sigma = 0.25. x = 2, eps = -2: x_t = 0.75 * 2 - 0.25 * 2 = 1; the velocity is -4, and 1 is wrong by 5."""
    sd3.scheduler = FlowMatchEulerDiscreteScheduler()
    conditions, seen = conditions_of(sd3, "Van_Gogh", canvas.class_names), {}

    def network(**said):
        seen.update(said)
        return SimpleNamespace(sample=torch.ones_like(said["hidden_states"]))

    x, t = torch.full((1, 4, 16, 16), 2.0), torch.tensor([249])
    error = conditions.denoising_error(network, x, -x, t, torch.tensor([0]))
    assert torch.equal(error, torch.full_like(x, 25.0))
    assert torch.equal(seen["hidden_states"], torch.ones_like(x)) and seen["timestep"].tolist() == [250.0]


def test_the_loss_of_a_step_is_the_velocity_loss(sd3, canvas):
    conditions = conditions_of(sd3, "Van_Gogh", canvas.class_names)
    step, again = (Step(sd3.transformer, sd3.transformer, conditions, {"retain": canvas.train}, 2, (4, 16, 16), 0, 0) for _ in "ab")
    x, condition = step.batch("retain")
    ours = step.denoising(x, condition)
    x_t, eps, t = again.noise(x)
    sigma = sd3.scheduler.sigmas.flip(0)[t]
    with torch.no_grad():
        tokens, _, whole, _ = sd3.encode_prompt([conditions.caption(c) for c in condition.tolist()], None, None)
        output = sd3.transformer(x_t, timestep=1000 * sigma, encoder_hidden_states=tokens[:2], pooled_projections=whole[:2]).sample
    torch.testing.assert_close(ours, (eps - x - output).square().mean(), rtol=1e-4, atol=1e-5)


def test_what_the_sampler_of_measurement_draws_has_the_datas_distribution():
    """Data N(0.7, 0.5^2): the velocity of a perfect network is known, and 25 steps are near the data, from the generator alone."""
    mean, spread = 0.7, 0.5
    pipe = tiny_pipelines.stable_diffusion_3()

    def perfect(hidden_states, timestep, **_):
        sigma = (timestep / 1000).view(-1, 1, 1, 1)
        variance = (1 - sigma) ** 2 * spread**2 + sigma**2
        off = hidden_states - (1 - sigma) * mean
        x = mean + (1 - sigma) * spread**2 / variance * off
        return (((hidden_states - (1 - sigma) * x) / sigma - x),)

    sampler = with_fresh_noise(pipe)
    sampler.transformer.forward = perfect
    drawn, asked = [], {"num_inference_steps": 25, "guidance_scale": 1.0, "output_type": "latent"}
    for seed in (0, 0, 1):
        torch.manual_seed(len(drawn))  # the global stream is of no account
        generator = torch.Generator().manual_seed(seed)
        with fresh_noise_from(sampler.scheduler, generator):
            drawn.append(sampler(["A"] * 16, generator=generator, **asked).images)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert abs(drawn[0].mean() - mean) < 0.02 and abs(drawn[0].std() - spread) < 0.03
    assert "step" not in vars(sampler.scheduler)


# What the network is told -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sd3", "flux", "flux without guidance"])
def test_a_network_is_told_what_its_own_pipeline_tells_it(kind, canvas, smaller_flux):
    """Bit for bit what the network sees when diffusers draws, at the same place, at the same time."""
    pipe = tiny_pipelines.flux(guidance_embeds=False) if "without" in kind else KINDS[kind]()
    network, seen = network_of(pipe), []
    forward = network.forward
    network.forward = lambda *place, **said: seen.append(said) or forward(*place, **said)
    conditions = conditions_of(pipe, "Van_Gogh", canvas.class_names)
    channels, side, _ = latent_shape(pipe)
    x_t = torch.randn(1, channels, side, side)
    latents = x_t if kind == "sd3" else pipe._pack_latents(x_t, 1, channels, side, side)
    pipe(conditions.asked([3]), num_inference_steps=2, output_type="latent", latents=latents, **(
        {"guidance_scale": 1.0} if kind == "sd3" else {}))
    theirs = seen[0]
    conditions.schedule = FlowSchedule(torch.full((1,), theirs["timestep"].item() / (1000 if kind == "sd3" else 1)))
    with torch.no_grad():
        output = conditions.output(network, x_t, torch.tensor([0]), torch.tensor([3 * conditions.all_wordings]))
    ours = seen[-1]
    told = {key for key, value in theirs.items() if isinstance(value, torch.Tensor)}
    assert told == {key for key, value in ours.items() if isinstance(value, torch.Tensor)}
    for key in told:
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-6, atol=1e-6)
    assert output.shape == x_t.shape


# All the way ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_flow_is_unlearned_attacked_measured_saved_and_plain_diffusers_has_it(flowing, lora_rank, canvas_folder, tmp_path):
    judge = tiny_pipelines.canvas_judge(image_size(flowing))
    data = load_unlearn_canvas(canvas_folder, image_size=image_size(flowing), per_combination=4, held_out=2)
    before = {key: value.clone() for key, value in network_of(flowing).state_dict().items()}
    more = {"lora_rank": lora_rank, "gradient_checkpointing": lora_rank > 0, **QUICK}
    unlearned = unlearn(flowing, "dimum", target="Van_Gogh", data=data, steps=2, learning_rate=1e-3, **more)
    traced = unlearned.unlearning["log"][["memorisation loss", "ordinary loss"]].dropna()
    assert len(traced) and (traced.to_numpy() > 0).all()
    assert all(torch.equal(before[key], value) for key, value in network_of(flowing).state_dict().items())
    attack = relearn(
        unlearned, data.without("Van_Gogh"), steps=2, judge=judge, samples=1, num_inference_steps=2, evaluate_every=2, **more
    )
    assert attack.curve["distance"].iloc[-1] > 0
    measured = evaluate(
        attack.pipeline, target="Van_Gogh", judge=judge, per_class=1, num_inference_steps=2, progress=False
    )
    assert 0 <= measured["UA"] <= 1 and type(attack.pipeline.scheduler) is FlowMatchEulerDiscreteScheduler
    save_checkpoint(attack.pipeline, tmp_path, {"title": "t", "summary": "s", "kind": "denoiser"})
    again, plain = load_pipeline(tmp_path), type(flowing).from_pretrained(tmp_path)
    assert type(again) in (StableDiffusion3Pipeline, FluxPipeline) and again.history.forgotten[-1].target.name == "Van_Gogh"
    for loaded in (plain, again):
        pairs = zip(loaded.transformer.parameters(), attack.pipeline.transformer.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert type(plain.scheduler) is FlowMatchEulerDiscreteScheduler and plain.scheduler.config.shift == 3.0


# What needs the noise ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OURS)
def test_a_method_says_truly_whether_it_compares_noise(name, pipe, prompted, shapes, digits, monkeypatch):
    """Which it is, is seen by who calls `Step.predict` in training, and each that does is refused for a flow by its name."""
    called, predict = [], Step.predict
    monkeypatch.setattr(Step, "predict", lambda step, *given, **more: called.append(1) or predict(step, *given, **more))
    drawer, data, target = (prompted, shapes, "outline") if METHODS[name].prompts_only else (pipe, digits, "3")
    unlearn(drawer, name, target=target, data=data, steps=1, **QUICK)
    assert bool(called) == get_method(name).compares_noise == (name not in BY_OWN_LOSS | ON_TOP)


@pytest.mark.parametrize("name", [*(name for name in OURS if name not in BY_OWN_LOSS | ON_TOP), "cbft base=salun"])
def test_a_method_that_compares_noise_is_refused_by_its_name(name, sd3, canvas):
    name, _, base = name.partition(" base=")
    with pytest.raises(TrainingError, match=f"^{name} compares predictions of the noise, and .* a velocity: take .* dimum"):
        unlearn(sd3, name, target="Van_Gogh", data=canvas, steps=1, **QUICK, **({"base": base} if base else {}))


def test_what_else_cannot_be_done_with_a_flow_is_said(sd3, canvas):
    with pytest.raises(TrainingError, match="uce edits cross-attention"):
        unlearn(sd3, "uce", target="Van_Gogh", data=canvas, steps=1, **QUICK)
    judge = tiny_pipelines.canvas_judge()
    means = Means(find_target("Van_Gogh", canvas.class_names), canvas, judge)
    refusing = {name for name in ATTACKS if "a velocity" in get_attack(name).lacking(sd3, means)}
    assert refusing == {"initial-noise", "inversion"}
    with pytest.raises(ModelError, match="this one has several"):
        search_embedding(sd3, canvas.train.only("Van_Gogh"), target="Van_Gogh", judge=judge, steps=1)
    for scheduler in (DDIMScheduler(), DPMSolverMultistepScheduler()):
        sd3.scheduler = scheduler
        with pytest.raises(ModelError, match="is not for flow matching, as this network is"):
            unlearn(sd3, "dimum", target="Van_Gogh", data=canvas, steps=1, **QUICK)


def test_its_passes_are_counted(sd3, canvas):
    with counted(sd3.transformer) as seen:
        sd3(["A Cats image"], num_inference_steps=3, guidance_scale=2.0, output_type="latent")
        assert seen == {"training": 6, "sampling": 0}
        unlearn(sd3, "finetune", target="Van_Gogh", data=canvas, steps=2, **QUICK)
        assert seen["training"] == 6 + 2 * 2
    sd3(["A Cats image"], num_inference_steps=1, output_type="latent")
    assert seen["training"] == 10 and not sd3.transformer._forward_pre_hooks_with_kwargs


def test_without_t5_it_loads_too(tmp_path):
    pipe = tiny_pipelines.stable_diffusion_3(with_t5=False)
    pipe.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    assert again.text_encoder_3 is None and again(["A Cats image"], num_inference_steps=1, output_type="pt").images.isfinite().all()


@pytest.mark.parametrize("kind", ["stable_diffusion_xl", "stable_diffusion_3"])
def test_an_audit_runs_what_applies_and_says_why_the_rest_does_not(kind, canvas, tmp_path, monkeypatch):
    monkeypatch.setattr("dimum_core.attacks.auditing.AUDITED", tuple(
        (name, {"steps": 1} if "steps" in ATTACKS[name].__dataclass_fields__ else settings) for name, settings in AUDITED
    ))
    unlearned = unlearn(getattr(tiny_pipelines, kind)(), "finetune", target="Van_Gogh", data=canvas, steps=1, **QUICK)
    settings = {"judge": tiny_pipelines.canvas_judge(), "samples": 1, "progress": False}
    for module in ("base", "prompts"):
        monkeypatch.setattr(f"dimum_core.attacks.{module}.FRESH_STEPS", 3)
    found = [audit(unlearned, "Van_Gogh", canvas, out=tmp_path / "0", **settings)]
    monkeypatch.setattr("dimum_core.attacks.auditing.AUDITED", (("none", {}), ("paraphrases", {})))
    found.append(audit(unlearned, "Van_Gogh", canvas, out=tmp_path / "1", **settings))
    words = {name.split()[0] for name, why in found[0].left_out.items() if "several" in why}
    noise = {name.split()[0] for name, why in found[0].left_out.items() if "a velocity" in why}
    assert words == {"embedding"} and noise == ({"initial-noise", "inversion"} if kind == "stable_diffusion_3" else set())
    done = {name.split()[0] for name in found[0].outcomes}
    assert {"none", "relearning", "few-shot", "low-rank", "paraphrases", "rounding"} <= done
    images = [{name: records["audited"].images for name, records in each.outcomes.items()} for each in found]
    assert all(torch.equal(images[0][name], images[1][name]) for name in ("none", "paraphrases"))  # all noise is seeded
