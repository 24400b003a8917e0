"""Every attack by an oracle of its own: a worked tensor, a closed form, what may move and what may not."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace

import pytest
import torch

from dimum_core import load_dataset, load_pipeline
from dimum_core.attacks import (
    ATTACKS,
    Attack,
    Attacked,
    Means,
    Outcome,
    attack,
    complete_weights,
    ddim_path,
    get_attack,
    register,
    relearn,
    reset_embedding,
    round_weights,
    seek_noise,
    starts,
)
from dimum_core.attacks.starts import guided
from dimum_core.attacks.weights import edited_weights, soft_impute
from dimum_core.data.targets import find_target
from dimum_core.errors import DataError, SettingError, UnknownName
from dimum_core.judges import judge_for
from dimum_core.models.denoiser import build_denoiser, get_preset
from dimum_core.models.diffusion import ALPHAS_CUMPROD
from dimum_core.models.fresh_noise import with_fresh_noise
from dimum_core.models.history import with_unet

QUICK = {"samples": 2, "num_inference_steps": 4, "progress": False, "batch_size": 8, "precision": "fp32"}


@pytest.fixture(scope="module")
def digits():
    return load_pipeline("digits"), load_dataset("digits")


@pytest.fixture(scope="module")
def means(digits):
    pipe, data = digits
    return Means("3", data, judge_for(pipe), original=pipe, samples=4)


def changed(before, after) -> set[str]:
    return {name for name, weight in before.unet.state_dict().items() if not torch.equal(weight, after.unet.state_dict()[name])}


# Weights --------------------------------------------------------------------------------------------------------------


def test_rounding_by_hand(digits):
    """Three bits: the numbers -3 to 3, and the largest weight of a channel is the number 3."""
    pipe, _ = digits
    edited = reset_embedding(pipe, "3")  # a copy
    with torch.no_grad():
        edited.unet.conv_in.weight.zero_()
        edited.unet.conv_in.weight.flatten(1)[0, :4] = torch.tensor([0.9, -0.35, 0.1, 0.5])
    channels = round_weights(edited, 3).unet.conv_in.weight.detach().flatten(1)
    torch.testing.assert_close(channels[0, :4], torch.tensor([0.9, -0.3, 0.0, 0.6]))
    assert not channels[1:].any(), "a channel of zeros stays one"


def test_rounding_is_torchs_quantisation(digits):
    pipe, _ = digits
    rounded = round_weights(pipe, 8).unet
    for name, weight in pipe.unet.named_parameters():
        ours = rounded.get_parameter(name).detach()
        if weight.ndim < 2:
            assert torch.equal(ours, weight)
            continue
        scale = weight.detach().flatten(1).abs().amax(1).double() / 127
        theirs = torch.quantize_per_channel(weight.detach(), scale, torch.zeros(len(scale), dtype=torch.int64), 0, torch.qint8)
        torch.testing.assert_close(ours, theirs.dequantize(), atol=1.01 * float(scale.max()), rtol=0)  # at a tie by one step
        assert float((ours - theirs.dequantize()).abs().gt(1e-6).float().mean()) < 1e-3
    levels = round_weights(pipe, 4).unet.conv_in.weight.detach().flatten(1)
    assert max(len(row.unique()) for row in levels) <= 15
    with pytest.raises(SettingError, match="bits must be"):
        round_weights(pipe, 1)


def test_weights_in_bf16_are_rounded_as_what_they_stand_for(digits):
    pipe, _ = digits
    short, full = (with_unet(pipe, copy.deepcopy(pipe.unet).to(torch.bfloat16)) for _ in range(2))
    full.unet.float()
    expected = round_weights(full, 4).unet.to(torch.bfloat16)
    for name, weight in round_weights(short, 4).unet.named_parameters():
        assert torch.equal(weight, expected.get_parameter(name)), name


def test_a_low_rank_matrix_is_completed_from_the_entries_that_are_known():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(40, 2, generator=generator) @ torch.randn(2, 30, generator=generator)
    missing = torch.rand(40, 30, generator=generator) < 0.3
    guessed = soft_impute(matrix.masked_fill(missing, 99.0), missing, steps=200, floor=1e-3)
    assert torch.equal(guessed[~missing], matrix[~missing])
    assert float((guessed - matrix)[missing].norm() / matrix[missing].norm()) < 0.02
    assert not soft_impute(torch.zeros(40, 30).masked_fill(missing, 99.0), missing).any(), "nothing is known but zeros"


def test_completion_reads_nothing_of_the_edited_weights_and_leaves_the_others(digits):
    pipe, _ = digits
    edited = reset_embedding(pipe, "3")
    with torch.no_grad():
        edited.unet.conv_out.weight[:, ::2] += 1.0
    masks = edited_weights(edited, pipe)
    completed = complete_weights(edited, masks)
    with torch.no_grad():
        edited.unet.conv_out.weight[:, ::2] *= -7.0
    again = complete_weights(edited, masks).unet.conv_out.weight
    assert torch.equal(again, completed.unet.conv_out.weight)
    assert torch.equal(again[:, 1::2], pipe.unet.conv_out.weight[:, 1::2])
    assert changed(pipe, completed) <= {"conv_out.weight", "class_embedding.weight"}
    with pytest.raises(DataError, match="must have its shape"):
        complete_weights(pipe, {"conv_in.weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(DataError, match="has no parameter 'conv_in.wieght': masks must have names of its own"):
        complete_weights(pipe, {"conv_in.wieght": torch.ones_like(pipe.unet.conv_in.weight, dtype=torch.bool)})


# Finetuning and rows --------------------------------------------------------------------------------------------------


def test_a_low_rank_attack_changes_attention_alone_and_by_no_more_than_its_rank(digits):
    pipe, data = digits
    attacked = relearn(pipe, data.without("3"), target="3", steps=3, learning_rate=1e-2, lora_rank=2, **QUICK).pipeline
    moved = changed(pipe, attacked)
    assert moved and all(".to_" in name and name.endswith("weight") for name in moved)
    for name in moved:
        difference = (attacked.unet.get_parameter(name) - pipe.unet.get_parameter(name)).detach().double()
        assert int(torch.linalg.matrix_rank(difference, rtol=1e-3)) <= 2
    assert not hasattr(attacked.unet, "peft_config") and set(attacked.unet.state_dict()) == set(pipe.unet.state_dict())


def test_the_row_of_the_published_seed_is_the_one_that_training_began_with(digits):
    """And only the target's row is touched; the retrained model, whose row never trained, has it already."""
    pipe, _ = digits
    fresh = build_denoiser(get_preset("digits"), 10, 1, seed=0).class_embedding.weight
    reset = reset_embedding(pipe, "3", 0)
    assert changed(pipe, reset) == {"class_embedding.weight"}
    rows = reset.unet.class_embedding.weight
    assert torch.equal(rows[3], fresh[3])
    assert torch.equal(rows[[0, 1, 2, 4, 5, 6, 7, 8, 9, 10]], pipe.unet.class_embedding.weight[[0, 1, 2, 4, 5, 6, 7, 8, 9, 10]])
    ignorant = load_pipeline("digits-without-3").unet.class_embedding.weight
    assert float((ignorant[3] - fresh[3]).detach().norm() / fresh[3].detach().norm()) < 1e-3


def test_a_seed_that_is_not_the_models_is_not_tried(digits, means):
    pipe, _ = digits
    wrong = Means(means.target, means.data, means.judge, init_seed=1)
    assert get_attack("seed-row").lacking(pipe, means) == ""
    with pytest.raises(SettingError, match="did not begin where the seed 1 puts them"):
        attack(pipe, get_attack("seed-row"), wrong)


# Starts ---------------------------------------------------------------------------------------------------------------


def gaussian(deviation: float):
    """eps of data that are normal with this deviation and mean 0: E[eps | x_t] = sqrt(1 - abar) x_t / Var(x_t)."""

    def predict(x_t, t):
        abar = float(ALPHAS_CUMPROD[int(t)])
        return (1 - abar) ** 0.5 * x_t / (abar * deviation**2 + 1 - abar)

    return predict


def test_ddim_inversion_is_the_closed_form_for_normal_data_and_leads_back():
    """The probability flow of normal data only stretches: x_T / x_0 is the ratio of their deviations (abar_T is nearly 0)."""
    x = torch.randn(16, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.5
    noise = ddim_path(gaussian(0.5), x, 500, invert=True)
    torch.testing.assert_close(noise, x / 0.5, rtol=0.03, atol=1e-4)
    torch.testing.assert_close(ddim_path(gaussian(0.5), noise, 500), x, rtol=0.03, atol=1e-4)
    coarse = ddim_path(gaussian(0.5), ddim_path(gaussian(0.5), x, 20, invert=True), 20)
    assert float((coarse - x).abs().mean()) > 5 * float((ddim_path(gaussian(0.5), noise, 500) - x).abs().mean())


def test_noise_is_sought_to_the_least_squares_solution():
    """Of a sampler that is linear, and no farther than noise of a normal distribution lies."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(12, 6, generator=generator)
    inside = 0.5 * torch.randn(3, 6, generator=generator)
    wanted = inside @ matrix.T + 0.1 * torch.randn(3, 12, generator=generator)
    start = torch.randn(3, 6, generator=generator)
    found, losses = seek_noise(lambda x: x @ matrix.T, wanted, start, steps=800, learning_rate=0.02)
    torch.testing.assert_close(found, torch.linalg.lstsq(matrix, wanted.T).solution.T, atol=2e-3, rtol=0)
    assert losses[-1] < 0.1 * losses[0]
    far, _ = seek_noise(lambda x: x @ matrix.T, 100 * wanted, start, steps=800, learning_rate=0.02)
    torch.testing.assert_close(far.norm(dim=1), torch.full((3,), 6**0.5))


def test_the_loss_after_the_search_is_that_of_the_images_that_it_gives(digits, means, monkeypatch):
    """What a search of one step ends with is what one of two steps has before its second."""
    found, real = [], starts.seek_noise
    monkeypatch.setattr(starts, "seek_noise", lambda *given: found.append(real(*given)) or found[-1])
    kinds = [get_attack("initial-noise", samples=2, sampling_steps=2, steps=steps) for steps in (1, 2)]
    after = [kind.run(digits[0], means).details["loss after"] for kind in kinds]
    assert after[0] == pytest.approx(found[1][1][1], rel=1e-5) and after[0] < found[0][1][0]


def test_the_guided_prediction_is_the_pipelines(digits, means):
    pipe, _ = digits
    x_t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for scale in (1.0, 3.0):
        predict, _ = guided(pipe, means, torch.tensor([3, 3]), scale)
        expected = pipe.predict_noise(x_t, torch.tensor(400), torch.tensor([3, 3]), scale)
        torch.testing.assert_close(predict(x_t, torch.tensor(400)), expected)


def test_images_are_inverted_under_their_own_labels(digits, means):
    """What the network is first asked about are the images themselves."""
    pipe, data = digits
    several, seen = replace(means, target=find_target(["3", "7"], pipe.class_names)), []
    note = lambda _, given, named: seen.append((given[0], named["class_labels"]))  # noqa: E731
    hook = pipe.unet.register_forward_pre_hook(note, with_kwargs=True)
    get_attack("inversion", count=6, steps=2).run(pipe, several)
    hook.remove()
    x, told = seen[0]
    held_out = pipe.encode(data.test.images)
    own = [int(data.test.labels[(held_out == image).flatten(1).all(1)][0]) for image in x]
    assert told.tolist() == own == [3, 7, 3, 7, 3, 7]


# The interface --------------------------------------------------------------------------------------------------------

SHORT = {
    "relearning": {"steps": 1}, "low-rank": {"steps": 1}, "few-shot": {"steps": 1}, "trained-row": {"steps": 1},
    "initial-noise": {"steps": 2, "samples": 3, "sampling_steps": 2}, "inversion": {"count": 3, "steps": 2},
}
OF_WORDS = {"paraphrases", "embedding", "tokens"}


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_attack_leaves_the_model_alone_and_its_record_survives_a_file(name, digits, means):
    pipe, _ = digits
    edited = reset_embedding(pipe, "3")
    before = {key: weight.clone() for key, weight in edited.unet.state_dict().items()}
    kind = get_attack(name, **SHORT.get(name, {}))
    if name in OF_WORDS:
        with pytest.raises(SettingError, match=f"The attack {name} cannot be tried: it works on prompts"):
            attack(edited, kind, means)
        return
    outcome = attack(edited, kind, means)
    assert all(torch.equal(before[key], weight) for key, weight in edited.unet.state_dict().items())
    again = Outcome.from_dict(json.loads(json.dumps(outcome.as_dict())))
    assert again == outcome and again.attack == name and again.had == kind.has
    samples = outcome.gives == "samples"
    assert outcome.target.n == (3 if samples else 4) and (outcome.retained is None) == samples
    assert outcome.teaches == (name in ("few-shot", "trained-row", "initial-noise", "inversion"))


def test_all_models_are_drawn_from_fresh_noise_and_their_own_sampler_stays(digits):
    pipe, _ = digits
    own = type(pipe.scheduler).__name__
    assert type(with_fresh_noise(pipe).scheduler).__name__ == "EulerAncestralDiscreteScheduler"
    assert type(pipe.scheduler).__name__ == own == "DPMSolverMultistepScheduler"


def test_what_came_back_is_counted(digits, means):
    """An attack that hands out the original's samples of 3 gives the target; one that hands out eights does not."""
    pipe, data = digits
    for digit, share in (("3", 1.0), ("8", 0.0)):
        class Thief(Attack):
            name = "thief"

            def run(self, pipe, means, digit=digit):
                return Attacked(images=data.train.only(digit).images[:5])

        Thief.__dataclass_fields__ = {}
        outcome = attack(pipe, Thief(), means)
        assert (outcome.target.value, outcome.target.n) == (share, 5)


def test_an_attack_of_ones_own_must_not_take_a_shipped_ones_place_and_must_be_a_dataclass(monkeypatch):
    monkeypatch.setattr("dimum_core.attacks.base.ATTACKS", dict(ATTACKS))

    class Plain(Attack):
        pass

    with pytest.raises(SettingError, match="The name 'rounding' belongs to an attack of dimum_core.attacks.weights"):
        register("rounding")(Plain)
    with pytest.raises(SettingError, match="plain is no frozen dataclass"):
        register("plain")(Plain)
    mine = dataclass(frozen=True)(Plain)
    assert register("mine")(mine) is register("mine")(mine)  # again, as when its cell runs twice


def test_unknown_attacks_and_settings_are_named():
    with pytest.raises(UnknownName, match="no attack 'roundin'. Did you mean 'rounding'"):
        get_attack("roundin")
    with pytest.raises(UnknownName, match="no setting of the attack rounding 'bit'. Did you mean 'bits'"):
        get_attack("rounding", bit=8)
