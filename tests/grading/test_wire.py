"""Values between the grader and a student's process cross unchanged, and nothing else does."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from dimum_core.answering import wire


@pytest.mark.parametrize("value", [
    None, True, 3, -2.5, "word", ..., [1, (2, "a")], {"noise", "images"}, {"a": [1.0]}, np.arange(6).reshape(2, 3),
    torch.linspace(0, 1, 4), torch.tensor([True, False]), torch.zeros(0, 3),
])
def test_values_cross_unchanged(value):
    back = wire.decode(json.loads(json.dumps(wire.encode(value))))
    if isinstance(value, (np.ndarray, torch.Tensor)):
        assert type(back) is type(value) and back.dtype == value.dtype and back.shape == value.shape and bool((back == value).all())
    else:
        assert back == value and type(back) is type(value)


@pytest.mark.parametrize(("value", "crossed"), [
    (range(3), (0, 1, 2)), (zip([1], ["a"], strict=True), ((1, "a"),)), ((n for n in (1, 2)), (1, 2)), ({"a": 1}.values(), (1,)),
    (np.int64(3), 3), (Fraction(1, 4), 0.25), (np.bool_(True), True), ({np.int64(1)}, {1}), (np.array(["b", "a"]), ["b", "a"]),
    (pd.Series(["x", 1.5]), ["x", 1.5]),
])
def test_what_other_tools_return_becomes_what_crosses(value, crossed):
    back = wire.decode(json.loads(json.dumps(wire.encode(value))))
    assert back == crossed and type(back) is type(crossed)


def test_tables_are_arrays_and_what_never_ends_is_refused():
    back = wire.decode(wire.encode(pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})))
    assert isinstance(back, np.ndarray) and back.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    with pytest.raises(ValueError, match="may have 100,000 items, and this one has more"):
        wire.encode(map(int, itertools.repeat("1")))


def test_what_cannot_cross_is_refused():
    with pytest.raises(TypeError, match="cannot be an answer"):
        wire.encode(object())
    for message in ({"tensor": ["object", [1], ""]}, {"array": ["float32", [9, 9], "AAAA"]}, {"unknown": 1}, {"function": 0}):
        with pytest.raises(ValueError):  # noqa: PT011
            wire.decode(message)
    with pytest.raises(ValueError, match="no kind of value"):
        wire.decode({"function": float("inf")}, lambda place: place)


def test_a_reader_that_pauses_does_not_hold_the_grader():
    reads, writes = os.pipe()
    line = wire.Line(reads, writes, time.monotonic() + 0.2)

    def read_a_page_and_pause():
        os.read(reads, 4096)
        time.sleep(1)
        os.close(reads)

    reader = threading.Thread(target=read_a_page_and_pause)
    reader.start()
    started = time.monotonic()
    with pytest.raises(wire.WireError, match="longer than allowed"):
        line.send({"text": "x" * 1_000_000})
    assert time.monotonic() - started < 0.9
    reader.join()
    os.close(writes)


def test_a_slow_reader_gets_the_whole_message():
    reads, writes = os.pipe()
    line, message, got = wire.Line(reads, writes, time.monotonic() + 20), {"text": "x" * 300_001}, []
    reader = threading.Thread(target=lambda: [got.append(os.read(reads, 5000)) or time.sleep(0.001) for _ in iter(
        lambda: sum(map(len, got)) < 300_000 + 4, False)])
    reader.start()
    line.send(message)
    os.close(writes)
    reader.join()
    data = b"".join([*got, os.read(reads, 65536)])
    os.close(reads)
    assert json.loads(data[4:]) == message and int.from_bytes(data[:4], "big") == len(data) - 4
