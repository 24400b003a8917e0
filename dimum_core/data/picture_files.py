"""Picture files as square RGB pixels, whatever wrote them: turned by a camera, transparent, grey, 16 bits deep."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..errors import DataError
from ..files import LEFT_BY_PROGRAMS

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
UNREADABLE = (OSError, ValueError, SyntaxError, struct.error)  # what Pillow raises; the last three, of damaged files
ORIENTATION, TURN = 0x0112, Image.Transpose  # the EXIF tag of how a camera was held
TURNS = {
    2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE, 6: TURN.ROTATE_270,
    7: TURN.TRANSVERSE, 8: TURN.ROTATE_90,
}


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by number."""
    paths = [path for path in visible(folder) if path.suffix.lower() in SUFFIXES] if folder.is_dir() else []
    return sorted(paths, key=lambda path: (len(path.stem), path.stem))


def visible(folder: Path) -> list[Path]:
    """What people put there. Names that begin with a dot, such as ._1.jpg, are the system's own, and so are a few others."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name not in LEFT_BY_PROGRAMS)


def read_square(path: Path, size: int) -> np.ndarray:
    """The middle of a picture, cut square and averaged to `size`: uint8, 3 x size x size, RGB. DataError if it cannot be read."""
    return square(read_picture(path), size)


def read_picture(path: Path) -> Image.Image:
    """A picture as it is to be seen: upright, opaque, RGB, 8 bits. DataError if it cannot be read."""
    return _read(path, str(path))


def read_bytes(content: bytes, name: str) -> Image.Image:
    """The same from the bytes of a file; name: what to call it."""
    return _read(io.BytesIO(content), name)


def _read(source: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, and not too large
            with Image.open(source, formats=("JPEG", "PNG", "WEBP")) as image:
                return upright(image)
    except Image.DecompressionBombError as error:
        most = f"{2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million"
        raise DataError(f"{name} has more than {most} pixels: scale it down first.") from error
    except FileNotFoundError as error:
        raise DataError(f"{name} is not there.") from error
    except UNREADABLE as error:
        raise DataError(f"{name} cannot be read as a picture ({error}): download it again.") from error


def upright(image: Image.Image) -> Image.Image:
    """An image of Pillow's, turned as its camera says, on white where it is transparent, RGB of 8 bits."""
    image.load()
    turn = TURNS.get(image.getexif().get(ORIENTATION))  # ImageOps.exif_transpose writes all tags anew, and fails at damaged ones
    return _opaque(_eight_bits(image if turn is None else image.transpose(turn)))


def square(image: Image.Image, size: int) -> np.ndarray:
    """The middle of an RGB image, cut square and averaged to `size`, or enlarged to it: uint8, 3 x size x size."""
    how = Image.Resampling.BOX if min(image.size) > size else Image.Resampling.BICUBIC
    return np.asarray(ImageOps.fit(image, (size, size), how)).transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, which Pillow would cut off at 255, scaled to 8. The largest of 32 bits says whether they hold 8 or 16."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).astype(np.int64)
    shade = 1 if image.mode == "I" and values.max(initial=0) <= 255 else 257
    return Image.fromarray((values / shade).round().clip(0, 255).astype(np.uint8))


def _opaque(image: Image.Image) -> Image.Image:
    """RGB, on white where the picture is transparent: what lies hidden there, often black, is nobody's picture."""
    if "A" not in image.getbands() and "a" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
