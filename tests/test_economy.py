"""What makes large networks trainable: latents that are remembered, 8-bit moments, no copy that nobody needs."""

from __future__ import annotations

import sys
import types
from types import SimpleNamespace

import pytest
import torch

from dimum_core import evaluation, relearn, unlearn
from dimum_core.cli import main
from dimum_core.errors import SettingError
from dimum_core.evaluation import draw_samples
from dimum_core.models.codec import Codec, Latents
from dimum_core.models.conditions import conditions_of
from dimum_core.precision import same_device
from dimum_core.training import TrainConfig, train
from dimum_core.unlearning import get_method, run
from dimum_core.unlearning.adapters import weights_of
from dimum_core.unlearning.run import UnlearningObjective
from tests import tiny_pipelines
from tests.test_training import Line, line_config, new_line

QUICK = {"batch_size": 6, "progress": False}


@pytest.fixture
def pipe():
    return tiny_pipelines.stable_diffusion()


def counting(vae, monkeypatch) -> list[tuple]:
    """Shapes of what an autoencoder encodes from here on."""
    seen, encode = [], vae.encode
    monkeypatch.setattr(vae, "encode", lambda x: seen.append(tuple(x.shape)) or encode(x))
    return seen


def test_each_image_is_encoded_once_and_alone(pipe, canvas, monkeypatch):
    seen = counting(pipe.vae, monkeypatch)
    unlearn(pipe, "dimum", target="Van_Gogh", data=canvas, steps=6, **QUICK)
    retained = len(canvas.train.without("Van_Gogh"))
    assert 0 < len(seen) <= retained and set(seen) == {(1, 3, 32, 32)}
    seen.clear()
    relearn(
        pipe, canvas.without("Van_Gogh"), target="Van_Gogh", judge=tiny_pipelines.canvas_judge(), samples=1, steps=4,
        num_inference_steps=1, **QUICK,
    )
    assert len(seen) == retained  # 24 were drawn


def test_latents_do_not_depend_on_the_batch_or_the_precision(pipe, canvas):
    conditions, images = conditions_of(pipe, "Van_Gogh", canvas.class_names), canvas.train.images[:3]
    alone = torch.cat([conditions.codec.encode(image[None]) for image in images])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first = conditions.encode(images)
    assert torch.equal(first, alone) and torch.equal(conditions.encode(images.flip(0)), alone.flip(0))
    assert torch.equal(conditions.encode(images + 0), alone) and not torch.equal(conditions.encode(-images), alone)


def test_no_more_latents_are_kept_than_there_is_room_for(pipe, canvas, monkeypatch):
    seen, images = counting(pipe.vae, monkeypatch), canvas.train.images[:4]
    latents = Latents(Codec.of(pipe), most=2 * 4 * 16 * 16 * 4)
    once, again = latents.of(images), latents.of(images)
    assert torch.equal(once, again) and len(seen) == 4 + 2 and len(latents.kept) == 2


def test_the_original_is_not_copied_where_it_can_serve_as_it_is(pipe, canvas):
    config, conditions = TrainConfig(steps=1), conditions_of(pipe, "Van_Gogh", canvas.class_names)
    make = lambda: UnlearningObjective.of(get_method("esd"), pipe, conditions, {}, config, {})  # noqa: E731
    assert make().original is pipe.unet
    pipe.unet.train()  # where dropout would speak in it
    assert make().original is not pipe.unet and not make().original.training


@pytest.mark.parametrize(("side", "sizes"), [(64, [125, 5]), (512, [4] * 32 + [2]), (2048, [1] * 130)])
def test_fewer_of_large_images_are_drawn_at_a_time(side, sizes, pipe, canvas, monkeypatch):
    seen = []
    monkeypatch.setattr(evaluation, "image_size", lambda pipe: side)
    monkeypatch.setattr(evaluation, "draw", lambda pipe, batch, **_: seen.append(len(batch)) or torch.zeros(len(batch), 3, 32, 32))
    draw_samples(pipe, ["nothing"] * 130, seed=side, progress=False)
    assert seen == sizes
    seen.clear()
    settings = {"judge": tiny_pipelines.canvas_judge(), "samples": 3, "steps": 0, "seed": side, **QUICK}
    relearn(pipe, canvas.without("Van_Gogh"), target="Van_Gogh", **settings)
    assert seen == {64: [6], 512: [4, 2], 2048: [1] * 6}[side]


@pytest.mark.parametrize(("one", "other", "same"), [
    ("cuda", "cuda:1", True), ("cuda:1", "cuda", True), ("cuda", "cuda:0", False), ("cuda:0", "cuda:1", False),
    ("cuda", "cuda", True), ("cuda:0", "cuda:0", True), ("cpu", "cuda", False), ("cuda:1", "cpu", False),
])
def test_a_gpu_without_a_number_is_the_current_one(one, other, same, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 1)
    assert same_device(torch.device(one), torch.device(other)) is same


def test_what_is_on_the_device_already_is_neither_copied_nor_moved(pipe, canvas, monkeypatch):
    """Accelerate may give a device without a number, and a network always has one; here it is the other way round."""
    device, moved = SimpleNamespace(device=torch.device("cpu", 0), num_processes=1), []
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(run, "Accelerator", lambda: device)
    monkeypatch.setattr(evaluation, "Accelerator", lambda: device)
    conditions = conditions_of(pipe, "Van_Gogh", canvas.class_names)
    assert UnlearningObjective.of(get_method("esd"), pipe, conditions, {}, TrainConfig(), {}).original is pipe.unet
    monkeypatch.setattr(pipe.unet, "to", lambda *where: moved.append(where))
    with evaluation.drawing(pipe):
        assert not moved


def test_a_distance_is_of_all_digits_whatever_the_network_is_kept_in():
    network = torch.nn.Linear(3, 2).to(torch.bfloat16)
    assert weights_of(network).dtype == torch.float32
    assert torch.equal(weights_of(network), torch.nn.utils.parameters_to_vector(network.parameters()).float())


# 8-bit Adam -------------------------------------------------------------------------------------------------------------


class AdamW8bit(torch.optim.Optimizer):
    """Keeps what bitsandbytes' keeps, in its shapes, of a matrix: an int, codes of 8 bits, their table and the blocks' scales."""

    def __init__(self, parameters, lr, weight_decay):
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            state = self.state[parameter]
            if not state:
                codes = torch.zeros_like(parameter, dtype=torch.uint8)
                state |= {"step": 0, "state1": codes, "state2": codes.clone(), "absmax1": torch.zeros(3), "absmax2": torch.zeros(3),
                          "qmap1": torch.linspace(-1, 1, 256), "qmap2": torch.linspace(0, 1, 256)}
            state["step"] += 1
            assert isinstance(state["step"], int) and state["state1"].dtype == torch.uint8
            state["state1"] += 1
            state["absmax1"] += parameter.grad.abs().max()
            parameter -= self.param_groups[0]["lr"] * (state["absmax1"][0] + state["state1"] + 1 / state["step"])


@pytest.fixture
def bitsandbytes(monkeypatch):
    module, optim = types.ModuleType("bitsandbytes"), types.ModuleType("bitsandbytes.optim")
    module.__spec__, optim.AdamW8bit = types.SimpleNamespace(), AdamW8bit
    monkeypatch.setitem(sys.modules, "bitsandbytes", module)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)


def test_eight_bit_moments_go_on_where_they_stopped(bitsandbytes, tmp_path):
    settings = {"optimizer": "adamw8bit", "ema_decay": 0.0, "decay": False}
    whole = train(new_line(), Line(), line_config(steps=6, **settings), progress=False).model
    train(new_line(), Line(), line_config(steps=3, **settings), out=tmp_path, progress=False)
    resumed = train(new_line(), Line(), line_config(steps=6, **settings), out=tmp_path, resume=True, progress=False).model
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)


def test_without_bitsandbytes_a_sentence_says_so(pipe, canvas, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(SettingError, match="adamw8bit needs bitsandbytes, which is not installed"):
        unlearn(pipe, "dimum", target="Van_Gogh", data=canvas, steps=1, optimizer="adamw8bit", **QUICK)
    command = ["unlearn", "digits", "--target", "3", "--steps", "1", "--optimizer", "adamw8bit", "--out", str(tmp_path / "a")]
    assert main(command) == 1 and "adamw8bit needs bitsandbytes" in capsys.readouterr().err


def test_the_shell_hands_on_what_saves_memory(monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr("dimum_core.unlearning.unlearn", lambda *_, **settings: seen.update(settings) or sys.exit(7))
    given = ["--batch-size", "2", "--optimizer", "sgd", "--gradient-checkpointing", "--lora-rank", "3", "--merge"]
    with pytest.raises(SystemExit):
        main(["unlearn", "digits", "--target", "3", "--out", str(tmp_path / "a"), *given])
    wanted = {"batch_size": 2, "optimizer": "sgd", "gradient_checkpointing": True, "lora_rank": 3}
    assert {name: seen[name] for name in wanted} == wanted
