"""Class-conditional and unconditional models that others trained, in diffusers' own pipelines, as this package's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from diffusers import DiffusionPipeline

from ..checking import check_kind
from ..errors import ModelError, brief
from .history import history_of, remember
from .labelled import label_rows
from .sampling import ClassConditionalPipeline

UNETS = ("DDPMPipeline", "DDIMPipeline")
TRANSFORMERS = ("DiTPipeline",)
TRANSFORMER_SCALE = 4.0  # of guidance, as DiTPipeline's own default


def adopt(pipe: DiffusionPipeline, class_names: Sequence[str] | None = None) -> DiffusionPipeline:
    """A pipeline of diffusers' own around a network that draws classes, or images without any, as a `ClassConditionalPipeline` of
    the same parts; any other as it is.

    pipe: DDPMPipeline or DDIMPipeline, whose UNet2DModel takes labels or none, or DiTPipeline.
    class_names: words or numbers, in the order of the label rows, without the null condition; for a network without labels, one
        name for all that it draws. DiTPipeline may know its own. ModelError if nobody gives them (the last row may be a class, or
        the null condition), if the pipeline has others, or if it is asked in words.
    """
    kind = type(pipe).__name__
    if kind not in UNETS + TRANSFORMERS:
        _check_unnamed(pipe, class_names)
        return pipe
    network = pipe.transformer if kind in TRANSFORMERS else pipe.unet
    names = class_names if class_names is not None else _own_names(pipe) if kind in TRANSFORMERS else None
    if names is None:
        raise ModelError(_unnamed(kind, label_rows(network)))
    check_kind("class_names", names, (list, tuple), "a list of class names, such as ['cat', 'dog']")
    scale = TRANSFORMER_SCALE if kind in TRANSFORMERS else 1.0
    adopted = ClassConditionalPipeline(
        network, pipe.scheduler, dict(enumerate(map(str, names))), guidance_scale=scale, vae=getattr(pipe, "vae", None)
    )
    return remember(adopted, history_of(pipe))


def _check_unnamed(pipe: DiffusionPipeline, class_names: Sequence[str] | None) -> None:
    """Refuse names for a pipeline that has its own, or needs none: they would be passed over without a word."""
    own = getattr(pipe, "class_names", None)
    if class_names is not None and own is None:
        raise ModelError(f"A {type(pipe).__name__} is asked in words: leave class_names out, the data say what the classes are.")
    if class_names is not None and tuple(map(str, class_names)) != own:
        raise ModelError(f"The model says itself which classes it draws, {brief(own)}: leave class_names out.")


def _unnamed(kind: str, rows: int) -> str:
    how = "load_pipeline(folder, class_names=[...]), or adopt(pipe, [...])"
    if not rows:
        return f"This {kind} draws images of no class: give a name to all that it draws, {how}."
    return (
        f"This {kind} has {rows} label rows, and does not say what they are: {how}, with {rows} names if each is a class, or with "
        f"{rows - 1} if the last one is the null condition."
    )


def _own_names(pipe: DiffusionPipeline) -> tuple[str, ...]:
    """A DiTPipeline's, by number; of the words of a class the first one by letter, with its number where two share it."""
    count = pipe.transformer.config.num_embeds_ada_norm
    words = {number: word for word, number in sorted(pipe.labels.items(), reverse=True)}
    names = [words.get(number, str(number)) for number in range(count)]
    often = Counter(names)
    return tuple(name if often[name] == 1 else f"{name} ({number})" for number, name in enumerate(names))
