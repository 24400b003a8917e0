"""Methods on top of others, each against its formula by hand on the toy: what it adds, and what it leaves to its base."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from dimum_core.cli import main
from dimum_core.data import step_generator
from dimum_core.errors import SettingError, UnknownName
from dimum_core.models.cards import read_card
from dimum_core.unlearning import Method, follow, get_method, gradient, unlearn
from dimum_core.unlearning.base import ClassConditions, shifted
from dimum_core.unlearning.run import UnlearningObjective, method_data
from tests.unlearning.toys import direction, row_gradient, toy_step

START, NOW = (0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.0, 0.9)


def moved_step(tiny_data, method):
    """A step at NOW of a training that began at START."""
    state = method.prepare([toy_step(tiny_data, student=START)])
    step = toy_step(tiny_data, student=NOW)
    step.state.update(state)
    return step


@pytest.mark.parametrize("name", ["weight-distortion", "weight-distance", "cbft", "simulated-attack"])
def test_what_is_on_top_asks_for_what_its_base_needs_and_logs_what_it_traces(name, pipe, data):
    upon = get_method(name, base="dimum alternative=images count=4 weight=2.0")
    assert upon.needs >= {"retain", "alternative"} and (upon.under.weight, upon.alternative, upon.count) == (2.0, "images", 4)
    assert get_method(name, base="esd-x").trains == "attn2" and get_method(name, base="sfr-on").uses_total_steps
    assert get_method(name, base="salun mask_batches=3").prepare_batches == 3
    gone = unlearn(pipe, upon, target="top", data=data, steps=2, batch_size=6, progress=False)
    assert "memorisation loss" in gone.unlearning["log"] and gone.unlearning["settings"]["base"] == upon.base
    for wrong, error, message in (
        ("dimun", UnknownName, "no method 'dimun'. Did you mean 'dimum'"), ("uce", SettingError, "uce trains nothing"),
        ("dimum weight", SettingError, "is NAME=VALUE"), ("dimum weight=-1", SettingError, "weight of dimum must be"),
    ):
        with pytest.raises(error, match=message):
            get_method(name, base=wrong)


def test_distortion_is_its_noise_and_then_its_base(tiny_data):
    step, plain = toy_step(tiny_data), toy_step(tiny_data)
    noise = torch.randn(4, generator=step_generator(0, 5))
    method = get_method("weight-distortion", sigma=0.5)
    assert method.prepare([step]) == {}
    assert torch.allclose(step.model.weights.detach(), torch.tensor(START) + 0.5 * noise)
    plain.model.weights.data = step.model.weights.detach().clone()
    step.generator = step_generator(0, 5)
    assert method.loss(step).item() == get_method("finetune").loss(plain).item()
    masked = get_method("weight-distortion", base="salun keep=0.25", sigma=0.0).prepare([toy_step(tiny_data)])
    assert masked["mask"]["weights"].tolist() == [False, True, False, False]


def test_distance_is_a_root_mean_square_that_grows(tiny_data):
    method, base = get_method("weight-distance", weight=3.0), get_method("finetune")
    step = moved_step(tiny_data, method)
    rms = ((0.3**2 + 0.5**2) / 4 + 1e-8) ** 0.5
    expected = base.loss(toy_step(tiny_data, student=NOW)).item() - 3 * rms
    assert method.loss(moved_step(tiny_data, method)).item() == pytest.approx(expected, rel=1e-5)
    away = torch.tensor([0.0, 0.0, -0.3, 0.5]) / (4 * rms)
    assert torch.allclose(direction(method, step), direction(base, toy_step(tiny_data, student=NOW)) - 3 * away, atol=1e-5)
    still = toy_step(tiny_data, student=START)
    still.state.update(method.prepare([toy_step(tiny_data, student=START)]))
    assert torch.isfinite(direction(method, still)).all()  # a root of nothing has no slope of its own


@pytest.mark.parametrize("bound", [5.0, 1e-3])
def test_cbft_climbs_half_way_to_the_original_until_the_bound(bound, tiny_data):
    method = get_method("cbft", weight=2.0, bound=bound)
    step, again = moved_step(tiny_data, method), toy_step(tiny_data)
    (x_f, c_f), (x_r, c_r) = again.batch("forget"), again.batch("retain")
    labels, half_way = torch.cat([c_f, c_r]), torch.tensor([0.1, 0.2, 0.15, 0.65])
    x_t, eps, _ = again.noise(torch.cat([x_f, x_r]))
    barrier = float((eps - half_way[labels].view(-1, 1, 1, 1) * x_t).square().mean())
    climb = row_gradient(labels, x_t, eps, half_way) / 2 if barrier < bound else torch.zeros(4)
    again.model.weights.data = torch.tensor(NOW)
    retained = again.retained()  # from the same stream, after the barrier's noise
    value = method.loss(step)
    assert float(value.detach()) == pytest.approx(float(retained.detach()) - 2 * min(barrier, bound), rel=1e-4)
    assert torch.allclose(gradient(value, step.model), gradient(retained, again.model) - 2 * climb, rtol=1e-3, atol=1e-6)
    assert torch.allclose(step.model.weights.detach(), torch.tensor(NOW))
    assert barrier > 0.1 and (bound == 5.0) == bool(climb.any())


def attacked_by_hand(tiny_data, rate: float) -> torch.Tensor:
    """The toy's weights after two steps of Adam (0.9, 0.999), each on a batch that nobody else draws."""
    weights, m, v = torch.tensor(START), torch.zeros(4), torch.zeros(4)
    for k in (1, 2):
        theirs = replace(toy_step(tiny_data, student=weights.tolist()), index=2 * 10**6 + 2 * 5 + k - 1)
        slope = gradient(theirs.retained(), theirs.model)
        assert slope[1] == 0 and (slope[[0, 2]] != 0).all()  # no retained image is a target
        m, v = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
        weights = weights - rate * (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)
    return weights


def test_a_simulated_attack_looks_at_its_base_after_the_attackers_steps(tiny_data):
    method, base = get_method("simulated-attack", weight=0.25, attack_steps=2, attack_rate=0.05), get_method("dimum")
    after = attacked_by_hand(tiny_data, rate=0.05)
    assert torch.allclose(torch.tensor(START) + method.attack(toy_step(tiny_data)), after, atol=1e-5)
    step, here, there = toy_step(tiny_data), toy_step(tiny_data), toy_step(tiny_data, student=after.tolist())
    first = base.loss(there)
    here.generator = there.generator  # the stream goes on
    second, found = base.loss(here), method.loss(step)
    assert float(found.detach()) == pytest.approx(0.25 * float(first.detach()) + 0.75 * float(second.detach()), rel=1e-4)
    expected = 0.25 * gradient(first, there.model) + 0.75 * gradient(second, here.model)
    assert torch.allclose(gradient(found, step.model), expected, rtol=1e-3, atol=1e-6)
    assert torch.allclose(step.model.weights.detach(), torch.tensor(START))


def test_the_simulated_attacker_goes_downhill_on_retained_data_and_leaves_the_student(pipe, data):
    method = get_method("simulated-attack", attack_steps=5, attack_rate=3e-3)
    sets = method_data(method, data, pipe, "top", 0)
    objective = UnlearningObjective(method, pipe.unet, ClassConditions.of(pipe, "top"), sets, 6, (4, 4, 4), 4)
    before = nn.utils.parameters_to_vector(pipe.unet.parameters()).detach().clone()
    move = method.attack(objective.step(pipe.unet, 0, 0))

    def retained() -> float:
        return sum(objective.step(pipe.unet, 0, index).retained().item() for index in range(8))

    here = retained()
    with shifted(pipe.unet, move):
        assert retained() < here
    assert torch.equal(nn.utils.parameters_to_vector(pipe.unet.parameters()), before)


def in_the_loop(method, pipe, data) -> UnlearningObjective:
    sets, conditions = method_data(method, data, pipe, "top", 0), ClassConditions.of(pipe, "top")
    objective = UnlearningObjective(method, pipe.unet, conditions, sets, 6, (4, 4, 4), 4)
    objective.prepare(pipe.unet, 0)
    return objective


def test_a_mask_of_the_base_does_not_hold_for_the_simulated_attacker(pipe, data):
    method = get_method("simulated-attack", base="salun keep=0.1", attack_steps=1)
    objective = in_the_loop(method, pipe, data)
    with objective.masked(pipe.unet):
        assert float((method.attack(objective.step(pipe.unet, 0, 0)) != 0).float().mean()) > 0.9


@dataclass(frozen=True)
class Halved(Method):
    """Half of the gradient, by a mask."""

    own_gradient: bool = False
    needs: ClassVar[frozenset[str]] = frozenset({"retain"})

    def prepare(self, steps):
        return {"mask": {name: torch.full_like(weight, 0.5) for name, weight in steps[0].model.named_parameters()}}

    def loss(self, step):
        value = step.retained()
        return follow(gradient(value, step.model), step.model, value) if self.own_gradient else value


@pytest.mark.parametrize("own_gradient", [False, True])
def test_a_mask_is_applied_once(own_gradient, pipe, data):
    objective = in_the_loop(Halved(own_gradient), pipe, data)
    whole = gradient(objective(pipe.unet, 0, 0), pipe.unet)
    with objective.masked(pipe.unet):
        objective(pipe.unet, 0, 0).backward()
    assert torch.allclose(torch.cat([weight.grad.flatten() for weight in pipe.unet.parameters()]), whole / 2)


def test_each_is_run_from_the_shell_with_its_base(tmp_path):
    settings = ["--target", "3", "--steps", "1", "--set", "attack_steps=1"]
    base = "base=dimum alternative=images count=8"
    assert main(["unlearn", "digits", "--method", "simulated-attack", "--out", str(tmp_path), *settings, base]) == 0
    training = read_card(tmp_path)["training"]
    assert training["base"] == base[5:] and training["attack_steps"] == 1 and training["method"] == "SimulatedAttack"
