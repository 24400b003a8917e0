"""Low-rank updates as practitioners use them: kept and saved alone, and loaded, scaled, fused and unloaded by plain diffusers."""

from __future__ import annotations

import json

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from dimum_core import load_pipeline, relearn, unlearn
from dimum_core.attacks import few_shot
from dimum_core.cli import main
from dimum_core.data import load_unlearn_canvas
from dimum_core.errors import CheckpointError, DataError, ModelError, TrainingError
from dimum_core.evaluation import draw_samples
from dimum_core.models.checkpoints import save_checkpoint
from dimum_core.models.history import HISTORY_FILE
from dimum_core.models.low_rank import ADAPTER_FILE, save_adapter
from dimum_core.models.networks import network_of
from dimum_core.unlearning.adapters import weights_of
from dimum_core.unlearning.student import student
from tests import tiny_pipelines

KINDS = {
    "sd": tiny_pipelines.stable_diffusion, "sdxl": tiny_pipelines.stable_diffusion_xl, "sd3": tiny_pipelines.stable_diffusion_3,
    "flux": tiny_pipelines.flux,
}
LORA = {"lora_rank": 2, "learning_rate": 1e-2, "steps": 2, "batch_size": 2, "progress": False}
CARD = {"title": "t", "summary": "s", "kind": "denoiser"}


def weights(pipe) -> dict[str, torch.Tensor]:
    return {key: value.detach().clone() for key, value in network_of(pipe).state_dict().items()}


def same(a: dict, b: dict, **near) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[key], b[key], **near) for key in a)


def by_hand(folder, scale: float = 1.0) -> dict[str, torch.Tensor]:
    """From the file alone: matrix -> scale * up @ down."""
    state = load_file(folder / ADAPTER_FILE)
    pairs = {".lora_A.weight": ".lora_B.weight", ".lora.down.weight": ".lora.up.weight"}
    found = {}
    for key, down in state.items():
        for first, second in pairs.items():
            if key.endswith(first):
                name = key.removesuffix(first).partition(".")[2]
                found[f"{name}.weight"] = scale * state[key.removesuffix(first) + second] @ down
    assert 2 * len(found) == len(state)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_plain_diffusers_loads_scales_fuses_and_unloads_it(kind, canvas, tmp_path, canvas_folder, smaller_flux):
    pipe = KINDS[kind]()
    data = canvas if kind != "flux" else load_unlearn_canvas(canvas_folder, image_size=16, per_combination=4, held_out=2)
    start = weights(pipe)
    forgot = unlearn(pipe, "dimum", target="Van_Gogh", data=data, **LORA)
    save_adapter(forgot, tmp_path)
    update, after = by_hand(tmp_path), weights(forgot)
    assert update and {key for key in after if not torch.equal(after[key], start[key])} <= update.keys()
    for key, change in update.items():
        torch.testing.assert_close(after[key], start[key] + change, rtol=1e-4, atol=1e-6)
    pipe.load_lora_weights(tmp_path, adapter_name="forget")  # from here on it is diffusers alone
    pipe.set_adapters(["forget"], adapter_weights=[0.5])
    layers = {name: layer for name, layer in network_of(pipe).named_modules() if isinstance(layer, BaseTunerLayer)}
    assert {f"{name}.weight" for name in layers} == update.keys()
    name, layer = next(iter(layers.items()))
    x = torch.randn(3, start[f"{name}.weight"].shape[1])
    with torch.no_grad():
        torch.testing.assert_close(layer(x) - layer.base_layer(x), 0.5 * x @ update[f"{name}.weight"].T, rtol=1e-3, atol=1e-5)
    pipe.set_adapters(["forget"], adapter_weights=[1.0])
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    assert same(weights(pipe), after, rtol=1e-4, atol=1e-6)


@pytest.fixture
def forgotten(canvas, tmp_path):
    """A model in a folder, its updates that forget in another, and the whole unlearned pipeline."""
    pipe = tiny_pipelines.stable_diffusion()
    pipe.save_pretrained(tmp_path / "model")
    forgot = unlearn(pipe, "dimum", target="Van_Gogh", data=canvas, **LORA)
    save_adapter(forgot, tmp_path / "forget")
    return tmp_path, forgot


def test_a_model_with_its_updates_is_the_unlearned_one_and_remembers(forgotten, canvas):
    folder, forgot = forgotten
    again = load_pipeline(folder / "model", adapters=[folder / "forget"])
    assert same(weights(again), weights(forgot), rtol=1e-5, atol=1e-7)
    assert again.history.forgotten[-1].target.name == "Van_Gogh" and again.unlearning["target"] == "Van_Gogh"
    save_checkpoint(again, folder / "merged", CARD)  # merged on request
    assert same(weights(load_pipeline(folder / "merged")), weights(again))


def test_a_second_adapter_leaves_what_the_first_forgot_forgotten(forgotten, canvas):
    folder, _ = forgotten
    save_adapter(unlearn(load_pipeline(folder / "model"), "finetune", target="Cats", data=canvas, **LORA), folder / "other")
    both = load_pipeline(folder / "model", adapters=[folder / "forget", folder / "other", folder / "forget"])
    assert [each.target.name for each in both.history.forgotten] == ["Van_Gogh", "Cats"], "each once"
    assert both.unlearning["target"] == "Cats" and both.history.weights == "raw"
    with pytest.raises(DataError, match="of the target style Van_Gogh"):
        relearn(both, canvas.without("Cats"), judge=tiny_pipelines.canvas_judge(), steps=1, batch_size=2, progress=False)


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_it_is_attacked_by_all_weights_or_by_other_updates(lora_rank, forgotten, canvas):
    folder, _ = forgotten
    again = load_pipeline(folder / "model", adapters=[folder / "forget"])
    settings = LORA | {"lora_rank": lora_rank}
    found = relearn(
        again, canvas.without("Van_Gogh"), judge=tiny_pipelines.canvas_judge(), samples=1, num_inference_steps=1, **settings
    )
    attack, curve = found.pipeline, found.curve
    moved = torch.cat([(weights(attack)[key] - value).flatten() for key, value in weights(again).items()]).norm()
    assert curve["distance"].iloc[-1] == pytest.approx(float(moved), rel=1e-3) and moved > 0
    changed = {key for key, value in weights(attack).items() if not torch.equal(value, weights(again)[key])}
    assert changed and all(key.endswith((".to_q.weight", ".to_k.weight", ".to_v.weight", ".to_out.0.weight"))
                           for key in changed) == bool(lora_rank)
    if not lora_rank:
        with pytest.raises(ModelError, match="has no low-rank updates of its own"):
            save_adapter(attack, folder / "attack")
        return
    save_adapter(attack, folder / "attack")
    both = load_pipeline(folder / "model", adapters=[folder / "forget", folder / "attack"])
    assert same(weights(both), weights(attack), rtol=1e-4, atol=1e-6) and both.history.forgotten[-1].target.name == "Van_Gogh"
    assert len(both.history.item_hashes) == len(attack.history.item_hashes)


def test_updates_that_are_attached_count_as_what_the_model_is(forgotten, canvas):
    """Loaded by diffusers and neither fused nor unloaded, at half their size: they are drawn with, and attacked."""
    folder, _ = forgotten
    pipe = load_pipeline(folder / "model")
    ask = {"num_inference_steps": 1, "progress": False}
    without = draw_samples(pipe, ["A Dogs image"], **ask)
    pipe.load_lora_weights(folder / "forget", adapter_name="forget")
    drawn = {scale: pipe.set_adapters(["forget"], adapter_weights=[scale]) or draw_samples(pipe, ["A Dogs image"], **ask)
             for scale in (1.0, 0.5)}
    assert not torch.equal(drawn[1.0], drawn[0.5]) and not torch.equal(drawn[0.5], without)  # none of them remembered for another
    with pytest.raises(ModelError, match="pipe.fuse_lora"):
        save_checkpoint(pipe, folder / "whole", CARD)
    start = load_pipeline(folder / "model")
    attack = relearn(
        pipe, canvas.without("Van_Gogh"), target="Van_Gogh", judge=tiny_pipelines.canvas_judge(), samples=1, num_inference_steps=1,
        **LORA | {"steps": 0, "lora_rank": 0},
    ).pipeline
    half = by_hand(folder / "forget", 0.5)
    assert same(weights(attack), {key: value + half.get(key, 0) for key, value in weights(start).items()}, rtol=1e-4, atol=1e-6)
    pipe.disable_lora()  # it draws as it did before them, and is what it draws
    with student(pipe) as trained:
        assert same(weights(trained), weights(start))
    assert torch.equal(weights_of(network_of(pipe)), weights_of(network_of(start)))


def test_a_method_that_edits_weights_leaves_no_empty_updates(prompted, shapes):
    """They would be saved as an adapter, and what was edited would not be in it."""
    with pytest.raises(TrainingError, match="uce edits the weights themselves, so no low-rank updates train"):
        unlearn(prompted, "uce", target="outline", data=shapes, **LORA)


def test_our_own_model_of_shapes_keeps_its_updates_the_same_way(prompted, shapes, tmp_path):
    prompted.save_pretrained(tmp_path / "model")
    forgot = unlearn(prompted, "dimum", target="outline", data=shapes, **LORA)
    save_adapter(forgot, tmp_path / "forget")
    again = load_pipeline(tmp_path / "model", adapters=[tmp_path / "forget"])
    assert same(weights(again), weights(forgot), rtol=1e-5, atol=1e-7)
    assert again.history.forgotten[-1].target.name == "outline"


def test_what_is_no_adapter_of_this_model_is_refused(forgotten, pipe, tmp_path, digits):
    folder, _ = forgotten
    model = folder / "model"
    (tmp_path / "empty").mkdir()
    (tmp_path / "pickle").mkdir()
    torch.save({"a": torch.ones(1)}, tmp_path / "pickle" / "pytorch_lora_weights.bin")
    for wrong in ("empty", "pickle", "none"):
        with pytest.raises(CheckpointError, match=f"{wrong} has no low-rank updates in it"):
            load_pipeline(model, adapters=[tmp_path / wrong])
    (folder / "forget" / ADAPTER_FILE).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="forget cannot be loaded"):
        load_pipeline(model, adapters=[folder / "forget"])
    tiny_pipelines.stable_diffusion_3().save_pretrained(tmp_path / "sd3")
    save_file({"unet.no.such.layer.lora_A.weight": torch.ones(2, 4)}, folder / "forget" / ADAPTER_FILE)
    with pytest.raises(CheckpointError, match="updates nothing of this StableDiffusion3Pipeline|cannot be loaded"):
        load_pipeline(tmp_path / "sd3", adapters=[folder / "forget"])
    by_rank = unlearn(pipe, "finetune", target="3", data=digits, **LORA)
    with pytest.raises(ModelError, match="no format for low-rank updates of a ClassConditionalPipeline"):
        save_adapter(by_rank, tmp_path / "no")
    assert not (tmp_path / "no").exists()
    with pytest.raises(CheckpointError, match="low-rank updates: give the model that they belong to, and these as --adapter"):
        load_pipeline(folder / "forget")


def test_in_the_shell(prompted, shapes, tmp_path, capsys, monkeypatch, few_drawings):
    monkeypatch.setattr("dimum_core.fitting.default_data", lambda pipe: shapes)
    prompted.save_pretrained(tmp_path / "model")
    model, forget, attack = (str(tmp_path / name) for name in ("model", "forget", "attack"))
    unlearning = ["unlearn", model, "--target", "outline", "--steps", "2", "--learning-rate", "0.01", "--lora-rank", "2"]
    assert main([*unlearning, "--out", forget]) == 0
    assert "--adapter" in capsys.readouterr().out
    assert (tmp_path / "forget" / ADAPTER_FILE).is_file() and not (tmp_path / "forget" / "unet").exists()
    assert json.loads((tmp_path / "forget" / "card.json").read_text())["kind"] == "adapter"
    assert (tmp_path / "forget" / HISTORY_FILE).is_file()
    assert main([*unlearning, "--merge", "--out", str(tmp_path / "merged")]) == 0
    merged = load_pipeline(tmp_path / "merged")
    assert same(weights(merged), weights(load_pipeline(model, adapters=[forget])), rtol=1e-5, atol=1e-7)
    plain = type(merged).from_pretrained(model)
    plain.load_lora_weights(forget)
    attacking = ["relearn", model, "--adapter", forget, "--target", "outline", "--steps", "1", "--lora-rank", "2", "--out", attack]
    assert main(attacking) == 0 and (tmp_path / "attack" / ADAPTER_FILE).is_file()
    assert f"give them after {model} with --adapter {forget} --adapter {attack}\n" in capsys.readouterr().out
    drawing = ["sample", model, "--adapter", forget, "--adapter", attack, "--count", "1", "--steps", "1"]
    assert main([*drawing, "--prompt", "a outline star", "--out", str(tmp_path / "x.png")]) == 0
    capsys.readouterr()
    refused = {
        "no format for low-rank updates": ["unlearn", "digits", "--target", "3", "--lora-rank", "2", "--out", str(tmp_path / "d")],
        "--merge is for --lora-rank": ["unlearn", model, "--target", "outline", "--merge", "--out", str(tmp_path / "e")],
    }
    for said, command in refused.items():
        assert main(command) == 1 and said in capsys.readouterr().err


def test_few_images_come_back_through_updates_too(forgotten, canvas):
    folder, _ = forgotten
    again = load_pipeline(folder / "model", adapters=[folder / "forget"])
    attack = few_shot(
        again, canvas, "Van_Gogh", 1, judge=tiny_pipelines.canvas_judge(), samples=1, num_inference_steps=1, **LORA
    ).pipeline
    assert attack.adapter
