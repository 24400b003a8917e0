"""Low-rank updates (LoRA; Hu et al. 2021, arXiv 2106.09685) beside a model, in diffusers' format: saved, and added to the weights.

What was trained by them draws with them added. Kept alone they are a few megabytes. Whoever has the model they belong to can
load, scale, fuse and unload them by diffusers itself: `pipe.load_lora_weights(folder)`.
"""

from __future__ import annotations

import os
from pathlib import Path

from diffusers import DiffusionPipeline
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from torch import Tensor, nn

from ..errors import CheckpointError, ModelError
from .folders import loading_errors, quiet_diffusers, saved_whole
from .history import HISTORY_FILE, History, history_of, remember
from .networks import network_name

ADAPTER_FILE = "pytorch_lora_weights.safetensors"


def check_has_format(pipe: DiffusionPipeline) -> None:
    """Refuse a pipeline for whose network diffusers has no format of low-rank updates."""
    if not hasattr(pipe, "save_lora_weights"):
        raise ModelError(
            f"diffusers has no format for low-rank updates of a {type(pipe).__name__}: save the whole model, to whose weights they "
            "are added (save_checkpoint; in the shell, --merge)."
        )


def save_adapter(pipe: DiffusionPipeline, folder: str | os.PathLike, card: dict | None = None) -> None:
    """Save the low-rank updates that `unlearn` or `relearn` trained in this pipeline, alone, and what it has seen and forgotten.

    pipe: what they returned, given a lora_rank. card: how it was made (see `models.cards`).
    """
    check_has_format(pipe)
    updates = vars(pipe).get("adapter")
    if not updates:
        raise ModelError("This pipeline has no low-rank updates of its own: take what unlearn or relearn give with lora_rank=8.")

    def write(aside: Path) -> None:
        pipe.save_lora_weights(aside, **{f"{network_name(pipe)}_lora_layers": convert_state_dict_to_diffusers(updates)})
        (aside / HISTORY_FILE).write_text(history_of(pipe).to_json(), "utf-8")

    title = {"title": "Low-rank updates", "summary": "Low-rank updates in diffusers' format, of another model.", "kind": "adapter"}
    saved_whole(write, Path(folder), card or title)


def add_adapter(pipe: DiffusionPipeline, folder: Path) -> None:
    """Add the low-rank updates in a folder to a pipeline's weights, and what it says of their history to the pipeline's.

    CheckpointError if they cannot be read, or update nothing of this model; nothing shows whether they were made for it.
    """
    check_has_format(pipe)
    if not list(folder.glob("*.safetensors")):
        raise CheckpointError(f"{folder} has no low-rank updates in it: give a folder with a file such as {ADAPTER_FILE}.")
    name = {"weight_name": ADAPTER_FILE} if (folder / ADAPTER_FILE).is_file() else {}
    with loading_errors(folder), quiet_diffusers():
        pipe.load_lora_weights(str(folder), local_files_only=True, use_safetensors=True, **name)
        history = History()
        if (folder / HISTORY_FILE).is_file():
            history = History.from_json((folder / HISTORY_FILE).read_text("utf-8"))
    if not pipe.get_active_adapters():
        raise CheckpointError(f"{folder} updates nothing of this {type(pipe).__name__}: it was made for another kind of model.")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    remember(pipe, history_of(pipe).and_of(history))


def has_attached(network: nn.Module) -> bool:
    """Whether low-rank updates stand beside a network's weights just now, as after `pipe.load_lora_weights`."""
    return hasattr(network, "peft_config")


def updates_of(network: nn.Module) -> dict[str, Tensor]:
    """Those that are attached, by name, on the CPU."""
    from peft.utils import get_peft_model_state_dict

    return {name: value.detach().cpu().clone() for name, value in get_peft_model_state_dict(network).items()}
