"""The pins of pip and conda agree, users' ranges admit them, and nothing that must be installed brings torchvision."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import dimum_core

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PIN = re.compile(r"^\s*-?\s*([\w-]+)==([\w.]+)\s*$", re.MULTILINE)


def pins(file: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / file).read_text()))


def requirements(*extras: str) -> list[Requirement]:
    listed = PROJECT["dependencies"] + [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return [Requirement(line) for line in listed]


def test_conda_installs_the_same_versions_as_pip():
    assert pins("environment.yml") == pins("constraints.txt")
    assert len(pins("constraints.txt")) > 20


@pytest.mark.parametrize("requirement", requirements("course", "test", "cluster"), ids=lambda r: r.name)
def test_every_requirement_is_pinned_to_a_version_it_admits(requirement):
    if requirement.marker and not requirement.marker.evaluate():
        pytest.skip("not needed by this Python")
    assert Version(pins("constraints.txt")[requirement.name]) in requirement.specifier


def test_torch_may_be_newer_and_torchvision_is_not_needed():
    torch = next(r for r in requirements() if r.name == "torch")
    assert {specifier.operator for specifier in torch.specifier} == {">="}
    assert "torchvision" not in {r.name for r in requirements("course", "test")}


def test_the_version_is_said_alike_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    repository = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dimum"]["repository"]
    assert f"version: {PROJECT['version']}\n" in citation and f'repository-code: "{repository}"' in citation
    assert PROJECT["version"] == dimum_core.__version__


@pytest.mark.parametrize("kind", [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
def test_what_is_about_to_be_removed_is_an_error_in_our_code_only(kind):
    for module in ("dimum_core.models.sampling", "tests.test_sampling"):
        with pytest.raises(kind, match="old"):
            warnings.warn_explicit("old", kind, "file.py", 1, module=module)
    with pytest.warns(kind, match="old"):
        warnings.warn_explicit("old", kind, "file.py", 1, module="sklearn.tests")


def test_only_the_known_warning_of_diffusers_is_passed_over():
    with warnings.catch_warnings(record=True) as seen:
        for said in ("__array__ implementation doesn't accept a copy keyword, so", "something else"):
            warnings.warn_explicit(said, DeprecationWarning, "file.py", 1, module="diffusers.schedulers.some_solver")
    assert [str(warning.message) for warning in seen] == ["something else"]
