"""Who pays: counts by hand, a model whose labels were exchanged, and neighbours that are known."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pandas as pd
import pytest
import torch

from dimum_core import load_dataset, load_pipeline
from dimum_core.errors import DataError, SettingError
from dimum_core.interference import bill, interference, nearness, who_pays
from dimum_core.judges import judge_for
from dimum_core.metrics import difference_of_proportions
from dimum_core.models.history import with_unet


def test_a_model_whose_labels_were_exchanged_draws_each_for_the_other():
    pipe = load_pipeline("digits")
    exchanged = with_unet(pipe, copy.deepcopy(pipe.unet))
    with torch.no_grad():
        rows = exchanged.unet.class_embedding.weight
        rows[[3, 8]] = rows[[8, 3]].clone()
    before, after = (interference(p, per_class=3, num_inference_steps=8, progress=False) for p in (pipe, exchanged))
    assert (after.sum(axis=1) == 3).all() and list(after.columns) == [*pipe.class_names, "none of these"]
    assert before.loc["3", "3"] >= 2 and after.loc["3", "8"] >= 2 and after.loc["8", "3"] >= 2
    others = list("01245679")
    assert after.loc[others].equals(before.loc[others]), "from the same noise, whoever did not change draws the same"


def test_near_classes_are_those_that_look_alike():
    data, judge = load_dataset("digits"), judge_for(load_pipeline("digits"))
    distances = nearness(data.test, "3", judge)
    assert "3" not in distances.index and len(distances) == 9 and distances.is_monotonic_increasing
    assert set(distances.index[:4]) & {"8", "9", "5", "2"} and "0" not in distances.index[:2]
    features = judge.judge(data.test.images).features
    means = [features[data.test.labels == label].mean(0) for label in (3, 8)]
    assert distances["8"] == pytest.approx(float((means[0] - means[1]).norm()), rel=1e-5)
    with pytest.raises(DataError, match="has no images of 5"):
        nearness(data.test.without("5"), "3", judge)


def counts(right: list[int]) -> pd.DataFrame:
    """A matrix of ten samples a class, of which so many are right and the others nothing."""
    names = list("abcd")
    table = pd.DataFrame(0, index=names, columns=[*names, "none of these"])
    for name, hits in zip(names, right, strict=True):
        table.loc[name, name], table.loc[name, "none of these"] = hits, 10 - hits
    return table


def test_who_pays_by_hand():
    matrices = {"before": counts([10, 10, 10, 9]), "unlearned": counts([0, 4, 8, 9]), "attacked": counts([7, 9, 8, 9])}
    table = who_pays(matrices, pd.Series({"b": 1.0, "c": 2.0, "d": 3.0}), near=1)
    assert list(table.index) == ["b", "c", "d", "near", "far"]
    assert table.loc["near", ["before", "unlearned", "attacked"]].tolist() == [1.0, 0.4, 0.9]
    assert table.loc["far", ["before", "unlearned"]].tolist() == [0.95, 0.85]
    expected = difference_of_proportions(17, 20, 19, 20)
    columns = [f"unlearned - before{end}" for end in ("", " low", " high")]
    assert table.loc["far", columns].tolist() == pytest.approx([expected.value, expected.low, expected.high])
    with pytest.raises(SettingError, match="near must be"):
        who_pays(matrices, pd.Series({"b": 1.0, "c": 2.0, "d": 3.0}), near=3)


def test_a_bill_has_near_and_far_classes_apart_and_what_the_machine_spent():
    before, distances = counts([10, 10, 10, 9]), pd.Series({"b": 1.0, "c": 2.0, "d": 3.0})
    after = {"rough": counts([0, 4, 8, 9]), "kind": counts([0, 10, 10, 8])}
    table = bill(before, after, distances, {"rough": {"seconds": 2.0, "passes": 640, "memory": 80.0}}, near=1)
    assert table["near"].to_dict() == {"rough": 0.4, "kind": 1.0} and table["far"].to_dict() == {"rough": 0.85, "kind": 0.9}
    expected = difference_of_proportions(17, 20, 19, 20)
    found = table.loc["rough", ["far change", "far low", "far high"]].tolist()
    assert found == pytest.approx([expected.value, expected.low, expected.high])
    assert table["worst"].to_dict() == {"rough": "b", "kind": "d"} and table.loc["rough", "worst change"] == pytest.approx(-0.6)
    assert table.loc["rough", ["seconds", "passes", "memory"]].tolist() == [2.0, 640, 80.0] and pd.isna(table.loc["kind", "passes"])


SPENDING = """
import json, time, torch
from dimum_core import load_dataset, load_pipeline, unlearn
from dimum_core.benchmark.nfe import spent

pipe = load_pipeline("digits")
with spent(pipe.unet) as cost:
    unlearn(pipe, "random-label", target="3", data=load_dataset("digits"), steps=2, batch_size=8, progress=False)
    held = torch.ones(50_000_000)  # 200 MB, let go before the end
    time.sleep(0.1)
    del held
with spent(pipe.unet) as nothing:
    pass
print(json.dumps([cost, nothing]))
"""


def test_what_is_spent_is_passes_seconds_and_the_most_memory():
    said = subprocess.run([sys.executable, "-c", SPENDING], capture_output=True, text=True, check=True)
    cost, nothing = json.loads(said.stdout.splitlines()[-1])  # a process of its own, which has had no memory before
    assert cost["passes"] == 3 * 2 * 8 and 0.1 < cost["seconds"] < 60
    assert 190 < cost["memory"] < 600
    assert nothing["passes"] == 0 and nothing["memory"] < 50
