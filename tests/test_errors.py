"""Errors arrive whole: copied, pickled, and raised in a worker process."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from dimum_core import errors
from dimum_core.data import load_dataset
from dimum_core.errors import DimumError, UnknownName

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DimumError)]
ERRORS = [
    *(kind("what is wrong: what to do.") for kind in CLASSES if kind is not UnknownName),
    UnknownName("class", "thre", ("three", "four")), UnknownName("class", None, ()),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_copying_and_pickling(error, way):
    again = way(error)
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)


def test_a_worker_that_asks_for_an_unknown_name_says_so():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(UnknownName, match="Did you mean 'digits'"):
        pool.submit(load_dataset, "digit").result(timeout=300)
