"""Tables of the experiments: the rows that are there already are read, and all are written, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from dimum_core.errors import SettingError
from dimum_core.files import write_atomically


def check_settings(out: Path, settings: dict) -> None:
    """Write down in the folder OUT the settings that decide its results; SettingError if it was begun with others."""
    path, settings = out / "settings.json", json.loads(json.dumps(settings, default=str))
    if not path.exists():
        write_atomically(path, json.dumps(settings, indent=1).encode("utf-8"))
    before = json.loads(path.read_text("utf-8"))
    for name in settings | before:
        if before.get(name) != settings.get(name):
            raise SettingError(
                f"{out} was begun with {name} {before.get(name)}, not {settings.get(name)}, and what is there would count as done: "
                "give another folder, or the same settings."
            )


def read_rows(path: Path) -> list[dict]:
    """Rows that an earlier run wrote; none without a file. Older ones have no provenance."""
    return pd.read_csv(path, dtype={"commit": str}).to_dict("records") if path.exists() else []  # 12e4 may be a commit


def write_rows(path: Path, rows: pd.DataFrame | list[dict], float_format: str | None = "%.4f") -> None:
    """Write rows, old and new ones."""
    table = pd.DataFrame(rows)
    if "threads" in table:  # beside older rows, which lack it, it would become a fraction
        table["threads"] = table["threads"].astype("Int64")
    write_atomically(path, table.to_csv(index=False, float_format=float_format).encode("utf-8"))
