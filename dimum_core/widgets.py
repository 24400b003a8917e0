"""Things to turn and slide, over pictures that were computed before: the same content in a notebook, on the site and on paper.

    forget_lab().show()       static picture first, then sliders; works without a kernel and without a network
    forget_lab().widget()     the same as ipywidgets (7.7 and 8), for a live notebook
    forget_lab().html()       the same as one self-contained piece of HTML

The frames of the first three come from data/frames/, made by tools/make/frames.py; the recovery explorer draws data/results/.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import itertools
import json
import zipfile
from dataclasses import dataclass, field

import numpy as np

from .data import DATA_FOLDER
from .errors import DataError, UnknownName

FRAMES_FOLDER = DATA_FOLDER / "frames"


@dataclass(frozen=True)
class Frames:
    """Pictures along one or more choices, such as a guidance scale and a number of steps.

    choices: name -> its options, in order. pictures: a PNG for each combination of options, keyed in the order of `choices`.
    texts: what each picture shows, for those who cannot see it and as its caption. first: options to show first, by name, where
    that is not the last one.
    """

    title: str
    choices: dict[str, tuple]
    pictures: dict[tuple, bytes]
    texts: dict[tuple, str]
    first: dict = field(default_factory=dict)

    def __post_init__(self):
        count = int(np.prod([len(options) for options in self.choices.values()]))
        keys = set(itertools.product(*self.choices.values()))
        if not count or self.pictures.keys() != keys or self.texts.keys() != keys:
            raise ValueError(f"{self.title}: {count} combinations of choices need {count} pictures and texts.")

    @property
    def start(self) -> tuple:
        """What is shown first: of every choice the option in `first`, or else its last one."""
        return tuple(self.first.get(name, options[-1]) for name, options in self.choices.items())

    def frame(self, **chosen) -> tuple[bytes, str]:
        """The picture and its text for these options; names as in `choices`."""
        for name in chosen:
            if name not in self.choices:
                raise UnknownName(f"choice in {self.title}", name, self.choices)
        key = tuple(chosen.get(name, option) for name, option in zip(self.choices, self.start, strict=True))
        if key not in self.pictures:
            raise UnknownName(f"frame of {self.title}", key, [str(k) for k in self.pictures])
        return self.pictures[key], self.texts[key]

    def show(self) -> None:
        """Display the self-contained form; where HTML or scripts are not shown, the first picture with its text."""
        from IPython.display import display

        picture, text = self.pictures[self.start], self.texts[self.start]
        bundle = {"text/html": self.html(), "image/png": base64.b64encode(picture).decode(), "text/plain": text}
        display(bundle, raw=True, metadata={"image/png": {"alt": text}})

    def html(self) -> str:
        """A figure with a slider or a menu for each choice; everything it needs is inside it."""
        identity = "frames-" + hashlib.sha256(b"".join([self.title.encode(), *self.pictures.values()])).hexdigest()[:10]
        keys = list(self.pictures)
        data = {
            "order": [[str(option) for option in options] for options in self.choices.values()],
            "frames": {"|".join(map(str, key)): base64.b64encode(self.pictures[key]).decode() for key in keys},
            "texts": {"|".join(map(str, key)): self.texts[key] for key in keys},
        }
        begun = zip(self.choices.items(), self.start, strict=True)
        controls = "".join(_control(identity, name, options, options.index(option)) for (name, options), option in begun)
        moves = len(self.choices) == 1 and all(map(_numeric, self.choices.values()))  # along one slider, it can be played
        controls += '<p style="margin:0.3em 0"><button type="button">Play</button></p>' if moves else ""
        first = base64.b64encode(self.pictures[self.start]).decode()
        text = html.escape(self.texts[self.start], quote=True)
        script = json.dumps(data).replace("</", "<\\/")
        return (
            f'<figure id="{identity}" class="frames" style="margin:1em 0"><p><strong>{html.escape(self.title)}</strong></p>'
            f'<img src="data:image/png;base64,{first}" alt="{text}" style="max-width:100%;background:#fff">'
            f'<figcaption aria-live="polite" style="min-height:3em">{text}</figcaption><div>{controls}</div>'
            f"<script>(function(){{{_SCRIPT.replace('DATA', script).replace('IDENTITY', identity)}}})();</script></figure>"
        )

    def widget(self):
        """The same as an ipywidgets box; a slider for numbers, a menu for words. Arrow keys work on both."""
        import ipywidgets

        picture = ipywidgets.HTML()
        controls = [
            (ipywidgets.SelectionSlider if _numeric(options) else ipywidgets.Dropdown)(
                options=list(options), value=option, description=name, style={"description_width": "initial"},
            )
            for (name, options), option in zip(self.choices.items(), self.start, strict=True)
        ]

        def draw(_=None):
            data, text = self.frame(**{name: control.value for name, control in zip(self.choices, controls, strict=True)})
            shown = html.escape(text, quote=True)
            picture.value = f'<img src="data:image/png;base64,{base64.b64encode(data).decode()}" alt="{shown}"><p>{shown}</p>'

        for control in controls:
            control.observe(draw, names="value")
        draw()
        return ipywidgets.VBox([ipywidgets.HTML(f"<strong>{html.escape(self.title)}</strong>"), picture, *controls])


_SCRIPT = """
const data = DATA, root = document.getElementById("IDENTITY");
const inputs = Array.from(root.querySelectorAll("input, select"));
function draw() {
  const key = inputs.map((input, k) => data.order[k][Number(input.value)]).join("|");
  const picture = root.querySelector("img");
  picture.src = "data:image/png;base64," + data.frames[key];
  picture.alt = data.texts[key];
  root.querySelector("figcaption").textContent = data.texts[key];
  inputs.forEach((input, k) => {
    const value = data.order[k][Number(input.value)], output = input.parentNode.querySelector("output");
    input.setAttribute("aria-valuetext", value);
    if (output) output.textContent = value;
  });
}
inputs.forEach(input => input.addEventListener("input", draw));
const button = root.querySelector("button");
let timer = null;
function stop() {
  clearInterval(timer);
  timer = null;
  button.textContent = "Play";
}
function play() {
  const slider = inputs[0], last = Number(slider.max);
  if (Number(slider.value) === last) slider.value = 0;
  button.textContent = "Stop";
  draw();
  timer = setInterval(() => {
    slider.value = Number(slider.value) + 1;
    draw();
    if (Number(slider.value) === last) stop();
  }, 600);
}
if (button) button.addEventListener("click", () => timer ? stop() : play());
"""


def _numeric(options: tuple) -> bool:
    return all(isinstance(option, (int, float)) for option in options)


def _control(identity: str, name: str, options: tuple, begun: int) -> str:
    label = html.escape(name)
    if _numeric(options):
        field = (f'<input type="range" min="0" max="{len(options) - 1}" value="{begun}" '
                 f'aria-valuetext="{options[begun]}"><output>{options[begun]}</output>')
    else:
        entries = "".join(
            f'<option value="{k}"{" selected" if k == begun else ""}>{html.escape(str(option))}</option>'
            for k, option in enumerate(options)
        )
        field = f"<select>{entries}</select>"
    return f'<p style="margin:0.3em 0"><label>{label}: {field}</label></p>'


def picture_of(rows: dict[str, np.ndarray], size: int = 48) -> bytes:
    """Labelled rows of images as PNG. rows: name -> uint8, N x C x H x W. size: pixels an image."""
    from PIL import Image, ImageDraw, ImageFont

    font, gap = ImageFont.load_default(13), 4
    left = 16 + max(int(font.getlength(name)) for name in rows)
    width = left + max(len(images) for images in rows.values()) * (size + gap)
    canvas = Image.new("RGB", (width, len(rows) * (size + gap)), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (name, images) in enumerate(rows.items()):
        pen.text((left - 8, row * (size + gap) + size // 2), name, fill="black", font=font, anchor="rm")
        for column, image in enumerate(images):
            pixels = np.repeat(image, 3, axis=0) if len(image) == 1 else image
            tile = Image.fromarray(pixels.transpose(1, 2, 0)).resize((size, size), Image.Resampling.NEAREST)
            canvas.paste(tile, (left + column * (size + gap), row * (size + gap)))
    return as_png(canvas)


def as_png(image, method=None) -> bytes:
    buffer = io.BytesIO()
    image.quantize(128, method).save(buffer, format="PNG", optimize=True)
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
    keys = [(step,) for step in range(len(steps))]
    return Frames(
        "From noise to an image", {"step": tuple(range(len(steps)))},
        {(k,): picture_of({"x_t": stored["samples"][k], "guess": stored["guesses"][k]}, size=64) for (k,) in keys},
        {(k,): f"Step {k + 1} of {len(steps)}, at t = {steps[k]}. Above, the samples; below, what the model takes them for. "
               f"Asked for {', '.join(names)}." for (k,) in keys},
    )


def guidance_explorer() -> Frames:
    """The same noise at several guidance scales and numbers of steps."""
    stored = _load("guidance", "scales", "steps", "names", "samples")
    scales, steps, names = tuple(stored["scales"].tolist()), tuple(stored["steps"].tolist()), stored["names"].tolist()
    pictures, texts = {}, {}
    for i, s in enumerate(scales):
        for j, k in enumerate(steps):
            pictures[s, k] = picture_of({"": stored["samples"][i, j]}, size=64)
            texts[s, k] = f"Guidance scale {s:g}, {k} steps; asked for {', '.join(names)}, from the same noise throughout."
    return Frames("Guidance and steps", {"guidance scale": scales, "steps": steps}, pictures, texts)


def forget_lab() -> Frames:
    """Before, after unlearning and after the attack, for every target, method, budget and attack that was computed."""
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
    return Frames("Forget lab", choices, pictures, texts)


def recovery_explorer(
    results: str = "digits.parquet", labels=("esd", "random-label", "salun", "erasediff", "dimum (class)")
) -> Frames:
    """Mean recovery curves of some methods and of the controls, by budget of unlearning and learning rate of the attack.

    The middle rate is shown first: at the highest, the attack only wrecks the model.
    """
    from .benchmark import read_results

    rows = read_results(DATA_FOLDER / "results" / results)
    means = rows.groupby(["budget", "attack_rate", "label", "step"])["target accuracy"].mean()
    budgets, rates = tuple(sorted(set(rows["budget"]) - {"none"})), tuple(sorted(rows["attack_rate"].unique()))
    pictures, texts = {}, {}
    for budget in budgets:
        for rate in rates:
            wanted = [("none", name) for name in ("original", "retrained")] + [(budget, name) for name in labels]
            there = means.index.droplevel("step")
            curves = {name: means[kind, rate, name] for kind, name in wanted if (kind, rate, name) in there}
            pictures[budget, rate] = _curves_picture(curves, f"{budget}, attack rate {rate:g}")
            ends = ", ".join(f"{name} {curve.iloc[-1]:.2f}" for name, curve in curves.items())
            texts[budget, rate] = f"Accuracy on the target after the attack at rate {rate:g}, unlearning {budget}: {ends}."
    choices, middle = {"unlearning": budgets, "attack rate": rates}, rates[len(rates) // 2]
    return Frames("What comes back", choices, pictures, texts, {"attack rate": middle})


def walk(title: str, out, back, drawn) -> Frames:
    """Unlearning and an attack on it as a walk on their plane, with what the same noise draws at each place.

    out, back: places as `geometry.plane` gives them, K x 2 or more; `back` begins where `out` ends. drawn: for each place in turn,
    that one once, images N x C x H x W in [-1, 1].
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
        cell.imshow(as_picture(image), interpolation="nearest")
    return _figure_png(figure)


def _curves_picture(curves: dict, title: str) -> bytes:
    import matplotlib.pyplot as plt

    from .plots import line_colours

    figure, ax = plt.subplots(figsize=(6, 3))
    for (name, curve), colour, marker in zip(curves.items(), line_colours(curves), "os^Dv<>", strict=False):
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
    return as_png(Image.open(buffer).convert("RGB"), Image.Quantize.FASTOCTREE)  # keeps the hue of thin lines
