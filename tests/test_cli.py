"""The command line and the checkpoints behind it: from training to samples and measurements, and every refusal."""

from __future__ import annotations

import json
import subprocess
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dimum_core import cli
from dimum_core.autoencoder import load_autoencoder
from dimum_core.cli import build_parser, main
from dimum_core.data import Dataset, load_dataset
from dimum_core.errors import SettingError
from dimum_core.judges import load_judge
from dimum_core.judges.classifier import Judge
from dimum_core.judges.training import train_judge
from dimum_core.models import cards, checkpoints, denoiser
from dimum_core.models.cards import read_card
from dimum_core.models.checkpoints import find_checkpoint, load_pipeline, save_checkpoint, shipped_checkpoints
from dimum_core.models.history import history_of, remember
from dimum_core.pictures import save_picture, tile
from dimum_core.pretraining import train_base
from dimum_core.training import STATE_FILE


@pytest.fixture
def trained(tiny_preset, tiny_data, tmp_path):
    """A checkpoint as `dimum train` leaves it."""
    folder = tmp_path / "trained"
    train_base(tiny_preset, folder, data=tiny_data, progress=False)
    return folder


def refusal(capsys, *arguments: object) -> str:
    """Run a command that should be refused; returns the one sentence that it says."""
    assert main([str(argument) for argument in arguments]) == 1
    said = capsys.readouterr()
    message = said.err.strip().splitlines()[-1]
    assert message.startswith("dimum: ")
    assert "Traceback" not in said.err
    return message


def test_training_from_the_command_line_leaves_a_checkpoint_with_its_card(tiny_preset, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(denoiser.PRESETS, "tiny", tiny_preset)
    out = tmp_path / "run"
    assert main(["train", "tiny", "--out", str(out), "--steps", "3", "--without", "7", "--samples-every", "3"]) == 0
    card = read_card(out)
    assert card["without"] == "7" and card["training"]["steps"] == 3 and card["data"]["images"] < 1442
    assert len(card["data"]["digest"]) == 32 and "# tiny without the class 7" in (out / "README.md").read_text()
    assert Image.open(out / "samples" / "step-000003.png").size == (10 * 9 * 4, 4 * 9 * 4)
    assert (out / "log.csv").read_text().startswith("step,loss,learning_rate,grad_norm,seconds")
    assert "already holds a training" in refusal(capsys, "train", "tiny", "--out", out, "--steps", 3)
    assert main(["train", "tiny", "--out", str(out), "--steps", "3", "--without", "7", "--resume"]) == 0


def test_tensorboard_gets_every_row_of_the_log(tiny_preset, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(denoiser.PRESETS, "tiny", tiny_preset)
    train = ("train", "tiny", "--steps", "3", "--tensorboard", "--out", tmp_path / "run")
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # not installed
    assert "pip install -e '.[tensorboard]'" in refusal(capsys, *train)
    seen = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == tmp_path / "run" / "tensorboard"

        def add_scalar(self, name, value, step):
            seen.append((name, step, value))

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=SummaryWriter))
    assert main([str(part) for part in train]) == 0
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    assert [value for name, _, value in seen if name == "loss"] == pytest.approx(log["loss"].tolist())


def test_the_card_names_no_path_of_the_machine(tiny_preset, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/dimum", "train", "tiny", "--out", "/somewhere/run"])
    assert cards.command_line() == "dimum train tiny --out run"
    monkeypatch.setattr(sys, "argv", ["dimum", "train", "shapes", "--without", "outline heart", "--out", "/somewhere/my run"])
    assert cards.command_line() == "dimum train shapes --without 'outline heart' --out 'my run'"
    monkeypatch.setattr(sys, "argv", ["/somewhere/dimum_core/cli.py", "train", "tiny"])  # python -m dimum_core.cli
    assert cards.command_line() == "dimum train tiny"


def test_nothing_that_is_saved_names_a_path_of_the_machine(trained, tmp_path):
    checkpoints.save_checkpoint(load_pipeline(trained), tmp_path / "again", read_card(trained))
    saved = [path for path in (tmp_path / "again").rglob("*") if path.suffix in (".json", ".md")]
    assert len(saved) >= 5
    assert not any(str(tmp_path.parent) in path.read_text() for path in saved)


def test_half_precision_halves_the_file_and_hardly_moves_the_weights(tiny_preset, tiny_data, tmp_path):
    for dtype in ("float32", "float16"):
        train_base(tiny_preset, tmp_path / dtype, data=tiny_data, dtype=dtype, progress=False)
    sizes = [(tmp_path / d / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size for d in ("float16", "float32")]
    assert sizes[0] < 0.55 * sizes[1]
    a, b = (load_pipeline(tmp_path / dtype).unet.state_dict() for dtype in ("float32", "float16"))
    assert all(b[key].dtype == torch.float32 and torch.allclose(a[key], b[key], atol=2e-3) for key in a)


def test_saving_in_half_precision_leaves_the_model_in_memory_as_it_was(trained, tmp_path):
    pipe = load_pipeline(trained)
    pipe.unet.conv_in.to(torch.float64)
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    save_checkpoint(pipe, tmp_path / "half", read_card(trained), "float16")
    assert all(value.dtype == before[key].dtype and value.equal(before[key]) for key, value in pipe.unet.state_dict().items())


def test_sample_writes_a_grid_and_the_seed_decides_it(trained, tmp_path):
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png", "all.png")]
    for file, seed in zip(files, (0, 0, 1), strict=False):
        sample = f"sample {trained} --label top --count 2 --steps 2 --seed {seed} --out {file}"
        assert main(sample.split()) == 0
    assert main(["sample", str(trained), "--count", "2", "--steps", "2", "--out", str(files[3])]) == 0
    a, b, c = (np.asarray(Image.open(file)) for file in files[:3])
    assert a.shape == (9 * 4, 2 * 9 * 4) and (a == b).all() and (a != c).any()
    assert Image.open(files[3]).size == (2 * 9 * 4, 3 * 9 * 4)


def test_evaluate_prints_a_table_or_json(capsys):
    assert main(["evaluate", "digits", "--count", "2", "--steps", "4", "--target", "3", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)  # JSON has no NaN
    assert measured["provenance"]["weights"] == "ema"
    assert measured["checkpoint"] == "digits" and measured["provenance"]["sampler"] == "EulerAncestralDiscreteScheduler"
    assert measured["metrics"]["UA"]["n"] == 2 and measured["metrics"]["RA"]["n"] == 18
    assert 0 <= measured["metrics"]["UA"]["low"] <= measured["metrics"]["UA"]["value"] <= 1
    assert set(measured["per_class_accuracy"]) == {str(i) for i in range(10)}
    assert main(["evaluate", "digits", "--count", "2", "--steps", "4"]) == 0
    assert "kernel distance" in capsys.readouterr().out


def test_a_model_that_has_learnt_from_the_held_out_images_is_measured_without_them(tmp_path, capsys, few_drawings):
    """As after an attack with the public set, which is the test split where a data set has no public twin."""
    pipe = load_pipeline("digits")
    remember(pipe, history_of(pipe).having_seen(load_dataset("digits").test))
    save_checkpoint(pipe, tmp_path, read_card(find_checkpoint("digits")))
    assert main(["evaluate", str(tmp_path), "--count", "2", "--steps", "4"]) == 0
    said = capsys.readouterr()
    assert "fidelity is not measured. The model has learnt from the held-out images" in said.err and "kernel" not in said.out


def test_unlearn_and_relearn_leave_checkpoints_that_can_be_measured(tmp_path, capsys, few_drawings):
    quick = "--steps 2 --target 3"
    assert main(f"unlearn digits --method dimum --set alternative=mixed count=8 --out {tmp_path / 'u'} {quick}".split()) == 0
    card = read_card(tmp_path / "u")
    assert card["training"]["alternative"] == "mixed" and card["training"]["method"] == "DiMUM"
    early = f"unlearn digits --method dimum --target 3 --steps 20 --until 0 --out {tmp_path / 'early'}"
    assert main(early.split()) == 0 and read_card(tmp_path / "early")["training"]["steps"] == 2, "done, not allowed"
    assert main(f"relearn {tmp_path / 'u'} --auxiliary public --share 0.1 --out {tmp_path / 'r'} {quick}".split()) == 0
    assert (tmp_path / "r" / "curve.csv").read_text().startswith("step,target accuracy")
    load_pipeline(tmp_path / "r")
    nothing = f"unlearn digits --set weight --out {tmp_path / 'x'} {quick}"
    assert "A setting of a method is NAME=VALUE" in refusal(capsys, *nothing.split())
    assert "no method 'dimun'" in refusal(capsys, *f"unlearn digits --method dimun --out {tmp_path / 'x'} {quick}".split())


def test_what_was_not_reached_is_said_and_warnings_name_no_line_of_ours(tmp_path, capsys):
    unlearning = f"unlearn digits --target 3 --until 0.99 --steps 1 --out {tmp_path / 'u'}"
    assert main(unlearning.split()) == 0
    assert capsys.readouterr().out.strip().endswith("UA is 0.00 after 1 steps, and --until asks for 0.99: give more --steps")
    assert main([*unlearning.split(), "--resume"]) == 0 and "give more --steps" in capsys.readouterr().out
    finished = f"unlearn digits --target 3 --steps 1 --out {tmp_path / 'f'}"
    assert main(finished.split()) == main([*finished.split(), "--resume", "--until", "0.9"]) == 0, "nothing is left to be measured"
    capsys.readouterr()
    warned = "import warnings, dimum_core.cli as c; c.run_doctor = lambda _: warnings.warn('Mind this.'); c.main(['doctor'])"
    said = subprocess.run([sys.executable, "-c", warned], capture_output=True, text=True, timeout=60)
    assert said.stderr == "dimum: Mind this.\n"


def test_hyper_parameters_may_be_set_one_by_one():
    said = ["--set", "weight=2", "count=8", "--set", "alternative=mixed"]
    args = build_parser().parse_args(["unlearn", "digits", "--target=3", "--out=u", *said])
    assert args.settings == ["weight=2", "count=8", "alternative=mixed"]


@pytest.mark.parametrize(("command", "saved", "said"), [
    ("benchmark run plan.yaml", True, "run it again"), ("unlearn digits --target 3", False, "run it again"),
    ("unlearn digits --target 3", True, "--resume goes on from the last checkpoint"),
])
def test_whoever_stops_a_command_is_told_how_to_go_on(command, saved, said, monkeypatch, tmp_path, capsys):
    def stop(args):
        if saved:
            (tmp_path / STATE_FILE).touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "run_unlearn", stop)
    monkeypatch.setattr(cli, "run_benchmark", stop)
    assert main([*command.split(), "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == f"dimum: stopped; {said}.\n"


def test_whoever_stops_a_command_while_it_imports_gets_no_second_error(tmp_path):
    """An import of torch that was broken off cannot be begun again: Python went down with it."""
    stop = "import sys, dimum_core.cli as c\ndef stop(args): raise KeyboardInterrupt\nc.run_unlearn = stop\n"
    run = f"c.main('unlearn digits --target 3 --out {tmp_path}'.split()); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", stop + run], timeout=60).returncode == 0
    assert cli.STATE_FILE == STATE_FILE


@pytest.mark.parametrize(("error", "said"), [
    (OSError(28, "No space left on device", "x.png"), "the system says: [Errno 28] No space left on device: 'x.png'."),
    (MemoryError(), "there is not enough memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "there is not enough memory"),
])
def test_what_the_system_refuses_is_one_sentence(error, said, monkeypatch, capsys):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("dimum_core.models.checkpoints.load_pipeline", fails)
    assert main(["evaluate", "digits"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("dimum: ") and said in shown and shown.count("\n") == 1


def test_a_mistake_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr("dimum_core.models.checkpoints.load_pipeline", lambda *_, **__: [][0])
    with pytest.raises(IndexError):
        main(["evaluate", "digits"])


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of a POSIX shell")
def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    code = "import dimum_core.cli as c, sys; c.run_doctor = lambda _: print('a line'); sys.exit(c.main(['doctor']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(timeout=120) == 1 and process.stderr.read() == b""


@pytest.mark.parametrize(("setting", "instead"), [
    ("steps", "use --steps"), ("learning_rate", "use --learning-rate"), ("evaluate", "unlearn(..., evaluate=...)"),
    ("batch_size", "use --batch-size"), ("precision", "only in Python"), ("pipe", "only in Python"), ("judge", "use --judge"),
])
def test_an_argument_of_unlearn_is_no_hyper_parameter(setting, instead, tmp_path, capsys):
    command = f"unlearn digits --target 3 --out {tmp_path / 'x'} --set {setting}=1"
    assert instead in refusal(capsys, *command.split()) and not list(tmp_path.iterdir())


def test_tiles_stand_in_rows_and_pictures_are_exact(tmp_path):
    images = torch.stack([torch.full((1, 2, 2), v) for v in (-1.0, 0.0, 1.0)])
    grid = tile(images, columns=2)
    assert grid.shape == (1, 6, 6) and grid[0, 0, 0] == -1 and grid[0, 0, 3] == 0 and grid[0, 3, 0] == 1 and grid[0, 5, 5] == 1
    save_picture(grid, tmp_path / "grid.png", scale=1)
    assert np.asarray(Image.open(tmp_path / "grid.png"))[0].tolist() == [0, 0, 255, 128, 128, 255]


# Refusals -----------------------------------------------------------------------------------------------------------


def test_missing_data(capsys, tmp_path, monkeypatch):
    from dimum_core.data import cifar10

    monkeypatch.setattr(cifar10, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(cifar10, "SOURCES", ("http://127.0.0.1:9/nothing",))
    monkeypatch.setattr(cifar10.fetch_archive, "__defaults__", (("http://127.0.0.1:9/nothing",), "0"))
    assert "could not be downloaded" in refusal(capsys, "train", "cifar10-small", "--out", tmp_path / "out", "--steps", 1)
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written(trained, capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    sample = ("sample", trained, "--label", "top", "--count", 1, "--steps", 1, "--out")
    monkeypatch.setattr("dimum_core.evaluation.draw", pytest.fail)  # it is found out before anything is drawn
    assert "could not be written" in refusal(capsys, *sample, tmp_path / "file" / "x.png")
    assert "could not be written" in refusal(capsys, "train", "digits", "--steps", 0, "--out", tmp_path / "file" / "run")


def test_a_precision_that_no_judge_is_saved_in_is_refused_before_the_training(monkeypatch):
    monkeypatch.setattr("dimum_core.judges.training.train", pytest.fail)
    with pytest.raises(SettingError, match="dtype must be float32 or float16, not 'bf16'"):
        train_judge("digits-judge", dtype="bf16", steps=1)


# What is shipped ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_checkpoints())
def test_every_shipped_checkpoint_loads_and_its_card_is_complete(name):
    card = read_card(checkpoints.CHECKPOINT_FOLDER / name)
    command = card["training"]["command"]
    assert command.startswith(("dimum train ", "python experiments/")) and card["quality"] and card["data"]["digest"]
    assert "/" not in command.removeprefix("python experiments/")
    if card["kind"] == "denoiser":
        assert load_pipeline(name).unet.dtype == torch.float32
        assert (checkpoints.CHECKPOINT_FOLDER / name / "log.csv").is_file()
    elif card["kind"] == "autoencoder":
        assert load_autoencoder(name).dtype == torch.float32
    else:
        assert load_judge(name).config.threshold < float("inf")


def test_a_model_is_evaluated_against_its_own_target_only(tiny_data):
    from dimum_core.evaluation import reference_set

    judge = Judge(image_size=8, image_channels=1, class_names=tiny_data.class_names)
    data = Dataset(tiny_data.select(torch.arange(30)), tiny_data.select(torch.arange(30, 60)))
    reference = reference_set(data, judge, "top")
    assert 1 not in reference.labels and len(reference) == 20


def test_a_checkpoint_in_a_folder_with_an_umlaut_is_made_on_a_system_without_them(in_c_locale, tmp_path):
    """Its card names the folder; the work had been done when the card could not be written."""
    out = tmp_path / "Übung 日"
    done = in_c_locale("-m", "dimum_core.cli", "train", "digits", "--steps", "1", "--without", "3", "--out", out)
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert "Übung 日" in (out / "README.md").read_text("utf-8") and read_card(out)["without"] == "3"
    again = in_c_locale("-m", "dimum_core.cli", "sample", out, "--count", "1", "--steps", "1", "--out", tmp_path / "ä.png")
    assert again.returncode == 0 and "ä.png" in again.stdout.decode("utf-8"), again.stderr.decode("utf-8", "replace")


def test_a_class_with_an_umlaut_is_saved_and_loaded_on_a_system_without_them(in_c_locale, tmp_path):
    work = tmp_path / "work.py"
    work.write_text(
        "import sys\nimport torch\nfrom dimum_core import load_pipeline, train_base\nfrom dimum_core.data import load_dataset\n"
        "from dataclasses import replace\ndata = load_dataset('digits').train\n"
        "data = replace(data, class_names=('Käse', 'チーズ', *data.class_names[2:]))\n"
        "train_base('digits', sys.argv[1], data=data, steps=1, batch_size=4, progress=False)\n"
        "assert load_pipeline(sys.argv[1]).class_names[:2] == ('K\\u00e4se', '\\u30c1\\u30fc\\u30ba')\n", "utf-8",
    )
    done = in_c_locale(work, tmp_path / "out")
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert load_pipeline(tmp_path / "out").class_names[:2] == ("Käse", "チーズ")
