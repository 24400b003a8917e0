"""Pictures along choices, with sliders and menus: one self-contained piece of HTML that needs no kernel and no network."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
from dataclasses import dataclass, field

import numpy as np

from .errors import UnknownName


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
        controls = "".join(_control(name, options, options.index(option)) for (name, options), option in begun)
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


def _control(name: str, options: tuple, begun: int) -> str:
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
