"""Check that every chapter keeps the course's conventions; with --write, bring link, set-up cell and folds up to date."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 2_000_000  # bytes
COMPARED = "nbval-check-output"  # the tag of cells whose output the tests compare with what is stored
FACTS = 3  # a chapter
BET = "**Before you look"
FOLDED = {"source_hidden": True, "outputs_hidden": True}  # JupyterLab's marks; the site has its own fold
COLAB = re.compile(r"\n*\*\*No machine for it\?\*\* \[Open this chapter in Colab\]\(([^)]*)\)\.")
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|home|root|tmp|Users)/\w")


def repository() -> str:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["dimum"]["repository"]


def colab_link(name: str, address: str) -> str:
    """The link in words: a badge is a broken picture where there is no network."""
    target = address.replace("https://github.com/", "https://colab.research.google.com/github/")
    return f"**No machine for it?** [Open this chapter in Colab]({target}/blob/main/notebooks/{name})."


def setup_source(address: str) -> str:
    return f"""# @title On Colab, this fetches the course and installs it. Elsewhere it does nothing. {{"display-mode": "form"}}
import sys

if "google.colab" in sys.modules:
    !test -d dimum || git clone --quiet --depth 1 {address} dimum
    %pip install --quiet --editable ./dimum
    sys.path.insert(0, "dimum")"""


def problems(path: Path, address: str) -> list[str]:
    """What is wrong with a chapter, one sentence each."""
    notebook = nbformat.read(path, as_version=4)
    found = _structure(notebook, path.name, address) + _outputs(notebook) + _facts(notebook)
    if path.stat().st_size > LIMIT:
        found.append(f"it is {path.stat().st_size / 1e6:.1f} MB; the limit is {LIMIT / 1e6:.0f} MB")
    return [f"{path.name}: {problem}" for problem in found]


def _structure(notebook, name: str, address: str) -> list[str]:
    found, about = [], notebook.metadata.get("dimum", {})
    for key in ("title", "aims", "minutes", "smoke"):
        if key not in about:
            found.append(f"its metadata lacks dimum.{key}")
    first, code = notebook.cells[0], [cell for cell in notebook.cells if cell.cell_type == "code"]
    if first.cell_type != "markdown" or not first.source.startswith("# ") or colab_link(name, address) not in first.source:
        found.append("its first cell should be a title with the link to Colab (notebook_check.py --write)")
    if not code or code[0].source != setup_source(address) or not code[0].metadata.get("jupyter", {}).get("source_hidden"):
        found.append("its first code cell should be the set-up cell, folded (notebook_check.py --write)")
    if sum("parameters" in cell.metadata.get("tags", []) for cell in code) != 1:
        found.append("it needs one cell tagged parameters")
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    found += [f"it has no section {title!r}" for title in ("## Exercises", "## Where to read on") if title not in text]
    return found


def _outputs(notebook) -> list[str]:
    found = []
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    if counts != list(range(1, len(counts) + 1)):
        found.append("its outputs are not those of one run from top to bottom (course.py run --store)")
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"cell {cell.execution_count} ended in an error")
            if "image/png" in output.get("data", {}) and not output.metadata.get("image/png", {}).get("alt"):
                found.append(f"a picture of cell {cell.execution_count} has no text (use plots.show)")
            if MACHINE_PATH.search(str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))):
                found.append(f"the output of cell {cell.execution_count} shows a path of the machine it ran on")
    if any(not set(marks) <= set(cell.metadata.get("jupyter", {})) for cell, marks in answers(notebook)):
        found.append("an answer to a 'Before you look' can be seen before one has a guess (notebook_check.py --write)")
    return found


def answers(notebook):
    """Cells that show what a "Before you look" asks for, and how they are to be folded: up to the next text.

    A picture's code has its caption, which tells the answer, so it is folded as well; that of a table may be read.
    """
    asked = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            asked = BET in cell.source
        elif asked:
            kinds = {kind for output in cell.get("outputs", []) for kind in output.get("data", {})}
            if "image/png" in kinds:
                yield cell, FOLDED
            elif "text/html" in kinds:
                yield cell, {"outputs_hidden": True}


def _facts(notebook) -> list[str]:
    """Lines, captions and tables that the tests compare with what is stored here."""
    outputs = [output for cell in notebook.cells if COMPARED in cell.metadata.get("tags", []) for output in cell.outputs]
    lines = sum(len(output.get("text", "").splitlines()) for output in outputs)
    facts = lines + sum(bool({"text/markdown", "text/html"} & output.get("data", {}).keys()) for output in outputs)
    return [] if facts >= FACTS else [f"{facts} exact facts are compared, of {FACTS}: tag cells that print some with {COMPARED}"]


def write(path: Path, address: str) -> None:
    """End the first cell with the link to Colab, make the first code cell the set-up, and fold it and what answers a bet."""
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[0]
    first.source = f"{COLAB.sub('', first.source).strip()}\n\n{colab_link(path.name, address)}"
    setup = next(cell for cell in notebook.cells if cell.cell_type == "code")
    setup.source = setup_source(address)
    for cell, marks in [(setup, {"source_hidden": True}), *answers(notebook)]:
        cell.metadata["jupyter"] = {**cell.metadata.get("jupyter", {}), **marks}
        if "source_hidden" in marks:
            cell.metadata["cellView"] = "form"  # the same on Colab
    nbformat.write(notebook, path)


def main(arguments: list[str], folder: Path = ROOT / "notebooks") -> int:
    notebooks, address = sorted(folder.glob("*.ipynb")), repository()
    if arguments == ["--write"]:
        for path in notebooks:
            write(path, address)
    found = [problem for path in notebooks for problem in problems(path, address)]
    print("\n".join(found) if found else f"{len(notebooks)} chapters keep the conventions")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
