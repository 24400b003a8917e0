"""One's own pictures in use: in the shell, by the doctor, and where there are too few of them."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dimum_core import doctor, evaluation, load_images, train_base
from dimum_core.benchmark import read_results
from dimum_core.cli import main
from dimum_core.data.captions import PARAPHRASES, TEMPLATES, caption
from dimum_core.errors import DataError
from dimum_core.fitting import data_for
from dimum_core.judges import load_judge
from dimum_core.judges.classifier import Judge
from dimum_core.models import denoiser
from dimum_core.models.cards import read_card
from dimum_core.models.checkpoints import build_pipeline, load_pipeline
from dimum_core.models.denoiser import build_denoiser, get_preset
from dimum_core.pretraining import new_model

from .test_own_pictures import LABELS, NAMES, drawn

PLAN = """
checkpoint: model
data: patterns
judge: judge
targets: [top]
methods: [finetune]
budgets: [{steps: 1, until: 0.5}]
seeds: [0, 1]
attack_steps: 2
attack_rates: [0.001]
points: 2
samples: 2
batch_size: 4
"""


@pytest.fixture
def patterns(tmp_path):
    """Two classes that a judge learns in seconds: bright at the left, or at the top; 40 pictures each, 16 x 16."""
    random = np.random.default_rng(0)
    for name, axis in (("left", 1), ("top", 0)):
        (tmp_path / "patterns" / name).mkdir(parents=True)
        for i in range(40):
            pixels = 40 + 160 * (np.indices((16, 16))[axis] < 8) + random.integers(0, 16, (16, 16))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "patterns" / name / f"{i}.png")
    return tmp_path / "patterns"


def test_the_shell_goes_from_pictures_to_an_attacked_model(patterns, tiny_preset, monkeypatch, tmp_path, capsys, few_drawings):
    monkeypatch.setitem(denoiser.PRESETS, "tiny", tiny_preset)
    (patterns / "top" / "notes.txt").write_text("mine")

    def run(command: str) -> str:
        assert main([word.format(folder=patterns, tmp=tmp_path) for word in command.split()]) == 0, capsys.readouterr().err
        return capsys.readouterr()

    said = run("train tiny --data {folder} --steps 2 --out {tmp}/model")
    assert "patterns: 80 pictures, grey, scaled to 8 x 8" in said.err and "left out, 1: is not a picture" in said.err
    assert load_pipeline(tmp_path / "model").class_names == ("left", "top")
    said = run("judge train --data {folder} --image-size 8 --steps 120 --out {tmp}/judge")
    assert "trained a judge of left, top" in said.out and "of 16 held-out pictures" in said.out
    judge = load_judge(tmp_path / "judge")
    assert (judge.judge(load_images(patterns, 8).test.images).forced_labels == load_images(patterns, 8).test.labels).all()
    common = "--target top --data {folder} --judge {tmp}/judge --steps 2"
    run(f"unlearn {{tmp}}/model --method finetune {common} --until 1 --out {{tmp}}/forgot")
    run(f"relearn {{tmp}}/forgot {common} --out {{tmp}}/attacked")
    said = run(f"evaluate {{tmp}}/attacked {common} --count 10 --json")
    measured = json.loads(said.out)
    assert set(measured["per_class_accuracy"]) == {"left", "top"} and measured["provenance"]["reference"] == "patterns"
    assert np.isin(load_images(patterns, 8).train.item_hashes, load_pipeline(tmp_path / "attacked").history.item_hashes).all()
    said = run("evaluate {tmp}/attacked --target top --judge {tmp}/judge --count 2 --steps 2")
    assert "dimum: fidelity is not measured. No shipped data set has the classes ('left', 'top')" in said.err
    assert "UA" in said.out and "kernel distance" not in said.out
    (tmp_path / "plan.yaml").write_text(PLAN)
    run("benchmark run {tmp}/plan.yaml --out {tmp}/results --engine serial")
    rows = read_results(tmp_path / "results")
    assert set(rows["label"]) == {"original", "finetune"} and rows["judge"].nunique() == 1 and set(rows["seed"]) == {0, 1}
    (tmp_path / "plan.yaml").write_text(PLAN.replace("judge: judge\n", ""))
    assert main(["benchmark", "run", str(tmp_path / "plan.yaml"), "--out", str(tmp_path / "none")]) == 1
    assert "judge is missing: No shipped judge" in capsys.readouterr().err and not (tmp_path / "none").exists()


def test_classes_keep_the_numbers_that_the_model_gives_them(patterns, tiny_preset):
    pipe = build_pipeline(build_denoiser(tiny_preset, 2, 1).eval(), tiny_preset, ("top", "left"))
    data = data_for(pipe, str(patterns))
    assert data.class_names == ("top", "left") and data.train.images.shape[1:] == (1, 8, 8)
    assert data.train.only("left").images[..., :2].mean() > data.train.only("left").images[..., -2:].mean()


def test_whoever_has_classes_of_their_own_is_told_what_to_give(patterns, tiny_preset, tmp_path, capsys):
    pipe = build_pipeline(build_denoiser(tiny_preset, 2, 1).eval(), tiny_preset, ("top", "left"))
    pipe.save_pretrained(tmp_path / "model")
    for command, said in (
        ("unlearn {m} --target top --out {m}2", "No shipped data set has the classes .*give yours with --data"),
        ("evaluate {m} --data {f}", "train one by `dimum judge train`, and give it with --judge"),
        ("unlearn {m} --target top --data nowhere --out {m}2", "no data set, folder or table 'nowhere'"),
        ("doctor --data digits", "digits is a data set that is shipped"),
    ):
        assert main([word.format(m=tmp_path / "model", f=patterns) for word in command.split()]) == 1
        assert re.search(said, capsys.readouterr().err)


def test_the_doctor_suggests_by_the_pictures_and_the_machine(patterns, monkeypatch, capsys):
    minutes = {8: 5.0, 16: 20.0, 32: 9e5}
    monkeypatch.setattr(doctor, "preset_minutes", lambda preset, channels: minutes[preset.image_size] * channels)
    assert main(["doctor", "--data", str(patterns)]) == 0
    said = capsys.readouterr().out
    assert "digits                 16 x 16    2,000 steps, about 20 minutes  <- suggested" in said
    assert f"dimum train digits --image-size 16 --data {patterns} --out" in said and "my-judge" in said
    grey = load_images(patterns, 8)
    assert doctor.suggested(doctor.presets_for(grey), 8).image_size == 8
    minutes[16] = 300.0
    assert doctor.suggested(doctor.presets_for(grey), 16).image_size == 8
    assert [preset.image_size for preset in doctor.presets_for(grey)] == [8, 16]
    minutes[16] = 20.0
    colour = load_images(drawn(40, 32), 32, labels=[*NAMES] * 20)
    assert [preset.name for preset in doctor.presets_for(colour)] == ["digits", "digits", "cifar10-small"]  # by an autoencoder


def test_a_model_of_pixels_is_trained_at_the_size_of_ones_pictures(patterns, tmp_path, capsys):
    size = ["--data", str(patterns), "--image-size", "16", "--steps", "1", "--out", str(tmp_path / "model")]
    assert main(["train", "digits", *size]) == 0
    assert load_pipeline(tmp_path / "model").image_shape == (1, 16, 16)
    for command in (["train", "cifar10-small", *size], ["train", "digits", *size[2:]]):
        assert main(command) == 1 and "model of the pixels of your own pictures" in capsys.readouterr().err


def test_grey_pictures_for_an_autoencoder_of_photographs_are_refused_with_what_to_do(patterns, tmp_path, capsys):
    assert main(["train", "cifar10-small", "--data", str(patterns), "--steps", "1", "--out", str(tmp_path / "model")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "patterns has grey images, and the autoencoder of cifar10-small takes RGB ones" in said
    assert "dimum train digits --data FOLDER --image-size 32" in said and "image_channels=3" in said
    coloured = load_images(patterns, 32, image_channels=3).train
    assert new_model(denoiser.get_preset("cifar10-small"), coloured, 0)[1].image_shape == (3, 32, 32)


# Few pictures, and other classes than a preset's ------------------------------------------------------------------------


def test_too_few_samples_or_pictures_for_fidelity_are_said_before_anything_is_drawn(tiny_preset, monkeypatch):
    monkeypatch.setattr(evaluation, "draw_samples", pytest.fail)
    pipe, grey = build_pipeline(build_denoiser(tiny_preset, 2, 1).eval(), tiny_preset, NAMES), drawn(40, 8)[..., 0]
    judge, labels = Judge(8, 1, NAMES, (4,), (2,)), [*NAMES] * 20
    few, many = (load_images(grey, 8, labels=labels, held_out=share) for share in (0.05, 0.5))
    with pytest.raises(DataError, match=r"needs at least 6 samples, and these are 5: raise per_class \(--count\)"):
        evaluation.evaluate(pipe, target="cat", data=many, judge=judge, per_class=5)
    with pytest.raises(DataError, match="at least 6 held-out images, and arrays has 2 that may serve: give more, hold out more"):
        evaluation.evaluate(pipe, data=few, judge=judge, per_class=5)
    with pytest.raises(DataError, match="arrays has 0"):
        evaluation.evaluate(pipe, data=load_images(grey, 8, labels=labels, held_out=0), judge=judge, per_class=5)


def test_a_preset_of_prompts_takes_pictures_of_other_classes_if_they_are_a_style_and_an_object():
    pixels = drawn(24, 16)
    with pytest.raises(DataError, match="A caption needs a class name of a style and an object"):
        train_base("shapes", data=load_images(pixels, 16, labels=LABELS).train, steps=1, progress=False)
    labels = [f"{'red' if i % 4 < 2 else 'blue'} {label}" for i, label in enumerate(LABELS)]
    pipe, _ = train_base("shapes", data=load_images(pixels, 16, labels=labels).train, steps=1, batch_size=2, progress=False)
    assert pipe.class_names == ("blue cat", "blue dog", "red cat", "red dog")


def test_classes_that_are_one_in_words_are_refused_and_long_names_are_read_to_their_end():
    def trained(*names):
        data = load_images(drawn(24, 16), 16, labels=[names[i % 2] for i in range(24)]).train
        return train_base("shapes", data=data, steps=1, batch_size=2, progress=False)

    for names in (("Red cat", "red cat"), ("old red_cat", "old_red cat")):
        with pytest.raises(DataError, match=f"The classes '{names[0]}' and '{names[1]}' are the same in words"):
            trained(*names)
    names = "oil_painting_on_canvas race_car_at_night", "oil_painting_on_canvas race_car_at_noon"
    long, short = (trained(*each)[0] for each in (names, ("red cat", "blue dog")))
    captions = [caption(name, template) for template in (*TEMPLATES, *PARAPHRASES) for name in names]
    first, second = long.tokenize(captions)[::2], long.tokenize(captions)[1::2]
    assert (first != second).any(1).all() and short.tokenize(["a red cat"]).shape == (1, 12)


def test_a_card_names_the_combinations_that_were_held_out_and_no_others(tmp_path):
    preset = replace(get_preset("shapes"), held_out=("red cat", "outline heart"))
    labels = ["red cat", "blue cat", "blue dog"] * 8
    data = load_images(drawn(24, 16), 16, labels=labels).train
    train_base(preset, tmp_path, data=data, steps=1, batch_size=2, progress=False)
    assert read_card(tmp_path)["held_out"] == ["red cat"]
