"""A range of timesteps: every method forgets in it, and retains at all."""

from __future__ import annotations

import pytest
import torch

from dimum_core.data import Dataset
from dimum_core.errors import CheckpointError, SettingError, TrainingError
from dimum_core.models.conditions import ClassConditions
from dimum_core.pretraining import new_model
from dimum_core.unlearning import METHODS, get_method, unlearn
from dimum_core.unlearning.run import UnlearningObjective, method_data
from tests.unlearning.toys import latent_shape

NOWHERE = ("finetune", "weight-distortion", "weight-distance")  # unless they have a base that does
FORGETS = sorted(name for name, method in METHODS.items() if not method.prompts_only and name not in NOWHERE)


@pytest.mark.parametrize("name", FORGETS)
def test_a_method_forgets_within_its_range_and_retains_everywhere(name, pipe, data):
    method, seen = get_method(name, t_min=900), []
    sets, conditions = method_data(method, data, pipe, "top", 0), ClassConditions.of(pipe, "top")
    objective = UnlearningObjective(method, pipe.unet, conditions, sets, 6, latent_shape(pipe), 4)

    def look(network, arguments, named):
        labels = named["class_labels"] if "class_labels" in named else arguments[2]
        seen.append((labels, torch.as_tensor(arguments[1]).expand(len(labels))))

    pipe.unet.register_forward_pre_hook(look, with_kwargs=True)
    objective.prepare(pipe.unet, seed=0)
    measured = 2 if name == "sealed" else len(seen)  # which then forgets
    del seen[:measured]
    for index in range(4):
        objective(pipe.unet, seed=0, index=index)
    forgetting = torch.cat([t for labels, t in seen if (labels == 1).any()])
    assert len(forgetting) and forgetting.min() >= 900
    retained = [t for labels, t in seen if not (labels == 1).any()]
    assert name == "esd" or min(int(t.min()) for t in retained) < 500


def test_the_range_of_what_is_on_top_holds_for_a_base_that_forgets_before_the_first_step():
    under = get_method("weight-distortion", base="cbft base=sealed", t_min=900, t_max=950).under.under
    assert (under.t_min, under.t_max) == (900, 950)


def test_a_range_that_nothing_looks_at_is_refused(pipe, data, tiny_preset, prompted, shapes):
    settings = {"target": "top", "data": data, "steps": 1, "batch_size": 6, "progress": False}
    for name in NOWHERE:
        with pytest.raises(TrainingError, match=f"{name} forgets at no timesteps of its own: leave t_min and t_max"):
            unlearn(pipe, name, t_max=500, **settings)
    with pytest.raises(SettingError, match="weight-distance has a t_min and a t_max, which hold for its base too"):
        unlearn(pipe, "weight-distance", base="dimum t_max=500", **settings)
    with pytest.raises(TrainingError, match="uce forgets at no timesteps of its own"):
        unlearn(prompted, "uce", t_min=500, **{**settings, "target": "outline", "data": shapes})
    with pytest.raises(TrainingError, match=r"No timestep of \[999, 749, 499, 249\] is from 300 to 400: widen t_min and t_max"):
        unlearn(pipe, "esd", sampling_steps=4, t_min=300, t_max=401, **settings)
    with pytest.raises(SettingError, match="t_min of dimum must be below its t_max, but they are 600 and 400"):
        unlearn(pipe, "dimum", t_min=600, t_max=400, **settings)
    for wrong in ({"t_min": -1}, {"t_max": 1001}, {"t_min": 0.5}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))} of dimum must be"):
            unlearn(pipe, "dimum", **wrong, **settings)


def test_the_range_is_recorded_and_makes_another_training(tiny_preset, tiny_data, tmp_path):
    pipe, data = new_model(tiny_preset, tiny_data, 0)[1], Dataset(tiny_data, tiny_data)
    settings = {"target": "top", "data": data, "steps": 1, "batch_size": 6, "progress": False, "out": tmp_path}
    late = unlearn(pipe, "dimum", t_min=500, **settings)
    assert late.unlearning["settings"]["t_min"] == 500 and late.unlearning["settings"]["t_max"] == 1000
    with pytest.raises(CheckpointError, match="was made with t_min = 500, and 0 is asked for now"):
        unlearn(pipe, "dimum", resume=True, **settings)
