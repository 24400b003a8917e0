"""The works that kills.py breaks off: each a function of its folder and of what all share, small enough for seconds."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import importlib.util
import io
import os
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from dimum_core.cli import main as dimum
from dimum_core.data import cifar10
from dimum_core.errors import DimumError

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"

PLAN = """
checkpoint: digits
data: digits
targets: {"3": digits-without-3}
methods: [random-label, {method: dimum, alternative: mixed, count: 8}]
budgets: [3]
seeds: [0]
batch_size: 8
attack_steps: 2
attack_rates: [0.0003]
points: 2
samples: 2
"""


def training(out: Path, shared: Path) -> int:
    return dimum(f"train digits --steps 5 --threads 1 --out {out} --resume".split())


def unlearning(out: Path, shared: Path) -> int:
    """By a method that looks at the data before its first step and masks weights, and by one that memorises."""
    common = f"unlearn digits --target 3 --steps 5 --resume --out {out}"
    return dimum(f"{common}/salun --method salun".split()) or dimum(f"{common}/dimum --method dimum".split())


def attack(out: Path, shared: Path) -> int:
    return dimum(f"relearn digits --target 3 --steps 5 --resume --out {out}".split())


def grid(out: Path, shared: Path, engine: str = "serial") -> int:
    command = f"benchmark run {shared / 'plan.yaml'} --out {out} --engine {engine} --workers 2"
    return dimum(command.split())


def workers(out: Path, shared: Path) -> int:
    return grid(out, shared, "loky")


def download(out: Path, shared: Path) -> int:
    source, md5 = (shared / "source").read_text().split()
    if not (out / cifar10.FOLDER / cifar10.META).is_file():  # as `find_folder` decides it
        cifar10.extract(cifar10.fetch_archive(out, (source,), md5))
    return 0


def site(out: Path, shared: Path) -> int:
    try:
        site_tool().build(shared / "chapters", out / "site")
    except OSError as error:  # of a tool for ourselves, no sentence is asked
        raise DimumError(str(error)) from error
    return 0


def site_tool() -> ModuleType:
    """tools/site.py, by its path: `import site` is Python's own."""
    sys.path.insert(0, str(TOOLS))
    found = importlib.util.spec_from_file_location("site_tool", TOOLS / "site.py")
    tool = importlib.util.module_from_spec(found)
    found.loader.exec_module(tool)
    return tool


def smallest_chapter() -> Path:
    return min((ROOT / "notebooks").glob("[0-9]*.ipynb"), key=lambda path: path.stat().st_size)


WORKS = {work.__name__: work for work in (training, unlearning, attack, grid, workers, download, site)}


@contextlib.contextmanager
def prepare(shared: Path) -> Iterator[None]:
    """What the works share: a plan, a chapter, and a slow server with an archive."""
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes to come: bits depend on the number of threads, and a fork wants one
    (shared / "chapters").mkdir(parents=True)
    (shared / "plan.yaml").write_text(PLAN)
    shutil.copy(smallest_chapter(), shared / "chapters")
    content = archive()
    server = slow_server(content)
    md5 = hashlib.md5(content).hexdigest()
    (shared / "source").write_text(f"http://127.0.0.1:{server.server_port}/{cifar10.ARCHIVE} {md5}")
    try:
        yield
    finally:
        server.shutdown()


def archive() -> bytes:
    """An archive with the members of CIFAR-10's, of bytes that do not compress."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in (cifar10.META, *cifar10.BATCHES["train"], *cifar10.BATCHES["test"]):
            info = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}")
            info.size = 1 << 19
            tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    return buffer.getvalue()


def slow_server(content: bytes) -> http.server.ThreadingHTTPServer:
    """Serves one file at about 4 MB/s, from where a range begins."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            if begin >= len(content):
                return self.send_error(416)
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client was killed
                for place in range(begin, len(content), 1 << 16):
                    self.wfile.write(content[place:place + (1 << 16)])
                    time.sleep(0.015)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
