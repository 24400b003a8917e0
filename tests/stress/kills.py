"""Break off each kind of work at random moments, start it again, and compare what comes of it with an unbroken run.

    python tests/stress/kills.py [--kills 50] [--seed 0] [WORK ...]

It is broken off by SIGKILL, SIGTERM, SIGINT and a full disk, equally often. A full disk is a limit on the size of files, at which a
write fails as it does where no space is left. Checkpoints are written after every step, so that many a kill meets a write.
After each of them, every file that a reader would take for finished must be the unbroken run's; after the last start, all files
must be, bit for bit, wall times aside. Prints a table, and exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from killed_works import WORKS, prepare
from safetensors.torch import load_file

from dimum_core.errors import DimumError
from dimum_core.resuming import STATE_FILE, read_state
from dimum_core.training import train

FULL_DISK = "full disk"
KINDS = ("SIGKILL", "SIGTERM", "SIGINT", FULL_DISK)
NOT_FINISHED = (f"*{STATE_FILE}", "failures/*", "locks/*", "weights/*")  # nobody takes these for a result
MOST_STARTS = 20  # until an interruption comes before the end
SENTENCE, TRACEBACK = 1, 99  # exit codes of a child that failed
STARTS = multiprocessing.get_context("forkserver")  # a child is forked from a process that has imported everything
STARTS.set_forkserver_preload(["dimum_core.benchmark", "dimum_core.pretraining", "killed_works"])


class Difference(Exception):
    """What is there is not what should be."""


def child(name: str, folder: Path, shared: Path, limit: int | None) -> None:
    """In a process of its own: do a work to its end, or until it is broken off."""
    os.setsid()  # a kill takes its workers too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts us in the background has it ignored
    for stream in (sys.stdout, sys.stderr):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    train.__kwdefaults__["checkpoint_seconds"] = 0.0
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        code = WORKS[name](folder, shared)
    except DimumError:
        code = SENTENCE
    except Exception:
        code = TRACEBACK
    sys.exit(code or 0)


def warm_up() -> None:
    """Let the process that children are forked from import everything, so that no work's time includes it."""
    process = STARTS.Process(target=int)
    process.start()
    process.join()


def start(name: str, folder: Path, shared: Path, limit: int | None = None):
    process = STARTS.Process(target=child, args=(name, folder, shared, limit))
    process.start()
    return process


def finish(name: str, folder: Path, shared: Path) -> float:
    """Do a work to its end; returns the seconds it took."""
    started = time.monotonic()
    process = start(name, folder, shared)
    process.join()
    if process.exitcode:
        raise Difference(f"not interrupted, it ended with {process.exitcode}")
    return time.monotonic() - started


def broken_off(name: str, folder: Path, shared: Path, kind: str, moment: float, limit: int) -> float:
    """Start a work and break it off; the seconds it took if it was done before, and 0 if it was not."""
    started = time.monotonic()
    process = start(name, folder, shared, limit if kind == FULL_DISK else None)
    if kind != FULL_DISK:
        process.join(moment)
        if process.exitcode is None:
            send(process.pid, getattr(signal, kind))
    process.join()
    if kind == FULL_DISK and process.exitcode not in (0, SENTENCE):
        raise Difference(f"a full disk at {limit} bytes ended it with {process.exitcode}, not with a sentence")
    return 0.0 if process.exitcode else time.monotonic() - started


def send(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # it has just started, and leads no group yet
        os.kill(pid, number)


# What is there -----------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, str]:
    """Relative path -> digest, of every file that is not hidden and in no hidden folder."""
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path): digest(folder / path) for path in files if not hidden(path)}


def hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def debris(folder: Path) -> int:
    """Hidden files that are left over."""
    return sum(path.is_file() and hidden(path.relative_to(folder)) for path in folder.rglob("*"))


def digest(path: Path) -> str:
    """Hash of a file without its wall times: of the tensors, the table, or the lines."""
    if path.suffix == ".safetensors":
        parts = [name.encode() + tensor.contiguous().numpy().tobytes() for name, tensor in tensors(path)]
    elif path.suffix == ".csv":
        table = pd.read_csv(path)
        parts = [table[[column for column in table if "seconds" not in column]].to_csv().encode()]
    else:
        parts = [line for line in path.read_bytes().splitlines() if b"seconds" not in line]
    return hashlib.blake2b(b"\n".join(parts), digest_size=8).hexdigest()


def tensors(path: Path):
    return sorted((read_state(path)[0] if path.name == STATE_FILE else load_file(path)).items())


def check_finished(folder: Path, whole: dict[str, str]) -> None:
    """After an interruption: what a reader would take for finished is the unbroken run's, and a state can be read."""
    for path, found in contents(folder).items():
        finished = not any(fnmatch.fnmatch(path, pattern) for pattern in NOT_FINISHED)
        if finished and whole.get(path) != found:
            raise Difference(f"{path} is there and is not the unbroken run's")


def check_whole(folder: Path, whole: dict[str, str]) -> None:
    found = contents(folder)
    wrong = sorted(path for path in found.keys() | whole.keys() if found.get(path) != whole.get(path))
    if wrong:
        raise Difference(f"in the end, {len(wrong)} files differ: {', '.join(wrong[:3])}")


# The trial ---------------------------------------------------------------------------------------------------------------


@dataclass
class Trial:
    """A work that is broken off, begun anew in the next folder whenever it came to its end; `row` is its line of the table."""

    name: str
    place: Path
    chance: random.Random

    def __post_init__(self):
        self.row = {"work": self.name, **dict.fromkeys(KINDS, 0), "starts": 0, "finished": 0, "debris": 0, "verdict": "bit-equal"}
        self.shared = self.place / "shared"
        self.folder = self.place / self.name / "unbroken"

    def run(self, kinds: list[str]) -> dict:
        """Break it off once in each of these ways."""
        try:
            self.seconds = finish(self.name, self.folder, self.shared)
            self.whole = contents(self.folder)
            self.largest = max(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
            self.begin()
            for kind in kinds:
                self.interrupt(kind)
                check_finished(self.folder, self.whole)
            self.row["starts"] += 1
            finish(self.name, self.folder, self.shared)
            self.end()
        except Difference as difference:
            self.row["verdict"] = f"DIFFERENT: {difference}"
        return self.row

    def begin(self) -> None:
        self.new, self.folder = True, self.place / self.name / str(self.row["finished"])

    def interrupt(self, kind: str) -> None:
        """Start it until it is broken off before its end."""
        for _ in range(MOST_STARTS):
            self.row["starts"] += 1
            moment, limit = self.chance.uniform(0, self.seconds), int(self.largest ** self.chance.random())
            took = broken_off(self.name, self.folder, self.shared, kind, moment, limit)
            if not took:
                self.row[kind] += 1
                self.new = False
                return
            self.seconds = took if self.new else self.seconds  # the machine may be less busy than it was
            self.end()
            self.begin()
        raise Difference(f"no {kind} stopped it in {MOST_STARTS} starts")

    def end(self) -> None:
        check_whole(self.folder, self.whole)
        self.row["finished"] += 1
        self.row["debris"] += debris(self.folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"of {', '.join(WORKS)} (default: all)")
    parser.add_argument("--kills", type=int, default=50, help="in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    works = args.works or list(WORKS)
    if unknown := set(works) - set(WORKS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(WORKS)}")
    chance = random.Random(args.seed)
    shares = Counter(works[number % len(works)] for number in range(args.kills))
    rows = []
    with tempfile.TemporaryDirectory() as folder, prepare(Path(folder) / "shared"):
        warm_up()
        for name in works:
            kinds = [KINDS[number % len(KINDS)] for number in range(shares[name])]
            rows.append(Trial(name, Path(folder), chance).run(chance.sample(kinds, len(kinds))))
            print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    table = pd.DataFrame(rows)
    total = int(table[list(KINDS)].to_numpy().sum())
    print(f"\n{table.to_string(index=False)}\n\n{total} interruptions, seed {args.seed}")
    sys.exit(any(row["verdict"] != "bit-equal" for row in rows))


if __name__ == "__main__":
    main()
