"""Colab's published packages satisfy ours, and chapters use only what is there: no package is replaced by the set-up cell."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COLAB = dict(re.findall(r"(?m)^([\w-]+)==(\S+)$", (ROOT / "tests" / "colab_packages.txt").read_text()))
NEEDED = [Requirement(line) for line in PROJECT["dependencies"]]
MODULES = {"scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml", "ipython": "IPython"}
CHAPTERS = sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("requirement", NEEDED, ids=lambda requirement: requirement.name)
def test_colab_has_what_we_need(requirement):
    """What is not in the list is small and pure Python, or is installed by the set-up cell; then nothing of Colab's is replaced."""
    if requirement.name in COLAB:
        assert Version(COLAB[requirement.name]) in requirement.specifier
    else:
        with_others = {"tokenizers"}  # comes with transformers
        assert requirement.name in with_others | {"pillow", "pooch", "tqdm", "joblib", "pyyaml", "pyarrow", "filelock"}


def imported(source: str) -> set[str]:
    tree = ast.parse(re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", source))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) if node.module and not node.level}
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.name[:2])
def test_a_chapter_imports_only_what_colab_has_after_the_set_up_cell(path):
    there = {MODULES.get(name, name) for name in [*COLAB, *(requirement.name for requirement in NEEDED)]}
    there |= {"dimum_core"} | set(sys.stdlib_module_names)
    code = [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert set().union(*map(imported, code)) - there == set()


def test_the_package_runs_on_colabs_python():
    assert Version("3.12") in Requirement(f"python{PROJECT['requires-python']}").specifier
