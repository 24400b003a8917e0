"""Commands that are wrong."""

from __future__ import annotations

import json
import shlex

import pytest

from dimum_core.cli import main
from dimum_core.errors import UnknownName

WRONG_COMMANDS = {
    "train digits --out {out} --steps -1": "steps must be", "train digits --out {out} --seed -1": "seed must be",
    "train digits --out {out} --threads -1": "--threads",
    "judge train --data {out} --out {out} --threads -1": "--threads",
    "train digits --out {out} --samples-every -1": "--samples-every",
    "train digits --out {file} --steps 0": "could not be written", "train digits --out {file}/x --steps 0": "could not be written",
    "train digits --out {out} --without cat --steps 1": "no class 'cat'",
    "train digits-judge --out {out} --without 3": "leave --without",
    "train digits --out {out} --data ''": "no data set, folder or table ''",  # of a variable that is not set
    "train digits-judge --out {out} --image-size 16": "by dimum judge train --data FOLDER --image-size 16",
    "train cifar10-autoencoder --out {out} --image-size 16": "leave --image-size out; only a model of pixels has another",
    "train digits-judge --out {out} --steps -1": "steps must be", "train digits-judg --out {out}": "Did you mean 'digits-judge'",
    "sample nothing --out {out}/x.png": "no checkpoint 'nothing'", "sample {file} --out {out}/x.png": "no checkpoint",
    "sample digits --label ten --out {out}/x.png": "no class 'ten'",
    "sample digits --prompt three --out {out}/x.png": "use --label",
    "sample shapes --label hatched --prompt star --out {out}/x.png": "leave one of them out",
    "sample digits --out {out}/x.jpg": "--out must be a picture that ends in .png",
    "sample digits --steps 1001 --out {out}/x.png": "from 1 to 1000",
    "sample digits --guidance-scale nan --out {out}/x.png": "not nan",
    "sample digits --seed -1 --out {out}/x.png": "seed must be", "sample digits --count -1 --out {out}/x.png": "at least 1",
    "evaluate digits --count 0": "at least 1", "evaluate digits --target ten --count 1": "no class 'ten'",
    "evaluate digits --data cifar10-mini --count 1 --steps 1": "other classes than the judge",
    "evaluate digits --data shapez --count 1": "no data set, folder or table 'shapez'",
    "evaluate digits-judge": "not a diffusers pipeline",
    "evaluate digits --guidance-scale inf --count 1": "not inf",
    "unlearn digits --target 3 --out {out} --steps 0": "steps must be",
    "unlearn digits --target 3 --out {out} --until 2": "until must be",
    "unlearn digits --target 3 --out {out} --learning-rate nan": "learning_rate must be",
    "unlearn digits --target 3 --out {out} --set weight=heavy": "weight of dimum must be",
    "unlearn digits --target 3 --out {out} --set =1": "A setting of a method is NAME=VALUE",
    "unlearn digits --target 3 --out {out} --set steps=1": "hyper-parameter",
    "unlearn digits --target 3 --out {out} --plugin {file}": "end in .py",
    "unlearn digits --target 3 --out {out} --plugin none.py": "no file",
    "unlearn digits --target 3 --out {out} --data cifar10-mini": "other classes",
    "relearn digits --target 3 --out {out} --share 0": "share must be", "relearn digits --target ten --out {out}": "no class 'ten'",
    "relearn digits --target 3 --out {out} --learning-rate -1": "learning_rate must be",
    "relearn digits --target 3 --out {out} --auxiliary synthetic --drawn-by nothing": "no checkpoint",
    "relearn digits --target 3 --out {out} --drawn-by digits": "add --auxiliary synthetic",
    "relearn digits --target 3 --out {file}": "not be written",
    "relearn digits --target 3 --out {out} --steps -1": "steps must be",
    "benchmark run {file} --out {out}": "should be a mapping", "benchmark run none.yaml --out {out}": "cannot be read",
    "benchmark run {file} --out {out} --workers 0": "at least 1",
    "benchmark run {file} --engine serial --workers 2 --out {out}": "has one worker", "benchmark report {out}": "no finished cells",
    "benchmark report none.parquet": "There is no file", "benchmark report {file}.csv": "There is no file",
    "grade {folder} --capstone --out {out}": "with their mine.py",
    "grade {file} --out {out}": "There is no folder", "grade {folder} --out {out} --seconds 0": "seconds must be",
    "grade {folder} --out {out} --points {file}": "should be a mapping",
    "grade {folder} --out {out} --memory nan": "memory must be",
}


@pytest.mark.parametrize("command", WRONG_COMMANDS)
def test_a_wrong_command_says_one_line_and_leaves_nothing(w, command, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = shlex.split(command.format(out=out, file=w.folder / "file", folder=w.canvas))
    assert main(arguments) == 1
    said = capsys.readouterr().err.replace("\r", "\n").strip().splitlines()
    assert len(said) == 1 and said[0].startswith("dimum: ") and WRONG_COMMANDS[command] in said[0], said
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("command", [
    "", "tran", "train", "train digits", "train digits --out x --steps many", "sample digits",
    "sample digits --out x.png --count 1.5",
    "relearn digits --target 3 --out x --auxiliary everything", "benchmark", "benchmark run", "unlearn digits --out x",
    "train digits --out x --nope",
])
def test_a_command_that_cannot_be_parsed_shows_its_usage(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main(command.split())
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "usage: dimum" in said and "error: " in said and "Traceback" not in said


def test_the_message_of_an_unknown_name_stays_short():
    assert len(str(UnknownName("class", "x" * 10**5, ("a", "b")))) < 200
    assert json.dumps(str(UnknownName("class", "a\nb", ("a",)))).count("\\n") == 1
