"""Run the core tests on the oldest and the newest Python and packages that pyproject.toml admits, and print what came of it.

    python tools/matrix.py            every row
    python tools/matrix.py 3.13       the rows of one Python

Each row is a new environment with the wheel and its dependencies, downloaded: gigabytes, unless pip is pointed to the CPU builds
of torch. Pythons are looked for as python3.10 and so on. Not for continuous integration; run it before a release.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement
from release import ROOT, build_wheel, command, programs_of, run_core_tests

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

# The oldest packages have no wheels for the newest Python, so there is no such row.
ROWS = (("3.10", "oldest"), ("3.10", "newest"), ("3.11", "tested"), ("3.13", "newest"))
SHOWN = ("torch", "diffusers", "numpy")
TESTS_NEED = ("pytest", "torchmetrics")


def constraints(packages: str, root: Path = ROOT) -> str:
    """For pip: "oldest" is the first series that each range admits, "tested" what constraints.txt says, "newest" nothing."""
    if packages == "tested":
        return (root / "constraints.txt").read_text("utf-8")
    if packages == "newest":
        return ""
    needed = map(Requirement, tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"])
    return "".join(f"{need.name}=={lowest(need)}.*\n" for need in needed)


def lowest(requirement: Requirement) -> str:
    return next(bound.version for bound in requirement.specifier if bound.operator == ">=")


def run_row(python: str, packages: str, wheel: Path) -> list[str]:
    """Versions and result of one row; what went wrong stands in the result."""
    program = shutil.which(f"python{python}")
    if program is None:
        return [*["-"] * len(SHOWN), f"not run: there is no python{python} here"]
    with tempfile.TemporaryDirectory() as folder:
        pinned, environment = Path(folder) / "constraints.txt", Path(folder) / "environment"
        pinned.write_text(constraints(packages), "utf-8")
        versions = ["-"] * len(SHOWN)
        try:
            command([program, "-m", "venv", environment])
            programs = programs_of(environment)
            command([programs / "python", "-m", "pip", "install", "--quiet", "--constraint", pinned, wheel, *TESTS_NEED])
            listed = command([programs / "python", "-m", "pip", "list", "--format", "freeze"])
            versions = [re.search(rf"(?m)^{name}==(\S+)", listed)[1] for name in SHOWN]
            return [*versions, run_core_tests(programs)]
        except SystemExit as failure:
            said = str(failure).strip().splitlines()
            return [*versions, "; ".join([*(line for line in said if line.startswith("FAILED")), said[-1]])]


def main() -> None:
    wanted = sys.argv[1:]
    rows = [(python, packages) for python, packages in ROWS if not wanted or python in wanted]
    if not rows:
        raise SystemExit(f"There are rows for Python {', '.join(sorted({python for python, _ in ROWS}))}.")
    print("| Python | packages | " + " | ".join(SHOWN) + " | core tests |\n|" + "---|" * (len(SHOWN) + 3))
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for python, packages in rows:
            print("| " + " | ".join([python, packages, *run_row(python, packages, wheel)]) + " |", flush=True)


if __name__ == "__main__":
    main()
