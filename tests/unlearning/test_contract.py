"""What a method must have, what it is given for that, and what is refused."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import ClassVar

import pytest
from torch import nn

from dimum_core.data import Dataset
from dimum_core.errors import CheckpointError, DataError, SettingError, TrainingError, UnknownName
from dimum_core.unlearning import METHODS, Method, get_method, ranged, register, unlearn
from dimum_core.unlearning.base import ClassConditions
from dimum_core.unlearning.run import UnlearningObjective, method_data
from tests.unlearning.toys import latent_shape

WITH_LABELS = sorted(name for name, method in METHODS.items() if not method.prompts_only)


@pytest.mark.parametrize("name", WITH_LABELS)
def test_a_method_gets_the_data_it_asked_for_and_no_more(name, pipe, data):
    method = get_method(name)
    given = method_data(method, data, pipe, "top", seed=0)
    assert set(given) == set(method.needs)
    if "forget" not in method.needs:
        assert all((images.labels != 1).all() or kind == "alternative" for kind, images in given.items())
        hashes = set(data.train.only("top").item_hashes.tolist())
        assert not any(hashes & set(images.item_hashes.tolist()) for images in given.values())
    step = UnlearningObjective(method, pipe.unet, ClassConditions.of(pipe, "top"), given, 4, (4, 4, 4), 1).step(pipe.unet, 0, 0)
    for kind in {"forget", "retain", "alternative"} - set(method.needs):
        with pytest.raises(DataError, match=f"did not ask for {kind} data"):
            step.batch(kind)


def prepared_on(method, pipe) -> list[int]:
    """The numbers of the steps that a method is given to prepare on."""
    seen = []
    looks = copy.copy(method)
    object.__setattr__(looks, "prepare", lambda steps: seen.extend(step.index for step in steps) or {})
    objective = UnlearningObjective(looks, pipe.unet, ClassConditions.of(pipe, "top"), {}, 4, latent_shape(pipe), 1)
    objective.prepare(pipe.unet, seed=0)
    return seen


def test_a_method_prepares_on_as_many_batches_as_it_asks_for(pipe):
    for name, setting, more in (
        ("salun", "mask_batches", 0), ("selective-amnesia", "fisher_batches", 0), ("sfr-on", "fisher_batches", 0),
        ("scissorhands", "batches", 0), ("sealed", "rounds", 1),
    ):
        for batches in (1, 20):
            steps = prepared_on(get_method(name, **{setting: batches}), pipe)
            assert steps == [10**6 + i for i in range(batches + more)], name
    assert len(prepared_on(get_method("finetune"), pipe)) == 16


def test_each_of_several_processes_refuses_a_loss_that_is_none(pipe, data):
    """Or those that did not look would wait for the one that did."""
    method = copy.copy(get_method("finetune"))
    object.__setattr__(method, "loss", lambda step: None)
    sets = method_data(method, data, pipe, "top", seed=0)
    conditions = ClassConditions.of(pipe, "top")
    objective = UnlearningObjective(method, pipe.unet, conditions, sets, 4, latent_shape(pipe), 1, processes=2)
    for batch in (0, 1):
        with pytest.raises(TrainingError, match="must be one number that depends on the weights"):
            objective(pipe.unet, seed=0, index=batch)
    assert objective(pipe.unet, seed=0, index=2) is None, "not in every step"


@dataclass(frozen=True)
class Decays(Method):
    """Reads the number of steps, in a function within its loss, where reading bytecode of methods had not found it."""

    needs: ClassVar[frozenset[str]] = frozenset({"retain"})

    def loss(self, step):
        def share():
            return 1 - step.index / step.steps

        return share() * step.retained()


@dataclass(frozen=True)
class SaysSo(Decays):
    uses_total_steps: ClassVar[bool] = True


def test_a_method_that_reads_the_number_of_steps_must_say_so(pipe, data, tmp_path):
    settings = {"target": "top", "data": data, "batch_size": 6, "progress": False, "precision": "fp32"}
    with pytest.raises(TrainingError, match="uses_total_steps = True"):
        unlearn(pipe, Decays(), steps=2, **settings)
    unlearn(pipe, SaysSo(), steps=2, out=tmp_path, **settings)
    with pytest.raises(CheckpointError, match="was made with total_steps = 2, and 4 is asked for now"):
        unlearn(pipe, SaysSo(), steps=4, out=tmp_path, resume=True, **settings)


def test_a_method_needs_no_name_to_be_refused_or_to_be_shown(pipe, data, capsys):
    @dataclass(frozen=True)
    class Wordy:  # extends nothing, and is not registered
        prompts_only: ClassVar[bool] = True

        def loss(self, step):
            return step.retained()

    settings = {"target": "top", "data": data, "steps": 1, "batch_size": 6}
    with pytest.raises(TrainingError, match="Wordy changes what words do, and this pipeline is asked by labels"):
        unlearn(pipe, Wordy(), progress=False, **settings)
    unlearn(pipe, SaysSo(), progress=True, **settings)
    assert "unlearning by SaysSo" in capsys.readouterr().err


def test_a_method_of_a_users_own_is_on_an_equal_footing(pipe, data):
    @register("shrink")
    @dataclass(frozen=True)
    class Shrink:
        weight: float = ranged(1.0, high=3.0)
        needs: ClassVar[frozenset[str]] = frozenset()

        def loss(self, step):
            return self.weight * sum(p.square().sum() for p in step.model.parameters())

    try:
        shrunk = unlearn(pipe, "shrink", target="top", data=data, steps=3, learning_rate=1e-2, weight=2.0, progress=False)
        with pytest.raises(SettingError, match="weight of shrink must be a finite number at most 3.0, not 4.0"):
            unlearn(pipe, "shrink", target="top", data=data, steps=3, weight=4.0)
    finally:
        del METHODS["shrink"]
    norm = lambda p: float(nn.utils.parameters_to_vector(p.unet.parameters()).norm())  # noqa: E731
    assert norm(shrunk) < norm(pipe) and shrunk.unlearning["settings"]["weight"] == 2.0


def test_refusals(pipe, data):
    with pytest.raises(UnknownName, match="no method 'dimun'. Did you mean 'dimum'"):
        unlearn(pipe, "dimun", target="top", data=data)
    with pytest.raises(UnknownName, match="no class 'tpo'. Did you mean 'top'"):
        unlearn(pipe, "dimum", target="tpo", data=data)
    with pytest.raises(UnknownName, match="kind of alternative data 'clas'"):
        unlearn(pipe, "dimum", target="top", data=data, alternative="clas")
    with pytest.raises(TrainingError, match="hyper-parameters weight, alternative, count, t_min, t_max, but was given lambd"):
        unlearn(pipe, "dimum", target="top", data=data, lambd=2.0)
    with pytest.raises(ValueError, match="needs everything"):
        register("x")(type("X", (), {"needs": {"everything"}}))
    with pytest.raises(SettingError, match="weight, stpes: a method that is given whole"):
        unlearn(pipe, METHODS["dimum"](), target="top", data=data, weight=2.0, stpes=3)
    with pytest.raises(SettingError, match="The name 'esd' belongs to a method of dimum_core.unlearning.esd"):
        register("esd")(type("Copied", (), {"needs": set()}))
    assert METHODS["esd"].__module__ == "dimum_core.unlearning.esd"
    with pytest.raises(SettingError, match="plain is no frozen dataclass"):
        register("plain")(type("Plain", (), {"needs": frozenset()}))
    with pytest.raises(SettingError, match="plain has no `loss`"):
        register("plain")(dataclass(frozen=True)(type("Plain", (Method,), {})))
    assert "plain" not in METHODS
    for wrong in (METHODS["dimum"], Method(), dataclass(frozen=True)(type("Plain", (), {}))()):
        with pytest.raises(SettingError, match="method must be the name of a method, or a frozen dataclass with a `loss`"):
            unlearn(pipe, wrong, target="top", data=data)
    with pytest.raises(SettingError, match="weight of dimum must be"):
        unlearn(pipe, METHODS["dimum"](weight=-1.0), target="top", data=data)
    empty = Dataset(data.train.without("top"), data.test)
    with pytest.raises(DataError, match="has no forget images for the target 'top'"):
        unlearn(pipe, "random-label", target="top", data=empty)


@pytest.mark.parametrize(("method", "wrong"), [
    ("salun", {"keep": -0.5}), ("salun", {"keep": 50.0}), ("salun", {"mask_batches": 0}), ("scissorhands", {"share": 2.0}),
    ("scissorhands", {"batches": 0}), ("selective-amnesia", {"fisher_batches": 0}), ("esd", {"sampling_steps": 0}),
    ("esd", {"sampling_steps": 2000}), ("dimum", {"weight": -1.0}), ("dimum", {"count": 0}), ("sharpness-aware", {"radius": -0.1}),
])
def test_a_hyper_parameter_out_of_range_is_refused_by_name(method, wrong):
    name = next(iter(wrong))
    with pytest.raises(SettingError, match=f"{name} of {method} must be"):
        get_method(method, **wrong)
