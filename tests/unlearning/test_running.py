"""The one call that runs every method: it repeats itself, resumes, stops and leaves its input alone."""

from __future__ import annotations

import contextlib
import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dimum_core import load_dataset, load_pipeline, relearn
from dimum_core.data import draw_batch
from dimum_core.errors import CheckpointError, SettingError
from dimum_core.judges.classifier import Judge
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.denoiser import build_denoiser
from dimum_core.models.history import with_unet
from dimum_core.models.networks import placed
from dimum_core.unlearning import METHODS, get_method, unlearn
from dimum_core.unlearning import run as run_module
from dimum_core.unlearning.alternatives import ALTERNATIVES, build_alternative
from dimum_core.unlearning.choosing import named, setting
from dimum_core.unlearning.student import evaluation_interval, student
from tests.unlearning.toys import toy_step


def test_unlearning_stops_at_a_wanted_level_and_dimum_traces_its_convergence():
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    settings = {"target": "3", "data": data, "learning_rate": 1e-3, "batch_size": 32, "evaluate_every": 5, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        early = unlearn(pipe, "random-label", steps=60, until=0.5, **settings)
    measured = early.unlearning["log"]["UA"].dropna()
    assert early.unlearning["steps"] < 60 and measured.iloc[-1] >= 0.5 and (measured.iloc[:-1] < 0.5).all()
    memorised = unlearn(pipe, "dimum", steps=20, **settings).unlearning
    trace = memorised["log"]["memorisation loss"].dropna()
    assert memorised["steps"] == 20 and len(trace) == 4 and trace.iloc[-1] < trace.iloc[0]
    assert memorised["log"]["ordinary loss"].dropna().std() < 0.01


WITH_LABELS = sorted(name for name, method in METHODS.items() if not method.prompts_only)


@pytest.mark.parametrize("name", WITH_LABELS)
def test_every_method_runs_leaves_its_input_alone_and_repeats_itself(name, pipe, data):
    before = copy.deepcopy(pipe.unet.state_dict())
    runs = [
        unlearn(pipe, name, target="top", data=data, steps=3, batch_size=6, learning_rate=1e-3, progress=False) for _ in range(2)
    ]
    assert all(torch.equal(before[k], v) for k, v in pipe.unet.state_dict().items())
    a, b = (run.unet.state_dict() for run in runs)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], before[k]) for k in a)
    assert runs[0].unlearning["target"] == "top" and runs[0].unlearning["log"]["loss"].count() == 3
    assert runs[0](["left"], num_inference_steps=2).images[0].size == (8, 8)


@pytest.mark.parametrize("name", ["dimum", "salun", "sealed", "esd", "weight-distortion", "simulated-attack"])
def test_unlearning_resumes_bit_for_bit(name, pipe, data, tmp_path):
    settings = {"target": "top", "data": data, "batch_size": 6, "progress": False, "precision": "fp32"}
    whole = unlearn(pipe, name, steps=6, **settings)
    unlearn(pipe, name, steps=3, out=tmp_path, **settings)
    resumed = unlearn(pipe, name, steps=6, out=tmp_path, resume=True, **settings)
    a, b = whole.unet.state_dict(), resumed.unet.state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_who_says_when_to_stop_is_not_exchanged_on_the_way(pipe, data, tmp_path):
    one, other = (Judge(8, 1, pipe.class_names, (4,), (width,)) for width in (2, 3))
    settings = {"target": "top", "data": data, "batch_size": 6, "out": tmp_path, "until": 0.0, "progress": False}
    unlearn(pipe, "finetune", steps=2, judge=one, **settings)
    unlearn(pipe, "finetune", steps=3, judge=one, resume=True, **settings)
    with pytest.raises(CheckpointError, match="was made with judge other than is given now"):
        unlearn(pipe, "finetune", steps=3, judge=other, resume=True, **settings)
    unlearn(pipe, "finetune", steps=3, resume=True, **settings | {"until": None})  # nobody is asked any more


def test_a_method_that_looks_at_the_number_of_steps_is_not_gone_on_with_to_another(pipe, data, tmp_path):
    settings = {"target": "top", "data": data, "batch_size": 6, "out": tmp_path, "progress": False, "precision": "fp32"}
    unlearn(pipe, "sfr-on", steps=2, **settings)
    unlearn(pipe, "sfr-on", steps=2, resume=True, **settings)
    with pytest.raises(CheckpointError, match="was made with total_steps = 2, and 4 is asked for now"):
        unlearn(pipe, "sfr-on", steps=4, resume=True, **settings)


def test_who_says_when_to_stop_is_known_before_anything_takes_long(pipe, data, monkeypatch):
    monkeypatch.setattr(run_module, "method_data", lambda *_: pytest.fail("data were made first"))
    with pytest.raises(CheckpointError, match="give it with --judge"):
        unlearn(pipe, "finetune", target="top", data=data, steps=4, until=0.5, progress=False)
    monkeypatch.undo()
    judge = Judge(8, 1, pipe.class_names, (4,), (2,))
    settings = {"target": "top", "data": data, "steps": 4, "batch_size": 6, "evaluate_every": 1, "progress": False}
    assert unlearn(pipe, "finetune", until=0.0, judge=judge, **settings).unlearning["steps"] == 1


def test_a_model_that_never_drew_the_target_is_no_proof_of_forgetting():
    never, data = load_pipeline("digits-without-3"), load_dataset("digits")
    with pytest.warns(UserWarning, match=r"sees '3' in \d% of 32 samples .* so reaching a UA of 0.9 says nothing"):
        unlearn(never, "random-label", target="3", data=data, steps=1, until=0.9, batch_size=8, progress=False)


def test_another_models_unlearning_is_not_gone_on_with(pipe, data, tmp_path, tiny_preset):
    settings = {"target": "top", "data": data, "batch_size": 6, "progress": False, "precision": "fp32"}
    unlearn(pipe, "dimum", steps=2, out=tmp_path, **settings)
    other = build_pipeline(build_denoiser(tiny_preset, 3, 1, seed=5).eval(), tiny_preset, ("left", "top", "checks"))
    with pytest.raises(CheckpointError, match="was made with start other than is given now"):
        unlearn(other, "dimum", steps=4, out=tmp_path, resume=True, **settings)


@pytest.mark.parametrize("change", [{"beta_schedule": "squaredcos_cap_v2"}, {"prediction_type": "v_prediction"}])
def test_a_training_at_other_noise_levels_is_not_gone_on_with(change, pipe, data, tmp_path):
    settings = {"target": "top", "batch_size": 6, "progress": False, "precision": "fp32"}
    judge, few = Judge(8, 1, pipe.class_names, (4,), (2,)), {"samples": 2, "num_inference_steps": 2}
    calls = {
        "unlearned": lambda pipe, **more: unlearn(pipe, "dimum", data=data, **settings, **more),
        "attacked": lambda pipe, **more: relearn(pipe, data.train.without("top"), judge=judge, **settings, **few, **more),
    }
    other = with_unet(pipe, pipe.unet)
    other.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config, **change)
    for name, call in calls.items():
        call(pipe, steps=1, out=tmp_path / name)
        with pytest.raises(CheckpointError, match="was made with (noise_levels|prediction_type) "):
            call(other, steps=2, out=tmp_path / name, resume=True)
        call(pipe, steps=2, out=tmp_path / name, resume=True)


@pytest.mark.parametrize("kind", ALTERNATIVES)
def test_alternative_data_are_what_they_say_and_never_the_target(kind, pipe, tiny_data):
    retain = tiny_data.without("top")
    made = build_alternative(kind, 20, retain, pipe, "top", seed=0)
    again = build_alternative(kind, 20, retain, pipe, "top", seed=0)
    assert made.digest == again.digest and len(made) == (16 if kind == "images" else 20)
    assert 1 not in made.labels.tolist() and len(build_alternative(kind, 4, retain, pipe, "top", seed=0)) == 4
    if kind == "class":
        assert len(made.labels.unique()) == 1
    if kind == "mixed":
        assert len(made.labels.unique()) == 2
    if kind in ("class", "mixed", "images"):
        assert set(made.item_hashes.tolist()) <= set(retain.item_hashes.tolist())


def test_the_name_of_an_anchor_may_be_a_number():
    assert named("concept-ablation anchor=3").anchor == "3" and get_method("concept-ablation", anchor=3).anchor == 3
    assert setting("weight=2") == ("weight", 2) and setting("anchor=None") == ("anchor", None) and setting("anchor=cat")[1] == "cat"


def test_an_autoencoder_encodes_where_the_network_trains_and_comes_back():
    at = []
    vae = SimpleNamespace(device=torch.device("cpu"), to=lambda device: at.append(device) or setattr(vae, "device", device))
    vae.modules = lambda: [vae]
    with contextlib.suppress(KeyboardInterrupt), placed([vae], torch.device("meta")):
        assert at == [torch.device("meta")]
        raise KeyboardInterrupt
    assert at[1:] == [torch.device("cpu")]
    vae._hf_hook = 1  # moved by accelerate
    for stays in ([], [vae]):
        with placed(stays, torch.device("meta")):
            assert len(at) == 2


def test_unlearning_and_attacks_mean_the_same_by_their_common_settings(pipe, data):
    """`evaluate_every=0` had been refused by the one and had meant "the default" to the other."""
    judge, auxiliary = Judge(8, 1, pipe.class_names, (4,), (2,)), data.train.without("top")
    calls = {
        "unlearn": lambda **more: unlearn(pipe, "finetune", target="top", data=data, **more),
        "relearn": lambda **more: relearn(pipe, auxiliary, target="top", judge=judge, **more),
    }
    for call in calls.values():
        for name, value in (("evaluate_every", 0), ("evaluate_every", True), ("lora_rank", -1), ("steps", -1), ("steps", "2")):
            with pytest.raises(SettingError, match=f"{name} must be a whole number of at least"):
                call(**{"steps": 1, "progress": False, name: value})
    assert evaluation_interval(range(1, 3), 2, count=5) == (1, 2) == evaluation_interval([1, 2], 2, count=5)


@pytest.mark.parametrize("already", [False, True])
def test_a_student_is_given_back_as_its_pipeline_was(prompted, already):
    """At home, free to train, without low-rank updates, and checkpointing no more than before."""
    if already:
        prompted.unet.enable_gradient_checkpointing()
    names = set(prompted.unet.state_dict())
    with student(prompted, lora_rank=2, gradient_checkpointing=True) as copied:
        training = [name for name, p in copied.unet.named_parameters() if p.requires_grad]
        assert training and all("lora" in name for name in training) and copied.unet.is_gradient_checkpointing
    assert set(copied.unet.state_dict()) == names and all(p.requires_grad for p in copied.unet.parameters())
    assert copied.unet.is_gradient_checkpointing == already and copied.unet.device == prompted.unet.device
    assert copied.unet is not prompted.unet and not any("lora" in name for name, _ in prompted.unet.named_parameters())


def test_what_was_frozen_trains_again(pipe, data):
    """A method that trains a part leaves nothing frozen behind, and takes nothing frozen over."""
    frozen = with_unet(pipe, copy.deepcopy(pipe.unet).requires_grad_(False))
    settings = {"target": "top", "data": data, "steps": 1, "progress": False}
    whole, again = unlearn(pipe, "finetune", **settings), unlearn(frozen, "finetune", **settings)
    assert all(p.requires_grad for p in again.unet.parameters())
    assert all(torch.equal(a, b) for a, b in zip(whole.unet.parameters(), again.unet.parameters(), strict=True))


def test_the_forget_batch_comes_from_the_forget_set(tiny_data):
    x, labels = toy_step(tiny_data).batch("forget")
    images, _ = draw_batch(tiny_data.only("top"), 6, 0, 5)
    assert torch.equal(x, nn.functional.pixel_unshuffle(images, 2)) and (labels == 1).all()
