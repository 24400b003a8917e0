"""A student's method of unlearning, run in a student's process: only the weights that it ends with leave it.

The original, the data and the judge are loaded before the fence; behind it no checkpoint and no result can be read. The process
reports its passes and steps itself. Code that goes round the counter still pays in processor time, which the kernel counts.
"""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path

from torch.nn.utils import parameters_to_vector

from ..benchmark.nfe import counted
from ..data import load_dataset
from ..models.checkpoints import load_pipeline
from ..unlearning import METHODS, load_plugin, unlearn
from ..unlearning.plugin import module_name
from . import wire
from .fence import fence, limit

FILE = "mine.py"


def forget(order: dict, line: wire.Line) -> None:
    """Unlearn as ordered, and send flat weights, steps, passes and processor seconds, or what went wrong.

    order: `source` of a file that registers a method, or `method` and `hyperparameters` of one that is known; `checkpoint`, `data`;
    `settings` of `unlearn`; `processor`, the seconds that it may take (0: any); `memory`, `secret` and `readable` as in `serve`.
    """
    limit(order["memory"])
    original, data = load_pipeline(order["checkpoint"]), load_dataset(order["data"])
    with contextlib.redirect_stdout(None):
        unlearn(original, "finetune", data=data, **{**order["settings"], "steps": 1})  # what is imported late is imported now
        fence(order["secret"], order["readable"])
        try:
            line.send(_forgotten(order, original, data))
        except MemoryError:
            line.send({"error": "it needed more memory than allowed"})
        except Exception as error:
            line.send({"error": f"{type(error).__name__}: {error}"[:300]})


def _forgotten(order: dict, original, data) -> dict:
    started = time.process_time()
    if order["processor"]:
        most = int(started + order["processor"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (most, most))
    method = order.get("method") or _method_of(order["source"])
    with counted(original.unet) as seen:
        pipe = unlearn(original, method, data=data, **order["settings"], **order.get("hyperparameters", {}))
    return {
        "weights": wire.encode(parameters_to_vector(pipe.unet.parameters())),
        "steps": int(pipe.unlearning["steps"]), "passes": int(seen["training"]),
        "seconds": time.process_time() - started,
    }


def _method_of(source: str):
    """The one method that a student's file registers."""
    path = Path(os.path.realpath(FILE))
    path.write_text(source, encoding="utf-8")
    load_plugin(path)
    (method, *others) = [method for method in METHODS.values() if method.__module__ == module_name(path)]
    if others:
        raise ValueError(f"{FILE} registers {1 + len(others)} methods: hand in one")
    return method()
