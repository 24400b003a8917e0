"""How values cross between the grader and a student's process: JSON and plain arrays, nothing that could run on arrival."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import time
from collections.abc import MappingView
from fractions import Fraction
from types import GeneratorType

import numpy as np
import torch

LIMIT = 16_000_000  # bytes of one message
MOST_ITEMS = 100_000  # of what may never end
GONE_THROUGH = (range, zip, map, filter, GeneratorType, MappingView)
_DTYPES = {
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool",
}


class WireError(Exception):
    """The other side ended, was too slow, or sent what cannot be read."""


def encode(value, functions: list | None = None):
    """A value as JSON. functions: callables are put here and named by their place; without it they are refused.

    numpy's numbers and words become Python's, tables and columns become arrays, and what can only be gone through becomes a tuple.
    """
    value = _plain(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if value is ...:
        return {"gap": True}
    if isinstance(value, (list, tuple, set, frozenset)):
        kind = "list" if isinstance(value, list) else "tuple" if isinstance(value, tuple) else "set"
        return {kind: [encode(item, functions) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[encode(k, functions), encode(v, functions)] for k, v in value.items()]}
    if isinstance(value, (torch.Tensor, np.ndarray)):
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        if array.dtype.name in _DTYPES:
            kind = "tensor" if isinstance(value, torch.Tensor) else "array"
            return {kind: [array.dtype.name, list(array.shape), base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()]}
    if callable(value) and functions is not None:
        functions.append(value)
        return {"function": len(functions) - 1}
    raise TypeError(f"a value of type {type(value).__name__} cannot be an answer")


def _plain(value):
    """What a learner's usual tools return, as what crosses."""
    if hasattr(value, "to_numpy"):  # pandas'
        value = value.to_numpy()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "UO":
        return value.tolist()
    if isinstance(value, GONE_THROUGH):
        items = tuple(itertools.islice(value, MOST_ITEMS + 1))
        if len(items) > MOST_ITEMS:
            raise ValueError(f"an answer may have {MOST_ITEMS:,} items, and this one has more")
        return items
    return value


def decode(data, function=None):
    """The value again. function: turns a callable's place into something to call."""
    if not isinstance(data, dict):
        return data
    (kind, content), = data.items()
    if kind == "gap":
        return ...
    if kind in ("list", "tuple", "set"):
        return {"list": list, "tuple": tuple, "set": set}[kind](decode(item, function) for item in content)
    if kind == "dict":
        return {decode(k, function): decode(v, function) for k, v in content}
    if kind in ("tensor", "array"):
        name, shape, text = content
        if name not in _DTYPES:
            raise ValueError(f"arrays of {name!r} are not exchanged")
        array = np.frombuffer(base64.b64decode(text), dtype=name).reshape(shape).copy()
        return torch.from_numpy(array) if kind == "tensor" else array
    if kind == "function" and function is not None and isinstance(content, int):
        return function(content)
    raise ValueError(f"{kind!r} is no kind of value")


class Line:
    """One end of a pair of pipes that carries messages, each with its length before it."""

    def __init__(self, reads: int, writes: int, deadline: float | None = None):
        self.reads, self.writes, self.deadline = reads, writes, deadline
        self.broken = ""  # why nothing more can be exchanged
        if deadline is not None:
            os.set_blocking(writes, False)  # a full pipe would hold a write beyond the deadline

    def send(self, message: dict) -> None:
        data = json.dumps(message).encode()
        data = len(data).to_bytes(4, "big") + data
        while data:
            self._wait(writing=True)
            try:
                data = data[os.write(self.writes, data[:65536]):]
            except BlockingIOError:  # there is room, but not enough
                time.sleep(0.01)
            except OSError:
                self.break_off("the process ended early")

    def receive(self) -> dict:
        length = int.from_bytes(self._read(4), "big")
        if length > LIMIT:
            self.break_off("the result is too large")
        try:
            message = json.loads(self._read(length))
        except (ValueError, RecursionError):
            message = None
        return message if isinstance(message, dict) else self.break_off("the result cannot be read")

    def break_off(self, why: str):
        self.broken = why
        raise WireError(why)

    def _read(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            self._wait(writing=False)
            part = os.read(self.reads, min(65536, count - len(parts)))
            if not part:
                self.break_off("the process ended early: it left, crashed, or needed more memory than allowed")
            parts += part
        return parts

    def _wait(self, writing: bool) -> None:
        if self.deadline is None:
            return
        left = self.deadline - time.monotonic()
        wanted = [[], [self.writes]] if writing else [[self.reads], []]
        if left <= 0 or not any(select.select(*wanted, [], left)):
            self.break_off("it ran longer than allowed")
