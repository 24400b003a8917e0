"""Folders of checkpoints, whatever they hold: written whole or not at all, and read with errors in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ..errors import CheckpointError
from ..files import ASIDE, REPLACING, unwritten
from .cards import CARD_FILE, render_card


@contextlib.contextmanager
def quiet_diffusers():
    """Loading draws no bars and no advice, neither of diffusers nor of the text encoder's transformers."""
    loud = [library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()]
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    for library in loud:
        library.disable_progress_bar()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        for library in loud:
            library.enable_progress_bar()


@contextlib.contextmanager
def loading_errors(folder: Path):
    """Whatever goes wrong while a checkpoint is read becomes one sentence that names the folder; so does a half-written one."""
    refuse_mixture(folder)
    try:
        yield
        refuse_mixture(folder)  # another process may have begun to write it meanwhile
    except CheckpointError:
        raise
    except Exception as error:  # diffusers, safetensors and json raise a dozen kinds
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{folder} cannot be loaded ({reason}): it is incomplete, damaged or of another shape.") from error


def check_holds(folder: Path, what: str, *kinds: str) -> None:
    """Refuse the folder of anything other than one network of these classes; what: to say instead."""
    if (folder / "model_index.json").is_file():
        raise CheckpointError(f"{folder} holds a pipeline that draws, and should hold {what}.")
    kind = json.loads((folder / "config.json").read_text("utf-8"))["_class_name"]
    if kind not in kinds:
        raise CheckpointError(f"{folder} holds a {kind}, and should hold {what}.")


def refuse_mixture(folder: Path) -> None:
    """Refuse a folder in which the parts of one model are taking the place of another's, or were when a process was killed."""
    if any(folder.glob(f"{REPLACING}*")):
        raise CheckpointError(
            f"{folder} is half overwritten by another model: wait until that is saved; if its process was killed, save it again "
            "(a training does with --resume)."
        )


def saved_whole(write: Callable[[Path], None], folder: Path, card: dict) -> None:
    """What `write` writes into a folder that it is given, with its card, whole or not at all."""
    accelerator = Accelerator()
    if accelerator.is_main_process:
        _save(write, folder, card)
    accelerator.wait_for_everyone()


def _save(write: Callable[[Path], None], folder: Path, card: dict) -> None:
    aside = folder / f"{ASIDE}{uuid.uuid4().hex[:12]}"
    try:
        with quiet_diffusers():
            write(aside)
        for config in aside.rglob("*.json"):
            _forget_origin(config)
        (aside / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", "utf-8")
        (aside / "README.md").write_text(render_card(card), "utf-8", "surrogateescape")  # of a path in a shell without umlauts
        _move_into_place(aside, folder)
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own for a full disk
        raise unwritten(folder, error) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _forget_origin(config: Path) -> None:
    """diffusers notes the folder that a model was loaded from; a path of this machine is of no use to anyone else."""
    content = json.loads(config.read_text("utf-8"))
    if content.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _move_into_place(aside: Path, folder: Path) -> None:
    """Part by part, the card last. While this lasts, and after a kill in between, the folder is refused (see `refuse_mixture`)."""
    moving = folder / f"{REPLACING}{aside.name.removeprefix(ASIDE)}"
    os.replace(aside, moving)
    (folder / CARD_FILE).unlink(missing_ok=True)  # that of a former model must not be taken for this one's
    for path in sorted(moving.iterdir(), key=lambda path: path.name == CARD_FILE):
        _replace(path, folder / path.name)
    for left in folder.glob(f"{REPLACING}*"):  # those of killed ones, too: the folder is whole again
        shutil.rmtree(left)


def _replace(source: Path, destination: Path) -> None:
    if destination.is_dir():
        shutil.rmtree(destination)
    os.replace(source, destination)
