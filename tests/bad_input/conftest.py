"""What good input looks like, so that a case can spoil one thing of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from dimum_core.benchmark import read_results
from dimum_core.data import DATA_FOLDER, Dataset, from_uint8
from dimum_core.judges.classifier import Judge
from dimum_core.pictures import save_picture
from dimum_core.pretraining import new_model
from tests.bad_input.refusing import PRESET


@pytest.fixture(scope="module")
def w(tmp_path_factory):
    """What good input looks like, so that a case can spoil one thing of it; nothing here is trained."""
    pixels = np.random.default_rng(0).integers(256, size=(30, 1, 8, 8), dtype=np.uint8)
    tiny = from_uint8("tiny", pixels, np.arange(30) % 3, ("left", "top", "checks"))
    folder = tmp_path_factory.mktemp("bad")
    canvas = folder / "canvas" / "Crayon" / "Dogs"
    canvas.mkdir(parents=True)
    for number in range(3):
        save_picture(torch.zeros(3, 2, 2), canvas / f"{number}.png")
    (folder / "file").write_text("in the way")
    return SimpleNamespace(
        tiny=tiny, data=Dataset(tiny, tiny), pipe=new_model(PRESET, tiny, 0)[1], canvas=folder / "canvas", folder=folder,
        judge=Judge(8, 1, tiny.class_names, (4,), (2,)), out=folder / "out",
        features=np.random.default_rng(0).normal(size=(8, 3)), runs=pd.DataFrame({"rate": [1, 2], "seed": [0, 1], "v": [0.0, 1.0]}),
        rows=read_results(DATA_FOLDER / "results" / "digits.parquet").head(60),
    )
