"""Make a release: one version everywhere, a dated entry in the changelog, a wheel, and proof that it works without the clone.

    python tools/release.py 0.2.0     set the version and date the changelog's entry; commit that, then
    python tools/release.py           build the wheel into build/dist and check it in a new environment, outside the clone

The new environment borrows the dependencies of this one, so nothing is downloaded; tools/matrix.py installs them anew.
"""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSION = r"\d+\.\d+\.\d+"
PLACES = {  # file -> what stands before the version there
    "pyproject.toml": '^version = "', "dimum_core/__init__.py": '^__version__ = "', "CITATION.cff": "^version: ",
}
PACKED = ("dimum_core", "pyproject.toml", "README.md", "LICENSE")
CORE_TESTS = (
    "test_autocast.py", "test_denoiser.py", "test_diffusion.py", "test_distances.py", "test_metrics.py", "test_sampling.py",
)


def set_version(version: str, root: Path = ROOT, today: datetime.date | None = None) -> None:
    """Write a version wherever one stands, and date what the changelog says under "Unreleased"."""
    if not re.fullmatch(VERSION, version):
        raise SystemExit(f"{version!r} is no version: write three numbers, such as 0.2.0.")
    changelog = root / "CHANGELOG.md"
    notes = re.search(r"(?ms)^## Unreleased\n(.*?)(?=^## |\Z)", changelog.read_text("utf-8"))
    if not notes or not notes[1].strip():
        raise SystemExit(f"{changelog.name} says nothing under '## Unreleased': write what {version} changes.")
    changed = {}
    for name, before in PLACES.items():
        text = (root / name).read_text("utf-8")
        changed[name], count = re.subn(f"({before}){VERSION}", rf"\g<1>{version}", text, flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"{name} has {count} places for the version instead of one.")
    heading = f"## Unreleased\n\n## {version} ({today or datetime.date.today()})\n"
    changed[changelog.name] = changelog.read_text("utf-8").replace("## Unreleased\n", heading, 1)
    for name, text in changed.items():
        (root / name).write_text(text, "utf-8")


def build_wheel(out: Path, root: Path = ROOT) -> Path:
    """The wheel of a copy of the sources: what an earlier build left in the clone stays out of it."""
    with tempfile.TemporaryDirectory() as folder:
        for name in PACKED:
            copy = shutil.copytree if (root / name).is_dir() else shutil.copy
            copy(root / name, Path(folder) / name)
        pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), folder)
    return max(out.glob("*.whl"), key=lambda path: path.stat().st_mtime)


def install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel; other packages come from the running environment. Returns its folder of programs."""
    venv.create(folder, with_pip=False, symlinks=os.name != "nt")
    programs = programs_of(folder)
    pip("--python", str(programs / "python"), "install", "--no-deps", "--no-index", str(wheel))
    site = command([programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
    Path(site.strip(), "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return programs


def programs_of(environment: Path) -> Path:
    programs, = [path for name in ("bin", "Scripts") if (path := environment / name).is_dir()]
    return programs


def run_core_tests(programs: Path, root: Path = ROOT) -> str:
    """The core tests, copied to where there is no clone, against the installed package; what pytest said last."""
    with tempfile.TemporaryDirectory() as folder:
        tests = Path(folder) / "tests"
        tests.mkdir()
        for name in ("__init__.py", "conftest.py", *CORE_TESTS):
            shutil.copy(root / "tests" / name, tests)
        said = command([programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, tests], folder)
    return said.strip().splitlines()[-1]


def pip(*arguments: str) -> None:
    command([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def command(words: list, folder: str | Path | None = None) -> str:
    """Run a program outside the clone's reach; what it printed, or the end of the release with what it complained of."""
    clean = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DIMUM_DATA")}
    folder = folder or tempfile.gettempdir()
    done = subprocess.run([str(word) for word in words], cwd=folder, env=clean, capture_output=True, encoding="utf-8")
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, words))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    if len(sys.argv) > 1:
        set_version(sys.argv[1])
        print(f"CHANGELOG.md and {', '.join(PLACES)} say {sys.argv[1]}: commit them, and run this again without a version")
        return
    if command(["git", "status", "--porcelain"], ROOT).strip():
        raise SystemExit("There are changes that are not committed: a release is built from what is.")
    wheel = build_wheel(ROOT / "build" / "dist")
    with tempfile.TemporaryDirectory() as folder:
        programs = install(wheel, Path(folder) / "environment")
        command([programs / "dimum", "--help"])
        said = run_core_tests(programs)
    print(f"{wheel.relative_to(ROOT)}: {wheel.stat().st_size / 1e3:.0f} kB; outside the clone: {said}")


if __name__ == "__main__":
    main()
