"""Draw docs/story.png, the README's strip: photographs of a class before, forgotten by two methods, and after the same attack.

    python tools/make/strip.py        seconds; from data/frames/film-photographs.webp and .json, which tools/make/film.py computes

Every row has the same noise, so that a picture which comes back comes back in its place.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from PIL import Image

from dimum_core.films import FILMS, cut, forgotten_at, read_film, said, tiles, told_of
from dimum_core.plots import image_rows, use_style
from dimum_core.widgets import FRAMES_FOLDER

ROOT = Path(__file__).resolve().parent.parent.parent


def rows_of_images(film: dict, sheet: Image.Image) -> dict[str, torch.Tensor]:
    """Row title, with the judge's count -> samples of the target, N x C x H x W."""
    told, forgotten = told_of(film), forgotten_at(film)
    wanted = [("before", 0, 0)]
    for column, name in enumerate(told):
        wanted += [(f"{name}: forgotten", column, forgotten)] if name in film["methods"] else []
        wanted.append((f"{name}: attacked", column, len(film["retrained"]) - 1))
    counts = [list(told.values())[column][row][2] for _, column, row in wanted]
    return {
        f"{title}\n{said(film, count)}": torch.from_numpy(tiles(cut(sheet, film, column, row))) / 127.5 - 1
        for (title, column, row), count in zip(wanted, counts, strict=True)
    }


def main() -> None:
    film = read_film(FRAMES_FOLDER, FILMS["photographs"])
    use_style()
    with Image.open(FRAMES_FOLDER / film["picture"]) as sheet, mpl.rc_context({"figure.dpi": 110}):
        image_rows(rows_of_images(film, sheet.convert("RGB"))).savefig(ROOT / "docs" / "story.png", bbox_inches="tight")


if __name__ == "__main__":
    main()
