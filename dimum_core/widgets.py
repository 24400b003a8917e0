"""The sliders of the chapters, over pictures that were computed before: the same content in a notebook, on the site and on paper.

    forget_lab().show()       in a notebook
    forget_lab().html()       for a page

Their frames come from data/frames/, made by tools/make/frames.py and film.py; the recovery explorer draws data/results/.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import Collection, Sequence

import numpy as np

from .data import DATA_FOLDER
from .errors import DataError
from .films import FILMS, cut, forgotten_at, read_film, tiles, told_of
from .frames import Frames

FRAMES_FOLDER = DATA_FOLDER / "frames"


def picture_of(rows: dict[str, np.ndarray], size: int = 48, columns: Sequence[str] = (), crisp: Collection[str] = ()) -> bytes:
    """Labelled rows of images as PNG, enlarged smoothly. rows: name -> uint8, N x C x H x W. size: pixels an image.

    columns: what stands above the images, such as the class that was asked for. crisp: rows whose every pixel stays a square, as in
    noise, which smoothing would turn into shapes.
    """
    from PIL import Image, ImageDraw, ImageFont

    font, gap = ImageFont.load_default(12), 4
    left, top = 16 + max(int(font.getlength(name)) for name in rows), 20 if columns else 0
    width = left + max(len(images) for images in rows.values()) * (size + gap)
    canvas = Image.new("RGB", (width, top + len(rows) * (size + gap)), "white")
    pen = ImageDraw.Draw(canvas)
    for column, name in enumerate(columns):
        pen.text((left + column * (size + gap) + size // 2, top - 4), name, fill="black", font=font, anchor="ms")
    for row, (name, images) in enumerate(rows.items()):
        pen.text((left - 8, top + row * (size + gap) + size // 2), name, fill="black", font=font, anchor="rm")
        way = Image.Resampling.NEAREST if name in crisp else Image.Resampling.BICUBIC
        for column, image in enumerate(images):
            pixels = np.repeat(image, 3, axis=0) if len(image) == 1 else image
            tile = Image.fromarray(pixels.transpose(1, 2, 0)).resize((size, size), way)
            canvas.paste(tile, (left + column * (size + gap), top + row * (size + gap)))
    grey = all(images.shape[1] == 1 for images in rows.values())
    return as_png(canvas, *((64, Image.Quantize.FASTOCTREE) if grey else (192,)))  # fewer colours of a photograph leave contours


def as_png(image, colours: int, method=None) -> bytes:
    buffer = io.BytesIO()
    image.quantize(colours, method).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _load(name: str, *needed: str) -> dict[str, np.ndarray]:
    path = FRAMES_FOLDER / f"{name}.npz"
    if not path.is_file():
        raise DataError(f"There are no frames in {path.name}: python tools/make/frames.py {name}.")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored) | {key: stored[key] for key in needed}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:100]
        raise DataError(f"{path} is damaged ({reason}): make it again, python tools/make/frames.py {name}.") from error


def denoising_scrubber() -> Frames:
    """One sample of each of some classes on its way from noise, and the model's guess of the image at each step."""
    stored = _load("denoising", "names", "t", "samples", "guesses")
    names, steps = stored["names"].tolist(), tuple(int(t) for t in stored["t"])
    pictures, texts = {}, {}
    for k, t in enumerate(steps, start=1):
        rows = {"x_t": stored["samples"][k - 1], "guess": stored["guesses"][k - 1]}
        pictures[(k,)] = picture_of(rows, size=64, columns=names, crisp={"x_t"})
        texts[(k,)] = (f"Step {k} of {len(steps)}, at t = {t}. Above, the samples; below, what the model takes them for. "
                       f"Asked for {', '.join(names)}.")
    return Frames("From noise to an image", {"step": tuple(range(1, len(steps) + 1))}, pictures, texts)


def guidance_explorer() -> Frames:
    """The same noise at several guidance scales and numbers of steps."""
    stored = _load("guidance", "scales", "steps", "names", "samples")
    scales, steps, names = tuple(stored["scales"].tolist()), tuple(stored["steps"].tolist()), stored["names"].tolist()
    pictures, texts = {}, {}
    for i, s in enumerate(scales):
        for j, k in enumerate(steps):
            pictures[s, k] = picture_of({"": stored["samples"][i, j]}, size=64, columns=names)
            texts[s, k] = f"Guidance scale {s:g}, {k} steps; asked for {', '.join(names)}, from the same noise throughout."
    return Frames("Guidance and steps", {"guidance scale": scales, "steps": steps}, pictures, texts)


def forget_lab() -> Frames:
    """Before, after unlearning and after the attack, for every target, method, budget and attack that was computed.

    Of those that forget best, the one that comes back most is shown first.
    """
    stored = _load("forget-lab", "target", "method", "budget", "attack", "count", "accuracy", "before", "after", "attacked")
    choices = {name: tuple(stored[name].tolist()) for name in ("target", "method", "budget", "attack")}
    pictures, texts = {}, {}
    for index in np.ndindex(*(len(options) for options in choices.values())):
        key = tuple(options[i] for options, i in zip(choices.values(), index, strict=True))
        target, method, budget, rate = key
        counts = [round(float(share) * int(stored["count"])) for share in stored["accuracy"][index]]
        pictures[key] = picture_of({
            "before": stored["before"][index[0]], "unlearned": stored["after"][index[:3]], "attacked": stored["attacked"][index],
        }, size=40)
        texts[key] = (f"Asked for {target}: {method}, {budget} steps, then DiMRA at learning rate {rate:g}. The judge sees the "
                      f"digit in {counts[0]} of {int(stored['count'])} samples after unlearning, in {counts[1]} after the attack.")
    after, attacked = np.moveaxis(stored["accuracy"], -1, 0)
    most = np.unravel_index(np.where(after == after.min(), attacked, -1).argmax(), after.shape)
    first = {name: options[i] for (name, options), i in zip(choices.items(), most, strict=True)}
    return Frames("Forget lab", choices, pictures, texts, first)


def story() -> Frames:
    """The landing page's film: two models forget a class of photographs and are attacked, beside a model that never saw it."""
    film, sheet = _film("photographs")
    told, pictures, texts = told_of(film), {}, {}
    for k in range(len(film["retrained"])):
        rows = {name: tiles(cut(sheet, film, column, k))[:6] for column, name in enumerate(told)}
        counts = "; ".join(f"{name}: {frames[k][2]}" for name, frames in told.items())
        pictures[(k,)] = picture_of(rows, size=56)
        asked = f"All are asked for {film['target']}. Taken for {film['called']}, of {film['count']}: {counts}."
        texts[(k,)] = f"{_phase(film, k)}. {asked}"
    return Frames("Forgotten, then attacked", {"frame": tuple(range(len(pictures)))}, pictures, texts)


def _film(things: str):
    """What a film tells, and its picture in colour."""
    from PIL import Image

    path = FRAMES_FOLDER / f"{FILMS[things]}.json"
    try:
        film = read_film(FRAMES_FOLDER, FILMS[things])
        with Image.open(FRAMES_FOLDER / film["picture"]) as sheet:
            return film, sheet.convert("RGB")
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} is damaged or not there, or its picture: python tools/make/film.py {things}.") from error


def _phase(film: dict, k: int) -> str:
    if k > forgotten_at(film):
        return f"Attack, step {film['retrained'][k][1]}"
    steps = ", ".join(f"{name} {frames[k][1]}" for name, frames in film["methods"].items())
    return f"Steps of unlearning: {steps}" if k else "Before unlearning"


def recovery_explorer(
    results: str = "digits.parquet", labels=("esd", "random-label", "salun", "erasediff", "dimum (class)", "dimum (generated)")
) -> Frames:
    """Mean recovery curves of some methods and of the controls, by budget of unlearning and learning rate of the attack.

    The largest budget and the middle rate are shown first: at the highest rate, the attack only wrecks the model.
    """
    from .benchmark import read_results

    rows = read_results(DATA_FOLDER / "results" / results)
    means = rows.groupby(["budget", "attack_rate", "label", "step"])["target accuracy"].mean()
    budgets, rates = tuple(sorted(set(rows["budget"]) - {"none"})), tuple(sorted(rows["attack_rate"].unique()))
    pictures, texts = {}, {}
    for budget in budgets:
        for rate in rates:
            shown = [("none", rate, "original"), ("none", rate, "retrained"), *((budget, rate, label) for label in labels)]
            curves = {key[-1]: means[key] for key in shown if key in means.index.droplevel("step")}
            pictures[budget, rate] = _curves_picture(curves, f"{budget}, attack rate {rate:g}")
            ends = ", ".join(f"{name} {curve.iloc[-1]:.2f}" for name, curve in curves.items())
            texts[budget, rate] = f"Accuracy on the target after the attack at rate {rate:g}, unlearning {budget}: {ends}."
    choices, middle = {"unlearning": budgets, "attack rate": rates}, rates[len(rates) // 2]
    return Frames("What comes back", choices, pictures, texts, {"unlearning": budgets[-1], "attack rate": middle})


def walk(title: str, out, back, drawn) -> Frames:
    """Unlearning and an attack on it as a walk on their plane, with what the same noise draws at each place.

    out, back: places as `geometry.plane` gives them, K x 2 or more; `back` begins where `out` ends. drawn: for each place in turn
    (the shared one once), images N x C x H x W in [-1, 1].
    """
    ways = {"unlearning": np.asarray(out)[:, :2], "relearning": np.asarray(back)[:, :2]}
    places = [("unlearning", k) for k in range(len(out))] + [("relearning", k) for k in range(1, len(back))]
    if len(drawn) != len(places):
        raise ValueError(f"{title}: {len(places)} places need as many rows of images, not {len(drawn)}.")
    pictures, texts = {}, {}
    for number, ((way, k), images) in enumerate(zip(places, drawn, strict=True)):
        gone = (k + 1, 0) if way == "unlearning" else (len(out), k + 1)
        pictures[(number,)] = _walk_picture(ways, gone, images)
        where = f"{way}, {k} of {len(ways[way]) - 1} parts of the way" if number else "the original weights"
        texts[(number,)] = f"Place {number}: {where}. Left, the plane of the weights; right, what the same noise draws there."
    return Frames(title, {"place": tuple(range(len(places)))}, pictures, texts)


def _walk_picture(ways: dict[str, np.ndarray], gone: tuple[int, int], images) -> bytes:
    import matplotlib.pyplot as plt

    from .plots import COLOURS, as_picture

    figure = plt.figure(figsize=(7.2, 2.9))
    left, right = figure.subfigures(1, 2, width_ratios=(3, 2))
    ax = left.subplots()
    for (name, way), count, colour, marker in zip(ways.items(), gone, (COLOURS[0], COLOURS[3]), "os", strict=True):
        ax.plot(way[:, 0], way[:, 1], marker=marker, linestyle="none", markersize=3, color="#bbbbbb")
        ax.plot(way[:count, 0], way[:count, 1], marker=marker, color=colour, label=name)
    here = ways["relearning"][gone[1] - 1] if gone[1] else ways["unlearning"][gone[0] - 1]
    ax.plot(*here, "o", markersize=13, fillstyle="none", color="black", linestyle="none", label="here")
    ax.plot(0, 0, "*", color="black", markersize=11)
    ax.set(xlabel="along unlearning", ylabel="across")
    ax.margins(0.12)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, fontsize=8)
    side = int(np.ceil(len(images) ** 0.5))
    cells = right.subplots(side, side, squeeze=False).ravel()
    for cell in cells:
        cell.axis("off")
    for cell, image in zip(cells, images, strict=False):
        cell.imshow(as_picture(image), interpolation="bicubic")
    return _figure_png(figure)


def _curves_picture(curves: dict, title: str) -> bytes:
    import matplotlib.pyplot as plt

    from .plots import line_colours

    figure, ax = plt.subplots(figsize=(6, 3))
    for (name, curve), colour, marker in zip(curves.items(), line_colours(curves), itertools.cycle("os^Dv<>p"), strict=False):
        ax.plot(curve.index, curve, marker=marker, color=colour, label=name)
    ax.set(title=title, xlabel="attack steps", ylabel="accuracy on the target", ylim=(-0.02, 1.02))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=4, fontsize=8)
    return _figure_png(figure)


def _figure_png(figure) -> bytes:
    import matplotlib.pyplot as plt
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return as_png(Image.open(buffer).convert("RGB"), 128, Image.Quantize.FASTOCTREE)  # keeps the hue of thin lines
