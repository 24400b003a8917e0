"""The geometry of forgetting and of coming back: displacements of weights, losses along lines, what moves, which gradients agree.

Weights are vectors here: all parameters of a network, flattened in their order. Three of them make the story, the original, the
unlearned and the relearned; their differences are the *displacements* of unlearning and of relearning.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .data import ImageSet, step_generator
from .errors import DimumError
from .models.diffusion import NUM_TIMESTEPS, Schedule, add_noise
from .models.labelled import output_of
from .models.networks import same_layout
from .models.sampling import ClassConditionalPipeline
from .unlearning.base import gradient, shifted


class GeometryError(DimumError, ValueError):
    """Networks or vectors that cannot be compared."""


# Displacements --------------------------------------------------------------------------------------------------------


def weights(model: nn.Module) -> Tensor:
    """All parameters as one vector: float32, on the CPU, a copy."""
    return nn.utils.parameters_to_vector(model.parameters()).detach().float().cpu().clone()


def displacement(start: nn.Module, end: nn.Module) -> Tensor:
    """weights(end) - weights(start); GeometryError if the networks do not have the same parameters."""
    if not same_layout(start, end):
        raise GeometryError("Two networks of different parameters have no displacement: take two states of one network.")
    return weights(end) - weights(start)


def cosine(a: Tensor, b: Tensor) -> float:
    """<a, b> / (|a| |b|), in [-1, 1], computed in float64; NaN if one of them is zero."""
    a, b = a.double().flatten(), b.double().flatten()
    norm = float(a.norm() * b.norm())
    return float(a @ b) / norm if norm else math.nan


def angle(a: Tensor, b: Tensor) -> float:
    """The angle between two vectors in degrees, 0 to 180; NaN if one of them is zero."""
    return math.degrees(math.acos(float(np.clip(cosine(a, b), -1, 1))))


def way_back(original: nn.Module, unlearned: nn.Module, relearned: nn.Module) -> dict[str, float]:
    """How relearning moves, compared with the way that unlearning took.

    out, back: lengths of the displacements u = unlearned - original and r = relearned - unlearned.
    left: |relearned - original|, how far from home the attack ends.
    angle: between r and -u, in degrees: 0 goes straight home, 90 is no way back at all.
    undone: -<r, u> / |u|^2, the share of the way out that was walked back; 1 is all of it.
    """
    u, r = displacement(original, unlearned), displacement(unlearned, relearned)
    length = float(u.double().norm())
    if length == 0:
        raise GeometryError("The unlearned network is the original: there is no way out, so no way back.")
    undone = -float(r.double() @ u.double()) / length**2
    left = float((u + r).double().norm())
    return {"out": length, "back": float(r.double().norm()), "left": left, "angle": angle(r, -u), "undone": undone}


def plane(origin: Tensor, first: Tensor, second: Tensor, points: Sequence[Tensor]) -> np.ndarray:
    """Points in the plane through three weight vectors, for a picture: one row (x, y, distance from the plane) a point.

    x runs from origin to first; y is perpendicular to it, positive on second's side. Lengths and angles in the plane are true.
    """
    across = (first - origin).double()
    if float(across.norm()) == 0 or math.isnan(cosine(across, second - origin)):
        raise GeometryError("Three points make a plane only if the first differs from the two others.")
    across = across / across.norm()
    up = (second - origin).double()
    up = up - (up @ across) * across
    if float(up.norm()) < 1e-6 * float((second - origin).double().norm()):
        raise GeometryError("The three points lie on one line, which makes no plane.")
    up, rows = up / up.norm(), []
    for point in points:
        offset = (point - origin).double()
        x, y = float(offset @ across), float(offset @ up)
        rows.append((x, y, float((offset - x * across - y * up).norm())))
    return np.array(rows)


# Losses on fixed noise, along lines -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """L_den of some images on noise that is drawn once: what then changes between two networks is due to their weights alone.

    x_t, eps: N x C x H x W as the network sees them; t, condition: int64, N.
    """

    x_t: Tensor
    eps: Tensor
    t: Tensor
    condition: Tensor
    schedule: Schedule = field(default_factory=Schedule)

    @classmethod
    def of(cls, pipe: ClassConditionalPipeline, images: ImageSet, count: int = 256, seed: int = 0) -> Probe:
        """`count` images (again and again if there are fewer) under their own labels; timesteps spread evenly over all T."""
        generator = step_generator(seed, 0, "probe")
        chosen = torch.randperm(len(images), generator=generator)[torch.arange(count) % len(images)]
        drawn = images.resized(pipe.image_shape[-1]).select(chosen)
        x = pipe.encode(drawn.images).cpu()  # latents are where the autoencoder is
        eps = torch.randn(x.shape, generator=generator)
        t = ((torch.arange(count) + torch.rand(count, generator=generator)) * NUM_TIMESTEPS / count).long()
        schedule = Schedule.of(pipe.scheduler)
        return cls(add_noise(x, eps, t, schedule.alphas_cumprod), eps, t, drawn.labels, schedule)

    def loss(self, model: nn.Module) -> Tensor:
        """mean |eps - eps(x_t, t, c)|^2, with its graph; in float32."""
        device = next(model.parameters()).device
        x_t, eps, t, condition = (value.to(device) for value in (self.x_t, self.eps, self.t, self.condition))
        predicted = self.schedule.epsilon(output_of(model, x_t, t, condition).float(), x_t, t)
        return (eps - predicted).square().mean()

    @torch.no_grad()
    def __call__(self, model: nn.Module) -> float:
        return float(self.loss(model.eval()))

    def gradient(self, model: nn.Module) -> Tensor:
        """The gradient of the loss by all weights, as one vector on the CPU. Turns on the gradients of all of them."""
        return gradient(self.loss(model.eval().requires_grad_(True)), model).cpu()


def loss_along(
    models: Sequence[nn.Module], losses: dict[str, Callable[[nn.Module], float]], points: int = 9
) -> pd.DataFrame:
    """Losses along the straight lines from each network to the next.

    points: on each line, its ends included. One row per point: `place` (0 at the first network, 1 at the second, 2 at the third),
    `distance` travelled, and one column for each loss.
    """
    if len(models) < 2 or points < 2:
        raise GeometryError("A line needs two networks and two points at least.")
    moving, rows, travelled = copy.deepcopy(models[0]).requires_grad_(True), [], 0.0
    for number, (start, end) in enumerate(itertools.pairwise(models)):
        move = displacement(start, end)
        moving.load_state_dict(start.state_dict())
        for part in np.linspace(0, 1, points)[(number > 0):]:
            with shifted(moving, float(part) * move.to(next(moving.parameters()).device)):
                measured = {name: loss(moving) for name, loss in losses.items()}
            rows.append({"place": number + float(part), "distance": travelled + float(part * move.norm()), **measured})
        travelled += float(move.norm())
    return pd.DataFrame(rows)


def barrier(values) -> float:
    """How far a line's losses rise above the straight line between their ends: at least 0; 0 is no barrier.

    values: evenly spaced along the line. Linear mode connectivity of Frankle et al. 2020, arXiv 1912.05671.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise GeometryError("A barrier needs two or more finite losses along a line.")
    return float((values - np.linspace(values[0], values[-1], len(values))).max().clip(0))


# What moves -----------------------------------------------------------------------------------------------------------


def movement_by_block(before: nn.Module, after: nn.Module) -> pd.DataFrame:
    """Which parts of a network moved, one row for each part, in the network's order.

    weights: how many. share of weights, share of movement: of all of them, and of the squared distance; each sums to 1.
    relative: |movement| / |weights before|.
    """
    displacement(before, after)  # refuses networks that differ
    sizes: dict[str, list[float]] = {}
    for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True):
        part = sizes.setdefault(_part(name), [0.0, 0.0, 0.0])
        moved, norm = (w.detach().cpu().double().square().sum() for w in (new - old, old))
        for place, value in enumerate((old.numel(), float(moved), float(norm))):
            part[place] += value
    table = pd.DataFrame.from_dict(sizes, orient="index", columns=["weights", "moved", "norm"])
    total = table["moved"].sum()
    return pd.DataFrame({
        "weights": table["weights"].astype(int), "share of weights": table["weights"] / table["weights"].sum(),
        "share of movement": table["moved"] / (total or math.nan), "relative": np.sqrt(table["moved"] / table["norm"]),
    })


def _part(name: str) -> str:
    """down_blocks.0.resnets.1.conv1.weight -> down_blocks.0; conv_in.bias -> conv_in."""
    first, second = [*name.split("."), ""][:2]
    return f"{first}.{second}" if second.isdigit() else first


def label_rows(before: nn.Module, after: nn.Module, names: Sequence[str]) -> pd.DataFrame:
    """How each row of the label table moved, and which row it is nearest to.

    names: of the classes; the last row, the null condition, is called null. One row per label: length before; moved, the Euclidean
    distance; cosine of before and after; nearest, the other row at the smallest distance after, and gap, that distance.
    """
    old, new = (model.class_embedding.weight.detach().cpu().double() for model in (before, after))
    names = [*names, "null"]
    if not len(names) == len(old) == len(new):
        raise GeometryError(f"The label tables have {len(old)} and {len(new)} rows, but there are {len(names)} names with null.")
    between = torch.cdist(new, new).fill_diagonal_(math.inf)
    gap, nearest = between.min(dim=1)
    return pd.DataFrame({
        "length": old.norm(dim=1), "moved": (new - old).norm(dim=1),
        "cosine": [cosine(a, b) for a, b in zip(old, new, strict=True)],
        "nearest": [names[k] for k in nearest], "gap": gap,
    }, index=names)


# Which gradients agree ------------------------------------------------------------------------------------------------


def alignment(model: nn.Module, retained: Sequence[Probe], forgotten: Sequence[Probe]) -> dict[str, float]:
    """Does a step of the attacker, down L_den(D_r), also lower the target's loss L_den(D_f)? From the gradients at one network.

    retained, forgotten: two or more probes each, with different images and noise; their gradients are averaged.
    cosine: of the two mean gradients; positive: the attacker's step lowers the target's loss.
    retained norm, forgotten norm: of the mean gradients.
    slope: <g_r, g_f> / |g_r|, how much the target's loss falls per unit of weight distance along -g_r.
    retained signal, forgotten signal: mean cosine of two probes' gradients; near 0, the mean gradient is mostly noise and so is the
        cosine.
    """
    if min(len(retained), len(forgotten)) < 2:
        raise GeometryError("An alignment needs two probes or more of each kind, to tell a gradient from its noise.")
    g_r, g_f = (torch.stack([probe.gradient(model) for probe in probes]).double() for probes in (retained, forgotten))
    mean_r, mean_f = g_r.mean(0), g_f.mean(0)
    return {
        "cosine": cosine(mean_r, mean_f), "slope": float(mean_r @ mean_f / mean_r.norm()), "retained norm": float(mean_r.norm()),
        "forgotten norm": float(mean_f.norm()), "retained signal": _agreement(g_r), "forgotten signal": _agreement(g_f),
    }


def _agreement(gradients: Tensor) -> float:
    unit = nn.functional.normalize(gradients, dim=1)
    count = len(unit)
    return float((unit @ unit.T).sum() - count) / (count * (count - 1))
