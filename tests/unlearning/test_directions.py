"""Methods that choose their own direction, each against its gradient by hand."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dimum_core.errors import SettingError, TrainingError, UnknownName
from dimum_core.unlearning import Step, follow, get_method, gradient, run, unlearn
from dimum_core.unlearning.base import ClassConditions, shifted
from dimum_core.unlearning.run import UnlearningObjective, method_data
from tests.unlearning.toys import direction, row_gradient, toy_step, vars_of


def test_a_followed_direction_is_the_gradient_and_the_value_is_kept(pipe):
    wanted = torch.randn(sum(p.numel() for p in pipe.unet.parameters()), generator=torch.Generator().manual_seed(0))
    loss = follow(wanted, pipe.unet, torch.tensor(0.25))
    assert loss.item() == 0.25 and torch.equal(gradient(loss, pipe.unet), wanted)


@pytest.mark.parametrize("size", [1e-6, 1e6])
def test_a_gradient_in_fp16_neither_vanishes_nor_overflows(size):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 512)), torch.randn(32, 64)
    loss = lambda: size * model(x).float().square().mean()  # noqa: E731
    exact = gradient(loss(), model)
    with torch.autocast("cpu", dtype=torch.float16):
        found = gradient(loss(), model)
    assert float((found == 0).float().mean()) < 0.01
    assert float((found - exact).norm() / exact.norm()) < 0.01


def test_a_method_that_takes_gradients_does_not_wait_for_another_process_forever(monkeypatch, pipe, data):
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        shared = nn.parallel.DistributedDataParallel(nn.Linear(2, 2))
        with pytest.raises(TrainingError, match="takes gradients itself.*run it in one process"):
            gradient(shared(torch.ones(1, 2)).sum(), shared)
    finally:
        torch.distributed.destroy_process_group()
    monkeypatch.setattr(run, "Accelerator", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(TrainingError, match="sfr-on counts its own steps.*run it in one process"):
        unlearn(pipe, "sfr-on", target="top", data=data, steps=2, batch_size=4, progress=False)


def test_shifted_weights_are_felt_in_every_precision_and_come_back_exactly(pipe):
    x, t, labels = torch.randn(2, 4, 4, 4), torch.tensor([10, 900]), torch.tensor([0, 1])
    weights = nn.utils.parameters_to_vector(pipe.unet.parameters()).detach().clone()
    shift = 0.05 * torch.randn(len(weights), generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = pipe.unet(x, t, labels).sample
        with shifted(pipe.unet, shift):
            assert not torch.allclose(pipe.unet(x, t, labels).sample, before, atol=1e-2)
        assert torch.equal(pipe.unet(x, t, labels).sample, before)
    assert torch.equal(nn.utils.parameters_to_vector(pipe.unet.parameters()), weights)


def test_selective_amnesias_fisher_information_and_anchor_are_their_formulas(tiny_data):
    method, step = get_method("selective-amnesia", fisher_weight=2.0, fisher_batches=1), toy_step(tiny_data)
    state = method.prepare([step])
    again = toy_step(tiny_data)
    x, labels = again.batch("retain")
    x_t, eps, _ = again.noise(x)
    expected = 6 * row_gradient(labels, x_t, eps, (0.1, 0.2, 0.3, 0.4)).square()
    assert torch.allclose(state["fisher"], expected, rtol=1e-4)
    moved = toy_step(tiny_data, student=(0.2, 0.2, 0.0, 0.4))
    moved.state.update(state)
    drift = expected[0] * 0.1**2 + expected[2] * 0.3**2
    assert method.anchor(moved).item() == pytest.approx(2.0 * 64 * float(drift), rel=1e-3)
    step.state.update(state)
    assert method.anchor(step).item() == 0


def test_erasediff_always_makes_its_share_of_progress_in_forgetting(tiny_data):
    for target in ("label", "uniform", "gaussian"):
        for eta in (0.1, 5.0):
            method, (a, b) = get_method("erasediff", towards=target, eta=eta), (toy_step(tiny_data), toy_step(tiny_data))
            g_f, g_r = gradient(method.forget_loss(a), a.model), gradient(a.retained(), a.model)
            weight = max(0.0, eta - float(g_r @ g_f) / float(g_f @ g_f))
            assert torch.allclose(direction(method, b), g_r + weight * g_f, rtol=1e-4, atol=1e-7)
            assert float(direction(method, toy_step(tiny_data)) @ g_f) >= (1 - 1e-4) * eta * float(g_f @ g_f)
    with pytest.raises(UnknownName, match="target of EraseDiff"):
        get_method("erasediff", towards="labels")


def test_erasediffs_targets_are_another_prediction_and_two_kinds_of_noise(tiny_data):
    for target, mean, spread in (("uniform", 0.5, 1 / 12), ("gaussian", 0.5, 1.0)):
        still = toy_step(tiny_data, student=(0.0, 0.0, 0.0, 0.0))  # predicts 0, so the loss is the target's second moment
        assert get_method("erasediff", towards=target).forget_loss(still).item() == pytest.approx(mean**2 + spread, abs=0.25)
    still = toy_step(tiny_data, student=(0.0, 0.0, 0.0, 0.0))
    assert get_method("erasediff", towards="label").forget_loss(still).item() == 0


def test_sfr_on_climbs_on_salient_weights_and_repairs_all(tiny_data):
    method = get_method("sfr-on", fisher_batches=1)
    state = method.prepare([toy_step(tiny_data)])
    assert state["salient"].tolist() == [False, True, False, True]  # the null row has no information in either set
    def at(index):
        return Step(**{**vars_of(toy_step(tiny_data)), "index": index, "total_steps": 10, "state": state})

    climb, repair = direction(method, at(2)), direction(method, at(3))
    assert climb[1] != 0 and climb[[0, 2, 3]].abs().max() == 0
    assert torch.allclose(repair, 64 * gradient((step := at(3)).retained(), step.model), rtol=1e-5)
    assert direction(method, at(8))[1].abs() < climb[1].abs()
    x, _ = (step := at(2)).batch("forget")
    x_t, eps, _ = step.noise(x)
    each = (eps - 0.2 * x_t).square().flatten(1).mean(1)
    weight = each**-0.5 / (each**-0.5).mean()
    assert method.adaptive_loss(at(2)).item() == pytest.approx(float((weight * each).mean()), rel=1e-4)


def test_scissorhands_starts_its_share_anew_and_no_step_lowers_the_forget_loss(pipe, data):
    before = {name: parameter.detach().clone() for name, parameter in pipe.unet.named_parameters()}
    method = get_method("scissorhands", share=0.1, batches=2)
    sets = method_data(method, data, pipe, "top", 0)
    objective = UnlearningObjective(method, pipe.unet, ClassConditions.of(pipe, "top"), sets, 6, (4, 4, 4), 4)
    objective.prepare(pipe.unet, seed=0)
    changed = {name: (now != before[name]).flatten() for name, now in pipe.unet.named_parameters()}
    attention = [name for name in before if ".to_" in name and name.endswith("weight")]
    assert 0.09 < torch.cat([changed.pop(name) for name in attention]).float().mean() <= 0.1 + 1e-3
    assert not any(c.any() for c in changed.values())  # scales of normalisation, say: a channel whose scale is 0 is dead
    with pytest.raises(SettingError, match="self-attention"):
        method.prepare([replace(objective.step(pipe.unet, 0, 0), model=nn.Conv2d(4, 4, 1))])
    memory = objective.state["memory"]
    steps = [objective.step(pipe.unet, 0, i) for i in range(6)]
    free = [gradient(s.retained() - 0.05 * s.denoising(*s.batch("forget")), s.model) @ memory for s in steps]
    assert min(free) < 0  # the projection has something to do
    for i in range(6):
        d = direction(method, objective.step(pipe.unet, 0, i))
        assert float(d @ memory) >= -1e-4 * float(d.norm() * memory.norm())


def test_munbas_step_is_the_nash_bargain_and_halves_the_angle():
    generator = torch.Generator().manual_seed(0)
    for scale in (1.0, 100.0):
        g = torch.stack([torch.randn(30, generator=generator), scale * torch.randn(30, generator=generator)])
        alpha = torch.stack(get_method("munba").bargain(*g))
        assert torch.allclose(g @ g.T @ alpha, 1 / alpha, rtol=1e-4)
        step = alpha @ g
        assert (g @ step / g.norm(dim=1)).diff().abs() < 1e-4
    assert get_method("munba").bargain(g[0], -g[0]) == (1.0, 0.5)


def test_sharpness_aware_looks_uphill(tiny_data):
    flat = get_method("sharpness-aware", radius=0.0, retain_weight=0.0)
    plain = get_method("random-label", retain_weight=0.0)
    assert torch.allclose(direction(flat, toy_step(tiny_data)), direction(plain, toy_step(tiny_data)), rtol=1e-5)
    sharp = get_method("sharpness-aware", radius=0.2, retain_weight=0.0)
    assert sharp.loss(toy_step(tiny_data)) > flat.loss(toy_step(tiny_data))
    step = toy_step(tiny_data)
    x, labels = step.batch("forget")
    x_t, _, _ = step.noise(x)
    rows = torch.tensor([0.1, 0.2, 0.3, 0.4])
    wanted = rows[step.others(6)].view(-1, 1, 1, 1) * x_t
    here = row_gradient(labels, x_t, wanted, rows)
    expected = row_gradient(labels, x_t, wanted, rows + 0.2 * here / here.norm())
    assert torch.allclose(direction(sharp, toy_step(tiny_data)), expected, rtol=1e-4)
