"""Draw docs/story.png, the README's strip: photographs of a class before, forgotten by two methods, and after the same attack.

    python tools/make/strip.py        seconds; from docs/film-photographs.webp and .json, which tools/make/film.py computes

Every row has the same noise, so that a picture which comes back comes back in its place.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from dimum_core.plots import image_rows, use_style

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


def rows_of_images(film: dict, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """Row title, with the judge's count -> samples of the target, N x C x H x W.

    film: what docs/film-photographs.json tells; its picture has a row for each moment and a column for each sample of a model.
    frames: the picture cut into samples, moments x columns x C x H x W.
    """
    told = {**film["methods"], f"never saw {film['called']}": film["retrained"]}
    forgotten = max(k for k, frame in enumerate(film["retrained"]) if frame[0] == "forget")
    wanted = [("before", 0, 0)]
    for column, name in enumerate(told):
        wanted += [(f"{name}: forgotten", column, forgotten)] if name in film["methods"] else []
        wanted.append((f"{name}: attacked", column, -1))
    counts = [list(told.values())[column][moment][2] for _, column, moment in wanted]
    return {
        f"{title}\n{count} of {film['count']} are {film['called']}": frames[moment].split(film["shown"])[column]
        for (title, column, moment), count in zip(wanted, counts, strict=True)
    }


def main() -> None:
    film = json.loads((DOCS / "film-photographs.json").read_text("utf-8"))
    with Image.open(DOCS / film["picture"]) as sheet:
        pixels = torch.from_numpy(np.array(sheet.convert("RGB"))).movedim(2, 0).float() / 127.5 - 1
    side = pixels.shape[1] // len(film["retrained"])
    frames = pixels.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4)
    use_style()
    with mpl.rc_context({"figure.dpi": 110}):
        image_rows(rows_of_images(film, frames)).savefig(DOCS / "story.png", bbox_inches="tight")


if __name__ == "__main__":
    main()
