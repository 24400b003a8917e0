"""Cards: how a checkpoint was made, where, and what it is worth; `card.json` for programs, README.md for people."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import diffusers
import torch

from .. import __version__
from ..errors import CheckpointError

CARD_FILE = "card.json"


def provenance() -> dict:
    """Where and with what something was computed; goes into cards and result files."""
    return {
        "commit": _git_commit(),
        "dimum": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "threads": torch.get_num_threads(),
        "device": gpu_name() or f"CPU ({platform.machine()})",
    }


def gpu_name() -> str | None:
    """Of the GPU that this machine computes on, if there is one."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"Apple GPU ({platform.machine()})" if torch.backends.mps.is_available() else None


def _git_commit() -> str:
    root = Path(__file__).resolve().parents[2]
    command = ["git", "--no-optional-locks", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    if not (root / ".git").exists():  # a package that is installed in somebody else's repository
        return "not a clone"
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a clone"


def read_card(folder: Path) -> dict:
    try:
        return json.loads((Path(folder) / CARD_FILE).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} has no readable {CARD_FILE} ({error}).") from error


def command_line() -> str:
    """The `dimum` command that is running, as one would type it; of a path, only its last part."""
    program = Path(sys.argv[0])
    if not program.name.startswith("dimum") and program.parts[-2:] != ("dimum_core", "cli.py"):  # the latter: python -m
        return "python"
    return shlex.join(["dimum", *map(_without_folder, sys.argv[1:])])


def _without_folder(argument: str) -> str:
    """/somewhere/run becomes run, and --out=/somewhere/run becomes --out=run."""
    name, equals, value = argument.rpartition("=")
    return name + equals + (Path(value).name if os.path.isabs(value) else value)


def render_card(card: dict) -> str:
    """The model card that people read: the same facts as card.json, as Markdown."""
    lines = ["---", "library_name: diffusers", "license: mit", "---", "", f"# {card['title']}", "", card["summary"], ""]
    for section in ("training", "data", "quality", "quality_at_the_most_accurate_scale", "provenance"):
        if card.get(section):
            lines += [f"## {section.capitalize().replace('_', ' ')}", "", "| | |", "|---|---|"]
            lines += [f"| {key.replace('_', ' ')} | {_cell(value)} |" for key, value in card[section].items()] + [""]
    return "\n".join(lines)


def _cell(value) -> str:
    return f"`{value}`" if isinstance(value, str) and value.startswith("dimum ") else f"{value}"
