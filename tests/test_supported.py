"""What is not supported is refused in one sentence, at every door, before anything is ruined without a word."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    RePaintScheduler,
    UNet2DModel,
)

from dimum_core import evaluate, load_pipeline, precision, relearn, unlearn
from dimum_core.attacks import Means, attack, get_attack, reset_embedding
from dimum_core.autoencoder import load_autoencoder
from dimum_core.data import Dataset
from dimum_core.errors import CheckpointError, ModelError, SettingError
from dimum_core.evaluation import draw_samples
from dimum_core.geometry import Probe
from dimum_core.judges import load_judge
from dimum_core.judges.classifier import Judge
from dimum_core.models.checkpoints import _variant as variant_of
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.conditions import conditions_of, draw
from dimum_core.models.denoiser import build_denoiser
from dimum_core.models.diffusion import ALPHAS_CUMPROD, SCHEDULER_CONFIG, Schedule
from dimum_core.models.sampling import ClassConditionalPipeline
from dimum_core.unlearning.base import Step
from dimum_core.unlearning.choosing import get_method

NAMES = ("left", "top", "checks")
SIZES = {
    "sample_size": 4, "in_channels": 4, "out_channels": 4, "block_out_channels": (32, 64), "layers_per_block": 1,
    "down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2,
}


@pytest.fixture
def pipe(tiny_preset):
    return build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, NAMES)


def with_network(**changes) -> ClassConditionalPipeline:
    unet = UNet2DModel(**SIZES | {"num_class_embeds": 4} | changes)
    return ClassConditionalPipeline(unet, DDIMScheduler(**SCHEDULER_CONFIG), dict(enumerate(NAMES)), patch_size=2)


def with_scheduler(kind, **changes) -> ClassConditionalPipeline:
    pipe = with_network()
    pipe.scheduler = kind(**changes)
    return pipe


def transformer() -> DiTPipeline:
    return DiTPipeline(DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, num_layers=1, sample_size=4, patch_size=2,
        num_embeds_ada_norm=4, norm_num_groups=1,
    ), None, DDIMScheduler(), {0: "a"})


def spoilt(weight: float) -> ClassConditionalPipeline:
    pipe = with_network()
    pipe.unet.conv_in.weight.data[0, 0, 0, 0] = weight
    return pipe


def wrapped() -> ClassConditionalPipeline:
    pipe = with_network()
    pipe.unet = torch.nn.DataParallel(pipe.unet)
    return pipe


CASES = {
    "flow prediction": (lambda: with_scheduler(DPMSolverMultistepScheduler, prediction_type="flow_prediction",
                                               use_flow_sigmas=True), "epsilon, v_prediction, sample here, and this one predicts"),
    "flow matching": (lambda: with_scheduler(FlowMatchEulerDiscreteScheduler), "FlowMatchEuler.* has no alphas_cumprod"),
    "another diffusion": (lambda: with_scheduler(EDMEulerScheduler), "EDMEulerScheduler has no alphas_cumprod"),
    "4,000 levels": (lambda: with_scheduler(DDIMScheduler, num_train_timesteps=4000), "has 4000 noise levels"),
    "a repairer": (lambda: with_scheduler(RePaintScheduler), "RePaintScheduler needs original_image, mask in every step"),
    "1,001 rows for 3 names": (lambda: with_network(num_class_embeds=1001), "3 classes need 3 label rows, or 4 .*has 1001"),
    "2 rows for 3 names": (lambda: with_network(num_class_embeds=2), "3 classes need 3 label rows, or 4 .*has 2"),
    "no table of labels": (lambda: with_network(num_class_embeds=None), "has no table of labels"),
    "labels as times": (lambda: with_network(num_class_embeds=None, class_embed_type="timestep"), "has no table of labels"),
    "learned variance": (lambda: with_network(out_channels=8), "gives 8 channels for 4"),
    "no one size": (lambda: with_network(sample_size=(4, 8)), "sample_size is .*4, 8"),
    "folded otherwise": (lambda: with_network(in_channels=3, out_channels=3), "sees 3 channels, and is given pixels"),
    "NaN": (lambda: spoilt(float("nan")), "conv_in.weight of the network are not finite"),
    "infinity": (lambda: spoilt(float("inf")), "conv_in.weight of the network are not finite"),
    "unconditional": (
        lambda: DDPMPipeline(UNet2DModel(**SIZES), DDPMScheduler()), "DDPMPipeline (draws images of no|does not say which) class"
    ),
    "a transformer": (transformer, "A DiTPipeline does not say which classes it draws: wrap it"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("door", ["load", "unlearn", "relearn", "evaluate"])
def test_what_is_not_supported_is_refused_at_every_door(case, door, tiny_data, tmp_path):
    make, said = CASES[case]
    pipe, data = make(), Dataset(tiny_data, tiny_data)
    doors = {
        "unlearn": lambda: unlearn(pipe, "finetune", target="top", data=data, steps=1, progress=False),
        "relearn": lambda: relearn(pipe, tiny_data.without("top"), target="top", steps=1, progress=False),
        "evaluate": lambda: evaluate(pipe, judge=Judge(8, 1, NAMES, (4,), (2,)), per_class=1, progress=False),
        "load": lambda: load_pipeline(tmp_path / "m"),
    }
    if door == "load":
        if case == "a transformer":
            pytest.skip("without an autoencoder it cannot be saved")
        pipe.save_pretrained(tmp_path / "m")
        said = "not finite" if "finite" in said else said
    with pytest.raises(CheckpointError if door == "load" else ModelError, match=said) as refused:
        doors[door]()
    assert "\n" not in str(refused.value) and str(refused.value).endswith(".")


def test_label_rows_that_nobody_names_are_refused(pipe, tiny_data):
    """The last of them may be a class, or the null condition: it had been taken for the latter without a word."""
    unnamed = ClassConditionalPipeline(pipe.unet, pipe.scheduler, patch_size=2)
    with pytest.raises(ModelError, match="4 label rows and does not say what they are: .*4 names if each is a class, or with 3 if"):
        unlearn(unnamed, "finetune", target="top", data=Dataset(tiny_data, tiny_data), steps=1, progress=False)


def test_a_network_within_another_is_refused(tiny_data):
    with pytest.raises(ModelError, match=r"is a DataParallel, and should be diffusers' own: give what is wrapped, its `.module`"):
        unlearn(wrapped(), "finetune", target="top", data=Dataset(tiny_data, tiny_data), steps=1, progress=False)


@pytest.mark.parametrize("judge", [Judge(16, 1, NAMES, (4,), (2,)), Judge(8, 3, NAMES, (4,), (2,))])
def test_a_judge_of_other_images_is_refused_before_anything_is_drawn(judge, pipe, tiny_data, monkeypatch):
    monkeypatch.setattr("dimum_core.evaluation.draw", None)  # which would fail if it were called
    data, settings = Dataset(tiny_data, tiny_data), {"target": "top", "steps": 1, "judge": judge, "progress": False}
    doors = {
        "evaluate": lambda: evaluate(pipe, judge=judge, per_class=1, progress=False),
        "relearn": lambda: relearn(pipe, tiny_data.without("top"), **settings),
        "unlearn": lambda: unlearn(pipe, "finetune", data=data, until=0.5, **settings),
    }
    for door in doors.values():
        with pytest.raises(SettingError, match="judge looks at (grey|RGB) .*pipeline draws grey images of 8 x 8.*--image-size 8"):
            door()


def test_names_for_a_model_that_has_its_own_are_not_passed_over(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    assert load_pipeline(tmp_path, class_names=NAMES).class_names == NAMES
    with pytest.raises(CheckpointError, match="says itself which classes it draws.*leave class_names out"):
        load_pipeline(tmp_path, class_names=["a", "b", "c"])


@pytest.mark.parametrize("names", [{0: "left", 2: "top", 3: "checks"}, {0: "left", 1: "left", 2: "checks"}])
def test_names_that_are_not_one_for_each_number_are_refused(names, pipe, tiny_data):
    pipe.register_to_config(id2label={str(key): name for key, name in names.items()})
    with pytest.raises(ModelError, match="each of the numbers 0 to 2 a name of its own"):
        unlearn(pipe, "finetune", target="top", data=Dataset(tiny_data, tiny_data), steps=1, progress=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_precisions_that_nothing_computes_in_are_refused_and_loading_mends_them(dtype, pipe, tiny_data, tmp_path):
    pipe.unet.to(dtype)
    with pytest.raises(ModelError, match=r"cannot be trained here: pipe.to\(torch.float32\) first"):
        unlearn(pipe, "finetune", target="top", data=Dataset(tiny_data, tiny_data), steps=1, progress=False)
    with pytest.raises(ModelError, match="cannot draw on the CPU"):
        evaluate(pipe, judge=Judge(8, 1, NAMES, (4,), (2,)), per_class=1, progress=False)
    pipe.save_pretrained(tmp_path)
    assert load_pipeline(tmp_path).unet.dtype == torch.float32


def test_a_size_may_be_given_as_two_equal_sides():
    pair = with_network(sample_size=(4, 4))
    assert pair.image_shape == (1, 8, 8)
    assert draw_samples(pair, ["left"], progress=False, num_inference_steps=2).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("native", ["bf16", "fp32"])
def test_bf16_is_trained_and_drawn_whatever_the_machine_computes_natively(native, pipe, tiny_data, monkeypatch):
    monkeypatch.setattr(precision, "native_precision", lambda device: native)
    settings = {"target": "top", "data": Dataset(tiny_data, tiny_data), "steps": 1, "progress": False}
    found = unlearn(pipe.to(torch.bfloat16), "finetune", lora_rank=2, **settings)
    assert {weight.dtype for weight in found.unet.parameters()} == {torch.bfloat16}
    assert {weight.dtype for weight in found.adapter.values()} == {torch.float32}
    assert draw_samples(found, ["left"], progress=False, num_inference_steps=2).isfinite().all()


def test_weights_in_bf16_are_not_trained_since_they_lose_small_steps(pipe, tiny_data):
    short, data = pipe.to(torch.bfloat16), Dataset(tiny_data, tiny_data)
    with pytest.raises(ModelError, match=r"Weights in bfloat16 cannot be trained here.*: pipe.to\(torch.float32\) first"):
        unlearn(short, "finetune", target="top", data=data, steps=1, progress=False)
    for settings in ({}, {"lora_rank": 2}):  # which are added to the weights in the end
        with pytest.raises(ModelError, match="Weights in bfloat16 cannot be trained here"):
            relearn(short, tiny_data.without("top"), target="top", steps=1, progress=False, **settings)
    draw_samples(short, ["left"], progress=False, num_inference_steps=2)


@pytest.mark.parametrize("method", ["salun", "selective-amnesia", "sfr-on", "dimum"])
def test_methods_prepare_on_weights_in_bf16(method, pipe, tiny_data):
    found = unlearn(pipe.to(torch.bfloat16), method, target="top", data=Dataset(tiny_data, tiny_data), steps=1, batch_size=4,
                    lora_rank=2, progress=False)
    assert found.unet.dtype == torch.bfloat16 and all(weight.isfinite().all() for weight in found.unet.parameters())


def test_attacks_run_on_weights_in_bf16(pipe, tiny_data):
    short, data = pipe.to(torch.bfloat16), Dataset(tiny_data, tiny_data)
    means = Means("top", data, Judge(8, 1, NAMES, (4,), (2,)), copy.deepcopy(pipe), samples=2)
    assert reset_embedding(short, "top", seed=1).unet.dtype == torch.bfloat16
    for name, settings in (("old-row", {}), ("seed-row", {}), ("inversion", {}), ("initial-noise", {"steps": 1})):
        found = attack(short, get_attack(name, **settings), means)
        assert 0 <= found.target.value <= 1, name


@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, EDMEulerScheduler])
def test_a_pipeline_does_not_draw_by_a_scheduler_of_another_diffusion(pipe, kind):
    pipe.scheduler = kind()
    with pytest.raises(ModelError, match=f"{kind.__name__} has no alphas_cumprod.*DDIMScheduler"):
        pipe(["left"], num_inference_steps=2)


# One schedule and one null row ------------------------------------------------------------------------------------------


def test_training_sees_the_noise_levels_of_the_pipelines_own_schedule(pipe):
    assert torch.equal(conditions_of(pipe).alphas_cumprod, ALPHAS_CUMPROD)  # in full precision, whatever diffusers rounds
    cosine = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(cosine.config)
    conditions = conditions_of(pipe, "top")
    x, eps, t = torch.randn(2, 50, 4, 4, 4), torch.randn(50, 4, 4, 4), torch.arange(0, 1000, 20)
    step = Step(pipe.unet, pipe.unet, conditions, {}, 50, (4, 4, 4), 0, 0)
    x_t, eps, t = step.noise(x[0])
    torch.testing.assert_close(x_t, cosine.add_noise(x[0], eps, t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(DDIMScheduler(**conditions.scheduler_config).alphas_cumprod, cosine.alphas_cumprod)
    assert get_method("esd", sampling_steps=2).point_on_the_path(step)[0].isfinite().all()


def test_a_probe_of_weights_has_the_noise_levels_of_the_pipelines_own_schedule(pipe, tiny_data):
    cosine = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pipe.scheduler = DDIMScheduler.from_config(cosine.config)
    probe = Probe.of(pipe, tiny_data.select([0]), count=30)
    x = pipe.encode(tiny_data.images[:1]).repeat(30, 1, 1, 1)
    torch.testing.assert_close(probe.x_t, cosine.add_noise(x, probe.eps, probe.t), rtol=1e-4, atol=1e-5)


def test_a_schedule_given_as_betas_is_kept():
    betas = torch.linspace(0.001, 0.01, 1000).tolist()
    schedule = Schedule.of(DDIMScheduler(trained_betas=betas))
    torch.testing.assert_close(DDIMScheduler(**schedule.config).alphas_cumprod, (1 - torch.tensor(betas)).cumprod(0))
    torch.testing.assert_close(schedule.alphas_cumprod.float(), (1 - torch.tensor(betas)).cumprod(0))


def test_sampling_and_training_mean_the_same_row_by_no_label(pipe):
    conditions = conditions_of(pipe)
    assert conditions.null(2).tolist() == pipe.label_tensor([None] * 2).tolist() == [3, 3]
    with torch.no_grad():
        pipe.unet.class_embedding.weight[3] += 1
        other = draw(pipe, [None], generator=torch.Generator().manual_seed(0), num_inference_steps=2)
        pipe.unet.class_embedding.weight[3] -= 1
    assert not torch.equal(other, draw(pipe, [None], generator=torch.Generator().manual_seed(0), num_inference_steps=2))


# Folders that are no pipeline, or not quite ------------------------------------------------------------------------------


def test_what_a_folder_lacks_is_named(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "m")
    with pytest.raises(CheckpointError, match="a single network, UNet2DModel: give the folder of the pipeline"):
        load_pipeline(tmp_path / "m" / "unet")
    shutil.move(tmp_path / "m" / "model_index.json", tmp_path / "model_index.json")
    with pytest.raises(CheckpointError, match="it lacks that file beside unet"):
        load_pipeline(tmp_path / "m")
    (tmp_path / "m" / "training.safetensors").touch()
    with pytest.raises(CheckpointError, match="the state of a training, and no model: go on with --resume"):
        load_pipeline(tmp_path / "m")


def test_a_folder_of_something_else_is_called_by_its_name(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "m")
    Judge(8, 1, NAMES, (4,), (2,)).save_pretrained(tmp_path / "judge")
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    for load, folder, said in (
        (load_pipeline, "judge", "a single network, Judge: give the folder of the pipeline that draws"),
        (load_pipeline, "pictures", "nothing in it belongs to a model"), (load_pipeline, "damaged", "cannot be loaded"),
        (load_judge, "m", "m holds a pipeline that draws, and should hold a judge: train one by dimum judge train"),
        (load_judge, "m/unet", "holds a UNet2DModel, and should hold a judge"),
        (load_autoencoder, "judge", "holds a Judge, and should hold an autoencoder"),
    ):
        with pytest.raises(CheckpointError, match=said):
            load(tmp_path / folder)


def test_weights_in_half_precision_under_their_own_name_load(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, variant="fp16")
    assert (tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()
    again = load_pipeline(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(again.unet.parameters(), pipe.unet.parameters(), strict=True))


def test_weights_in_a_pickle_are_never_read(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(CheckpointError, match=r"unet/diffusion_pytorch_model\.bin, which could run code"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize(("files", "variant"), [
    (("model.safetensors",), None), (("model.fp16.safetensors",), "fp16"), (("model.fp16.safetensors", "model.safetensors"), None),
    (("model.fp16-00001-of-00002.safetensors", "model.fp16-00002-of-00002.safetensors"), "fp16"),
    (("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"), None),
    (("model-00001-of-00002.fp16.safetensors",), "fp16"),
])
def test_weights_in_parts_have_the_variant_of_the_whole(files, variant, tmp_path):
    (tmp_path / "transformer").mkdir()
    for name in files:
        (tmp_path / "transformer" / f"diffusion_pytorch_{name}").touch()
    assert variant_of(tmp_path) == variant
