"""The experiments that need a GPU, tried on a CPU: the same code, every count scaled down by one number."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests import tiny_pipelines

ROOT = Path(__file__).parent.parent
EXPERIMENTS, SPEED = ROOT / "experiments", ROOT / "speed"


def run(monkeypatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")


@pytest.mark.parametrize("script", sorted([*EXPERIMENTS.glob("*.py"), *SPEED.glob("*.py")]), ids=lambda path: path.name)
def test_what_a_script_imports_is_there(script, monkeypatch):
    monkeypatch.syspath_prepend(script.parent)  # as for a script that is run
    runpy.run_path(str(script), run_name="imported")


@pytest.mark.parametrize("kind", ["stable_diffusion", "stable_diffusion_3"])
def test_unlearn_canvas_from_its_folders_to_a_table(kind, monkeypatch, canvas_folder, tmp_path, capsys):
    """A style is forgotten, measured by the protocol, attacked and measured again; what is done is not done again."""
    getattr(tiny_pipelines, kind)().save_pretrained(tmp_path / "model")
    out, given = tmp_path / "out", ("--model", tmp_path / "model", "--data", canvas_folder, "--style", "Van_Gogh")
    given = (*given, "--out", out, "--scale", "0.002", "--lora-rank", "2", "--methods", "dimum")
    run(monkeypatch, "unlearn_canvas.py", *given, "--minutes-only")
    assert capsys.readouterr().out.startswith("about ") and not (out / "table.csv").exists()
    run(monkeypatch, "unlearn_canvas.py", *given)
    table = pd.read_csv(out / "table.csv")
    assert table[["method", "attack rate"]].values.tolist() == [
        ["original", 0.0], *(["dimum", rate] for rate in (0.0, 1e-4, 3e-4))
    ]
    assert table[["UA", "IRA", "CRA", "Frechet distance of the rest", "passes"]].notna().all(axis=None)
    assert (table["CRA n"] == 12).all() and (table["UA n"] == 6).all()
    assert len(list(out.glob("*.png"))) == 4 and len(list(out.glob("*-curve-*.csv"))) == 2
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "table.csv"}
    run(monkeypatch, "unlearn_canvas.py", *given)
    assert times == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != "table.csv"}


@pytest.mark.release
def test_all_stages_of_make_gpu_run_and_are_packed(monkeypatch, tmp_path):
    run(monkeypatch, "gpu.py", "--out", tmp_path, "--tiny")
    stages = {path.stem for path in tmp_path.glob("*.json")}
    assert {"judge", "base", "without-automobile", "attacks", "pixels", "sizes"} <= stages
    assert all(part.stat().st_size <= 15_000_000 for part in (tmp_path / "parts").iterdir())
    assert {"learning_rate", "method", "target accuracy"} <= set(pd.read_csv(tmp_path / "attacks.csv"))
