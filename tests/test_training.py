"""The one loop: descends, resumes bit for bit even after a kill, and stops at the first bad sign."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.autograd.profiler import profile

from dimum_core.data import step_generator
from dimum_core.errors import SettingError, TrainingError
from dimum_core.models.diffusion import add_noise
from dimum_core.precision import short_attention
from dimum_core.pretraining import train_base
from dimum_core.training import TrainConfig, train


@dataclass(frozen=True)
class Line:
    """Fit y = 3 x by least squares, on a batch that depends on (seed, step) alone."""

    poison_at: int = -1
    fingerprint = {"line": 3}

    def __call__(self, model, seed, step):
        x = torch.randn(16, 1, generator=torch.Generator().manual_seed(1000 * seed + step))
        loss = (model(x) - 3 * x).square().mean()
        return loss * float("nan") if step == self.poison_at else loss


def line_config(**changes) -> TrainConfig:
    return replace(TrainConfig(steps=40, learning_rate=0.05, ema_decay=0.0, precision="fp32"), **changes)


def new_line() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(1, 1)


def test_the_loop_is_adamw_with_clipping_and_the_schedule_by_hand():
    config = line_config(steps=7, warmup_steps=2, weight_decay=0.01, grad_clip=0.5)
    ours = train(new_line(), Line(), config, progress=False).model

    by_hand = new_line()
    optimizer = torch.optim.AdamW(by_hand.parameters(), weight_decay=0.01)
    for step in range(7):
        warm = min(1, (step + 1) / 3)
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, step - 2) / 5))
        optimizer.param_groups[0]["lr"] = 0.05 * warm * cosine
        optimizer.zero_grad()
        Line()(by_hand, 0, step).backward()
        nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        optimizer.step()
    torch.testing.assert_close(ours.weight, by_hand.weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours.bias, by_hand.bias, rtol=1e-5, atol=1e-7)


def test_nesterovs_momentum_by_hand_and_vectors_sixty_four_times_as_fast():
    config = line_config(steps=5, learning_rate=1e-3, weight_decay=0.1, grad_clip=0.0, decay=False, optimizer="nesterov")
    ours = train(new_line(), Line(), config, progress=False).model

    by_hand, velocity = new_line(), {}
    for step in range(5):
        by_hand.zero_grad()
        Line()(by_hand, 0, step).backward()
        with torch.no_grad():
            for name, p in by_hand.named_parameters():
                rate, decay = (1e-3, 0.1) if name == "weight" else (0.064, 0.1 / 64)
                slope = p.grad + decay * p
                velocity[name] = slope + 0.85 * velocity.get(name, 0)
                p -= rate * (slope + 0.85 * velocity[name])
    torch.testing.assert_close(ours.weight, by_hand.weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours.bias, by_hand.bias, rtol=1e-5, atol=1e-7)


def test_the_average_is_the_warmed_up_exponential_one():
    seen = []
    config = line_config(steps=5, ema_decay=0.9, decay=False)
    raw = []

    @dataclass(frozen=True)
    class Watched(Line):
        def __call__(self, model, seed, step):
            raw.append(model.weight.item())  # the weight before this update
            return super().__call__(model, seed, step)

    model = train(new_line(), Watched(), config, evaluate=lambda s, m: seen.append(m.weight.item()), evaluate_every=1,
                  progress=False).model
    assert len(seen) == 5 and seen[-1] == pytest.approx(model.weight.item())
    average = None
    for step, weight in enumerate(raw[1:]):  # weights after updates 1 to 4
        decay = min(0.9, (1 + step) / (10 + step)) if step else 0.0
        average = weight if average is None else decay * average + (1 - decay) * weight
        assert seen[step] == pytest.approx(average, rel=1e-4)


def test_whoever_does_not_say_when_to_evaluate_has_it_done_at_the_end():
    looks = []
    train(new_line(), Line(), line_config(steps=3), evaluate=lambda step, _: looks.append(step), progress=False)
    assert looks == [3]


def test_evaluation_leaves_the_training_as_it_was():
    plain = train(new_line(), Line(), line_config(ema_decay=0.9), progress=False)
    watched = train(new_line(), Line(), line_config(ema_decay=0.9), evaluate=lambda s, m: {"weight": m.weight.item()},
                    evaluate_every=7, progress=False)
    assert torch.equal(plain.model.weight, watched.model.weight)
    assert watched.log["weight"].dropna().index.size == 6  # steps 7, 14, 21, 28, 35 and the last


def test_dropout_is_a_function_of_seed_and_step_and_the_global_stream_is_left_alone():
    def run(global_seed):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        torch.manual_seed(global_seed)
        before = torch.random.get_rng_state()
        weight = train(model, Line(), line_config(steps=5), progress=False).model[0].weight.detach()
        assert torch.equal(before, torch.random.get_rng_state())
        return weight

    assert torch.equal(run(1), run(2))


def test_a_loss_that_is_not_finite_stops_at_once_and_keeps_the_last_state(tmp_path):
    with pytest.raises(TrainingError, match=r"loss became nan at step 5: lower the learning rate"):
        train(new_line(), Line(poison_at=5), line_config(), out=tmp_path, checkpoint_seconds=0, progress=False)
    resumed = train(new_line(), Line(), line_config(), out=tmp_path, resume=True, progress=False)
    assert torch.equal(resumed.model.weight, train(new_line(), Line(), line_config(), progress=False).model.weight)


@dataclass(frozen=True)
class Steep(Line):
    """The loss of the line, and at one step as finite a loss whose gradient is infinite."""

    def __call__(self, model, seed, step):
        loss = super().__call__(model, seed, step)
        return loss + (model.weight - model.weight.detach()).abs().sum().sqrt() if step == self.steep_at else loss

    steep_at: int = -1


@pytest.mark.parametrize("step", [5, 39])
@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_an_infinite_gradient_of_a_finite_loss_stops_before_it_reaches_the_weights(tmp_path, step, clip):
    config, model = line_config(grad_clip=clip), new_line()
    with pytest.raises(TrainingError, match=rf"gradient became (inf|nan) at step {step}: lower the learning rate"):
        train(model, Steep(steep_at=step), config, out=tmp_path, checkpoint_seconds=0, progress=False)
    assert model.weight.isfinite().all()
    resumed = train(new_line(), Line(), config, out=tmp_path, resume=True, progress=False)
    assert torch.equal(resumed.model.weight, train(new_line(), Line(), config, progress=False).model.weight)


def test_weights_that_overflow_at_the_last_step_are_neither_saved_nor_given(tmp_path):
    """Loss and gradient are finite; the step itself is too large."""
    config = TrainConfig(steps=1, learning_rate=1e38, ema_decay=0, precision="fp32", optimizer="sgd", grad_clip=0, decay=False)
    with pytest.raises(TrainingError, match="weights weight are no longer finite"):
        train(new_line(), Line(), config, progress=False)
    with pytest.raises(TrainingError, match="weights weight are no longer finite"):
        train(new_line(), Line(), config, out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_dropout_has_a_stream_of_its_own():
    """Beside that of the batch's noise: both had been seeded alike."""
    streams = []

    class Seeds(Line):
        def __call__(self, model, seed, step):
            streams.append((torch.initial_seed(), step_generator(seed, step).initial_seed()))
            return super().__call__(model, seed, step)

    train(new_line(), Seeds(), line_config(steps=3), progress=False)
    assert len({seed for pair in streams for seed in pair}) == 6


def test_bad_settings_are_refused_in_a_sentence():
    for wrong in ({"steps": -1}, {"learning_rate": 0}, {"learning_rate": float("nan")}, {"batch_size": 0}, {"ema_decay": 1}):
        with pytest.raises(SettingError, match=f"{next(iter(wrong))} must be"):
            TrainConfig(**wrong)
    with pytest.raises(SettingError, match="precision must be"):
        TrainConfig(precision="int4")


def test_bf16_trains_to_the_same_loss_within_its_precision(tiny_preset, tiny_data):
    losses = []
    for precision in ("fp32", "bf16"):
        _, result = train_base(tiny_preset, data=tiny_data, steps=12, precision=precision, progress=False)
        losses.append(result.log["loss"].iloc[-3:].mean())
    assert losses[1] == pytest.approx(losses[0], rel=0.05) and losses[1] != losses[0]


def test_the_base_model_learns_its_classes(tiny_preset, tiny_data):
    """The real loop on three patterns: after seconds, the right label predicts the noise better than a wrong one."""
    pipe, result = train_base(tiny_preset, data=tiny_data, steps=100, batch_size=30, learning_rate=2e-3, progress=False)
    assert result.log["loss"].iloc[-5:].mean() < 0.5 * result.log["loss"].iloc[:5].mean()
    x, t = pipe.encode(tiny_data.images), torch.full((60,), 200)
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def loss(labels):
        return float((pipe.unet(add_noise(x, eps, t), t, class_labels=labels).sample - eps).square().mean())

    right, *wrong = (loss((tiny_data.labels + shift) % 3) for shift in range(3))
    assert right < 0.8 * min(wrong)


@pytest.mark.parametrize(("side", "context", "backend"), [
    (4, torch.enable_grad, "flash"), (5, torch.enable_grad, "math"), (8, torch.enable_grad, "math"),
    (9, torch.enable_grad, "flash"), (8, torch.no_grad, "flash"),
])
def test_few_places_train_in_bf16_by_plain_attention_and_all_else_by_the_fused_one(side, context, backend):
    x = torch.randn(1, 2, side * side, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    with context(), torch.autocast("cpu", torch.bfloat16), short_attention(torch.zeros(1, 3, side, side)), profile() as watched:
        query = x.bfloat16()
        attended = nn.functional.scaled_dot_product_attention(query, query, query)
    called = " ".join(event.name for event in watched.function_events)
    assert ("_scaled_dot_product_attention_math" in called, "flash" in called) == (backend == "math", backend == "flash")
    by_hand = (x @ x.mT / math.sqrt(8)).softmax(-1) @ x
    torch.testing.assert_close(attended.float(), by_hand, atol=0.03, rtol=0.03)


def test_attention_in_float32_is_left_alone():
    with short_attention(torch.zeros(1, 3, 8, 8)), profile() as watched:
        x = torch.randn(1, 2, 16, 8, requires_grad=True)
        nn.functional.scaled_dot_product_attention(x, x, x)
    assert any("flash" in event.name for event in watched.function_events)
