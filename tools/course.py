"""Run the chapters headless, as a reader would run them.

    python tools/course.py run            every chapter whose code or inputs changed, into build/notebooks
    python tools/course.py run --store    and keep the outputs in notebooks/, where readers first see them
    python tools/course.py smoke          write them into build/smoke with the small budgets of their metadata, and run none:
                                          that is for pytest --nbval-lax, which runs them and compares what cells tagged
                                          nbval-check-output print with what is stored
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from pathlib import Path

import nbformat
import papermill
from joblib import Parallel, delayed, parallel_config
from outputs import is_progress
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

ROOT = Path(__file__).resolve().parent.parent
KEPT_TAGS = ("parameters", "cover", "nbval-check-output")


def chapters(folder: Path, only: str = "") -> list[Path]:
    found = sorted(path for path in folder.glob("[0-9]*.ipynb") if only in path.name)
    if not found:
        raise SystemExit(f"There is no chapter in {folder.name}/" + (f" with {only!r} in its name." if only else "."))
    return found


def fingerprint(notebook: Path, root: Path = ROOT) -> str:
    """Hash of all that a chapter's outputs depend on: its cells, the package, the data and the pinned versions."""
    digest = hashlib.sha256()
    for cell in nbformat.read(notebook, as_version=4).cells:
        digest.update(f"{cell.cell_type}\0{cell.source}\0".encode())
    for path in [root / "constraints.txt", *sorted((root / "dimum_core").rglob("*.py"))]:
        digest.update(path.read_bytes() if path.exists() else b"")
    for path in sorted(path for path in (root / "data").rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def run_chapter(notebook: Path, out: Path) -> tuple[str, str, str]:
    """Execute one chapter if need be; returns its name, what to say of it, and the failing cell with its error, if one failed."""
    executed, key = out / notebook.name, out / f"{notebook.stem}.key"
    current = fingerprint(notebook)
    if executed.exists() and key.exists() and key.read_text("utf-8") == current:
        return notebook.stem, "unchanged", ""
    key.unlink(missing_ok=True)
    started = time.monotonic()
    try:
        papermill.execute_notebook(
            notebook, executed, cwd=notebook.parent, kernel_name="python3", progress_bar=False,
            extra_arguments=["--log-level=CRITICAL"],  # a kernel's advice would break the progress lines
        )
    except papermill.PapermillExecutionError as error:
        return notebook.stem, f"failed in cell {error.exec_count}", f"{error.source}\n\n" + "\n".join(error.traceback)
    key.write_text(current, "utf-8")
    return notebook.stem, _duration(time.monotonic() - started), ""


def run(folder: Path, out: Path, only: str = "", workers: int = 1) -> None:
    """Execute chapters, `workers` at once, with a share of the cores each. The first failing cell is shown and ends the program.

    Those that took longest when they were stored begin first, so that no core is idle at the end.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = chapters(folder, only)
    workers = max(1, min(workers, len(found)))  # one chapter alone gets all cores
    found.sort(key=lambda notebook: -about(notebook).get("seconds", 0))
    print(f"{len(found)} to run, {workers} at once; a line for each that is done:", flush=True)
    with parallel_config("loky", inner_max_num_threads=max(1, (os.cpu_count() or 1) // workers)):
        results = Parallel(workers, return_as="generator_unordered")(delayed(run_chapter)(notebook, out) for notebook in found)
    for number, (name, said, error) in enumerate(results, start=1):
        print(f"[{number}/{len(found)}] {name} ... {said}", flush=True)
        if error:
            print(f"\n{error}", flush=True)
            raise SystemExit(1)


def about(notebook: Path) -> dict:
    """What a chapter says of itself: title, aims, seconds, the small budgets."""
    return nbformat.read(notebook, as_version=4).metadata.get("dimum", {})


FEW_STEPS = """
from dimum_core.models import fresh_noise

fresh_noise.FRESH_STEPS = 2  # before the modules that draw by it are imported
"""


def write_smoke(folder: Path, out: Path, only: str = "", before_imports: str = "") -> None:
    """Write chapters as they are stored, but with the small budgets of their metadata behind their parameters."""
    out.mkdir(parents=True, exist_ok=True)
    for stale in out.glob("*.ipynb"):
        stale.unlink()
    for notebook in chapters(folder, only):
        small = parameterize_notebook(load_notebook_node(str(notebook)), dict(about(notebook)["smoke"]), comment="Small budgets")
        budgets = next(cell for cell in small.cells if "injected-parameters" in cell.metadata.get("tags", []))
        budgets.source += before_imports
        nbformat.write(small, out / notebook.name)


def store(folder: Path, out: Path, only: str = "") -> None:
    """Put executed chapters back into notebooks/, without what papermill noted in them.

    Readers run a chapter as it stands there, so what was executed must be just that.
    """
    for notebook in chapters(folder, only):
        executed = nbformat.read(out / notebook.name, as_version=4)
        if [cell.source for cell in executed.cells] != [cell.source for cell in nbformat.read(notebook, as_version=4).cells]:
            raise SystemExit(f"{notebook.stem} has changed since it was run: run it again to store it.")
        took = executed.metadata.pop("papermill", {}).get("duration")
        if took:
            executed.metadata["dimum"]["seconds"] = round(took)
        for cell in executed.cells:
            for mark in ("papermill", "execution", "widgets"):
                cell.metadata.pop(mark, None)
            cell.metadata["tags"] = [tag for tag in cell.metadata.get("tags", []) if tag in KEPT_TAGS]
            if not cell.metadata["tags"]:
                del cell.metadata["tags"]
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if not is_progress(output)]
        executed.metadata.pop("widgets", None)
        nbformat.write(executed, notebook)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds // 60:.0f} min {seconds % 60:02.0f} s"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "smoke"])
    parser.add_argument("--only", default="", help="chapters with this in their name")
    parser.add_argument("--store", action="store_true")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="chapters at once (default: %(default)s)")
    args = parser.parse_args(argv)
    if args.command == "smoke":
        if args.store:
            parser.error("only whole runs are stored: leave --store out, or take run")
        write_smoke(ROOT / "notebooks", ROOT / "build" / "smoke", args.only, FEW_STEPS)
        return
    run(ROOT / "notebooks", ROOT / "build" / "notebooks", args.only, args.workers)
    if args.store:
        store(ROOT / "notebooks", ROOT / "build" / "notebooks", args.only)


if __name__ == "__main__":
    sys.exit(main())
