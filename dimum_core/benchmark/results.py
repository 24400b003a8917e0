"""Results: one tidy table, a row for each evaluation of each recovery curve, with all that determined it and where it came from."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

from ..checking import check_kind
from ..errors import DimumError, brief
from ..files import write_atomically
from .store import RESULT

ORDER = ["seed", "target", "label", "budget", "auxiliary", "optimizer", "attack_rate", "step"]
PROVENANCE = ["commit", "dimum", "python", "torch", "diffusers", "device", "threads"]
NFES = ["unlearning_nfes", "attack_nfes", "sampling_nfes"]
MEASURED = ["unlearning_steps", "unlearning_seconds", "unlearning_distance", *NFES, "seconds"]
CURVE = ["step", "target accuracy", "target low", "target high", "retained accuracy", "distance"]
WORDS = {  # in a CSV file some look like numbers: a commit such as 12e4567, a target 3, a budget 60
    *PROVENANCE, "target", "label", "method", "hyperparameters", "budget", "auxiliary", "optimizer", "sampler",
    "checkpoint", "data", "judge", "code", "weights", "model", "cell",
} - {"threads"}
FORMATS = (".parquet", ".csv")


class ResultsError(DimumError, ValueError):
    """Results that are missing, incomplete, or of unknown origin."""


def read_results(source: str | Path) -> pd.DataFrame:
    """One row for each point of a recovery curve, sorted, so that the order of the work does not show.

    source: a results folder, or a Parquet or CSV file that was made from one. Columns: the settings (label, method,
    hyperparameters, budget, target, seed, auxiliary, attack_rate, ...), the curve (step, target accuracy with its 95 % interval,
    retained accuracy, distance), its cost (seconds; nfes, network evaluations of one image under one condition: of all
    unlearning, of the attack's training, of the samples for the curve), and its provenance (commit, versions, device).
    unlearning_nfes: every pass of unlearning, except the looks along the way (at UA, at a method's trace). unlearning_seconds: of
    the training loop with these looks; not of a method's `prepare` or `edit`, nor of making alternative data, except of snapshots,
    where it is all the time until one is taken.
    """
    check_kind("source", source, (str, os.PathLike), "a results folder, or a Parquet or CSV file made from one")
    source = Path(source)
    if source.suffix in FORMATS and not source.is_file():
        raise ResultsError(f"There is no file {source} to read results from.")
    if source.suffix == ".parquet":
        with _reading(source):
            return pd.read_parquet(source)
    if source.suffix == ".csv":
        with _reading(source):
            return pd.read_csv(source, dtype=dict.fromkeys(WORDS, str), keep_default_na=False, na_values=[""])
    return _from_cells(source)


@contextlib.contextmanager
def _reading(path: Path):
    """Whatever goes wrong while a file of results is read becomes one sentence that names it."""
    try:
        yield
    except ResultsError:
        raise
    except Exception as error:  # pyarrow, pandas and json raise a dozen kinds
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ResultsError(f"{path} cannot be read ({reason}): it is damaged or holds no results; make it again.") from error


def write_results(rows: pd.DataFrame, file: str | Path) -> None:
    """Write the table as Parquet or CSV, by the file's name; whole or not at all."""
    file = Path(file)
    if file.suffix not in FORMATS:
        raise ResultsError(f"Results are written to a file that ends in {' or '.join(FORMATS)}, not to {file.name}.")
    if file.suffix == ".csv":
        counts = [name for name in NFES if name in rows and (rows[name].dropna() % 1 == 0).all()]
        rows = rows.astype(dict.fromkeys(counts, "Int64"))  # beside one that is missing they are fractions, and would be rounded
        write_atomically(file, rows.to_csv(index=False, float_format="%.6g").encode())
        return
    listed = rows.get("points", pd.Series(dtype=object)).dropna().map(pd.api.types.is_list_like)
    if listed.nunique() > 1:  # of two plans; Parquet takes numbers or lists in a column, not both
        rows = rows.assign(points=[str(np.asarray(points).tolist()) for points in rows["points"]])
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False, compression="zstd")
    write_atomically(file, buffer.getvalue())


def check_columns(rows: pd.DataFrame) -> None:
    """Refuse a table that is not one of results: ResultsError names the columns that are missing, or do not hold numbers."""
    check_kind("rows", rows, pd.DataFrame, "a table of results, as read_results gives it")
    needed = (*ORDER, *CURVE, "unlearning_steps", "unlearning_seconds", "unlearning_distance")
    lacking = [column for column in dict.fromkeys(needed) if column not in rows]
    if lacking or not len(rows):
        what = f"lacks the columns {', '.join(lacking)}" if lacking else "has no rows"
        raise ResultsError(f"This table of results {what}: read it from what `dimum benchmark run` wrote.")
    for column in (*CURVE, "seed", "attack_rate", "unlearning_steps"):
        if not pd.api.types.is_numeric_dtype(rows[column]):
            raise ResultsError(f"The column {column} of these results should hold numbers, not {brief(rows[column].iloc[0])}.")


def check_provenance(rows: pd.DataFrame) -> None:
    """Refuse rows of which nobody can say what made them: ResultsError names what they lack."""
    check_kind("rows", rows, pd.DataFrame, "a table of results, as read_results gives it")
    lacking = [column for column in ("cell", *PROVENANCE) if column not in rows or rows[column].isna().any()]
    if lacking:
        raise ResultsError(
            f"Some or all rows of these results lack {', '.join(lacking)}: without their provenance they are not reported. "
            "Read them from the folder that `dimum benchmark run` wrote."
        )


def _from_cells(folder: Path) -> pd.DataFrame:
    paths = sorted((folder / "cells").glob(f"[0-9a-f]*/{RESULT}"))
    cells, rows = {}, []
    for path in paths:
        with _reading(path):
            cells[path.parent.name] = dict(json.loads(path.read_text(encoding="utf-8")))
    for cell, result in cells.items():
        if "curve" not in result:
            continue
        with _reading(folder / "cells" / cell / RESULT):
            model = cells.get(result["config"]["model"])
            if model is None:
                raise ResultsError(f"{folder} lacks the model of the attack {cell}: run the plan again, and it goes on.")
            rows += _rows(cell, result, model)
    if not rows:
        raise ResultsError(f"{folder} holds no finished cells: run `dimum benchmark run PLAN.yaml --out {folder}` first.")
    table = pd.DataFrame(rows)
    settings = sorted(set(table) - {*ORDER, *CURVE, *MEASURED, *PROVENANCE, "cell", "model"})
    columns = [*ORDER[:-1], *settings, *CURVE, *MEASURED, *PROVENANCE, "model", "cell"]
    return table.reindex(columns=columns).sort_values(ORDER, kind="stable").reset_index(drop=True)


def _rows(cell: str, result: dict, model: dict) -> list[dict]:
    about = {**model["config"], **model["measured"], **result["config"], "cell": cell, "seconds": result["seconds"]}
    about["hyperparameters"] = json.dumps(about.get("hyperparameters", {}), sort_keys=True)
    return [{**about, **result.get("provenance", {}), **row} for row in result["curve"]]
