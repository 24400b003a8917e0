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
    the beginning is not what a learner should begin with.
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
        """What is shown first: of every choice the option in `first`, or else the beginning."""
        return tuple(self.first.get(name, options[0]) for name, options in self.choices.items())

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
        controls += '<p style="margin:0.3em 0"><button type="button" style="min-height:28px">Play</button></p>' if moves else ""
        first = base64.b64encode(self.pictures[self.start]).decode()
        text = html.escape(self.texts[self.start], quote=True)
        script = json.dumps(data).replace("</", "<\\/")
        return (
            f'<figure id="{identity}" class="frames" data-lm-suppress-shortcuts="true" style="margin:1em 0">'  # arrows stay, in Lab
            f'<p><strong>{html.escape(self.title)}</strong></p>{_ASLEEP}'
            f'<img src="data:image/png;base64,{first}" alt="{text}" style="width:100%;max-width:46rem;background:#fff">'
            f'<figcaption aria-live="polite" style="min-height:3em">{text}</figcaption><div>{controls}</div>'
            f"<script>(function(){{{_SCRIPT.replace('DATA', script).replace('IDENTITY', identity)}}})();</script></figure>"
        )


# A viewer that does not trust the notebook yet, such as Lab for a fresh clone, leaves the script out, and this stays.
_ASLEEP = '<p class="asleep"><em>Run this cell to wake the controls below: Shift+Enter.</em></p>'
_SCRIPT = """
const data = DATA, root = document.getElementById("IDENTITY");
root.querySelector(".asleep").remove();
const inputs = Array.from(root.querySelectorAll("input, select"));
function draw() {
  const key = inputs.map((input, k) => data.order[k][Number(input.value)]).join("|");
  const picture = root.querySelector("img");
  picture.src = "data:image/png;base64," + data.frames[key];
  picture.alt = data.texts[key];
  caption.textContent = data.texts[key];
  inputs.forEach((input, k) => {
    const value = data.order[k][Number(input.value)], output = input.parentNode.querySelector("output");
    input.setAttribute("aria-valuetext", value);
    if (output) output.textContent = value;
  });
}
const button = root.querySelector("button"), caption = root.querySelector("figcaption");
inputs.forEach(input => input.addEventListener("input", () => {
  if (timer) stop();
  draw();
}));
let timer = null;
function stop() {
  caption.setAttribute("aria-live", "polite");
  clearInterval(timer);
  timer = null;
  button.textContent = "Play";
}
function play() {
  const slider = inputs[0], last = Number(slider.max);
  if (Number(slider.value) === last) slider.value = 0;
  button.textContent = "Stop";
  caption.setAttribute("aria-live", "off");  // a voice could not keep up
  draw();
  timer = setInterval(() => {
    slider.value = Number(slider.value) + 1;
    draw();
    if (Number(slider.value) === last) stop();
  }, 600);
}
if (button) {
  button.addEventListener("click", () => timer ? stop() : play());
  button.hidden = matchMedia("(prefers-reduced-motion: reduce)").matches;  // the slider remains
}
"""


def _numeric(options: tuple) -> bool:
    return all(isinstance(option, (int, float)) for option in options)


def _control(name: str, options: tuple, begun: int) -> str:
    label = html.escape(name)
    if _numeric(options):
        field = (f'<input type="range" min="0" max="{len(options) - 1}" value="{begun}" '
                 f'aria-valuetext="{options[begun]}" style="flex:1;min-width:7rem;height:28px"><output>{options[begun]}</output>')
    else:
        entries = "".join(
            f'<option value="{k}"{" selected" if k == begun else ""}>{html.escape(str(option))}</option>'
            for k, option in enumerate(options)
        )
        field = f'<select style="min-height:28px">{entries}</select>'
    return f'<p style="margin:0.3em 0"><label style="display:flex;flex-wrap:wrap;gap:0.6em">{label}: {field}</label></p>'
