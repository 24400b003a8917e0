"""Every datum that is shipped has an origin and a licence, and every model a card that its two forms agree on."""

from __future__ import annotations

import json
import math
import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open

from dimum_core import doctor
from dimum_core.benchmark import read_results
from dimum_core.benchmark.results import PROVENANCE
from dimum_core.data import DATASETS
from dimum_core.models import cards
from dimum_core.models.cards import render_card

DATA = Path(__file__).resolve().parent.parent / "data"
MODELS = sorted(path for path in (DATA / "checkpoints").iterdir())
TABLE = re.compile(r"(?m)^\| (?:\[`|`)([\w./-]+)`(?:\]\(([^)]+)\))? \|([^|]+)\|([^|]+)\|([^|]+)\|$")


def rows(text: str) -> dict[str, dict[str, str]]:
    return {
        name: {"link": link, "what": what.strip(), "origin": origin.strip(), "licence": licence.strip()}
        for name, link, what, origin, licence in TABLE.findall(text)
    }


def uncovered(folder: Path, names) -> list[str]:
    """What lies in the data folder beside the page and is in no row."""
    return sorted(path.name for path in folder.iterdir() if path.name not in {"README.md", *names})


def test_everything_in_the_folder_has_a_row_with_origin_and_licence():
    table = rows((DATA / "README.md").read_text())
    assert uncovered(DATA, table) == [] and set(DATASETS) <= set(table)
    assert all(row[cell] for row in table.values() for cell in ("what", "origin", "licence"))
    assert all((DATA / row["link"]).exists() for row in table.values() if row["link"])
    assert all((DATA / name).exists() == bool(row["link"]) for name, row in table.items())


def test_commands_and_files_that_the_rows_name_exist():
    for row in rows((DATA / "README.md").read_text()).values():
        for file in re.findall(r"\b((?:tools|dimum_core|docs)/[\w/]+\.\w+)", row["origin"] + row["what"]):
            assert (DATA.parent / file).is_file(), file


def test_a_file_without_a_row_and_a_row_without_a_licence_are_found(tmp_path):
    (tmp_path / "found-somewhere.npz").touch()
    assert uncovered(tmp_path, ["digits"]) == ["found-somewhere.npz"]
    assert rows("| `digits` | numbers | scikit-learn | |\n")["digits"]["licence"] == ""


def test_every_set_of_files_says_more_beside_them():
    """A licence that is not ours is told in the folder itself, where the files may be copied from."""
    for name, row in rows((DATA / "README.md").read_text()).items():
        if row["licence"] != "MIT" and (DATA / name).is_dir():
            assert re.search(r"licence|CC BY|formal", (DATA / name / "README.md").read_text()), name


def test_the_page_says_which_results_hold_no_provenance():
    text = (DATA / "README.md").read_text()
    without = text.split("The rows of\n")[1].split(" hold none")[0]
    for path in (DATA / "results").glob("*.csv"):
        assert (f"`{path.name}`" in without) == (not set(PROVENANCE) <= set(pd.read_csv(path, nrows=1))), path.name
    rows = read_results(DATA / "results" / "digits-0.parquet")
    lost = rows[rows["commit"] == "84dc15903df6"]
    assert len(lost) == 27 and set(map(tuple, lost[["label", "budget", "seed"]].to_numpy())) == {
        ("erasediff", "budget", 0), ("sfr-on", "budget", 0), ("sfr-on", "matched", 0),
    }


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_a_model_has_a_card_with_command_data_and_provenance(folder):
    card = json.loads((folder / "card.json").read_text())
    assert card["title"] and card["summary"] and card["quality"]
    program, script = card["training"]["command"].split()[:2]
    assert program == "dimum" or (program == "python" and (DATA.parent / script).is_file())
    assert {"steps", "seed", "seconds"} <= card["training"].keys()
    assert card["data"]["name"] in DATASETS and re.fullmatch("[0-9a-f]{32}", card["data"]["digest"])
    assert all(card["provenance"][key] for key in ("commit", "dimum", "python", "torch", "diffusers", "threads", "device"))
    assert (folder / "README.md").read_text() == render_card(card)


@pytest.mark.parametrize("folder", MODELS, ids=lambda path: path.name)
def test_a_model_is_of_safetensors_with_the_parameters_that_its_card_counts(folder):
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} <= {".json", ".md", ".csv", ".safetensors"}
    count = 0
    for path in folder.rglob("*.safetensors"):
        if path.parent.name == "vae":  # the shipped autoencoder, trained before
            continue
        with safe_open(path, "numpy") as stored:
            trained = [name for name in stored.keys() if name.endswith(("weight", "bias"))]  # noqa: SIM118 (not a mapping)
            count += sum(math.prod(stored.get_slice(name).get_shape()) for name in trained)  # a judge has statistics besides
    assert count == json.loads((folder / "card.json").read_text())["training"]["parameters"]


def test_the_commit_is_of_this_project_and_not_of_the_repository_that_it_is_installed_in(tmp_path, monkeypatch):
    author = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    for command in (["init"], [*author, "commit", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
    monkeypatch.setattr(cards, "__file__", str(tmp_path / "venv" / "site-packages" / "dimum_core" / "models" / "cards.py"))
    Path(cards.__file__).parent.mkdir(parents=True)
    assert cards.provenance()["commit"] == "not a clone"


def test_a_run_on_an_apple_gpu_is_recorded_as_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cards.provenance()["device"].startswith("CPU (")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert cards.provenance()["device"].startswith("Apple GPU (")
    monkeypatch.setattr(doctor, "matmul_gflops", lambda device: 0.0)
    assert doctor.machine()["GPU"].startswith("Apple GPU (") and doctor.machine()["precision"] == "fp32 on mps"
