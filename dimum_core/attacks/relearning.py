"""DiMRA: finetune an unlearned model on auxiliary data without the forgotten class, and watch the class come back.

Yuan et al. 2025, arXiv 2512.03564. The attacker knows the weights and the format of the labels, not the target.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn

from ..data import Dataset, ImageSet
from ..errors import DataError
from ..evaluation import accuracies, draw_samples, find_judge
from ..judge import Judge
from ..pretraining import DenoisingObjective
from ..sampling import ClassConditionalPipeline
from ..training import TrainConfig, train
from ..unlearning.run import with_unet


@dataclass
class Relearning:
    """The attacked pipeline, and its recovery curve: one row an evaluation, step 0 first."""

    pipeline: ClassConditionalPipeline
    curve: pd.DataFrame


def relearn(
    pipe: ClassConditionalPipeline,
    auxiliary: ImageSet | Dataset,
    *,
    target: str | int | None = None,
    steps: int = 200,
    learning_rate: float = 1e-4,
    batch_size: int = 64,
    seed: int = 0,
    evaluate_every: int | None = None,
    samples: int = 32,
    guidance_scale: float | None = None,
    judge: Judge | None = None,
    progress: bool = True,
    precision: str = "auto",
) -> Relearning:
    """Attack a pipeline: minimise L_den(D_aux) from its weights, nothing else. The pipeline it is given is not touched.

    target: what is measured; default, what the pipeline says it has unlearned. The optimisation does not depend on it: it is
        used to refuse auxiliary data that contain it, and to draw `samples` of it (and of the other classes) for the curve.
    Raises DataError if an auxiliary image has the target's label.
    """
    auxiliary = auxiliary.train if isinstance(auxiliary, Dataset) else auxiliary
    auxiliary = auxiliary.resized(pipe.image_shape[-1])
    target = getattr(pipe, "unlearning", {}).get("target") if target is None else target
    if target is None:
        raise DataError("What should the recovery curve measure? The pipeline names no target, so pass target=.")
    label = int(pipe.label_tensor([target])[0])
    refuse_leaks(auxiliary, label)
    attacked = with_unet(pipe, copy.deepcopy(pipe.unet).requires_grad_(True))
    measure = _Measure(attacked, find_judge(pipe) if judge is None else judge, label, samples, seed, guidance_scale)
    first = {"step": 0, **measure()}
    objective = DenoisingObjective(auxiliary, batch_size, pipe.null_label, pipe.config.patch_size)
    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, decay=False, ema_decay=0.0, seed=seed,
        precision=precision,
    )
    result = train(
        attacked.unet, objective, config, evaluate=lambda step, _: measure(), evaluate_every=evaluate_every or max(1, steps // 5),
        progress=progress, description="relearning",
    )
    measured = result.log.dropna(subset="target accuracy").drop(columns=["loss", "learning_rate", "grad_norm", "seconds"])
    return Relearning(attacked, pd.concat([pd.DataFrame([first]), measured], ignore_index=True))


def refuse_leaks(auxiliary: ImageSet, label: int, forget: ImageSet | None = None) -> None:
    """Before the first step: no auxiliary image may have the target's label, or be an image of the forget set."""
    labelled = int((auxiliary.labels == label).sum())
    if labelled:
        raise DataError(
            f"The auxiliary set has {labelled} images of the target class {auxiliary.class_names[label]}: an attacker does not "
            f"have them, so take {auxiliary.name}.without({auxiliary.class_names[label]!r})."
        )
    if forget is not None and np.isin(auxiliary.item_hashes, forget.item_hashes).any():
        raise DataError("The auxiliary set has images of the forget set under another label: remove them first.")
    if not len(auxiliary):
        raise DataError("The auxiliary set is empty: the attacker has nothing to finetune on.")


@dataclass
class _Measure:
    """Target accuracy, retained accuracy and distance from the starting weights, on noise shared by all steps."""

    pipe: ClassConditionalPipeline
    judge: Judge
    label: int
    samples: int
    seed: int
    guidance_scale: float | None

    def __post_init__(self):
        self.start = nn.utils.parameters_to_vector(self.pipe.unet.parameters()).detach().clone()
        others = [c for c in range(len(self.pipe.class_names)) if c != self.label]
        self.labels = [self.label] * self.samples + [others[i % len(others)] for i in range(self.samples)]

    def __call__(self) -> dict:
        self.pipe.unet.eval()
        images = draw_samples(
            self.pipe, self.labels, seed=self.seed, progress=False, guidance_scale=self.guidance_scale, batch_size=2 * self.samples
        )
        rows = accuracies(self.judge.judge(images).labels, torch.tensor(self.labels), self.label)
        distance = (nn.utils.parameters_to_vector(self.pipe.unet.parameters()).detach() - self.start).norm()
        recovered = 1 - rows["UA"].value
        return {
            "target accuracy": recovered, "target low": 1 - rows["UA"].high, "target high": 1 - rows["UA"].low,
            "retained accuracy": rows["RA"].value, "distance": float(distance),
        }
