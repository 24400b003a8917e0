"""The human test: can someone who does not know what was asked for name what a model drew?

    python experiments/naming.py draw [--checkpoint cifar10-small] [--seed 0] [--out data/results/naming]
    python experiments/naming.py score GUESSES [--out data/results/naming]

`draw` writes a sheet of ten samples of each class, numbered, in an order that nobody has seen, and the answers beside it. Name
every picture before you open answers.csv. GUESSES is a text file with a line a picture: its number and a class, "17 horse".
`score` says how many are right, and of which class the wrong ones are.
"""

from __future__ import annotations

import argparse
import io
import secrets
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from dimum_core import load_pipeline
from dimum_core.errors import DataError
from dimum_core.evaluation import draw_samples
from dimum_core.files import write_atomically
from dimum_core.metrics import accuracy, confusion_matrix
from dimum_core.models.fresh_noise import FRESH_STEPS, with_fresh_noise
from dimum_core.plots import in_fewer_shades

TILE, MARGIN, HEADING = 96, 8, 16  # pixels


def sheet(images: np.ndarray, columns: int = 10) -> Image.Image:
    """uint8 images, N x H x W x C, each enlarged to 96 x 96 under its number."""
    height, width = TILE + MARGIN + HEADING, TILE + MARGIN
    page = Image.new("RGB", (columns * width + MARGIN, -(-len(images) // columns) * height + MARGIN), "white")
    pen = ImageDraw.Draw(page)
    for number, image in enumerate(images):
        x, y = MARGIN + number % columns * width, MARGIN + number // columns * height
        pen.text((x, y), str(number + 1), fill="black")
        page.paste(Image.fromarray(image).convert("RGB").resize((TILE, TILE), Image.Resampling.BICUBIC), (x, y + HEADING))
    return page


def draw(checkpoint: str, seed: int, out: Path) -> None:
    pipe = load_pipeline(checkpoint)
    labels = np.random.default_rng(secrets.randbits(64)).permutation(np.repeat(np.arange(len(pipe.class_names)), 10))
    images = draw_samples(with_fresh_noise(pipe), labels, seed=seed, num_inference_steps=FRESH_STEPS)
    pixels = ((images + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).squeeze(-1).numpy()
    buffer = io.BytesIO()
    sheet(pixels).save(buffer, format="PNG")
    answers = pd.DataFrame({"number": np.arange(len(labels)) + 1, "class": [pipe.class_names[label] for label in labels]})
    write_atomically(out / "sheet.png", in_fewer_shades(buffer.getvalue()))
    write_atomically(out / "answers.csv", answers.to_csv(index=False).encode())
    print(f"{out / 'sheet.png'}: {len(labels)} pictures of {', '.join(pipe.class_names)}. Name all, then open answers.csv.")


def read_guesses(path: Path, answers: pd.DataFrame) -> list[str]:
    """A class for each number; DataError if a picture was not named, or with what is no class."""
    lines = [line.split(maxsplit=1) for line in path.read_text("utf-8").splitlines()]
    named = dict(line for line in lines if len(line) == 2)
    missing = [number for number in answers["number"].astype(str) if number not in named]
    strange = sorted({word.strip() for word in named.values()} - set(answers["class"]))
    if missing or strange:
        raise DataError(f"{path}: not named are {', '.join(missing) or 'none'}; no classes are {', '.join(strange) or 'none'}.")
    return [named[number].strip() for number in answers["number"].astype(str)]


def score(guesses: Path, out: Path) -> None:
    answers = pd.read_csv(out / "answers.csv", dtype={"class": str})
    names = sorted(set(answers["class"]))
    guessed = [names.index(name) for name in read_guesses(guesses, answers)]
    asked = [names.index(name) for name in answers["class"]]
    print(f"right: {accuracy(guessed, asked)}\n\n{confusion_matrix(guessed, asked, names).to_string()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("draw", "score"))
    parser.add_argument("guesses", type=Path, nargs="?", help="for score: a line a picture, its number and a class")
    parser.add_argument("--checkpoint", default="cifar10-small")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data/results/naming"))
    args = parser.parse_args()
    if args.what == "draw":
        draw(args.checkpoint, args.seed, args.out)
    elif args.guesses:
        score(args.guesses, args.out)
    else:
        parser.error("score needs the file with your guesses")


if __name__ == "__main__":
    main()
