"""Geometry: displacements and planes worked by hand, losses along lines in closed form, gradients against finite differences."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dimum_core import geometry, load_dataset, load_pipeline
from dimum_core.geometry import GeometryError, Probe
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.denoiser import build_denoiser
from dimum_core.models.diffusion import ALPHAS_CUMPROD
from dimum_core.unlearning.base import shifted


class Toy(nn.Module):
    """eps(x_t, t, c) = w_c x_t: every loss is a parabola in w."""

    def __init__(self, *values):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(values))

    def forward(self, x_t, t, class_labels):
        return SimpleNamespace(sample=self.table[class_labels].view(-1, 1, 1, 1) * x_t)


def toy_probe(condition, seed, wanted=0.5):
    """eps = wanted * x_t + a little noise, under one condition, so that the best weight is near `wanted`."""
    generator = torch.Generator().manual_seed(seed)
    x_t, noise = torch.randn(2, 12, 1, 4, 4, generator=generator)
    return Probe(x_t, wanted * x_t + 0.1 * noise, torch.zeros(12).long(), torch.full((12,), condition))


@pytest.fixture
def pipe(tiny_preset):
    return build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, ("left", "top", "checks"))


def test_the_way_back_is_the_3_4_5_triangle():
    original, unlearned = Toy(1.0, 1.0), Toy(4.0, 5.0)
    home = geometry.way_back(original, unlearned, Toy(1.0, 1.0))
    assert home == pytest.approx({"out": 5, "back": 5, "left": 0, "angle": 0, "undone": 1}, abs=1e-5)
    aside = geometry.way_back(original, unlearned, Toy(8.0, 2.0))  # (4, -3) is perpendicular to (3, 4)
    assert aside == pytest.approx({"out": 5, "back": 5, "left": math.sqrt(50), "angle": 90, "undone": 0}, abs=1e-5)
    half = geometry.way_back(original, unlearned, Toy(2.5, 3.0))
    assert half == pytest.approx({"out": 5, "back": 2.5, "left": 2.5, "angle": 0, "undone": 0.5}, abs=1e-5)
    away = geometry.way_back(original, unlearned, Toy(7.0, 9.0))
    assert away["angle"] == pytest.approx(180) and away["undone"] == pytest.approx(-1)
    with pytest.raises(GeometryError, match="no way back"):
        geometry.way_back(original, Toy(1.0, 1.0), unlearned)
    with pytest.raises(GeometryError, match="two states of one network"):
        geometry.displacement(original, Toy(1.0, 1.0, 1.0))


def test_angles_agree_with_cosines_and_a_zero_vector_has_none():
    a, b = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.0])
    assert geometry.angle(a, b) == pytest.approx(45) and geometry.angle(a, -5 * a) == pytest.approx(180)
    assert math.isnan(geometry.cosine(a, torch.zeros(3))) and math.isnan(geometry.angle(a, torch.zeros(3)))


def test_the_plane_keeps_lengths_and_says_how_far_a_point_is_from_it():
    origin, first, second = (torch.tensor(v) for v in ([1.0, 1, 1, 1], [3.0, 1, 1, 1], [2.0, 4, 1, 1]))
    outside = torch.tensor([2.0, 0.0, 5.0, 4.0])
    found = geometry.plane(origin, first, second, [origin, first, second, outside])
    assert np.allclose(found, [[0, 0, 0], [2, 0, 0], [1, 3, 0], [1, -1, 5]], atol=1e-6)
    with pytest.raises(GeometryError, match="one line"):
        geometry.plane(origin, first, 2 * first - origin, [origin])
    with pytest.raises(GeometryError, match="first differs"):
        geometry.plane(origin, origin, second, [origin])


def test_a_probe_is_the_denoising_loss_on_noise_that_stays(pipe, tiny_data):
    probe = Probe.of(pipe, tiny_data, count=100, seed=3)
    again, other = Probe.of(pipe, tiny_data, count=100, seed=3), Probe.of(pipe, tiny_data, count=100, seed=4)
    assert torch.equal(probe.x_t, again.x_t) and not torch.equal(probe.eps, other.eps)
    assert probe(pipe.unet) == probe(pipe.unet) != other(pipe.unet)
    assert (probe.t // 10).tolist() == list(range(100))  # one timestep in each hundredth of all
    abar = ALPHAS_CUMPROD[probe.t].float().view(-1, 1, 1, 1)
    x = nn.functional.pixel_shuffle((probe.x_t - (1 - abar).sqrt() * probe.eps) / abar.sqrt(), 2)
    known = probe.t < 500
    distance = torch.cdist(x[known].flatten(1), tiny_data.images.flatten(1))
    assert distance.min(dim=1).values.max() < 1e-2  # cdist is not exact
    assert torch.equal(tiny_data.labels[distance.argmin(dim=1)], probe.condition[known])


def test_a_probes_gradient_is_its_slope(pipe, tiny_data):
    probe = Probe.of(pipe, tiny_data, count=16)
    g = probe.gradient(pipe.unet)
    step = 1e-2 * g / g.norm()
    with shifted(pipe.unet, step):
        up = probe(pipe.unet)
    with shifted(pipe.unet, -step):
        down = probe(pipe.unet)
    assert (up - down) / 2e-2 == pytest.approx(float(g.norm()), rel=0.02)


def test_losses_along_a_line_are_the_parabola_and_a_bend_is_followed():
    probe, models = toy_probe(0, seed=1), [Toy(0.0, 3.0), Toy(2.0, 3.0), Toy(2.0, -1.0)]
    before = copy.deepcopy(models[0].state_dict())
    line = geometry.loss_along(models, {"loss": probe, "row": lambda m: float(m.table[1].detach())}, points=5)
    assert line["place"].tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert line["distance"].tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 3, 4, 5, 6])
    a, b, c = (float((u * v).mean()) for u, v in ((probe.x_t, probe.x_t), (probe.x_t, probe.eps), (probe.eps, probe.eps)))
    w = np.array([0, 0.5, 1, 1.5, 2, 2, 2, 2, 2])
    assert np.allclose(line["loss"], a * w**2 - 2 * b * w + c, atol=1e-5)
    assert line["row"].tolist() == pytest.approx([3, 3, 3, 3, 3, 2, 1, 0, -1])
    assert torch.equal(models[0].table, before["table"])
    with pytest.raises(GeometryError, match="two networks"):
        geometry.loss_along(models[:1], {"loss": probe})


def test_a_barrier_is_what_rises_above_the_straight_line_between_the_ends():
    assert geometry.barrier([1.0, 3.0, 2.0]) == pytest.approx(1.5)
    assert geometry.barrier([0.0, 1.0, 4.0, 9.0]) == 0  # convex: below the chord
    assert geometry.barrier([2.0, 2.0]) == 0
    with pytest.raises(GeometryError, match="two or more finite"):
        geometry.barrier([1.0, math.nan])


def test_movement_is_put_down_to_the_part_that_moved(pipe):
    after = copy.deepcopy(pipe.unet)
    with torch.no_grad():
        after.conv_in.weight += 0.3
        after.up_blocks[1].resnets[0].conv1.bias += 0.4
    table = geometry.movement_by_block(pipe.unet, after)
    moved = {"conv_in": 0.09 * after.conv_in.weight.numel(), "up_blocks.1": 0.16 * after.up_blocks[1].resnets[0].conv1.bias.numel()}
    for name in table.index:
        assert table.loc[name, "share of movement"] == pytest.approx(moved.get(name, 0) / sum(moved.values()), abs=1e-5)
    assert table["weights"].sum() == sum(p.numel() for p in after.parameters())
    assert table["share of weights"].sum() == pytest.approx(1) and table.index[0] == "conv_in"
    norm = sum(float(p.detach().square().sum()) for p in pipe.unet.conv_in.parameters()) ** 0.5
    assert table.loc["conv_in", "relative"] == pytest.approx(moved["conv_in"] ** 0.5 / norm, rel=1e-4)
    assert geometry.movement_by_block(pipe.unet, pipe.unet)["share of movement"].isna().all()


def test_label_rows_are_compared_one_by_one():
    before, after = (SimpleNamespace(class_embedding=nn.Embedding(3, 2)) for _ in range(2))
    before.class_embedding.weight.data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]])
    after.class_embedding.weight.data = torch.tensor([[0.0, 1.0], [0.0, 2.0], [3.0, 4.0]])
    table = geometry.label_rows(before, after, ("a", "b"))
    assert table.index.tolist() == ["a", "b", "null"] and table["length"].tolist() == [1, 2, 5]
    assert table["moved"].tolist() == pytest.approx([2**0.5, 0, 0]) and table["cosine"].tolist() == pytest.approx([0, 1, 1])
    assert table["nearest"].tolist() == ["b", "a", "b"] and table["gap"].tolist() == pytest.approx([1, 1, 13**0.5])
    with pytest.raises(GeometryError, match="3 rows"):
        geometry.label_rows(before, after, ("a", "b", "c"))


def test_gradients_that_agree_conflict_or_have_nothing_to_do_with_each_other():
    low, high = ([toy_probe(0, seed, wanted) for seed in (1, 2, 3)] for wanted in (-2.0, 2.0))
    elsewhere = [toy_probe(1, seed) for seed in (4, 5)]
    model = Toy(0.0, 0.0)
    agree, conflict = geometry.alignment(model, high, high[:2]), geometry.alignment(model, high, low)
    assert agree["cosine"] == pytest.approx(1) and agree["retained signal"] == pytest.approx(1)
    assert agree["slope"] == pytest.approx(agree["forgotten norm"])
    assert conflict["cosine"] == pytest.approx(-1) and conflict["slope"] < 0
    assert geometry.alignment(model, high, elsewhere)["cosine"] == 0
    with pytest.raises(GeometryError, match="two probes"):
        geometry.alignment(model, high, low[:1])


def test_the_slope_predicts_what_a_small_step_of_the_attacker_does(pipe, tiny_data):
    retained, forgotten = (
        [Probe.of(pipe, images, 16, seed) for seed in (0, 1)] for images in (tiny_data.without("top"), tiny_data.only("top"))
    )
    found = geometry.alignment(pipe.unet, retained, forgotten)
    g = sum(probe.gradient(pipe.unet) for probe in retained)
    with shifted(pipe.unet, -1e-3 * g / g.norm()):
        after = sum(probe(pipe.unet) for probe in forgotten) / 2
    before = sum(probe(pipe.unet) for probe in forgotten) / 2
    assert (before - after) / 1e-3 == pytest.approx(found["slope"], rel=0.05)


def test_the_attacker_has_no_gradient_in_the_targets_row():
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    g = Probe.of(pipe, data.train.without("3"), 128).gradient(pipe.unet)
    sizes = [p.numel() for p in pipe.unet.parameters()]
    names = [name for name, _ in pipe.unet.named_parameters()]
    table = g.split(sizes)[names.index("class_embedding.weight")].view(11, -1)
    silent = table.abs().sum(1) == 0
    assert silent.tolist() == [label in (3, 10) for label in range(11)]  # the probe drops no labels, so null is silent too
