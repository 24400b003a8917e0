"""Does the suite find a mistake? Twenty deliberate faults in twenty modules, one at a time, each in a copy of the working tree.

    python tests/stress/mutations.py [--only WORD] [--whole]

A fault changes one line: a sign, a square root, a swapped argument, an unseeded draw, a guard that is gone. It is *found* if a test
that `make test` runs fails. Beside each fault stand the test files that should find it, which takes about ten minutes for all; with
--whole, each fault must get past the whole suite. Exits with 1 if a fault is missed, or if its line is no longer there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("dimum_core", "tests", "tools", "plans", "notebooks", "docs")


@dataclass(frozen=True)
class Fault:
    """kind: what was done to the line; module: below dimum_core; tests: files or folders in tests that should find it."""

    kind: str
    module: str
    before: str
    after: str
    tests: str


FAULTS = (
    Fault("square root missing", "models/diffusion.py", "part.sqrt().to(", "part.to(", "test_diffusion"),
    Fault("sign", "models/sampling.py", "eps_null + guidance_scale * (", "eps_null - guidance_scale * (", "test_sampling"),
    Fault("sign", "models/text_to_image.py", "guidance_scale * (eps_prompt - eps_negative)",
          "guidance_scale * (eps_negative - eps_prompt)", "test_prompts"),
    Fault("scale forgotten", "models/codec.py", "- shift) * self.vae.config.scaling_factor", "- shift)", "test_autoencoder"),
    Fault("off by one", "models/denoiser.py", "num_class_embeds=num_classes + 1", "num_class_embeds=num_classes", "test_denoiser"),
    Fault("wrong set", "data/image_set.py", "return self.select(~find_target(", "return self.select(find_target(", "test_data"),
    Fault("unseeded draw", "data/batches.py", "generator=step_generator(seed, step, \"mirror\")", "generator=None", "test_data"),
    Fault("average forgotten", "training.py", "self.ema.copy_to(self.model.parameters())", "pass",
          "test_training"),
    Fault("guard dropped", "checking.py", "def check_apart(", "def check_apart(*_):\n    return\n\n\ndef _check_apart(",
          "test_leaks"),
    Fault("sign", "unlearning/esd.py", "eps_null - self.guidance * (", "eps_null + self.guidance * (", "unlearning"),
    Fault("wrong condition", "unlearning/dimum.py", "step.denoising(x_alt, step.as_target(own))", "step.denoising(x_alt, own)",
          "unlearning"),
    Fault("square root missing", "unlearning/munba.py", "norm_r * agreement.sqrt()", "norm_r * agreement", "unlearning"),
    Fault("swapped arguments", "unlearning/sfr_on.py", "(fisher[\"forget\"] + 1e-15) / (fisher[\"retain\"] + 1e-15)",
          "(fisher[\"retain\"] + 1e-15) / (fisher[\"forget\"] + 1e-15)", "unlearning"),
    Fault("wrong end", "attacks/weights.py", "weight.abs() > weight.abs().flatten()", "weight.abs() < weight.abs().flatten()",
          "test_controls"),
    Fault("guard dropped", "attacks/leaks.py", "        if leaked.any():", "        if False:", "test_leaks"),
    Fault("divisor", "metrics/distances.py", "np.sqrt(len(features) - 1)", "np.sqrt(len(features))", "test_distances"),
    Fault("swapped arguments", "metrics/recovery.py", "trapezoid(accuracy, steps)", "trapezoid(steps, accuracy)", "test_recovery"),
    Fault("divisor", "metrics/intervals.py", "values.std(ddof=1)", "values.std()", "test_metrics test_comparison"),
    Fault("wrong side", "judges/classifier.py", "self.distance(traces)", "-self.distance(traces)", "test_judge"),
    Fault("wrong axis", "geometry.py", "(eps - predicted).square().mean()",
          "(eps - model(x_t, t, class_labels=condition).sample.float()).abs().mean()", "test_geometry"),
)


def faulty_copy(fault: Fault, folder: Path) -> None:
    (folder / "data").symlink_to(ROOT / "data")  # large, and no fault is in it
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "constraints.txt", "environment.yml", "README.md", "CLAIMS.md", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    path = folder / "dimum_core" / fault.module
    source = path.read_text(encoding="utf-8")
    if source.count(fault.before) != 1:
        raise SystemExit(f"{fault.module} has {source.count(fault.before)} times {fault.before!r}: name the line anew.")
    path.write_text(source.replace(fault.before, fault.after), encoding="utf-8")


def finder(fault: Fault, whole: bool) -> str:
    """The first test that fails, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        faulty_copy(fault, Path(folder))
        places = [Path("tests", name) for name in fault.tests.split()]
        files = [] if whole else [place if (ROOT / place).is_dir() else place.with_suffix(".py") for place in places]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not release", "-p", "no:cacheprovider", *map(str, files)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": folder})
        if done.returncode not in (0, 1):
            raise SystemExit(f"pytest could not run for {fault.module}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        failed = [line.split()[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        return failed[0] if failed else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="faults in modules with this in their name")
    parser.add_argument("--whole", action="store_true", help="run the whole suite for each")
    args = parser.parse_args()
    missed = 0
    print("| fault | module | found by | seconds |\n|---|---|---|---|")
    for fault in (fault for fault in FAULTS if args.only in fault.module):
        started = time.monotonic()
        test = finder(fault, args.whole)
        missed += not test
        print(f"| {fault.kind} | {fault.module} | {test or '**missed**'} | {time.monotonic() - started:.0f} |", flush=True)
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
