"""Shapes: small coloured pictures, an object in a style, in the spirit of UnlearnCanvas (Zhang et al. 2024, arXiv 2402.11846).

Six objects times six styles; position, size, angle, colours and texture vary and mean nothing. A class name is a style and an
object, such as "hatched star", so that a target may be a style, an object or one combination (see `targets.Target`).
"""

from __future__ import annotations

import colorsys

import numpy as np

from ..checking import check_seed
from ..errors import DataError, brief

STYLES = ("outline", "filled", "hatched", "dotted", "checkered", "watercolour")
OBJECTS = ("circle", "square", "triangle", "star", "cross", "heart")
CLASS_NAMES = tuple(f"{style} {thing}" for style in STYLES for thing in OBJECTS)
SIZE, SUPERSAMPLING = 16, 3
FAINT = 0.2  # ink between the lines of a hatching and in the pale cells of a checkered picture


def render(labels: np.ndarray, seed: int = 0, chunk: int = 512) -> np.ndarray:
    """One picture for each label: uint8, N x 3 x 16 x 16; a pure function of the labels and the seed.

    labels: int, N, numbers of CLASS_NAMES. Each pixel is the average of 3 x 3 points.
    """
    labels = np.asarray(labels)
    whole = labels.ndim == 1 and (np.issubdtype(labels.dtype, np.integer) or not labels.size)
    if not whole or (labels.size and not 0 <= labels.min() <= labels.max() < len(CLASS_NAMES)):
        raise DataError(f"labels must be a list of whole numbers from 0 to {len(CLASS_NAMES) - 1}, not {brief(labels)}.")
    check_seed(seed)
    parts = [labels[i:i + chunk] for i in range(0, len(labels), chunk)]
    pictures = [_render(part, np.random.default_rng((seed, k))) for k, part in enumerate(parts)]
    return np.concatenate(pictures) if pictures else np.zeros((0, 3, SIZE, SIZE), np.uint8)


def _render(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    count, side = len(labels), SIZE * SUPERSAMPLING
    vary = lambda low, high: random.uniform(low, high, (count, 1, 1)).astype(np.float32)  # noqa: E731
    point = (np.arange(side, dtype=np.float32) + 0.5) / SUPERSAMPLING  # in pixels
    x, y = np.broadcast_arrays(point[None, None, :], point[None, :, None])
    radius, angle, phase = vary(5.4, 6.8), vary(-0.3, 0.3), (vary(0, 4), vary(0, 4))
    right, down = x - SIZE / 2 - vary(-1.2, 1.2), y - SIZE / 2 - vary(-1.2, 1.2)
    u = (np.cos(angle) * right + np.sin(angle) * down) / radius
    v = (np.sin(angle) * right - np.cos(angle) * down) / radius  # v points up
    waves = sum(np.sin(vary(0.25, 0.6) * x + vary(-0.6, 0.6) * y + vary(0, 6.3)) for _ in range(3)) / 3
    colours, back = _colours(random, count)
    ink = np.empty((count, side, side), np.float32)
    second = np.zeros_like(ink)  # share of the second colour
    style, thing = labels // len(OBJECTS), labels % len(OBJECTS)
    distance = np.empty_like(ink)
    for number, name in enumerate(OBJECTS):
        chosen = thing == number
        distance[chosen] = DISTANCES[name](u[chosen], v[chosen]) * radius[chosen]  # in pixels, negative inside
    for number, name in enumerate(STYLES):
        c = style == number
        ink[c], second[c] = INKS[name](distance[c], x + phase[0][c], y + phase[1][c], waves[c])
    front = colours[0] + second[:, None] * (colours[1] - colours[0])
    picture = back + ink[:, None] * (front - back)
    picture = picture.reshape(count, 3, SIZE, SUPERSAMPLING, SIZE, SUPERSAMPLING).mean((3, 5))
    return np.round(picture * 255).clip(0, 255).astype(np.uint8)


def _colours(random: np.random.Generator, count: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Two strong colours and a pale background for each picture: count x 3 x 1 x 1 each, in [0, 1]."""
    hue, strength, light = random.random(count), random.uniform(0.7, 1, count), random.uniform(0.35, 0.75, count)
    pale = (random.random(count), random.uniform(0, 0.25, count), random.uniform(0.88, 1, count))

    def rgb(*hsv) -> np.ndarray:
        return np.array([colorsys.hsv_to_rgb(*one) for one in zip(*hsv, strict=True)], np.float32)[:, :, None, None]

    return (rgb(hue, strength, light), rgb((hue + 0.4) % 1, strength, light)), rgb(*pale)


# Objects: signed distance to the edge of a shape of radius about 1; u points right, v up -------------------------------


def _circle(u, v):
    return np.hypot(u, v) - 0.92


def _square(u, v):
    return np.maximum(np.abs(u), np.abs(v)) - 0.8


def _triangle(u, v):
    return np.maximum(0.866 * np.abs(u) + 0.5 * (v + 0.15), -(v + 0.15)) - 0.56


def _star(u, v):
    """Five points: fold the plane into one tenth of it, where the edge is a line from the tip to the inner corner."""
    r, tenth = np.hypot(u, v), np.pi / 5
    theta = np.abs((np.arctan2(u, v) + tenth) % (2 * tenth) - tenth)
    tip, inner = np.array([1.1, 0.0]), 0.46 * np.array([np.cos(tenth), np.sin(tenth)])
    along = (inner - tip) / np.linalg.norm(inner - tip)
    return (r * np.cos(theta) - tip[0]) * along[1] - r * np.sin(theta) * along[0]


def _cross(u, v):
    bar = lambda a, b: np.maximum(np.abs(a) - 1.0, np.abs(b) - 0.34)  # noqa: E731
    return np.minimum(bar(u, v), bar(v, u))


def _heart(u, v):
    """A square on its corner with a half circle on each of the two upper sides."""
    side, a, b = 0.56, (u + v + 0.25) / 2**0.5, (v + 0.25 - u) / 2**0.5
    square = np.maximum(np.abs(a), np.abs(b)) - side
    lobes = np.minimum(np.hypot(a - side, b), np.hypot(a, b - side)) - side
    return np.minimum(square, lobes)


DISTANCES = dict(zip(OBJECTS, (_circle, _square, _triangle, _star, _cross, _heart), strict=True))


# Styles: how much ink lies on each point, and how much of it is of the second colour; distances in pixels ---------------


def _outline(d, x, y, waves):
    return (d < 0) & (d > -1.5), 0.0


def _filled(d, x, y, waves):
    return d < 0, 0.0


def _hatched(d, x, y, waves):
    return np.where((x + y) % 4.2 < 2.1, 1.0, FAINT) * (d < 0), 0.0


def _dotted(d, x, y, waves):
    """Dots of two colours on a lattice, as the pointillists set them."""
    row = np.floor(y / 2.6)
    across = x / 2.6 + 0.5 * (row % 2)
    dot = np.hypot(across % 1 - 0.5, y / 2.6 - row - 0.5) < 0.4
    return dot * (d < 0.3), (np.floor(across) + row) % 2


def _checkered(d, x, y, waves):
    return np.where((np.floor(x / 3.2) + np.floor(y / 3.2)) % 2 == 0, 1.0, FAINT) * (d < 0), 0.0


def _watercolour(d, x, y, waves):
    """A wash with a soft edge, now thicker, now thinner, and a little of a second colour in it."""
    return np.clip(0.5 - d / 3.5, 0, 1) * (0.5 + 0.25 * waves), np.clip(0.4 + 0.5 * waves, 0, 1)


INKS = dict(zip(STYLES, (_outline, _filled, _hatched, _dotted, _checkered, _watercolour), strict=True))
