"""DiMRA: finetune an unlearned model on auxiliary data without the forgotten class, and watch the class come back.

Yuan et al. 2025, arXiv 2512.03564. The attacker knows the weights and the format of the labels, not the target.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..checking import check_kind, check_number, check_whole
from ..data import Dataset, ImageSet
from ..data.captions import KINDS
from ..data.targets import Target, find_target
from ..errors import DataError
from ..evaluation import copying_rate, draw_samples
from ..judges import Judge, PairJudge, check_judge, find_judge
from ..metrics import Interval, accuracy, nearest_neighbours, wilson_interval
from ..models.conditions import ClassConditions, PromptConditions, conditions_of, image_size
from ..models.history import NO_HASHES, Forgotten, history_of, remember, with_unet
from ..models.sampling import check_classes, check_pipeline
from ..pretraining import DenoisingObjective
from ..training import TrainConfig, digest_of, train
from ..unlearning.adapters import add_lora, merged

# Root-mean-square difference of two images, pixels in [-1, 1], below which one counts as a copy of the other: what another
# compression or a rounding changes, not what another photograph does.
NEAR = 0.05
MEASURES = ("target accuracy", "target low", "target high", "retained accuracy", "distance")


@dataclass
class Relearning:
    """The attacked pipeline, and its recovery curve.

    curve: one row an evaluation, step 0 first: accuracy on the target (with its 95 % interval) and on the other classes, and
        the Euclidean distance of the weights from where the attack began. If the target is single images, the accuracy on it is the
        share of samples of their labels that copy one of them (`evaluation.copying_rate`).
    strips: for each evaluated step, the first samples of the target, N x C x H x W, from the same noise each time.
    """

    pipeline: DiffusionPipeline
    curve: pd.DataFrame
    strips: dict[int, Tensor]


def relearn(
    pipe: DiffusionPipeline,
    auxiliary: ImageSet | Dataset,
    *,
    target: str | int | ImageSet | None = None,
    steps: int = 200,
    learning_rate: float = 1e-4,
    optimizer: str = "adamw",
    batch_size: int = 64,
    seed: int = 0,
    evaluate_every: int | None = None,
    samples: int = 32,
    guidance_scale: float | None = None,
    num_inference_steps: int = 10,
    judge: Judge | PairJudge | None = None,
    forget: ImageSet | None = None,
    label_dropout: float = 0.1,
    allow_target: bool = False,
    only_embedding_row: bool = False,
    out: Path | None = None,
    resume: bool = False,
    progress: bool = True,
    precision: str = "auto",
    lora_rank: int = 0,
    gradient_checkpointing: bool = False,
) -> Relearning:
    """Attack a pipeline: minimise L_den(D_aux) from its weights, nothing else. The pipeline it is given is not touched.

    The learning rate rises over the first tenth of the steps (at most 10): without that, Adam's first steps alone wreck a model.

    target: what is measured; default, what the pipeline says it has unlearned. The optimisation does not depend on it: it is
        used to refuse auxiliary data that contain it, and to draw `samples` of it (and of the other classes) for the curve.
    evaluate_every: steps between two rows of the curve; default, a fifth of the steps. Sampling, with `num_inference_steps` network
        evaluations an image, is most of what a curve costs.
    forget: images that must not be in the auxiliary set, neither under another label nor nearly so; default, what the pipeline
        was made to forget.
    label_dropout: share of the auxiliary labels that give way to the null condition; at 1 the attack goes through that condition
        alone, for an attacker whose images have no labels.
    allow_target, only_embedding_row: for the controls, which do see the target.
    lora_rank, gradient_checkpointing: as in `unlearn`, for networks that hardly fit.
    out, resume: keep the attack's state in a folder, and go on from it.
    Raises DataError if an auxiliary image has a label of the target or is nearly an image of `forget`; if single images were to be
        forgotten, other images of their label are allowed.
    Training happens on the accelerator's device; the attacked unet is then where the given one is.
    """
    check_pipeline(pipe)
    auxiliary = auxiliary.train if isinstance(auxiliary, Dataset) else auxiliary
    check_kind("auxiliary", auxiliary, ImageSet, "an image set, such as data.train.without('3')")
    for name, value, least in (
        ("samples", samples, 1), ("lora_rank", lora_rank, 0), ("evaluate_every", evaluate_every or 1, 1), ("steps", steps, 0),
    ):
        check_whole(name, value, least)
    check_number("label_dropout", label_dropout, 0, 1)
    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, warmup_steps=min(10, steps // 10),
        decay=False, ema_decay=0.0, seed=seed, precision=precision, optimizer=optimizer,
    )
    auxiliary = auxiliary.resized(image_size(pipe))
    check_classes(auxiliary, pipe)
    history = history_of(pipe)
    if forget is None:  # whoever names single images as the target means those, whatever was unlearned
        forget = target if isinstance(target, ImageSet) else history.last.images if history.last else None
    target = history.last.target_among(auxiliary.class_names) if target is None and history.last else target
    if target is None:
        raise DataError("What should the recovery curve measure? The pipeline names no target, so pass target=.")
    if forget is not None:
        check_kind("forget", forget, ImageSet, "an image set, such as data.train.only('3')")
    conditions = conditions_of(pipe, target, auxiliary.class_names)
    wanted = conditions.forgotten
    if wanted.items and forget is None:
        raise DataError("The folder of a model has no images in it, those to forget least of all: pass them as target=.")
    if not allow_target:
        lacking = Forgotten(wanted, NO_HASHES if forget is None else np.unique(forget.item_hashes), forget)
        refuse_forgotten(auxiliary, (*history.forgotten, lacking))
    device = Accelerator().device  # where the loop will train: the first row of the curve is drawn there too
    attacked = with_unet(pipe, copy.deepcopy(pipe.unet).to(device).requires_grad_(True))
    hook = _freeze_all_but_row(attacked.unet, wanted.labels[0]) if only_embedding_row else None
    if lora_rank:
        add_lora(attacked.unet, lora_rank, seed)
    if gradient_checkpointing:
        attacked.unet.enable_gradient_checkpointing()
    judge = find_judge(pipe) if judge is None else judge
    check_judge(judge, conditions)
    among = auxiliary if history.training_set is None else history.training_set
    measure = _Measure(attacked, judge, conditions, samples, seed, guidance_scale, num_inference_steps, forget, among)
    first = {"step": 0, **measure(0)}
    about = {  # a folder of another attack, or of other measurements, shall not be gone on with
        "start": digest_of(pipe.unet), "only_embedding_row": only_embedding_row, "lora_rank": lora_rank,
        "target": forget.digest if wanted.items else conditions.target_name, "samples": samples,
        "guidance_scale": guidance_scale, "num_inference_steps": num_inference_steps,
    } if out else {}
    objective = DenoisingObjective(auxiliary, batch_size, conditions, label_dropout, about=about)
    result = train(
        attacked.unet, objective, config, out=out, resume=resume, evaluate=lambda step, _: measure(step),
        evaluate_every=evaluate_every or max(1, steps // 5), progress=progress, description="relearning",
    )
    rows = result.log.dropna(subset="target accuracy")[["step", *MEASURES]] if steps else None
    if lora_rank:
        attacked = with_unet(attacked, merged(attacked.unet))
    if hook:
        hook.remove()
    attacked.unet.to(pipe.unet.device).requires_grad_(True)
    remember(attacked, replace(history.having_seen(auxiliary), weights="raw"))
    return Relearning(attacked, pd.concat([pd.DataFrame([first]), rows], ignore_index=True), measure.strips)


def refuse_leaks(auxiliary: ImageSet, target: Target | int | ImageSet, forget: ImageSet | None = None) -> None:
    """Before the first step: no auxiliary image may have a label of the target, or be (nearly) an image of the forget set.

    target: of single images, only they and what is nearly one of them are refused, not their label.
    """
    target = find_target(target, auxiliary.class_names)
    refuse_forgotten(auxiliary, [Forgotten(target, NO_HASHES if forget is None else np.unique(forget.item_hashes), forget)])


def refuse_forgotten(auxiliary: ImageSet, forgotten: Iterable[Forgotten]) -> None:
    """The same for each of several things that a model was made to forget. Of those that it knows from a folder, only copies that
    are the same bit for bit are seen."""
    if not len(auxiliary):
        raise DataError("The auxiliary set is empty: the attacker has nothing to finetune on.")
    for each in {(each.target, each.item_hashes.tobytes()): each for each in forgotten}.values():
        target = each.target_among(auxiliary.class_names)
        _refuse_labels(auxiliary, target)
        leaked = np.isin(auxiliary.item_hashes, each.item_hashes) | _near_copies(auxiliary, each.images)
        if leaked.any():
            where = "" if target is not None and target.items else "under another label "
            raise DataError(
                f"The auxiliary set has {int(leaked.sum())} images of the forget set, or nearly so, {where}"
                f"(the first is number {int(leaked.argmax())}): remove them first."
            )


def _refuse_labels(auxiliary: ImageSet, target: Target | None) -> None:
    labelled = 0 if target is None or target.items else int(target.among(auxiliary.labels).sum())
    if labelled:
        kind = "class" if target.position is None else KINDS[target.position]
        raise DataError(
            f"The auxiliary set has {labelled} images of the target {kind} {target.name}: an attacker does not "
            f"have them, so take {auxiliary.name}.without({target.name!r})."
        )


def _near_copies(auxiliary: ImageSet, forget: ImageSet | None) -> np.ndarray:
    """Which auxiliary images are nearly one of those to forget: bool, N."""
    if forget is None or not len(forget):
        return np.zeros(len(auxiliary), dtype=bool)
    forget = forget.resized(auxiliary.images.shape[-1])
    distance, _ = nearest_neighbours(auxiliary.images.flatten(1).numpy(), forget.images.flatten(1).numpy())
    return distance[:, 0] < NEAR * forget.images[0].numel() ** 0.5


def _freeze_all_but_row(unet: nn.Module, label: int) -> torch.utils.hooks.RemovableHandle:
    table = unet.requires_grad_(False).class_embedding.weight.requires_grad_(True)
    row = torch.zeros(len(table), 1, device=table.device)
    row[label] = 1
    return table.register_hook(lambda gradient: gradient * row.to(gradient.device))


@dataclass
class _Measure:
    """Target accuracy, retained accuracy and distance from the starting weights, on noise shared by all steps."""

    pipe: DiffusionPipeline
    judge: Judge | PairJudge
    conditions: ClassConditions | PromptConditions
    samples: int
    seed: int
    guidance_scale: float | None
    num_inference_steps: int
    forget: ImageSet | None
    among: ImageSet
    strips: dict[int, Tensor] = field(default_factory=dict)

    def __post_init__(self):
        self.start = nn.utils.parameters_to_vector(self.pipe.unet.parameters()).detach().clone()
        both = (self.conditions.forgotten.labels, self.conditions.forgotten.others.tolist())
        self.labels = [labels[i % len(labels)] for labels in both for i in range(self.samples)]

    def __call__(self, step: int) -> dict:
        self.pipe.unet.eval()
        images = draw_samples(
            self.pipe, self.conditions.asked(self.labels), seed=self.seed, batch_size=2 * self.samples, progress=False,
            guidance_scale=self.guidance_scale, num_inference_steps=self.num_inference_steps,
        )
        self.strips[step] = images[: min(8, self.samples)]
        verdict = self.judge.judge(images)
        found = self.recovered(images[: self.samples], verdict.shows(self.conditions.forgotten)[: self.samples])
        kept = accuracy(verdict.labels[self.samples :], self.labels[self.samples :])
        now = nn.utils.parameters_to_vector(self.pipe.unet.parameters()).detach()
        values = (found.value, found.low, found.high, kept.value, float((now - self.start.to(now)).norm()))
        return dict(zip(MEASURES, values, strict=True))

    def recovered(self, images: Tensor, shown: Tensor) -> Interval:
        """The share of the target's samples that show it, or that copy one of its single images."""
        if self.conditions.forgotten.items:
            return copying_rate(images, self.forget, self.among)
        return wilson_interval(int(shown.sum()), len(shown))
