"""DiMRA: finetune an unlearned model on auxiliary data without the forgotten class, and watch the class come back.

Yuan et al. 2025, arXiv 2512.03564. The attacker knows the weights and the format of the labels, not the target.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..checking import check_kind, check_number, check_whole
from ..data import Dataset, ImageSet
from ..data.targets import Wanted
from ..errors import DataError, NoJudge, SettingError
from ..evaluation import at_once, copying_rate, draw_samples
from ..judges import Judge, PairJudge, Verdict, identity_of, judge_for
from ..judges.counting import accuracy_on_each
from ..metrics import Interval, accuracy, wilson_interval
from ..models.conditions import ClassConditions, PromptConditions, conditions_of, image_size
from ..models.fresh_noise import FRESH_STEPS, with_fresh_noise
from ..models.history import Forgotten, history_of, remember
from ..models.networks import network_of
from ..models.sampling import check_data, coloured
from ..models.support import check_trainable
from ..pretraining import DenoisingObjective
from ..resuming import check_begins
from ..training import TrainResult, digest_of, train
from ..unlearning.adapters import weights_of
from ..unlearning.student import evaluation_interval, finetuning, student
from .leaks import refuse_forgotten

MEASURES = ("target accuracy", "target low", "target high", "retained accuracy", "distance")


@dataclass
class Relearning:
    """The attacked pipeline, and its recovery curve.

    curve: one row for each evaluation, step 0 first: accuracy on the target (with its 95 % interval) and on the other classes, and
        the Euclidean distance of the weights from where the attack began. Of several targets, the accuracy on the target is the
        share of their samples that show any of them, and each has a column "accuracy on NAME" with the share of its own. If
        the target is single images, it is the share of samples of their labels that copy one of them
        (`evaluation.copying_rate`); then no judge is needed, and without one the accuracy on the other classes is NaN.
    strips: for each step that this call evaluated (after a resume, the later ones), the first samples of the target, N x C x H x W,
        from the same noise each time.
    """

    pipeline: DiffusionPipeline
    curve: pd.DataFrame
    strips: dict[int, Tensor]


def relearn(
    pipe: DiffusionPipeline, auxiliary: ImageSet | Dataset, *, target: Wanted | None = None,
    steps: int = 200, learning_rate: float = 1e-4, optimizer: str = "adamw", batch_size: int = 64, seed: int = 0,
    precision: str = "auto", label_dropout: float = 0.1, evaluate_every: int | Sequence[int] | None = None,
    samples: int = 32, guidance_scale: float | None = None, num_inference_steps: int = FRESH_STEPS,
    judge: Judge | PairJudge | None = None, forget: ImageSet | None = None, allow_target: bool = False,
    only_embedding_row: bool = False, lora_rank: int = 0, gradient_checkpointing: bool = False,
    out: Path | None = None, resume: bool = False, progress: bool = True,
) -> Relearning:
    """Attack a pipeline: minimise L_den(D_aux) from its weights, nothing else. The pipeline it is given is not touched.

    The learning rate rises over the first tenth of the steps (at most 10): without that, Adam's first steps alone wreck a model.

    target: what is measured, one or several; default, what the pipeline says it has unlearned last. The optimisation does not
        depend on it: it is used to refuse auxiliary data that contain it, and to draw `samples` of it (and of the other classes)
        for the curve.
    evaluate_every: steps between two rows of the curve, or a list of the steps that have one; default, a fifth of the steps.
        Sampling, with fresh noise in each of `num_inference_steps`, is most of what a curve costs.
    forget: images that must not be in the auxiliary set, not even under another label or as near copies; default, what the pipeline
        was made to forget.
    seed: of batches, noise and samples. Take another one than the unlearning's: with the same, step k of both draws the same noise.
    label_dropout: share of the auxiliary labels that give way to the null condition, if the model has one; at 1 the attack goes
        through that condition alone, for an attacker whose images have no labels.
    allow_target, only_embedding_row: for the controls, which do see the target.
    lora_rank, gradient_checkpointing: as in `unlearn`, for networks that barely fit into memory.
    out, resume: keep the attack's state in a folder, and go on from it.
    Raises DataError if an auxiliary image has a label of the target or is nearly an image of `forget`; if single images were to be
        forgotten, other images of their label are allowed.
    Training happens on the accelerator's device; the attacked network is then where the given one is.
    """
    check_trainable(pipe)
    check_begins(out, resume)
    config = finetuning(steps, batch_size, learning_rate, seed, precision, optimizer)
    evaluate_every = evaluation_interval(evaluate_every, steps, count=5)
    check_whole("samples", samples)
    check_number("label_dropout", label_dropout, 0, 1)
    auxiliary, history = _auxiliary(auxiliary, pipe), history_of(pipe)
    conditions, forget = _aim(pipe, target, forget, auxiliary)
    if label_dropout == 1 and has_rows(pipe) and conditions.null_number is None:
        raise SettingError("label_dropout=1 trains the null condition alone, and this model has none: lower it.")
    if only_embedding_row and lora_rank:
        raise SettingError("only_embedding_row trains no matrix that lora_rank could update: give one of the two.")
    if only_embedding_row and not has_rows(pipe):
        raise SettingError("only_embedding_row trains a row of the label embedding, and this network has none: leave it at False.")
    if not allow_target:
        refuse_forgotten(auxiliary, (*history.forgotten, Forgotten.of(conditions.forgotten, forget)))
    judge = _judge_or_none(pipe, judge, conditions)
    rows = conditions.forgotten.labels if only_embedding_row else ()
    with student(pipe, lora_rank, gradient_checkpointing, seed) as attacked, training_only_rows(network_of(attacked), rows):
        among = auxiliary if history.training_set is None else history.training_set
        measure = _Measure(attacked, judge, conditions, samples, seed, guidance_scale, num_inference_steps, forget, among)
        first, about = measure(0), _about(pipe, measure, only_embedding_row, lora_rank) if out else {}
        objective = DenoisingObjective(auxiliary, batch_size, conditions, label_dropout, about=about)
        result = train(
            network_of(attacked), objective, config, out=out, resume=resume, evaluate=lambda step, _: measure(step),
            evaluate_every=evaluate_every, progress=progress, description="relearning",
        )
    remember(attacked, replace(history.having_seen(auxiliary), weights="raw"))
    return Relearning(attacked, _curve(first, result), measure.strips)


def _auxiliary(auxiliary: ImageSet | Dataset, pipe: DiffusionPipeline) -> ImageSet:
    """The training images of a data set, or an image set as it is, at the pipeline's size."""
    auxiliary = auxiliary.train if isinstance(auxiliary, Dataset) else auxiliary
    check_kind("auxiliary", auxiliary, ImageSet, "an image set, such as data.train.without('3')")
    auxiliary = auxiliary.resized(image_size(pipe))
    check_data(auxiliary, pipe)
    return auxiliary


def _aim(
    pipe: DiffusionPipeline, target: Wanted | None, forget: ImageSet | None, auxiliary: ImageSet
) -> tuple[ClassConditions | PromptConditions, ImageSet | None]:
    """What is to come back, as conditions, and the images of it that must not be in the auxiliary set, as far as they are known."""
    last = history_of(pipe).last
    wanted = last.target_among(auxiliary.class_names) if target is None and last else target
    if wanted is None:
        raise DataError("What should the recovery curve measure? The pipeline names no target, so pass target=.")
    conditions = conditions_of(pipe, wanted, auxiliary.class_names)
    items = conditions.forgotten.items
    if forget is None and isinstance(target, ImageSet):  # whoever names single images means those, whatever was unlearned
        forget = target
    elif forget is None and last and (not items or items == last.target.items):
        forget = last.images
    if items and forget is None:
        raise DataError("A Target or a model's folder holds no images, not even those to forget: pass them as target=.")
    if forget is not None:
        check_kind("forget", forget, ImageSet, "an image set, such as data.train.only('3')")
        theirs, ours = (coloured(images.images.shape[1]) for images in (forget, auxiliary))
        if theirs != ours:
            raise DataError(f"The images to forget are {theirs}, and those of {auxiliary.name} are {ours}: convert them first.")
    return conditions, forget


def _judge_or_none(
    pipe: DiffusionPipeline, judge: Judge | PairJudge | None, conditions: ClassConditions | PromptConditions
) -> Judge | PairJudge | None:
    """The judge that is given, or else the shipped one; none where none fits and copies of single images are counted."""
    try:
        return judge_for(pipe, judge, conditions)
    except NoJudge:  # a damaged one is an error
        if conditions.forgotten.items:
            return None
        raise


def _about(pipe: DiffusionPipeline, measure: _Measure, only_embedding_row: bool, lora_rank: int) -> dict:
    """Refuse to go on in a folder of another attack, or of other measurements."""
    single = bool(measure.conditions.forgotten.items)
    return {
        "start": digest_of(network_of(pipe)), "only_embedding_row": only_embedding_row, "lora_rank": lora_rank,
        "target": measure.forget.digest if single else measure.conditions.target_name, "samples": measure.samples,
        "guidance_scale": measure.guidance_scale, "num_inference_steps": measure.num_inference_steps,
        "judge": None if measure.judge is None else identity_of(measure.judge),
    }


def _curve(first: dict, result: TrainResult) -> pd.DataFrame:
    """The rows of the log that measure something, after the one from before the attack."""
    rows = [result.log.dropna(subset="target accuracy")[["step", *first]]] if len(result.log) else []
    return pd.concat([pd.DataFrame([{"step": 0, **first}]), *rows], ignore_index=True)


def has_rows(pipe: DiffusionPipeline) -> bool:
    """Whether a network looks its labels up in a table, row by row: not a transformer, nor one that takes no labels."""
    return isinstance(getattr(network_of(pipe), "class_embedding", None), nn.Embedding)


@contextlib.contextmanager
def training_only_rows(unet: nn.Module, labels: tuple[int, ...]) -> Iterator[None]:
    """Within this context only the rows of these labels in the label table train; all weights do if there are none."""
    if not labels:
        yield
        return
    table = unet.requires_grad_(False).class_embedding.weight.requires_grad_(True)
    rows = torch.zeros(len(table), 1, device=table.device)
    rows[list(labels)] = 1
    hook = table.register_hook(lambda gradient: gradient * rows.to(gradient.device))
    yield
    hook.remove()


@dataclass
class _Measure:
    """Target accuracy, retained accuracy and distance from the starting weights, on noise shared by all steps."""

    pipe: DiffusionPipeline
    judge: Judge | PairJudge | None
    conditions: ClassConditions | PromptConditions
    samples: int
    seed: int
    guidance_scale: float | None
    num_inference_steps: int
    forget: ImageSet | None
    among: ImageSet
    strips: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        self.start = weights_of(network_of(self.pipe))
        own, others = self.conditions.forgotten.labels, self.conditions.forgotten.others.tolist()
        asked = (own,) if self.judge is None else (own, others)
        self.labels = [labels[i % len(labels)] for labels in asked for i in range(self.samples)]

    def __call__(self, step: int) -> dict:
        network_of(self.pipe).eval()
        images = draw_samples(
            with_fresh_noise(self.pipe), self.conditions.asked(self.labels), seed=self.seed, progress=False,
            batch_size=at_once(self.pipe, 2 * self.samples), guidance_scale=self.guidance_scale,
            num_inference_steps=self.num_inference_steps,
        )
        self.strips[step] = images[: min(8, self.samples)]
        verdict = None if self.judge is None else self.judge.judge(images)
        back, kept, each = self.recovered(images[: self.samples], verdict), math.nan, {}
        if verdict is not None:
            kept = accuracy(verdict.labels[self.samples :], self.labels[self.samples :]).value
            each = accuracy_on_each(verdict, self.labels, self.conditions.forgotten)
        moved = weights_of(network_of(self.pipe)).sub_(self.start)  # in place: of a large network each vector is gigabytes
        return dict(zip(MEASURES, (back.value, back.low, back.high, kept, float(moved.norm())), strict=True)) | each

    def recovered(self, images: Tensor, verdict: Verdict | None) -> Interval:
        """The share of the target's samples that show it, or that copy one of its single images."""
        if self.conditions.forgotten.items:
            return copying_rate(images, self.forget, self.among)
        return wilson_interval(int(verdict.shows(self.conditions.forgotten)[: self.samples].sum()), self.samples)
