"""Checkpoints: diffusers folders (config + safetensors) with a card; shipped ones are known by name."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import diffusers
import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler
from torch import nn

from ..checking import check_kind
from ..data import DATA_FOLDER, HOW_TO_GET
from ..data.captions import PARTIAL_TEMPLATES, TEMPLATES
from ..data.targets import find_target
from ..errors import CheckpointError, ModelError, SettingError, brief
from ..resuming import STATE_FILE
from .adopting import adopt
from .cards import CARD_FILE, read_card
from .diffusion import SCHEDULER_CONFIG
from .folders import loading_errors, quiet_diffusers, saved_whole
from .history import HISTORY_FILE, NO_HASHES, Forgotten, History, history_of, remember
from .low_rank import ADAPTER_FILE, add_adapter, has_attached
from .sampling import ClassConditionalPipeline
from .support import check_supported
from .text_to_image import TextToImagePipeline

CHECKPOINT_FOLDER = DATA_FOLDER / "checkpoints"
PIPELINES = {kind.__name__: kind for kind in (ClassConditionalPipeline, TextToImagePipeline)}
DTYPES = {"float32": torch.float32, "float16": torch.float16}
LIBRARIES = (None, "diffusers", "transformers", "stable_diffusion")  # the last: diffusers' own module of the safety checker


def shipped_checkpoints() -> tuple[str, ...]:
    return tuple(sorted(path.parent.name for path in CHECKPOINT_FOLDER.glob(f"*/{CARD_FILE}")))


def find_checkpoint(checkpoint: str | os.PathLike) -> Path:
    """A folder, or the name of a shipped checkpoint, as a folder."""
    if isinstance(checkpoint, (str, os.PathLike)) and str(checkpoint):
        for folder in (Path(checkpoint), CHECKPOINT_FOLDER / str(checkpoint)):
            if os.path.isdir(folder):  # false, not an error, for what cannot be a path
                return folder
    known = shipped_checkpoints()
    choices = f"give a folder, or one of {', '.join(known)}" if known else f"none is in {CHECKPOINT_FOLDER}; {HOW_TO_GET}"
    name = str(checkpoint) if isinstance(checkpoint, os.PathLike) else checkpoint
    raise CheckpointError(f"There is no checkpoint {brief(name, 100)}: {choices}.")


def load_pipeline(
    checkpoint: str | os.PathLike, class_names: Sequence[str] | None = None, adapters: Sequence[str | os.PathLike] = ()
) -> ClassConditionalPipeline | TextToImagePipeline:
    """A pipeline in float32 on the CPU, ready to sample: `pipe(["automobile"] * 4).images`, `pipe("a hatched star").images`.
    It knows what it has seen and forgotten (see `History`), as far as the folder says.

    A folder with a pipeline of diffusers' own, such as StableDiffusionPipeline, gives that pipeline; DDPMPipeline, DDIMPipeline and
    DiTPipeline are wrapped (see `adopt`).

    checkpoint: the name of a shipped one, or a folder saved by `save_pretrained`. Never unpickles.
    class_names: of the classes that a model draws which somebody else trained, where its folder does not say them.
    adapters: folders of low-rank updates in diffusers' format, ours or others', which are added to the weights in this order.
    Raises CheckpointError, in one sentence, if it is missing, incomplete, damaged or of another shape.
    """
    check_kind("adapters", adapters, (list, tuple), "a list of folders")
    folder = find_checkpoint(checkpoint)
    if not (folder / "model_index.json").is_file():
        with loading_errors(folder):
            raise CheckpointError(f"{folder} has no model_index.json, so it is not a diffusers pipeline ({_rather(folder)}).")
    with loading_errors(folder), quiet_diffusers():
        index = json.loads((folder / "model_index.json").read_text("utf-8"))
        kind = PIPELINES.get(index["_class_name"]) or getattr(diffusers, index["_class_name"])
        components, _ = kind._get_signature_keys(kind)
        check_libraries({name: index[name] for name in components if name in index}, folder)
        check_weights_are_safe(folder)
        absent = {name: None for name in components if index.get(name) == [None, None]}  # which diffusers wants to be told
        pipe = kind.from_pretrained(folder, variant=_variant(folder), use_safetensors=True, local_files_only=True, **absent)
    with _naming(folder):
        pipe = adopt(pipe, class_names)
    check_finite(pipe, folder)
    for module in _modules(pipe):
        module.float().eval()  # transformers keeps the precision of the file, diffusers does not
    pipe.set_progress_bar_config(leave=False)
    with _naming(folder):
        check_supported(pipe)
    with loading_errors(folder):
        remember(pipe, _read_history(folder, pipe))
    for adapter in adapters:
        add_adapter(pipe, Path(adapter))
    return pipe


@contextlib.contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Report what is wrong with a model as wrong with its folder."""
    try:
        yield
    except ModelError as error:
        raise CheckpointError(f"{folder} cannot be used. {error}") from error


def _rather(folder: Path) -> str:
    """What a folder without a pipeline may be."""
    if (folder / "config.json").is_file():
        kind = json.loads((folder / "config.json").read_text("utf-8")).get("_class_name")
        return f"a single network, {kind}: give the folder of the pipeline that draws"
    if (folder / ADAPTER_FILE).is_file():
        return "low-rank updates: give the model that they belong to, and these as --adapter, in Python adapters=[...]"
    if (folder / STATE_FILE).is_file():
        return "the state of a training, and no model: go on with --resume, or in Python save_checkpoint what the call returned"
    parts = sorted(path.parent.name for path in folder.glob("*/config.json"))
    return f"it lacks that file beside {', '.join(parts)}" if parts else "nothing in it belongs to a model"


def check_weights_are_safe(folder: Path) -> None:
    """Refuse parts whose weights are pickles: reading one can run code."""
    for path in sorted(folder.glob("*/*.bin")):
        if not list(path.parent.glob("*.safetensors")):
            raise CheckpointError(
                f"{folder} has weights in {path.parent.name}/{path.name}, which could run code when it is read: load it where you "
                "trust it, and save it again by save_pretrained, which writes safetensors."
            )


def _variant(folder: Path) -> str | None:
    """fp16, if that is all there is: unet/diffusion_pytorch_model.fp16.safetensors, or such parts as .fp16-00001-of-00002."""
    files = [path for part in ("unet", "transformer") for path in folder.glob(f"{part}/*.safetensors")]
    names = [re.sub(r"-\d{5}-of-\d{5}", "", path.name).removesuffix(".safetensors") for path in files]
    kinds = {name.partition(".")[2] for name in names}
    return min(kinds) if kinds and "" not in kinds else None


def _read_history(folder: Path, pipe: DiffusionPipeline) -> History:
    """What a folder says of what its model has seen and forgotten; a folder without a history may still have a card."""
    if (folder / HISTORY_FILE).is_file():
        return History.from_json((folder / HISTORY_FILE).read_text("utf-8"))
    card = read_card(folder) if (folder / CARD_FILE).is_file() else {}
    training, without = card.get("training", {}), card.get("without")
    weights = ("ema" if training["ema_decay"] else "raw") if "ema_decay" in training else "as loaded"
    lacking = (Forgotten(find_target(without, pipe.class_names), NO_HASHES),) if without else ()
    return History(forgotten=lacking, weights=weights)


def check_libraries(components: dict[str, list], folder: Path) -> None:
    """Refuse a component of an unknown library, or with a module of the library's name beside it: diffusers 0.37 runs either."""
    for name, value in components.items():
        if value[0] not in LIBRARIES or (folder / name / f"{value[0]}.py").exists():
            raise CheckpointError(
                f"{folder} asks for code of its own ({brief(name)}: {brief(value)}), and code of a checkpoint is never run: "
                "give one whose components are all of diffusers or transformers."
            )


def check_finite(model, folder: Path) -> None:
    """Refuse a pipeline or a judge with weights that are missing or not finite."""
    lacking = [name for module in _modules(model) for name, value in module.state_dict().items() if value.is_meta]
    if lacking:
        raise CheckpointError(f"{folder} lacks the weights {', '.join(lacking[:3])}: it is damaged or of another shape.")
    if any(not bool(value.isfinite().all()) for module in _modules(model) for value in module.state_dict().values()):
        raise CheckpointError(f"{folder} holds weights that are not finite: train it again.")


def build_pipeline(
    unet, preset, class_names, text_encoder=None, tokenizer=None, vae=None
) -> ClassConditionalPipeline | TextToImagePipeline:
    """A pipeline around the networks of a preset; with a text encoder and its tokenizer, one that draws prompts."""
    # Guesses of the image are clipped to the range of pixels at every step: a small model overshoots, most of all with guidance.
    clipping = {} if vae else {"thresholding": True, "sample_max_value": 1.0}  # latents have no range
    scheduler = DPMSolverMultistepScheduler(**SCHEDULER_CONFIG, **clipping)
    sizes = {"patch_size": preset.patch_size, "guidance_scale": preset.guidance_scale}
    if text_encoder is None:
        pipe = ClassConditionalPipeline(unet, scheduler, dict(enumerate(class_names)), vae=vae, **sizes)
    else:
        pipe = TextToImagePipeline(
            unet, text_encoder, tokenizer, scheduler, dict(enumerate(class_names)), TEMPLATES, PARTIAL_TEMPLATES, **sizes
        )
    pipe.set_progress_bar_config(leave=False)
    return pipe


def check_dtype(dtype: object) -> None:
    """Refuse, before the work, a precision that no checkpoint is saved in."""
    if dtype not in DTYPES:
        raise SettingError(f"dtype must be {' or '.join(DTYPES)}, not {brief(dtype)}.")


def save_checkpoint(model, folder: Path, card: dict, dtype: str = "float32") -> None:
    """Save a pipeline or judge with its card: written aside first, then moved into place file by file, the card last.

    dtype: "float16" halves the file; a model that is to be trained on should keep "float32".
    Of several processes that train together one writes, and the others wait for it.
    """
    check_dtype(dtype)
    if any(map(has_attached, _modules(model))):
        raise ModelError("Low-rank updates stand beside its weights: pipe.fuse_lora() adds them, then pipe.unload_lora_weights().")

    def write(aside: Path) -> None:
        with _in_precision(_modules(model), DTYPES[dtype]):
            model.save_pretrained(aside, safe_serialization=True)
        if isinstance(model, DiffusionPipeline):
            (aside / HISTORY_FILE).write_text(history_of(model).to_json(), "utf-8")

    saved_whole(write, Path(folder), card)


@contextlib.contextmanager
def _in_precision(modules: Iterable[nn.Module], dtype: torch.dtype) -> Iterator[None]:
    """Their floating-point tensors in another precision while this lasts; then the very tensors that they had, unrounded."""
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()]
    kept = [tensor.data for tensor in tensors]
    try:
        for tensor in tensors:
            tensor.data = tensor.data.to(dtype)
        yield
    finally:
        for tensor, data in zip(tensors, kept, strict=True):
            tensor.data = data


def _modules(model):
    if not isinstance(model, DiffusionPipeline):
        return [model]
    return [module for module in model.components.values() if isinstance(module, torch.nn.Module)]
