"""A results folder: one folder a finished cell, written aside and renamed, so that what is there is whole."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pandas as pd

from ..errors import DimumError
from ..training import check_writable

RESULT = "result.json"


class ResultsError(DimumError, ValueError):
    """A results folder that is empty, or not one."""


def cell_folder(out: Path, cell: str) -> Path:
    return Path(out) / "cells" / cell


def is_done(out: Path, cell: str) -> bool:
    return (cell_folder(out, cell) / RESULT).is_file()


def read_cell(out: Path, cell: str) -> dict:
    return json.loads((cell_folder(out, cell) / RESULT).read_text())


def write_cell(out: Path, cell: str, result: dict) -> None:
    """Publish a finished cell. Whoever comes second, finds it there and lets it be."""
    aside = Path(out) / "cells" / f".{cell}.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    with open(aside / RESULT, "w") as file:
        json.dump(result, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.rename(aside, cell_folder(out, cell))
    except OSError:
        shutil.rmtree(aside, ignore_errors=True)
        if not is_done(out, cell):
            raise


def record_failure(out: Path, cell: str, config: dict, traceback: str) -> None:
    folder = Path(out) / "failures"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{cell}.txt").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n\n" + traceback)


def forget_failure(out: Path, cell: str) -> None:
    (Path(out) / "failures" / f"{cell}.txt").unlink(missing_ok=True)


def failures(out: Path) -> list[Path]:
    return sorted((Path(out) / "failures").glob("*.txt"))


def prepare(out: Path) -> None:
    """Make sure, before hours of work, that the folder can be written to."""
    check_writable(out)
    (Path(out) / "cells").mkdir(parents=True, exist_ok=True)


def read_results(out: str | Path) -> pd.DataFrame:
    """One row an evaluation of a recovery curve, with all that determined it; sorted, so that the order of the work does not show.

    out: a results folder, or a CSV file that was made from one.
    """
    if Path(out).suffix == ".csv":
        return pd.read_csv(out, dtype={"target": str}, keep_default_na=False, na_values=[""])
    found = sorted((Path(out) / "cells").glob(f"[0-9a-f]*/{RESULT}"))
    cells = {path.parent.name: json.loads(path.read_text()) for path in found}
    rows = []
    for cell, result in cells.items():
        if "curve" not in result:
            continue
        model = cells.get(result["config"]["model"])
        if model is None:
            raise ResultsError(f"{out} lacks the model of the attack {cell}: run the plan again, it goes on where it stopped.")
        about = {**model["config"], **model["measured"], **result["config"], "seconds": result["seconds"], "cell": cell}
        about["hyperparameters"] = json.dumps(about.get("hyperparameters", {}), sort_keys=True)
        rows += [{**about, **row} for row in result["curve"]]
    if not rows:
        raise ResultsError(f"{out} holds no finished cells: run a plan with `dimum benchmark run PLAN.yaml --out {out}` first.")
    keys = ["seed", "target", "label", "budget", "auxiliary", "optimizer", "attack_rate", "step"]
    return pd.DataFrame(rows).sort_values(keys, kind="stable").reset_index(drop=True)
