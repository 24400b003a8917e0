"""Methods that forget what a prompt names."""

from __future__ import annotations

import copy

import pytest
import torch

from dimum_core import unlearn
from dimum_core.errors import TrainingError
from dimum_core.models.conditions import conditions_of
from dimum_core.pretraining import new_model
from dimum_core.unlearning import METHODS
from dimum_core.unlearning.base import Step
from dimum_core.unlearning.uce import UCE, closed_form, key_value_layers

FEW = {"num_inference_steps": 2}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"sealed"}))  # which seals a label's own row of weights
def test_every_method_forgets_a_style_by_prompt(name, prompted, shapes):
    before = {k: v.clone() for k, v in prompted.unet.state_dict().items()}
    words = {k: v.clone() for k, v in prompted.text_encoder.state_dict().items()}
    forgetful = unlearn(prompted, name, target="outline", data=shapes, steps=2, batch_size=4, learning_rate=1e-3, progress=False)
    after = forgetful.unet.state_dict()
    changed = {k for k in after if not torch.equal(after[k], before[k])}
    assert changed and all(torch.equal(before[k], v) for k, v in prompted.unet.state_dict().items())
    assert all(torch.equal(words[k], v) for k, v in forgetful.text_encoder.state_dict().items())
    if name == "esd-x":
        assert all("attn2" in k for k in changed)
    if name == "uce":
        assert all(k.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for k in changed)
    assert forgetful.unlearning["settings"]["target"] == "outline" and len(forgetful.unlearning["forget_set"]) == 24


def test_what_is_edited_at_once_is_looked_at_too(prompted, shapes):
    """It takes no step, after which it could be: `evaluate` and `until` were passed over without a word."""
    found = []

    def look(step, forgetful):
        weight, before = (key_value_layers(pipe.unet)[0].weight for pipe in (forgetful, prompted))
        found.append((step, bool((weight != before).any())))
        return {"looks": len(found)}

    gone = unlearn(prompted, "uce", target="outline", data=shapes, evaluate=look, progress=False)
    assert found == [(0, True)] and gone.unlearning["log"].to_dict("records") == [{"step": 0, "looks": 1}]
    assert gone.unlearning["steps"] == 0


def test_methods_for_words_refuse_labels(tiny_preset, tiny_data):
    from dimum_core.data import Dataset

    pipe = new_model(tiny_preset, tiny_data, 0)[1]
    for name in ("uce", "esd-x"):
        with pytest.raises(TrainingError, match="asked by labels"):
            unlearn(pipe, name, target="top", data=Dataset(tiny_data, tiny_data), steps=1)


def test_dimum_memorises_a_feature_under_the_caption_that_names_it(prompted, shapes):
    """Every image of another style is denoised under its own caption with the forgotten style in it, and nothing else changes."""
    method = METHODS["dimum"]()
    conditions = conditions_of(prompted, "outline")
    alternative = shapes.train.only("filled")
    step = Step(prompted.unet, prompted.unet, conditions, {"alternative": alternative}, 8, (48, 4, 4), seed=0, index=0)
    asked = []
    original = step.denoising

    def denoising(x, condition):
        asked.extend(conditions.caption(n) for n in condition.tolist())
        return original(x, condition)

    step.denoising = denoising
    method.memorisation(step)
    _, own = step.batch("alternative")
    assert asked == [conditions.caption(n).replace("filled", "outline") for n in own.tolist()]


def test_uce_solves_its_normal_equations():
    torch.manual_seed(0)
    weight, erased, anchors, kept = torch.randn(5, 4).double(), *(torch.randn(n, 4).double() for n in (7, 7, 9))
    edited = closed_form(weight, erased, anchors, kept, 0.3).requires_grad_(True)
    loss = (erased @ edited.T - anchors @ weight.T).square().sum() + (kept @ edited.T - kept @ weight.T).square().sum()
    (loss + 0.3 * (edited - weight).square().sum()).backward()
    assert edited.grad.abs().max() < 1e-9
    same = closed_form(weight, erased, erased, kept, 0.3)
    assert torch.allclose(same, weight)


def test_uce_sends_the_target_to_its_anchor(prompted):
    conditions = conditions_of(prompted, "outline")
    student = copy.deepcopy(prompted.unet)
    step = Step(student, prompted.unet, conditions, {}, 4, (48, 4, 4), 0, 0)
    UCE(preserve=1e-3).edit(step)
    forget, _ = conditions.every_caption()
    old, new = key_value_layers(prompted.unet)[0].weight, key_value_layers(student)[0].weight
    target, anchor = conditions.embeddings(forget), conditions.embeddings(conditions.anchored(forget))
    before = (target @ old.T - anchor @ old.T).square().mean()
    assert (target @ new.T - anchor @ old.T).square().mean() < 0.7 * before
