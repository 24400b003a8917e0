"""Pictures for notebooks: one style, colours that a colour-blind reader tells apart, a caption and a text for each."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from .metrics import t_interval

# Okabe and Ito's palette without yellow, which is too light on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
METHOD_COLOURS = {  # a method keeps its colour from figure to figure
    "esd": COLOURS[0], "random-label": COLOURS[1], "salun": COLOURS[2], "dimum": COLOURS[3], "erasediff": COLOURS[4],
    "selective-amnesia": COLOURS[5], "original": COLOURS[6], "retrained": "#777777",
}
STYLE = {
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "font.size": 10,
    "figure.figsize": (7.2, 3.4),
    "legend.frameon": False,
}
SVG_FONTS = "DejaVu Sans, Verdana, sans-serif"  # matplotlib's, and one as wide that most machines have


def use_style() -> None:
    """Make every later figure look like the course's."""
    plt.rcParams.update(STYLE)


def show(figure: Figure, caption: str, alt: str) -> None:
    """Display a figure with its caption, and with a text for those who cannot see it, which the site keeps.

    alt: what the picture shows and what is to be seen in it, in a sentence or two.

    The picture is a PNG, which every viewer of notebooks shows with its text. A chart has its drawing as SVG in the PNG's metadata
    as well: the site shows that, sharp at any size and in the colours of its page.
    """
    from IPython.display import Image, Markdown, display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white")
    drawing = as_svg(figure)
    plt.close(figure)
    picture = Image(in_fewer_shades(buffer.getvalue()), format="png", alt=alt, metadata={"svg": drawing} if drawing else None)
    display(picture, Markdown(f"*{caption}*"))


def as_svg(figure: Figure) -> str | None:
    """A chart as SVG with its words as text, black on white. None for a figure that holds images, and for a drawing of more than
    100 kB, such as a cloud of thousands of points: a notebook has 2 MB."""
    if any(ax.images for ax in figure.axes):
        return None
    buffer = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "dimum"}):  # the same chart is the same text
        figure.savefig(buffer, format="svg", bbox_inches="tight", facecolor="white",
                       metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    drawing = re.sub(r"<[^>]*>", lambda tag: _short(tag[0]), buffer.getvalue())
    drawing = drawing[drawing.index("<svg"):].replace("<svg", f'<svg font-family="{SVG_FONTS}"', 1)
    return drawing if len(drawing) <= 100_000 else None


def _short(tag: str) -> str:
    """A tag of an SVG without fonts, which its root names, with hundredths of a point."""
    return re.sub(r" *font-family: [^;\"]*;?", "", re.sub(r"(\d\.\d\d)\d+", r"\1", tag))


def in_fewer_shades(png: bytes) -> bytes:
    """A picture with 64 shades of each colour in place of 256: no eye sees it, and many smoothed tiles take half the bytes."""
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        shades = np.asarray(image.convert("RGB"), dtype=float)
    buffer = io.BytesIO()
    Image.fromarray((np.round(shades / 4) * 4).clip(0, 255).astype(np.uint8)).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def as_picture(images: Tensor) -> np.ndarray:
    """C x H x W in [-1, 1] as H x W x 3 in [0, 1] for `imshow`; grey becomes three equal channels."""
    picture = ((images.detach().cpu().clamp(-1, 1) + 1) / 2).permute(1, 2, 0).numpy()
    return picture.repeat(3, axis=2) if picture.shape[2] == 1 else picture


def image_rows(
    rows: dict[str, Tensor], title: str = "", column_titles=(), size: float = 0.72, raw: bool = False, judge=None
) -> Figure:
    """A labelled row of images for each entry; each a tensor N x C x H x W in [-1, 1].

    size: inches an image. raw: pixels as squares, for noise; else they are smoothed, as the eye does from farther away.
    judge: writes under each image what it takes it for, "none" if none of its classes.
    """
    columns = max(len(images) for images in rows.values())
    label, header, words = 0.15 + 0.075 * max(map(len, rows)), 0.32 + 0.2 * bool(len(column_titles)), 0.17 * bool(judge)
    width, height = label + columns * size, header + len(rows) * (size + words)
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(width, height), squeeze=False,
        gridspec_kw={
            "wspace": 0.06, "hspace": 0.06 + words / size, "left": label / width, "right": 1, "bottom": words / height,
            "top": 1 - header / height,
        },
    )
    for line, (name, images) in zip(axes, rows.items(), strict=True):
        said = [(*judge.class_names, "none")[label] for label in judge.judge(images).labels] if judge else [""] * len(images)
        for ax, image, word in zip(line, images, said, strict=False):
            ax.imshow(as_picture(image), interpolation="nearest" if raw else "bicubic")
            ax.set_xlabel(word, fontsize=7, labelpad=2)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set(visible=bool(ax.images), color="#bbbbbb", linewidth=0.5)  # so white ones are seen
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for ax, text in zip(axes[0], column_titles, strict=False):
        ax.set_title(text, fontsize=8, fontweight="normal", pad=3)
    figure.suptitle(title, x=(label + columns * size / 2) / width, y=1 - 0.08 / height, va="top", fontsize=11, fontweight="bold")
    return figure


def recovery_curves(curves: dict, title: str, original: float | None = None) -> Figure:
    """Target and retained accuracy over the steps of an attack; curves: name -> `Relearning.curve`. Bands: 95 % Wilson intervals.

    original: the original model's accuracy on the target, drawn as a dotted line.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.1), sharex=True)
    for (name, curve), colour, marker in zip(curves.items(), line_colours(curves), "os^Dv<>Xp*hd" * 2, strict=False):
        left.plot(curve["step"], curve["target accuracy"], marker=marker, color=colour, label=name)
        left.fill_between(curve["step"], curve["target low"], curve["target high"], color=colour, alpha=0.12, linewidth=0)
        right.plot(curve["step"], curve["retained accuracy"], marker=marker, color=colour)
    if original is not None:
        left.axhline(original, color="black", linestyle=":", linewidth=1)
    left.set(title="The forgotten class", xlabel="attack steps", ylabel="share that shows the target", ylim=(-0.02, 1.02))
    right.set(title="The other classes", xlabel="attack steps", ylabel="share drawn right", ylim=(-0.02, 1.02))
    figure.legend(*left.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, -0.03), ncols=min(4, len(curves)))
    figure.suptitle(title, y=1.02, fontsize=12, fontweight="bold")
    return figure


def line_colours(names: Iterable[str]) -> list[str]:
    """A colour for each line: methods and controls have theirs (METHOD_COLOURS), the others get what is left of the palette."""
    own: list[str | None] = []
    for name in names:
        colour = next((colour for method, colour in METHOD_COLOURS.items() if name.lower().startswith(method)), None)
        own.append(None if colour in own else colour)  # two variants of one method must differ
    left = itertools.cycle([colour for colour in COLOURS if colour not in own] or COLOURS)
    return [colour or next(left) for colour in own]


def method_colour(label: str) -> str:
    """One colour for each role in every contest: vermilion for DiMUM, black for controls, blue for rivals."""
    if label.startswith("dimum"):
        return COLOURS[3]
    return COLOURS[6] if label in ("original", "retrained") else COLOURS[0]


def ranked_runs(ax, runs: dict) -> None:
    """For each method its runs as strokes and their mean as a dot, the smallest at the bottom; Student's 95 % interval of the mean
    where there are at least four runs. runs: label -> values.
    """
    order = sorted(runs, key=lambda label: np.mean(runs[label]))
    for place, label in enumerate(order):
        values, colour = np.asarray(runs[label], dtype=float), method_colour(label)
        ax.plot(values, np.full(len(values), place), "|", color="#999999", markersize=8)
        reach = None
        if len(values) >= 4:
            interval = t_interval(values)
            reach = [[interval.value - interval.low], [interval.high - interval.value]]
        ax.errorbar(values.mean(), place, xerr=reach, fmt="o", color=colour, capsize=2)
    ax.set_yticks(range(len(order)), order, fontsize=8)
