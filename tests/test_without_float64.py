"""Apple's GPUs have no float64: what is computed in it is moved to the CPU first. Here the CPU plays such a GPU."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dimum_core import geometry
from dimum_core.attacks.weights import soft_impute
from dimum_core.data import from_uint8
from dimum_core.judges.classifier import Judge
from dimum_core.judges.outliers import fit_outliers
from dimum_core.unlearning.uce import closed_form


class WithoutFloat64(TorchFunctionMode):
    """Nothing becomes float64 before it was moved to the CPU."""

    def __torch_function__(self, function, types, arguments=(), named=None):
        result = function(*arguments, **(named or {}))
        if function is torch.Tensor.cpu:
            result = result.view_as(result)
            result.moved = True
        if function is torch.Tensor.double and arguments[0].dtype != torch.float64 and not hasattr(arguments[0], "moved"):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        return result


def judged():
    data = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    judge = Judge(8, 1, ("a", "b"), (8, 8), (2, 2), knows_outliers=True).eval()
    fit_outliers(judge, from_uint8("noise", ((data + 1) * 127.5).byte().numpy(), [i % 2 for i in range(40)], ("a", "b")))
    return judge.outlier_weights


def rows():
    before, after = nn.Module(), nn.Module()
    before.class_embedding, after.class_embedding = nn.Embedding(3, 4), nn.Embedding(3, 4)
    return geometry.label_rows(before, after, ("a", "b"))


def moved():
    before = nn.Linear(3, 2)
    after = copy.deepcopy(before)
    nn.init.ones_(after.weight)
    return geometry.movement_by_block(before, after)


COMPUTED = {
    "a judge of outliers": judged,
    "UCE": lambda: closed_form(torch.randn(2, 3), *torch.randn(3, 5, 3).unbind(), 0.5),
    "missing entries": lambda: soft_impute(torch.randn(3, 4), torch.eye(3, 4) > 0),
    "rows of labels": rows, "what moved": moved,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_nothing_asks_an_apple_gpu_for_float64(name):
    torch.manual_seed(0)
    expected = COMPUTED[name]()
    torch.manual_seed(0)
    with WithoutFloat64():
        found = COMPUTED[name]()
    assert (torch.equal if isinstance(found, torch.Tensor) else type(found).equals)(found, expected)
