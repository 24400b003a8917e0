"""Every picture comes from the caller's generator alone, whatever the scheduler and whatever ran before in the process."""

from __future__ import annotations

import inspect

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from dimum_core.attacks import probe_prompts
from dimum_core.attacks.prompts import _drawn
from dimum_core.errors import SettingError
from dimum_core.evaluation import draw_samples
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.conditions import ClassConditions, draw
from dimum_core.models.denoiser import build_denoiser
from dimum_core.models.diffusion import SCHEDULER_CONFIG
from dimum_core.unlearning.base import Step
from dimum_core.unlearning.choosing import get_method

NAMES = ("left", "top", "checks")
NOISY = {  # class -> settings and arguments under which it draws fresh noise
    "DDPMScheduler": {}, "DDPMParallelScheduler": {}, "DDIMScheduler": {"eta": 1.0}, "DDIMParallelScheduler": {"eta": 0.5},
    "EulerAncestralDiscreteScheduler": {}, "KDPM2AncestralDiscreteScheduler": {}, "LCMScheduler": {}, "TCDScheduler": {"eta": 0.5},
    "DPMSolverMultistepScheduler": {"algorithm_type": "sde-dpmsolver++"}, "SASolverScheduler": {},
    "DPMSolverSinglestepScheduler": {"algorithm_type": "sde-dpmsolver++"}, "DPMSolverSDEScheduler": {},
}
QUIET = [f"{name}Scheduler" for name in (
    "DDIM", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "EulerDiscrete", "HeunDiscrete", "KDPM2Discrete",
    "LMSDiscrete", "PNDM", "UniPCMultistep",
)]
CASES = {**{name: {} for name in QUIET}, **{f"{name} with noise": settings for name, settings in NOISY.items()}}


def scheduler_of(case: str):
    try:
        kind = getattr(diffusers, case.split()[0])
        return kind.from_config(SCHEDULER_CONFIG, **{k: v for k, v in CASES[case].items() if k != "eta"})
    except ImportError as error:
        pytest.skip(str(error))


def arguments(case: str) -> dict:
    return {"num_inference_steps": 5} | ({"eta": CASES[case]["eta"]} if "eta" in CASES[case] else {})


@pytest.fixture
def pipe(tiny_preset):
    return build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, NAMES)


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def after_others(work, seed: int) -> torch.Tensor:
    """What is drawn in a process whose global stream stands somewhere else."""
    torch.manual_seed(seed)
    return work()


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_draws_the_same_images_whatever_ran_before(pipe, case):
    pipe.scheduler = scheduler_of(case)
    call = lambda g: pipe(["left", "top"], generator=g, output_type="latent", **arguments(case)).images  # noqa: E731
    one = [after_others(lambda seed=seed: call(seeded(seed)[0]), k) for k, seed in enumerate((3, 3, 4))]
    assert torch.equal(one[0], one[1]) and not torch.equal(one[0], one[2])
    each = [after_others(lambda seeds=seeds: call(seeded(*seeds)), k) for k, seeds in enumerate(((3, 4), (3, 4), (3, 5)))]
    assert torch.equal(each[0], each[1]) and torch.equal(each[0][0], each[2][0]) and not torch.equal(each[0][1], each[2][1])
    drawn = [after_others(lambda k=k: draw(pipe, [0, 1, 0], generator=seeded(3)[0], **arguments(case)), k) for k in range(2)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("case", [case for case in CASES if case.endswith("with noise")])
def test_these_do_draw_noise_and_no_other_does(pipe, case):
    """From one starting noise: a solver that draws none would pass the test above for nothing."""
    pipe.scheduler = scheduler_of(case)
    latents = torch.randn(1, 4, 4, 4, generator=seeded(0)[0])
    call = lambda seed: pipe(  # noqa: E731
        ["left"], generator=seeded(seed)[0], latents=latents, output_type="latent", **arguments(case)
    ).images
    assert not torch.equal(call(0), call(1)) and torch.equal(call(0), call(0))


def test_every_scheduler_that_draws_noise_here_is_tried():
    named = {case.split()[0] for case in CASES}
    others = ("CogVideoXDDIM", "CogVideoXDPM", "RePaint", "DPMSolverMultistepInverse")  # for other work than drawing images
    for name in dir(diffusers):
        kind = getattr(diffusers, name) if name.endswith("Scheduler") else None
        try:
            takes = kind is not None and "generator" in inspect.signature(kind.step).parameters
            known = takes and hasattr(kind.from_config(SCHEDULER_CONFIG), "alphas_cumprod")
        except (ImportError, TypeError, ValueError, AttributeError):  # a library is absent, or it needs settings of its own
            continue
        assert not known or name in named or name.removesuffix("Scheduler") in others, name


@pytest.mark.parametrize("case", ["EulerAncestralDiscreteScheduler with noise", "DPMSolverMultistepScheduler with noise"])
def test_prompts_and_samples_of_a_model_are_a_function_of_the_seed_too(prompted, case):
    prompted.scheduler = scheduler_of(case)
    asked = ["a hatched star", "a filled cross"]
    calls = {
        "pipeline": lambda: prompted(asked, generator=seeded(1, 2), num_inference_steps=3, output_type="pt").images,
        "attack": lambda: _drawn(prompted, {"prompt": asked}, seeded(1)[0], 2, {"num_inference_steps": 3}),
    }
    for name, call in calls.items():
        assert torch.equal(after_others(call, 0), after_others(call, 1)), name


def test_samples_that_are_evaluated_do_not_depend_on_what_ran_before(pipe, monkeypatch):
    monkeypatch.setattr("dimum_core.evaluation._key", lambda *about: None)  # nothing is remembered
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    samples = lambda seed: draw_samples(pipe, [0, 1], seed=seed, num_inference_steps=3, progress=False)  # noqa: E731
    first, again, other = (after_others(lambda s=seed: samples(s), k) for k, seed in enumerate((5, 5, 6)))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_esds_own_sampler_does_not_depend_on_what_ran_before(pipe):
    step = lambda: Step(pipe.unet, pipe.unet, ClassConditions(1, 3, pipe.codec), {}, 2, (4, 4, 4), 0, 3)  # noqa: E731
    paths = [after_others(lambda: get_method("esd", sampling_steps=3).point_on_the_path(step())[0], k) for k in range(2)]
    assert torch.equal(*paths)


@pytest.mark.parametrize("generators", [1, 3])
def test_a_list_of_generators_is_one_per_image(pipe, generators):
    with pytest.raises(SettingError, match="a list of 2, one per image"):
        pipe(["left", "top"], generator=seeded(*range(generators)), num_inference_steps=2)


def test_eta_is_refused_where_it_means_nothing_and_out_of_its_range(pipe):
    with pytest.raises(SettingError, match="DPMSolverMultistepScheduler has no eta"):
        pipe(["left"], num_inference_steps=2, eta=1.0)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(SettingError, match="eta must be"):
        pipe(["left"], num_inference_steps=2, eta=1.5)


@pytest.mark.parametrize(("name", "steps"), [("PNDMScheduler", 2), ("KDPM2AncestralDiscreteScheduler", 2)])
def test_a_scheduler_that_cannot_take_so_few_steps_is_named(pipe, name, steps):
    pipe.scheduler = getattr(diffusers, name).from_config(SCHEDULER_CONFIG)
    with pytest.raises(SettingError, match=f"{name}.*2 steps"):
        pipe(["left"], num_inference_steps=steps)


def test_probes_are_a_function_of_the_seed(prompted):
    class Bright:
        class_names = prompted.class_names

        def judge(self, images):
            return type("Verdict", (), {"shows": lambda self, target: images.flatten(1).mean(1) > 0})()

    prompted.scheduler = EulerAncestralDiscreteScheduler.from_config(prompted.scheduler.config)
    probe = lambda: probe_prompts(prompted, "hatched", judge=Bright(), count=6, num_inference_steps=2)  # noqa: E731
    assert after_others(probe, 0).equals(after_others(probe, 1))
