"""Methods whose loss is their formula, and what separates each from its neighbours."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import DDIMScheduler

from dimum_core.data import step_generator
from dimum_core.models.codec import Codec
from dimum_core.models.diffusion import drop_labels
from dimum_core.unlearning import Step, get_method, unlearn
from dimum_core.unlearning.base import ClassConditions
from tests.unlearning.toys import latent_shape, mean_square, replay, toy_step, vars_of


def test_finetune_and_negative_gradient_are_their_formulas(tiny_data):
    _, labels, x_t, eps, _, _ = replay(tiny_data, "retain")
    expected = mean_square(eps - torch.tensor([0.1, 0.2, 0.3, 0.4])[labels].view(-1, 1, 1, 1) * x_t)
    assert get_method("finetune").loss(toy_step(tiny_data)).item() == pytest.approx(expected, rel=1e-5)
    _, _, x_t, eps, _, _ = replay(tiny_data, "forget")
    alone = get_method("negative-gradient", weight=1.0, retain_weight=0.0).loss(toy_step(tiny_data))
    assert float(alone.detach()) == pytest.approx(-mean_square(eps - 0.2 * x_t), rel=1e-5)


@pytest.mark.parametrize("name", ["random-label", "concept-ablation", "sharpness-aware", "negative-gradient"])
def test_what_is_retained_has_its_weight(name, tiny_data):
    """Each loss by hand: what its method does under the target's condition, and three times what is retained."""
    step, weights = toy_step(tiny_data), torch.tensor([0.1, 0.2, 0.3, 0.4])
    x, condition = step.batch("forget")
    x_t, eps, _ = step.noise(x)
    if name == "negative-gradient":
        forgotten = -0.05 * mean_square(eps - 0.2 * x_t)
    elif name == "concept-ablation":
        forgotten = mean_square(0.5 * x_t - 0.2 * x_t)  # the original's, of the first other class
    else:
        wanted = weights[step.instead(condition)].view(-1, 1, 1, 1) * x_t
        slope = float((-(wanted - 0.2 * x_t) * x_t).mean())
        worst = 0.2 + (0.1 if slope > 0 else -0.1) * (name == "sharpness-aware")  # its radius uphill
        forgotten = mean_square(wanted - worst * x_t)
    retain, labels = step.batch("retain")
    labels = drop_labels(labels, 3, 0.1, step.generator)
    x_t, eps, _ = step.noise(retain)
    retained = mean_square(eps - weights[labels].view(-1, 1, 1, 1) * x_t)
    loss = get_method(name, retain_weight=3.0).loss(toy_step(tiny_data)).detach()
    assert float(loss) == pytest.approx(forgotten + 3 * retained, rel=1e-4)


def test_dimum_memorises_the_alternative_under_the_targets_condition(tiny_data):
    step = toy_step(tiny_data)
    retain, labels = step.batch("retain")
    labels = drop_labels(labels, 3, 0.1, step.generator)
    x_t, eps, _ = step.noise(retain)
    first = mean_square(eps - torch.tensor([0.1, 0.2, 0.3, 0.4])[labels].view(-1, 1, 1, 1) * x_t)
    loss = get_method("dimum", weight=3.0).loss(toy_step(tiny_data)).detach()
    alternative, _ = step.batch("alternative")
    x_t, eps, _ = step.noise(alternative)
    assert float(loss) == pytest.approx(first + 3 * mean_square(eps - 0.2 * x_t), rel=1e-5)


def test_esd_steers_away_and_its_target_does_not_move(tiny_data):
    method = get_method("esd", guidance=2.0, sampling_steps=4)
    x_t, t, condition = method.point_on_the_path(toy_step(tiny_data))
    assert (condition == 1).all() and len(t.unique()) == 1
    wanted = 0.8 * x_t - 2.0 * (0.6 - 0.8) * x_t
    assert float(method.loss(toy_step(tiny_data)).detach()) == pytest.approx(mean_square(wanted - 0.2 * x_t), rel=1e-4)
    stops = {int(method.point_on_the_path(Step(**{**vars_of(toy_step(tiny_data)), "index": i}))[1][0]) for i in range(40)}
    assert stops == {999, 749, 499, 249}


def test_esds_path_is_the_pipelines_own(pipe, data):
    """The same noise, model and guidance, sampled by the pipeline, go through the same points."""
    conditions, method = ClassConditions(1, 3, Codec()), get_method("esd", sampling_steps=4)
    steps = [Step(pipe.unet, pipe.unet, conditions, {}, 6, latent_shape(pipe), seed=0, index=i) for i in range(20)]
    pipe.scheduler = DDIMScheduler(**conditions.scheduler_config, timestep_spacing="trailing")
    seen = set()
    for step in steps:
        x_t, t, condition = method.point_on_the_path(step)
        stream = step_generator(0, step.index)
        stop = int(torch.randint(4, (1,), generator=stream))
        path = [torch.randn(x_t.shape, generator=stream)]

        def keep(pipe, i, t, tensors, path=path):
            path.append(tensors["latents"])
            return tensors

        pipe(condition.tolist(), 3.0, 4, latents=path[0], output_type="pt", callback_on_step_end=keep)
        assert torch.allclose(x_t, path[stop], atol=1e-5) and (t == pipe.scheduler.timesteps[stop]).all()
        seen.add(stop)
    assert seen == {0, 1, 2, 3}


def gradient_of_target(method, tiny_data, which: str) -> float:
    """How much the loss changes with the weights that only its target depends on."""
    students = [(0.1, 0.2, 0.3, 0.4), (0.9, 0.2, 0.9, 0.4)]  # the other classes' rows differ
    if which == "student":
        losses = [float(method.loss(toy_step(tiny_data, student=s)).detach()) for s in students]
    else:
        losses = [float(method.loss(toy_step(tiny_data, original=(*s[:1], 0.6, *s[2:]))).detach()) for s in students]
    return abs(losses[0] - losses[1])


def test_random_labels_target_moves_with_the_student_and_concept_ablations_does_not(tiny_data):
    random_label, ablation = get_method("random-label", retain_weight=0.0), get_method("concept-ablation", retain_weight=0.0)
    assert gradient_of_target(random_label, tiny_data, "student") > 1e-3 > gradient_of_target(random_label, tiny_data, "original")
    assert gradient_of_target(ablation, tiny_data, "original") > 1e-3 > gradient_of_target(ablation, tiny_data, "student")


def test_random_label_never_proposes_the_target_and_all_others_evenly():
    for target in (0, 1, 9):
        own, conditions = torch.full((9_000,), target), ClassConditions(target, 10, Codec())
        drawn = conditions.instead(own, torch.Generator().manual_seed(0))
        counts = torch.bincount(drawn, minlength=10)
        assert counts[target] == 0 and counts.sum() == 9000 and (counts[counts > 0] > 850).all() and len(counts) == 10


def test_saluns_mask_keeps_its_share_and_the_other_weights_stay_bit_identical(pipe, data):
    before = copy.deepcopy(pipe.unet.state_dict())
    after = unlearn(pipe, "salun", target="top", data=data, steps=5, batch_size=8, keep=0.3, progress=False, precision="fp32")
    changed = torch.cat([(after.unet.state_dict()[k] != before[k]).flatten() for k in before])
    assert 0.05 < changed.float().mean() <= 0.3 + 1e-4
    everything = unlearn(pipe, "random-label", target="top", data=data, steps=5, batch_size=8, progress=False, precision="fp32")
    all_changed = torch.cat([(everything.unet.state_dict()[k] != before[k]).flatten() for k in before])
    assert all_changed.float().mean() > 0.6


def test_saluns_mask_comes_off_when_training_ends(pipe, data):
    """Whoever measures or attacks the returned network sees every gradient, not those of the mask."""
    after = unlearn(pipe, "salun", target="top", data=data, steps=1, batch_size=8, keep=0.1, progress=False, precision="fp32")
    x_t = torch.randn(2, *latent_shape(pipe))
    after.unet(x_t, 500, class_labels=torch.tensor([0, 1])).sample.square().mean().backward()
    gradients = torch.cat([p.grad.flatten() for p in after.unet.parameters() if p.grad is not None])
    assert (gradients != 0).float().mean() > 0.5


def test_saluns_mask_is_where_the_gradient_of_the_forget_loss_is_large(tiny_data):
    """Of the toy's four weights, only the target's has a gradient on the forget set."""
    mask = get_method("salun", keep=0.25).prepare([toy_step(tiny_data)])["mask"]["weights"]
    assert mask.tolist() == [False, True, False, False]


def test_negative_gradient_is_unbounded_and_dimum_is_not(tiny_data):
    far = (0.1, 1e4, 0.3, 0.4)
    alone = get_method("negative-gradient", weight=1.0, retain_weight=0.0)
    assert alone.loss(toy_step(tiny_data, student=far)).item() < -1e6
    assert get_method("dimum").loss(toy_step(tiny_data, student=far)).item() > 0
