"""Judges from their folders: by name, or the shipped one of a pipeline's images; what cannot judge is refused."""

from __future__ import annotations

from functools import lru_cache

import torch
from diffusers import DiffusionPipeline

from ..data.targets import word_kinds
from ..errors import NoJudge, SettingError, brief
from ..models.cards import read_card
from ..models.checkpoints import CHECKPOINT_FOLDER, check_finite, find_checkpoint, shipped_checkpoints
from ..models.conditions import ClassConditions, PromptConditions
from ..models.folders import check_holds, loading_errors, quiet_diffusers
from ..models.networks import image_shape
from ..models.sampling import ClassConditionalPipeline, coloured
from ..models.text_to_image import TextToImagePipeline
from ..training import digest_of
from .classifier import Judge, PairJudge


def load_judge(checkpoint) -> Judge:
    """A judge in float32, from a folder or by the name of a shipped one. Never unpickles."""
    folder = find_checkpoint(checkpoint)
    with loading_errors(folder), quiet_diffusers():
        check_holds(folder, "a judge: train one by dimum judge train", "Judge")
        judge = Judge.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    check_finite(judge, folder)
    return judge.to(memory_format=torch.channels_last).eval()


def find_judge(pipe: ClassConditionalPipeline | TextToImagePipeline) -> Judge | PairJudge:
    """The shipped judge of the images that a pipeline draws: of the same size and the same classes; or one of the styles and one of
    the objects, which together judge combinations."""
    if not hasattr(pipe, "class_names"):
        raise NoJudge(
            "No judge is shipped for this pipeline: give one with --judge (in Python, judge=, such as "
            "PairJudge(style_judge, object_judge))."
        )
    channels, side, _ = pipe.image_shape
    return _shipped_judge(side, channels, pipe.class_names)


def judge_for(
    pipe: DiffusionPipeline, judge: Judge | PairJudge | None = None, conditions: ClassConditions | PromptConditions | None = None
) -> Judge | PairJudge:
    """The judge that is given, or else the shipped one.

    SettingError for what cannot judge: the name of a judge, say, or one of other classes than the pipeline's, or than those of the
    conditions that it is asked by, if they have names. What is seen and what was asked for are compared by number.
    """
    judge = find_judge(pipe) if judge is None else judge
    if not callable(getattr(judge, "judge", None)) or not hasattr(judge, "class_names"):
        raise SettingError(f"judge must be a judge, such as load_judge('digits-judge'), not {brief(judge)}.")
    _check_shape(judge, pipe)
    drawn = tuple(getattr(pipe if conditions is None else conditions, "class_names", judge.class_names))
    known = tuple(judge.class_names)
    if known != drawn:
        raise SettingError(
            f"The judge knows the classes {brief(known)}, not {brief(drawn)}: pass one of these, in this order. In Python, "
            "train_judge(..., data=load_images(..., class_names=pipe.class_names)) makes one."
        )
    return judge


def size_of(judge: Judge | PairJudge, pipe: DiffusionPipeline) -> int:
    """The side of the images that a judge looks at: those that the pipeline draws, if it does not say so."""
    return getattr(judge, "image_size", image_shape(pipe)[1])


def identity_of(judge: Judge | PairJudge) -> list[str]:
    """What tells a judge's verdicts from another's, for work that is gone on with; of other objects than ours, their class."""
    return [
        f"{digest_of(part)} threshold {part.config.threshold}" if isinstance(part, Judge) else type(part).__name__
        for part in _parts(judge)
    ]


def _parts(judge: Judge | PairJudge) -> tuple:
    """The one judge, or the two of a pair."""
    return (judge.style, judge.object) if isinstance(judge, PairJudge) else (judge,)


def _check_shape(judge: Judge | PairJudge, pipe: DiffusionPipeline) -> None:
    """Refuse, before anything is drawn, a judge of images of another size, or in colour where the pipeline's are grey."""
    for part in _parts(judge):
        if not isinstance(part, Judge):
            continue
        looks, drawn = (part.config.image_channels, part.image_size), image_shape(pipe)[:2]
        if looks != drawn:
            theirs, ours = (f"{coloured(channels)} images of {side} x {side}" for channels, side in (looks, drawn))
            raise SettingError(
                f"The judge looks at {theirs}, and the pipeline draws {ours}: train one for those, by dimum judge train "
                f"--image-size {drawn[1]}, or, in Python, train_judge(..., data=load_images(..., image_channels={drawn[0]}))."
            )


@lru_cache(maxsize=4)
def _shipped_judge(image_size: int, image_channels: int, class_names: tuple[str, ...]) -> Judge | PairJudge:
    judges = [name for name in shipped_checkpoints() if read_card(CHECKPOINT_FOLDER / name).get("kind") == "judge"]
    kinds = word_kinds(class_names)
    parts = [_judge_of(judges, image_size, image_channels, names) for names in kinds or (class_names,)]
    if None not in parts:
        return PairJudge(*parts) if kinds else parts[0]
    raise NoJudge(
        f"No shipped judge ({', '.join(judges) or 'there are none'}) looks at {image_size} x {image_size} images of these "
        "classes: train one by `dimum judge train`, and give it with --judge (in Python, train_judge(preset, data=...) and judge=)."
    )


def _judge_of(judges: list[str], *properties) -> Judge | None:
    for judge in map(load_judge, judges):
        if (judge.image_size, judge.config.image_channels, judge.class_names) == properties:
            return judge
    return None
