"""diffusers' own Stable Diffusion, tiny, with random weights: unlearned, attacked, measured, saved, loaded by the same calls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor

from dimum_core import evaluate, load_images, load_pipeline, relearn, unlearn
from dimum_core.attacks import Means, get_attack, probe_prompts, search_embedding
from dimum_core.cli import main
from dimum_core.data import load_unlearn_canvas
from dimum_core.errors import CheckpointError, DataError, DimumError, SettingError, UnknownName
from dimum_core.evaluation import draw_samples
from dimum_core.judges.classifier import Judge, PairJudge
from dimum_core.models.checkpoints import save_checkpoint
from dimum_core.models.conditions import conditions_of, draw, image_size
from tests import tiny_pipelines
from tests.tiny_pipelines import OBJECTS, STYLES

QUICK = {"batch_size": 2, "progress": False}


@pytest.fixture
def stable_diffusion():
    return tiny_pipelines.stable_diffusion()


@pytest.fixture
def stable_diffusion_xl():
    return tiny_pipelines.stable_diffusion_xl()


@pytest.fixture
def judge():
    return tiny_pipelines.canvas_judge()


def test_the_folder_becomes_a_data_set(canvas, canvas_folder):
    assert canvas.class_names[:2] == ("Crayon Cats", "Crayon Dogs") and len(canvas.class_names) == 6
    assert len(canvas.train) == 12 and len(canvas.test) == 12 and canvas.train.images.shape[1:] == (3, 32, 32)
    assert len(canvas.train.only("Van_Gogh")) == len(canvas.train.only("Van Gogh")) == 6
    part = load_unlearn_canvas(canvas_folder, image_size=8, styles=["Van_Gogh"], objects=["Dogs"], per_combination=2, held_out=1)
    with Image.open(canvas_folder / "Van_Gogh" / "Dogs" / "1.jpg") as image:
        middle = np.asarray(image.convert("RGB"), dtype=float)[:, 4:44].reshape(8, 5, 8, 5, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs((part.train.images[0].numpy() + 1) * 127.5 - middle).max() < 1


def test_what_is_not_unlearn_canvas_is_refused(tmp_path, canvas_folder):
    with pytest.raises(DataError, match="There is no folder"):
        load_unlearn_canvas(tmp_path / "none")
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cats" / "1.jpg")
    with pytest.raises(DataError, match="is not UnlearnCanvas"):
        load_unlearn_canvas(tmp_path)
    with pytest.raises(UnknownName, match="Did you mean 'Van_Gogh'"):
        load_unlearn_canvas(canvas_folder, styles=["Van_Goch"])
    (tmp_path / "Van_Gogh" / "Dogs").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "Van_Gogh" / "Dogs" / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be read as a picture"):
        load_unlearn_canvas(tmp_path, per_combination=3, held_out=1)


def test_latents_noise_and_words_are_stable_diffusions(stable_diffusion, canvas):
    conditions = conditions_of(stable_diffusion, "Van_Gogh", canvas.class_names)
    assert image_size(stable_diffusion) == 32
    assert conditions.asked([3]) == ["A Cats image in Van Gogh style."]
    vae, images = stable_diffusion.vae, canvas.test.images[:2]
    with torch.no_grad():
        theirs = vae.encode(images).latent_dist.mean * vae.config.scaling_factor
        assert torch.allclose(conditions.encode(images), theirs, atol=1e-5)  # images are encoded one by one
    from dimum_core.models.diffusion import add_noise

    x, eps, t = torch.ones(2, 4, 16, 16), torch.ones(2, 4, 16, 16), torch.tensor([3, 900])
    expected = stable_diffusion.scheduler.add_noise(x, eps, t)
    assert torch.allclose(add_noise(x, eps, t, conditions.alphas_cumprod), expected, atol=1e-5)


@pytest.mark.parametrize(("method", "settings"), [
    ("dimum", {"lora_rank": 2, "gradient_checkpointing": True, "precision": "bf16"}), ("esd-x", {}), ("uce", {}),
])
def test_unlearn_attack_evaluate_save_and_load(method, settings, stable_diffusion, canvas, judge, tmp_path):
    before = {k: v.clone() for k, v in stable_diffusion.unet.state_dict().items()}
    forgetful = unlearn(stable_diffusion, method, target="Van_Gogh", data=canvas, steps=2, learning_rate=1e-3, **QUICK, **settings)
    after = forgetful.unet.state_dict()
    assert set(after) == set(before) and any(not torch.equal(after[k], before[k]) for k in after)
    assert all(torch.equal(before[k], v) for k, v in stable_diffusion.unet.state_dict().items())
    attack = relearn(
        forgetful, canvas.without("Van_Gogh"), steps=2, judge=judge, samples=3, num_inference_steps=2, evaluate_every=2,
        lora_rank=settings.get("lora_rank", 0), **QUICK,
    )
    assert attack.curve["step"].tolist() == [0, 2]
    measured = evaluate(
        attack.pipeline, target="Van_Gogh", data=canvas, judge=judge, per_class=2, num_inference_steps=2, progress=False
    )
    assert measured.table.loc["CRA", "n"] == 12 and measured.table.loc["UA", "n"] == 6
    attack.pipeline.save_pretrained(tmp_path)
    again = load_pipeline(tmp_path)
    drawn = [
        p("A Dogs image", generator=torch.Generator().manual_seed(0), num_inference_steps=2, output_type="np").images
        for p in (attack.pipeline, again)
    ]
    assert isinstance(again, StableDiffusionPipeline) and np.allclose(*drawn, atol=1e-4)


def test_plain_class_names_are_asked_for_as_photos_of_them(stable_diffusion):
    """Such as those of folders of one's own pictures. What is worded for a style and an object says that it does not fit."""
    names = ("cat", "dog", "great white shark")
    data = load_images(np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8), 32, labels=[*names] * 8)
    judge = Judge(32, 3, names, (8, 8), (2, 2))
    forgetful = unlearn(stable_diffusion, "dimum", target="dog", data=data, steps=1, **QUICK)
    attack = relearn(
        forgetful, data.without("dog"), steps=1, judge=judge, samples=2, num_inference_steps=2, evaluate_every=1, **QUICK
    )
    table = evaluate(attack.pipeline, target="dog", judge=judge, per_class=1, num_inference_steps=2, progress=False).table
    assert {"UA", "RA"} <= set(table.index) and "IRA" not in table.index
    conditions = conditions_of(stable_diffusion, "dog", names)
    assert conditions.asked([1, 2, None]) == ["a photo of a dog", "a photo of a great white shark", ""]
    means = Means(conditions.forgotten, data, judge)
    assert "of a style and an object" in get_attack("paraphrases").lacking(stable_diffusion, means)
    assert not get_attack("embedding").lacking(stable_diffusion, means)


def test_the_command_line_draws_its_prompts_and_says_what_the_rest_lacks(stable_diffusion, tmp_path, capsys):
    stable_diffusion.save_pretrained(tmp_path / "model")
    out = tmp_path / "x.png"
    sample = f"sample {tmp_path / 'model'} --count 1 --steps 2 --out {out}".split()
    assert main([*sample, "--prompt", "A Dogs image"]) == 0
    assert Image.open(out).size == (33 * 4, 33 * 4) and "a row for each of A Dogs image" in capsys.readouterr().out
    commands = {
        "say with --prompt": [*sample, "--label", "Dogs"], "give yours with --data": f"evaluate {tmp_path / 'model'}".split(),
        " --data, a folder of": f"unlearn {tmp_path / 'model'} --target Dogs --out {tmp_path / 'u'}".split(),
        "in Python, as data=": f"relearn {tmp_path / 'model'} --target Dogs --out {tmp_path / 'r'}".split(),
    }
    for said, command in commands.items():
        assert main(command) == 1 and said in capsys.readouterr().err, command


def test_a_saved_model_knows_what_it_forgot(stable_diffusion, canvas, judge, tmp_path):
    forgetful = unlearn(stable_diffusion, "finetune", target="Van_Gogh", data=canvas, steps=1, **QUICK)
    save_checkpoint(forgetful, tmp_path, {"title": "t", "summary": "s", "kind": "denoiser"})
    again = load_pipeline(tmp_path)
    assert again.unlearning["target"] == "Van_Gogh"
    with pytest.raises(DataError, match="6 images of the target style Van_Gogh"):
        relearn(again, canvas.without("Crayon"), target="Crayon", judge=judge, steps=1, **QUICK)
    second = unlearn(again, "finetune", target="Cats", data=canvas, steps=1, **QUICK)
    assert second.unlearning["left_out"] == ("Van_Gogh",)


def test_another_rank_is_not_gone_on_with(stable_diffusion, canvas, judge, tmp_path):
    settings = {"target": "Van_Gogh", "steps": 1, **QUICK}
    attacks = settings | {"judge": judge, "samples": 1, "num_inference_steps": 1, "out": tmp_path / "attacked"}
    unlearn(stable_diffusion, "finetune", data=canvas, out=tmp_path / "forgot", **settings)
    relearn(stable_diffusion, canvas.without("Van_Gogh"), **attacks)
    with pytest.raises(CheckpointError, match="was made with lora_rank = 0, and 2 is asked for now"):
        unlearn(stable_diffusion, "finetune", data=canvas, out=tmp_path / "forgot", resume=True, lora_rank=2, **settings)
    with pytest.raises(CheckpointError, match="was made with lora_rank = 0, and 2 is asked for now"):
        relearn(stable_diffusion, canvas.without("Van_Gogh"), resume=True, lora_rank=2, **attacks)


def test_another_autoencoder_draws_anew(stable_diffusion):
    ask = {"num_inference_steps": 1, "progress": False}
    before = draw_samples(stable_diffusion, ["A Dogs image"], **ask)
    with torch.no_grad():
        stable_diffusion.vae.decoder.conv_out.bias.add_(0.5)
    assert not before.equal(draw_samples(stable_diffusion, ["A Dogs image"], **ask))


def test_a_judge_of_ones_own_says_when_to_stop(stable_diffusion, canvas, judge):
    settings = {"target": "Van_Gogh", "data": canvas, "steps": 4, "evaluate_every": 1, **QUICK}
    with pytest.raises(CheckpointError, match="No judge is shipped for this pipeline: give one with --judge .in Python, judge="):
        unlearn(stable_diffusion, "finetune", until=0.0, **settings)
    assert unlearn(stable_diffusion, "finetune", until=0.0, judge=judge, **settings).unlearning["steps"] == 1


def test_a_safety_checker_blackens_nothing_that_is_measured(stable_diffusion, judge):
    """diffusers' own, here one that objects to every image: black ones would count as forgotten."""
    probe = lambda: probe_prompts(stable_diffusion, "Van_Gogh", judge=judge, count=2, num_inference_steps=1).to_dict()  # noqa: E731
    drawing = lambda: draw(  # noqa: E731
        stable_diffusion, ["A Dogs image"], num_inference_steps=1, generator=torch.Generator().manual_seed(0)
    )
    drawn, probed = drawing(), probe()
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "projection_dim": 4}
    vision = small | {"image_size": 8, "patch_size": 4}
    checker = StableDiffusionSafetyChecker(CLIPConfig(text_config=small, vision_config=vision, projection_dim=4))
    checker.concept_embeds_weights.data.fill_(-2.0)  # a threshold that every cosine exceeds
    pictures = CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=8)
    stable_diffusion.register_modules(safety_checker=checker.eval(), feature_extractor=pictures)
    assert drawing().equal(drawn) and probe() == probed
    assert not stable_diffusion("A Dogs image", num_inference_steps=1, output_type="np").images.any(), "without us it does"


def test_an_embedding_is_sought_in_stable_diffusion(stable_diffusion, canvas, judge):
    found = search_embedding(
        stable_diffusion, canvas.train, target="Van_Gogh", steps=1, judge=judge, samples=3, num_inference_steps=2, **QUICK
    )
    assert found.embeddings.shape == (3, 16, 16)


def test_what_does_not_fit_is_refused(stable_diffusion, canvas):
    with pytest.raises(UnknownName, match="no style, object or class 'Monet'"):
        unlearn(stable_diffusion, "dimum", target="Monet", data=canvas, steps=1)
    with pytest.raises(DataError, match="names nothing to forget"):
        unlearn(stable_diffusion, "dimum", target="a painting of a boat", data=canvas, steps=1)
    other = PairJudge(*(Judge(32, 3, words, (8, 8), (2, 2)) for words in (STYLES, OBJECTS[::-1])))
    with pytest.raises(SettingError, match="The judge knows the classes"):
        relearn(stable_diffusion, canvas.without("Van_Gogh"), target="Van_Gogh", judge=other, steps=1)
    stable_diffusion.scheduler.register_to_config(prediction_type="flow_prediction")
    with pytest.raises(DimumError, match="this one predicts flow_prediction"):
        unlearn(stable_diffusion, "dimum", target="Van_Gogh", data=canvas, steps=1)


@pytest.mark.parametrize("method", ["dimum", "esd", "concept-ablation"])
def test_stable_diffusion_2_which_predicts_v_goes_all_the_way(method, stable_diffusion, canvas, judge, tmp_path):
    scheduler = DDIMScheduler.from_config(stable_diffusion.scheduler.config, prediction_type="v_prediction")
    stable_diffusion.register_modules(scheduler=scheduler)
    conditions = conditions_of(stable_diffusion, "Van_Gogh", canvas.class_names)
    x_t, t, condition = torch.randn(2, 4, 16, 16), torch.tensor([300, 900]), conditions.target(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        velocity = stable_diffusion.unet(x_t, t, encoder_hidden_states=conditions.embeddings(condition)).sample
        abar = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        wanted = abar.sqrt() * velocity + (1 - abar).sqrt() * x_t
        torch.testing.assert_close(conditions.predict(stable_diffusion.unet, x_t, t, condition), wanted, rtol=1e-4, atol=1e-4)
    unlearned = unlearn(stable_diffusion, method, target="Van_Gogh", data=canvas, steps=2, **QUICK)
    attack = relearn(
        unlearned, canvas.without("Van_Gogh"), target="Van_Gogh", judge=judge, steps=2, samples=2, num_inference_steps=2, **QUICK
    )
    measured = evaluate(
        attack.pipeline, target="Van_Gogh", judge=judge, per_class=1, num_inference_steps=2, guidance_scale=2.0, progress=False
    )
    assert 0 <= measured["UA"] <= 1
    attack.pipeline.save_pretrained(tmp_path)
    plain = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    assert plain.scheduler.config.prediction_type == "v_prediction"
    assert all(torch.equal(a, b) for a, b in zip(plain.unet.parameters(), attack.pipeline.unet.parameters(), strict=True))


def test_stable_diffusion_xl_is_told_what_its_own_pipeline_tells_it(stable_diffusion_xl, canvas):
    """The network sees, of a prompt and of none, bit for bit what it sees when diffusers draws with guidance."""
    pipe, seen = stable_diffusion_xl, []
    forward = pipe.unet.forward
    pipe.unet.forward = lambda x, t, **said: seen.append(said) or forward(x, t, **said)
    conditions = conditions_of(pipe, "Van_Gogh", canvas.class_names)
    pipe(conditions.asked([3]), num_inference_steps=1, guidance_scale=2.0, output_type="latent")
    x_t, t, both = torch.randn(2, 4, 16, 16), torch.tensor([5, 5]), torch.cat([conditions.null(1), torch.tensor([3])])
    with torch.no_grad():
        conditions.predict(pipe.unet, x_t, t, both)
    theirs, ours = seen
    for key in ("text_embeds", "time_ids"):
        torch.testing.assert_close(ours["added_cond_kwargs"][key], theirs["added_cond_kwargs"][key].float())
    torch.testing.assert_close(ours["encoder_hidden_states"], theirs["encoder_hidden_states"])
    assert not ours["encoder_hidden_states"][0].any() and ours["encoder_hidden_states"][1].any()


def test_an_autoencoder_that_overflows_in_fp16_decodes_in_its_own_precision(stable_diffusion_xl, monkeypatch):
    monkeypatch.setattr("dimum_core.precision.native_precision", lambda device: "fp16")
    vae, ask = stable_diffusion_xl.vae, {"num_inference_steps": 1, "progress": False}
    with torch.no_grad():
        vae.decoder.conv_in.weight.mul_(1e6)  # what comes out is normalised
    assert vae.config.force_upcast and draw_samples(stable_diffusion_xl, ["A Dogs image"], **ask).isfinite().all()
    vae.register_to_config(force_upcast=False)
    assert not draw_samples(stable_diffusion_xl, ["A Dogs image"], **ask).isfinite().all()


@pytest.mark.parametrize("method", ["dimum", "esd-x", "uce"])
def test_stable_diffusion_xl_goes_all_the_way(method, stable_diffusion_xl, canvas, judge, tmp_path):
    lora = {"lora_rank": 2} if method == "dimum" else {}
    unlearned = unlearn(stable_diffusion_xl, method, target="Van_Gogh", data=canvas, steps=2, **lora, **QUICK)
    attack = relearn(
        unlearned, canvas.without("Van_Gogh"), target="Van_Gogh", judge=judge, steps=2, samples=2, num_inference_steps=2, **QUICK
    )
    assert attack.curve["distance"].iloc[-1] > 0
    measured = evaluate(
        attack.pipeline, target="Van_Gogh", judge=judge, per_class=1, num_inference_steps=2, guidance_scale=2.0, progress=False
    )
    assert 0 <= measured["UA"] <= 1
    attack.pipeline.save_pretrained(tmp_path)
    plain, again = StableDiffusionXLPipeline.from_pretrained(tmp_path), load_pipeline(tmp_path)
    assert isinstance(again, StableDiffusionXLPipeline)
    for loaded in (plain, again):
        pairs = zip(loaded.unet.parameters(), attack.pipeline.unet.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(DimumError, match="one text encoder, and this one has several"):
        search_embedding(again, canvas.train.only("Van_Gogh"), target="Van_Gogh", judge=judge, steps=1)
