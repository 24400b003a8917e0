"""Methods: each loss against its formula, what separates it from its neighbours, and the one call that runs them all."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

from dimum_core import load_dataset, load_pipeline, relearn
from dimum_core.data import Dataset, draw_batch, step_generator
from dimum_core.errors import CheckpointError, DataError, SettingError, TrainingError, UnknownName
from dimum_core.judges.classifier import Judge
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.codec import Codec
from dimum_core.models.denoiser import build_denoiser
from dimum_core.models.diffusion import drop_labels
from dimum_core.models.history import with_unet
from dimum_core.unlearning import METHODS, Method, Step, follow, get_method, gradient, ranged, register, unlearn
from dimum_core.unlearning import run as run_module
from dimum_core.unlearning.alternatives import KINDS, build_alternative
from dimum_core.unlearning.base import ClassConditions, shifted
from dimum_core.unlearning.run import UnlearningObjective, method_data
from dimum_core.unlearning.student import student


@pytest.fixture
def pipe(tiny_preset):
    return build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, ("left", "top", "checks"))


@pytest.fixture
def data(tiny_data):
    return Dataset(tiny_data, tiny_data)


class Toy(nn.Module):
    """eps(x_t, t, c) = w_c x_t: a network that can be worked by hand."""

    def __init__(self, weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights))

    def forward(self, x_t, t, class_labels):
        return SimpleNamespace(sample=self.weights[class_labels].view(-1, 1, 1, 1) * x_t)


def latent_shape(pipe):
    return pipe.unet.config.in_channels, pipe.unet.config.sample_size, pipe.unet.config.sample_size


def toy_step(tiny_data, target=1, student=(0.1, 0.2, 0.3, 0.4), original=(0.5, 0.6, 0.7, 0.8)):
    sets = {"forget": tiny_data.only(target), "retain": tiny_data.without(target), "alternative": tiny_data.only("checks")}
    return Step(Toy(student), Toy(original), ClassConditions(target, 3, Codec(2)), sets, 6, (4, 4, 4), seed=0, index=5)


def replay(tiny_data, kind):
    """The batch and the noise of the first, or of the only, term that draws them."""
    step = toy_step(tiny_data)
    x, labels = step.batch(kind)
    if kind == "retain":
        labels = drop_labels(labels, 3, 0.1, step.generator)
    x_t, eps, t = step.noise(x)
    return x, labels, x_t, eps, t, step


def mean_square(difference):
    return float(sum(v**2 for v in difference.flatten().tolist()) / difference.numel())


def test_finetune_and_negative_gradient_are_their_formulas(tiny_data):
    _, labels, x_t, eps, _, _ = replay(tiny_data, "retain")
    expected = mean_square(eps - torch.tensor([0.1, 0.2, 0.3, 0.4])[labels].view(-1, 1, 1, 1) * x_t)
    assert get_method("finetune").loss(toy_step(tiny_data)).item() == pytest.approx(expected, rel=1e-5)
    _, _, x_t, eps, _, _ = replay(tiny_data, "forget")
    alone = get_method("negative-gradient", weight=1.0, retain_weight=0.0).loss(toy_step(tiny_data))
    assert float(alone.detach()) == pytest.approx(-mean_square(eps - 0.2 * x_t), rel=1e-5)


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


def vars_of(step):
    return {k: v for k, v in vars(step).items() if k != "generator"}


def gradient_of_target(method, tiny_data, which: str) -> float:
    """How much the loss changes with the weights that only its target depends on."""
    students = [(0.1, 0.2, 0.3, 0.4), (0.9, 0.2, 0.9, 0.4)]  # the other classes' rows differ
    if which == "student":
        losses = [float(method.loss(toy_step(tiny_data, student=s)).detach()) for s in students]
    else:
        losses = [float(method.loss(toy_step(tiny_data, original=(*s[:1], 0.6, *s[2:])))) for s in students]
    return abs(losses[0] - losses[1])


def test_random_labels_target_moves_with_the_student_and_concept_ablations_does_not(tiny_data):
    random_label, ablation = get_method("random-label", retain_weight=0.0), get_method("concept-ablation", retain_weight=0.0)
    assert gradient_of_target(random_label, tiny_data, "student") > 1e-3 > gradient_of_target(random_label, tiny_data, "original")
    assert gradient_of_target(ablation, tiny_data, "original") > 1e-3 > gradient_of_target(ablation, tiny_data, "student")


def test_random_label_never_proposes_the_target_and_all_others_evenly():
    for target in (0, 1, 9):
        drawn = ClassConditions(target, 10, Codec()).others(9_000, torch.Generator().manual_seed(0))
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


# Methods that choose their own direction --------------------------------------------------------------------------------


def direction(method, step) -> torch.Tensor:
    """The gradient that the loop would see."""
    return gradient(method.loss(step), step.model)


def row_gradient(labels, x_t, wanted, weights):
    """d/dw of mean |wanted - w_c x_t|^2 for the toy, by hand: one entry for each class's weight."""
    by_hand = torch.zeros(4)
    for label, x, y in zip(labels, x_t, wanted, strict=True):
        by_hand[label] += (-2 * (y - weights[label] * x) * x).sum() / x_t.numel()
    return by_hand


def test_a_followed_direction_is_the_gradient_and_the_value_is_kept(pipe):
    wanted = torch.randn(sum(p.numel() for p in pipe.unet.parameters()), generator=torch.Generator().manual_seed(0))
    loss = follow(wanted, pipe.unet, torch.tensor(0.25))
    assert loss.item() == 0.25 and torch.equal(gradient(loss, pipe.unet), wanted)


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


def test_unlearning_stops_at_a_wanted_level_and_dimum_traces_its_convergence():
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    settings = {"target": "3", "data": data, "learning_rate": 1e-3, "batch_size": 32, "evaluate_every": 5, "progress": False}
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


def test_unlearning_resumes_bit_for_bit(pipe, data, tmp_path):
    settings = {"target": "top", "data": data, "batch_size": 6, "progress": False, "precision": "fp32"}
    whole = unlearn(pipe, "dimum", steps=6, **settings)
    unlearn(pipe, "dimum", steps=3, out=tmp_path, **settings)
    resumed = unlearn(pipe, "dimum", steps=6, out=tmp_path, resume=True, **settings)
    a, b = whole.unet.state_dict(), resumed.unet.state_dict()
    assert all(torch.allclose(a[k], b[k], atol=1e-7) for k in a)


def test_a_method_that_looks_at_the_number_of_steps_is_not_gone_on_with_to_another(pipe, data, tmp_path):
    settings = {"target": "top", "data": data, "batch_size": 6, "out": tmp_path, "progress": False, "precision": "fp32"}
    unlearn(pipe, "sfr-on", steps=2, **settings)
    unlearn(pipe, "sfr-on", steps=2, resume=True, **settings)
    with pytest.raises(CheckpointError, match="was made with total_steps = 2, and 4 is asked for now"):
        unlearn(pipe, "sfr-on", steps=4, resume=True, **settings)


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


def test_who_says_when_to_stop_is_known_before_anything_takes_long(pipe, data, monkeypatch):
    monkeypatch.setattr(run_module, "method_data", lambda *_: pytest.fail("data were made first"))
    with pytest.raises(CheckpointError, match="pass it as judge="):
        unlearn(pipe, "finetune", target="top", data=data, steps=4, until=0.5, progress=False)
    monkeypatch.undo()
    judge = Judge(8, 1, pipe.class_names, (4,), (2,))
    settings = {"target": "top", "data": data, "steps": 4, "batch_size": 6, "evaluate_every": 1, "progress": False}
    assert unlearn(pipe, "finetune", until=0.0, judge=judge, **settings).unlearning["steps"] == 1


def test_another_models_unlearning_is_not_gone_on_with(pipe, data, tmp_path, tiny_preset):
    settings = {"target": "top", "data": data, "batch_size": 6, "progress": False, "precision": "fp32"}
    unlearn(pipe, "dimum", steps=2, out=tmp_path, **settings)
    other = build_pipeline(build_denoiser(tiny_preset, 3, 1, seed=5).eval(), tiny_preset, ("left", "top", "checks"))
    with pytest.raises(CheckpointError, match="was made with start = "):
        unlearn(other, "dimum", steps=4, out=tmp_path, resume=True, **settings)


@pytest.mark.parametrize("kind", KINDS)
def test_alternative_data_are_what_they_say_and_never_the_target(kind, pipe, tiny_data):
    retain = tiny_data.without("top")
    made = build_alternative(kind, 20, retain, pipe, "top", seed=0)
    again = build_alternative(kind, 20, retain, pipe, "top", seed=0)
    assert made.digest == again.digest and len(made) == (16 if kind == "images" else 20)
    assert 1 not in made.labels.tolist()
    if kind == "class":
        assert len(made.labels.unique()) == 1
    if kind == "mixed":
        assert len(made.labels.unique()) == 2
    if kind in ("class", "mixed", "images"):
        assert set(made.item_hashes.tolist()) <= set(retain.item_hashes.tolist())


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
    with pytest.raises(TrainingError, match="dimum has the hyper-parameters weight, alternative, count, but was given lambd"):
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
