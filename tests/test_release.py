"""A release: the version is set in every place or in none, and the wheel works where the clone is not."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import matrix
import pytest
import release
from packaging.requirements import Requirement
from packaging.version import Version

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tree(tmp_path):
    """The files that hold a version, in a folder of their own."""
    for name in (*release.PLACES, "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## Unreleased\n\nFaster.\n\n## 0.1.0 (2026-01-01)\n\nFirst.\n")
    return tmp_path


def test_the_version_is_set_everywhere_and_the_entry_is_dated(tree):
    release.set_version("9.8.7", tree, datetime.date(2030, 1, 2))
    assert 'version = "9.8.7"\n' in (tree / "pyproject.toml").read_text()
    assert '__version__ = "9.8.7"\n' in (tree / "dimum_core" / "__init__.py").read_text()
    citation = (tree / "CITATION.cff").read_text()
    assert "cff-version: 1.2.0\n" in citation and "\nversion: 9.8.7\n" in citation
    entries = (tree / "CHANGELOG.md").read_text().split("\n## ")[1:]
    assert entries == ["Unreleased\n", "9.8.7 (2030-01-02)\n\nFaster.\n", "0.1.0 (2026-01-01)\n\nFirst.\n"]


@pytest.mark.parametrize(("version", "notes", "said"), [("2", "Faster.", "'2' is no version"), ("2.0.0", "", "says nothing under")])
def test_a_release_without_a_version_or_notes_changes_nothing(tree, version, notes, said):
    (tree / "CHANGELOG.md").write_text(f"# Changes\n\n## Unreleased\n\n{notes}\n\n## 0.1.0 (2026-01-01)\n\nFirst.\n")
    before = {name: (tree / name).read_text() for name in (*release.PLACES, "CHANGELOG.md")}
    with pytest.raises(SystemExit, match=said):
        release.set_version(version, tree)
    assert before == {name: (tree / name).read_text() for name in before}


# The wheel ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return release.build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.mark.release
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = ROOT / "dimum_core"
    sources = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert names == {path.relative_to(ROOT).as_posix() for path in sources}


SCRIPT = """
import dimum_core
from dimum_core import load_dataset, load_pipeline
from dimum_core.errors import DimumError

print(dimum_core.__file__)
print(len(load_dataset("digits").train))
for load, name in ((load_dataset, "mnist-mini"), (load_pipeline, "digits")):
    try:
        print(type(load(name)).__name__)
    except DimumError as error:
        print(error)
"""


@pytest.mark.release
def test_an_installed_wheel_says_where_its_data_is_and_finds_it(wheel, tmp_path):
    python = release.install(wheel, tmp_path / "environment") / "python"

    def say(script, **more):
        clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DIMUM_DATA")} | more
        done = subprocess.run([python, "-c", script], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    where, digits, *missing = say(SCRIPT)
    assert Path(where).is_relative_to(tmp_path) and digits == "1442"
    assert len(missing) == 2
    assert all("clone the repository, which carries it, and set DIMUM_DATA to its data folder." in line for line in missing)
    script = "from dimum_core import load_dataset; print(load_dataset('mnist-mini').name)"
    assert say(script, DIMUM_DATA=str(ROOT / "data")) == ["mnist-mini"]


# The matrix -----------------------------------------------------------------------------------------------------------


def test_the_oldest_packages_of_the_matrix_are_the_lower_bounds():
    oldest = dict(line.split("==") for line in matrix.constraints("oldest").splitlines())
    needed = [Requirement(line) for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
    assert oldest.keys() == {need.name for need in needed}
    for need in needed:
        assert Version(oldest[need.name].removesuffix(".*")) in need.specifier
        assert f">={oldest[need.name].removesuffix('.*')}" in str(need.specifier)
    assert "torch==" in matrix.constraints("tested") and matrix.constraints("newest") == ""


def test_the_matrix_spans_the_pythons_that_are_admitted():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = [Version(python) for python, _ in matrix.ROWS]
    assert f">={min(pythons)}" == project["requires-python"]
    pinned = min(Version(python) for python, kind in matrix.ROWS if kind == "tested")
    readme = (ROOT / "README.md").read_text()
    assert f"Python {pinned} to {max(pythons)} and make" in readme and f"runs on {min(pythons)}, too" in readme


@pytest.mark.parametrize(("version", "said"), [((3, 10), "make needs Python 3.11 to 3.13"), ((3, 11), "no venv here")])
def test_make_says_that_a_python_is_too_old_for_the_pins(tmp_path, version, said):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    code = f"import sys; sys.version_info = {version}; sys.exit('no venv here') if sys.argv[1] == '-m' else exec(sys.argv[2])"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    python.chmod(0o755)
    done = subprocess.run(["make", f"PYTHON={python}", "lab"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode and said in done.stderr and "Traceback" not in done.stderr


def test_a_python_that_is_not_there_is_said_and_not_passed_over(tmp_path):
    assert matrix.run_row("3.99", "newest", tmp_path)[-1] == "not run: there is no python3.99 here"
