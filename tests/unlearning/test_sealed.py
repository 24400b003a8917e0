"""Sealed memorisation: which weights are private, the seal's first step by hand, and that no attack moves what was sealed."""

from __future__ import annotations

import copy

import pytest
import torch

from dimum_core import load_dataset, load_pipeline, relearn, unlearn
from dimum_core.errors import TrainingError
from dimum_core.models.codec import Codec
from dimum_core.models.conditions import ClassConditions
from dimum_core.unlearning import get_method, gradient
from dimum_core.unlearning.sealed import Sealed
from tests.unlearning.toys import Step, direction, row_gradient, toy_step, vars_of


def at(tiny_data, index, model=None, state=None):
    step = toy_step(tiny_data)
    return Step(**{**vars_of(step), "index": index, "model": model or step.model, "state": state or {}})


def test_only_the_targets_weight_is_private(tiny_data):
    method = get_method("sealed")
    assert method.private_weights(toy_step(tiny_data)).tolist() == [False, True, False, False]
    nothing = toy_step(tiny_data)
    nothing.model.weights.data[1] = 0.0
    nothing.batch = lambda kind: (torch.zeros(6, 4, 4, 4), torch.tensor([0, 2, 0, 2, 0, 2]))
    nothing.conditions = ClassConditions(0, 3, Codec(2))  # a target that the retained data hold: every weight is shared
    with pytest.raises(TrainingError, match="nothing to seal"):
        method.private_weights(nothing)


def test_the_seals_first_step_is_adams_and_goes_downhill(tiny_data):
    method, steps = get_method("sealed", rounds=1, rate=0.25), [at(tiny_data, 7), at(tiny_data, 8)]
    model = steps[0].model
    steps[1].model = model
    x, _ = (again := at(tiny_data, 8)).batch("alternative")
    x_t, eps, _ = again.noise(x)
    slope = float(row_gradient(torch.ones(6).long(), x_t, eps, (0.1, 0.2, 0.3, 0.4))[1])
    state = method.prepare(steps)
    moved = 0.2 - 0.25 * 0.2 * (1 if slope > 0 else -1)  # Adam's first step is its rate, against the sign of the slope
    assert model.weights.tolist() == pytest.approx([0.1, moved, 0.3, 0.4], abs=1e-6)
    assert (model.weights.detach() + state["back"]).tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=1e-6)
    assert state["mask"]["weights"].tolist() == [True, False, True, True]


def test_as_many_rounds_are_run_as_were_asked_for(monkeypatch):
    """Fifteen at most had been, whatever the record said. Each round takes one gradient of the memorised alternative."""
    pipe, data, seen = load_pipeline("digits"), load_dataset("digits"), []
    real = Sealed.memorisation
    monkeypatch.setattr(Sealed, "memorisation", lambda self, step: seen.append(step.index) or real(self, step))
    unlearn(pipe, "sealed", target="3", data=data, steps=1, batch_size=2, rounds=20, progress=False)
    assert [index - 10**6 for index in seen if index >= 10**6][:21] == list(range(21))


def test_the_rest_is_trained_under_the_old_row(tiny_data):
    """The gradient is DiMUM's at the old weight, although the sealed weight is elsewhere."""
    step = at(tiny_data, 5, state={"back": torch.tensor([0.0, -0.6, 0.0, 0.0])})
    step.model.weights.data = torch.tensor([0.1, 0.8, 0.3, 0.4])
    found = direction(get_method("sealed", weight=3.0), step)
    again = at(tiny_data, 5)
    x, _ = again.batch("alternative")
    x_t, eps, _ = again.noise(x)
    expected = 3 * row_gradient(torch.ones(6).long(), x_t, eps, (0.1, 0.2, 0.3, 0.4))
    expected += gradient(again.retained(), again.model)  # from the same stream, after the alternative's noise
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-7)
    assert step.model.weights.tolist() == pytest.approx([0.1, 0.8, 0.3, 0.4])


def test_no_attack_moves_the_sealed_row_and_its_label_stays_silent():
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    before = copy.deepcopy(pipe.unet.class_embedding.weight.detach())
    sealed = unlearn(pipe, "sealed", target="3", data=data, steps=2, progress=False)
    row = sealed.unet.class_embedding.weight.detach()[3].clone()
    assert (row - before[3]).norm() > 0.3 * before[3].norm()
    settings = {"steps": 3, "learning_rate": 3e-4, "samples": 16, "num_inference_steps": 5, "progress": False}
    attack = relearn(sealed, data.train.without("3"), **settings)
    after = attack.pipeline.unet.class_embedding.weight.detach()
    assert torch.equal(after[3], row) and not torch.equal(after[4], sealed.unet.class_embedding.weight.detach()[4])
    assert attack.curve["target accuracy"].max() <= 0.25
