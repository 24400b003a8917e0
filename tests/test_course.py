"""Exercises: right answers pass, wrong ones do not, and an unanswered notebook runs through. Pictures carry their text."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from dimum_core.course import check
from dimum_core.course.checks import _CHECKS
from dimum_core.errors import UnknownName
from dimum_core.metrics import wilson_interval
from dimum_core.plots import COLOURS, as_picture, image_rows, show


def width(n: int) -> float:
    interval = wilson_interval(round(0.9 * n), n)
    return interval.high - interval.low


def first_reach(steps, accuracy, level):
    for k in range(1, len(steps)):
        if accuracy[k] >= level:
            return steps[k - 1] + (level - accuracy[k - 1]) / (accuracy[k] - accuracy[k - 1]) * (steps[k] - steps[k - 1])
    return None


RIGHT = {
    "00.1": "weights",
    "00.2": lambda a, u, r: (r - u) / (a - u),
    "01.1": 259,
    "01.2": lambda x_t, eps, abar: (x_t - (1 - abar).sqrt() * eps) / abar.sqrt(),
    "01.3": lambda: None,  # computed below
    "02.1": lambda eps_null, eps_cond, s: eps_null + s * (eps_cond - eps_null),
    "02.2": 2.5,
    "02.3": lambda x_t, eps, now, before: before.sqrt() * (x_t - (1 - now).sqrt() * eps) / now.sqrt() + (1 - before).sqrt() * eps,
    "03.1": next(n for n in range(100, 2000) if width(n) <= 0.04),
    "03.2": lambda a, b: (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2,
    "03.3": "coverage",
    "04.1": lambda judged, asked, c: 1 - (judged[asked == c] == c).float().mean(),
    "04.2": "different",
    "04.3": lambda images, labels, c: (images[labels != c], labels[labels != c]),
    "05.1": lambda null, target, eta: null - eta * (target - null),
    "05.2": lambda gradient, keep: gradient.abs() > gradient.abs().flatten().kthvalue(round((1 - keep) * gradient.numel())).values,
    "05.3": lambda r, f, eta: max(0.0, eta - float(r @ f / f.square().sum())),
    "06.1": lambda steps, accuracy: float(((accuracy[1:] + accuracy[:-1]) / 2 * np.diff(steps)).sum() / steps[-1]),
    "06.2": 0.625,
    "06.3": first_reach,
    "07.1": lambda retain, alternative, w: retain.square().mean() + w * alternative.square().mean(),
    "07.2": 3 * 32 * 32 * 0.01,
    "07.3": {"noise", "generated"},
}
WRONG = {
    "01.1": 500, "01.2": lambda x_t, eps, abar: x_t - eps, "01.3": 0.0, "02.1": lambda n, c, s: c, "02.2": 1.5,
    "02.3": lambda x_t, eps, now, before: x_t, "03.1": 100, "03.2": lambda a, b: 0.0, "03.3": "precision",
    "00.1": "labels", "00.2": lambda a, u, r: r / a, "04.1": lambda judged, asked, c: (judged != c).float().mean(),
    "04.2": "better",
    "04.3": lambda images, labels, c: (images[labels != c], labels), "05.1": lambda null, target, eta: null + eta * (target - null),
    "05.2": lambda gradient, keep: gradient > gradient.median(), "05.3": lambda r, f, eta: eta - float(r @ f / f.norm()),
    "06.1": lambda steps, accuracy: accuracy.mean(), "06.2": 0.55 / 0.85, "06.3": lambda steps, accuracy, level: steps[-1],
    "07.1": lambda retain, alternative, w: retain.square().sum() + w * alternative.square().sum(), "07.2": 0.01 / 3072,
    "07.3": {"noise", "images"},
}


def best_loss() -> float:
    """By simulation, not by the formula: the residual of a linear fit of eps on x_t, averaged over some t."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    abar = torch.cumprod(1 - betas, 0)
    generator = torch.Generator().manual_seed(0)
    x, eps = torch.randn(2, 4000, generator=generator, dtype=torch.float64)
    x_t = abar.sqrt()[:, None] * 0.5 * x + (1 - abar).sqrt()[:, None] * eps
    slope = (x_t * eps).sum(1) / (x_t * x_t).sum(1)
    return float((eps - slope[:, None] * x_t).square().mean())


def test_every_exercise_has_a_right_and_a_wrong_answer_here():
    assert set(RIGHT) == set(WRONG) == {number for number in _CHECKS if number < "11"}


@pytest.mark.parametrize("number", sorted(WRONG))
def test_answers(number, capsys):
    right = best_loss() if number == "01.3" else RIGHT[number]
    assert check(number, right) is True, capsys.readouterr().out
    assert check(number, WRONG[number]) is False
    assert check(number, ...) is None
    said = capsys.readouterr().out
    assert "right." in said and "not yet." in said and "not answered yet" in said


def test_an_answer_that_fails_is_told_how(capsys):
    assert check("01.2", lambda x_t, eps, abar: undefined) is False  # noqa: F821
    assert "NameError" in capsys.readouterr().out
    with pytest.raises(UnknownName):
        check("99.9", 1)


def test_show_displays_picture_text_and_caption(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *things: shown.extend(things))
    figure, ax = plt.subplots()
    ax.plot([0, 1])
    show(figure, "A caption.", "A line that rises.")
    data, metadata = shown[0]._repr_mimebundle_()
    assert metadata["image/png"]["alt"] == "A line that rises." and data["image/png"]
    assert shown[1].data == "*A caption.*" and not plt.get_fignums()


def test_pictures_are_scaled_alike_and_rows_are_labelled():
    grey = torch.tensor([-1.0, 0.0, 0.5, 2.0]).view(1, 2, 2)
    assert as_picture(grey).shape == (2, 2, 3)
    np.testing.assert_allclose(as_picture(grey)[..., 0], [[0, 0.5], [0.75, 1]])
    figure = image_rows({"real": torch.zeros(3, 1, 4, 4), "drawn": torch.zeros(2, 1, 4, 4)}, "Title", ["a", "b", "c"])
    assert [ax.get_ylabel() for ax in figure.axes[::3]] == ["real", "drawn"]
    assert [ax.get_title() for ax in figure.axes[:3]] == ["a", "b", "c"] and len(figure.axes) == 6
    plt.close(figure)


def test_neighbouring_colours_differ_in_lightness_or_hue_for_the_colour_blind():
    """Okabe and Ito's colours, seen by someone without red-green vision (Vienot's matrix), stay apart."""
    rgb = np.array([[int(c[i:i + 2], 16) / 255 for i in (1, 3, 5)] for c in COLOURS])
    deuteranope = rgb @ np.array([[0.625, 0.375, 0.0], [0.7, 0.3, 0.0], [0.0, 0.3, 0.7]]).T
    distances = np.linalg.norm(deuteranope[:, None] - deuteranope, axis=-1)[np.triu_indices(len(COLOURS), 1)]
    assert distances.min() > 0.1
