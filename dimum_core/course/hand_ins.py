"""What was handed in: which files are whose, and what they contain. Nothing is run here."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import DimumError, brief
from ..files import LEFT_BY_PROGRAMS
from .checks import EXERCISES

SUFFIXES = (".ipynb", ".py", ".json")
LARGEST = 50_000_000  # bytes of a submitted file
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, OSError)


@dataclass(frozen=True)
class HandIn:
    """pieces: of each file that can be read, its cells, and whether all of them are to be run. note: on the other files."""

    pieces: list[tuple[list[str], bool]] = field(default_factory=list)
    note: str = ""


def submissions(folder: Path, wanted: str = f"{', '.join(SUFFIXES)}, each named after its student") -> dict[str, list[Path]]:
    """Student -> files, from a folder of files or of folders; those that cannot be graded too, so that nobody is passed over.

    wanted: what is handed in, in words, for whom it is missing.
    """
    if not folder.is_dir():
        raise DimumError(f"There is no folder {folder} with submissions.")

    def by_programs(path: Path) -> bool:  # .vscode and .ipynb_checkpoints, too
        return any(part.startswith(".") or part in LEFT_BY_PROGRAMS for part in path.relative_to(folder).parts)

    students: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        if by_programs(entry):
            continue
        is_folder = entry.is_dir() and not entry.is_symlink()
        inside = sorted(entry.rglob("*"), key=in_order) if is_folder else [entry]
        files = [file for file in inside if file.is_symlink() or not file.is_dir()]
        students.setdefault(entry.name if is_folder else entry.stem, []).extend(file for file in files if not by_programs(file))
    if not any(can_be_graded(file) for files in students.values() for file in files):
        raise DimumError(f"{folder} holds no submissions: {wanted}.")
    return students


def in_order(file: Path) -> tuple:
    """By name, as people count: v2 before v10, and a second download, "name (1)", after the first."""
    name, copy = re.fullmatch(r"(.*?)(?: ?\((\d+)\))?", file.stem, re.DOTALL).groups()
    counted = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    return file.parent, counted, int(copy or 0), file.name


def can_be_graded(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES or file.is_symlink()  # a link is refused by name, wherever it leads


def read(files: list[Path]) -> HandIn:
    """A student's files, as read. A file that cannot be read is named, and costs only itself."""
    pieces, notes = [], [] if files else [f"there is no file that ends in {', '.join(SUFFIXES)}"]
    for file in filter(can_be_graded, files):
        try:
            text, suffix = text_of(file), file.suffix.lower()
            pieces.append(cells_of(text, suffix))
            if suffix == ".json" and (unknown := sorted(json.loads(text).keys() - EXERCISES.keys())):
                notes.append(f"{file.name} names what is no exercise with a check: {brief(unknown)}")
        except UNREADABLE as error:
            notes.append(f"{file.name} cannot be read: {type(error).__name__}: {error}")
    others = [file.name for file in files if not can_be_graded(file)]
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        notes.append(f"not graded, since only {', '.join(SUFFIXES)} can be: {named}")
    return HandIn(pieces, "; ".join(notes))


def text_of(file: Path) -> str:
    """What a file says. Raises one of UNREADABLE."""
    if file.is_symlink() or not file.is_file():  # a link may lead to another's answers, and a pipe never ends
        raise ValueError("it is not a plain file")
    if file.stat().st_size > LARGEST:
        raise ValueError(f"it is larger than {LARGEST // 1_000_000} MB")
    text = file.read_text(encoding="utf-8-sig", errors="replace")  # -sig: Windows may mark it so
    if "\0" in text:
        raise ValueError("it is not text in UTF-8: save it again as such")
    return text


def cells_of(text: str, suffix: str) -> tuple[list[str], bool]:
    """The cells of a file, and whether all of them are to be run. Raises one of UNREADABLE."""
    if suffix == ".py":
        return [text], True
    content = json.loads(text)
    if suffix == ".json":
        if not isinstance(content, dict):
            raise ValueError('it should hold answers by their exercises, such as {"03.1": 820}')
        return [f"import json\nanswers = json.loads({text!r})"], True  # Python has no literal for NaN and 1e999
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"], False
