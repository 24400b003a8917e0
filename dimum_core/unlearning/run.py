"""`unlearn`: one call, any method, on a copy of the pipeline it is given."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from ..data import Dataset, ImageSet
from ..errors import DataError, TrainingError
from ..sampling import ClassConditionalPipeline
from ..training import TrainConfig, train
from .alternatives import build_alternative
from .base import ClassConditions, Method, Step, get_method


@dataclass
class UnlearningObjective:
    """A method's loss as an objective of the loop."""

    method: Method
    original: nn.Module
    conditions: ClassConditions
    data: dict[str, ImageSet]
    batch_size: int
    latent_shape: tuple[int, int, int]
    state: dict = field(default_factory=dict)

    @property
    def fingerprint(self) -> dict:
        settings = dataclasses.asdict(self.method) if dataclasses.is_dataclass(self.method) else {}
        digests = {f"{kind}_data": data.digest for kind, data in self.data.items()}
        return {"method": type(self.method).__name__, **settings, **digests, "target": self.conditions.target_label}

    def step(self, model: nn.Module, seed: int, index: int) -> Step:
        return Step(
            model, self.original, self.conditions, self.data, self.batch_size, self.latent_shape, seed, index, self.state
        )

    def prepare(self, model: nn.Module, seed: int, steps: int = 64) -> None:
        """Let the method look at the data before the first step, on batches that the loop will not draw."""
        if hasattr(self.method, "prepare"):
            self.state.update(self.method.prepare([self.step(model, seed, 10**6 + i) for i in range(steps)]))
        for name, parameter in model.named_parameters():
            if name in self.state.get("mask", {}):
                mask = self.state["mask"][name]
                parameter.register_hook(lambda gradient, mask=mask: gradient * mask)

    def __call__(self, model: nn.Module, seed: int, index: int) -> Tensor:
        return self.method.loss(self.step(model, seed, index))


def method_data(method: Method, data: Dataset, pipe: ClassConditionalPipeline, target: str | int, seed: int) -> dict[str, ImageSet]:
    """The training data that a method asked for, at the pipeline's size, and no more."""
    train_set = data.train.resized(pipe.image_shape[-1])
    if train_set.class_names != pipe.class_names:
        raise DataError(f"{data.name} has other classes than the pipeline: {', '.join(pipe.class_names)}.")
    retain = train_set.without(target)
    given = {}
    if "forget" in method.needs:
        given["forget"] = train_set.only(target)
    if "retain" in method.needs:
        given["retain"] = retain
    if "alternative" in method.needs:
        given["alternative"] = build_alternative(method.alternative, method.count, retain, pipe, target, seed)
    for kind, images in given.items():
        if not len(images):
            raise DataError(f"{data.name} has no {kind} images for the target {target!r}.")
    return given


def unlearn(
    pipe: ClassConditionalPipeline,
    method: str | Method = "dimum",
    *,
    target: str | int,
    data: Dataset,
    steps: int = 200,
    learning_rate: float = 1e-4,
    batch_size: int = 64,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    evaluate=None,
    evaluate_every: int = 0,
    progress: bool = True,
    precision: str = "auto",
    **hyperparameters,
) -> ClassConditionalPipeline:
    """Make a pipeline forget a class. Returns a new pipeline; the one it was given is not touched.

    method: a name in METHODS, with `hyperparameters` that differ from the published ones, or a method of your own.
    evaluate: called with (step, pipeline) every `evaluate_every` steps; what it returns joins the log.
    The result carries `unlearning`: method, settings, seconds and the log, one row every few steps.
    """
    method = get_method(method, **hyperparameters)
    conditions = ClassConditions.of(pipe, target)
    student, original = copy.deepcopy(pipe.unet), copy.deepcopy(pipe.unet).eval().requires_grad_(False)
    given = method_data(method, data, pipe, target, seed)
    latent_shape = (pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2)
    objective = UnlearningObjective(method, original, conditions, given, batch_size, latent_shape)
    objective.prepare(student, seed)
    result_pipe = with_unet(pipe, student)
    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, warmup_steps=min(10, steps // 10), decay=False,
        ema_decay=0.0, seed=seed, precision=precision,
    )
    if steps < 1:
        raise TrainingError(f"Unlearning needs at least one step, not {steps}.")
    result = train(
        student, objective, config, out=out, resume=resume, evaluate_every=evaluate_every, progress=progress,
        evaluate=None if evaluate is None else lambda step, _: evaluate(step, result_pipe),
        description=f"unlearning by {type(method).__name__}",
    )
    result_pipe.unlearning = {"target": target, "settings": objective.fingerprint, "seconds": result.seconds, "log": result.log}
    return result_pipe


def with_unet(pipe: ClassConditionalPipeline, unet: nn.Module) -> ClassConditionalPipeline:
    """A pipeline like `pipe`, with another network and a scheduler of its own."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    config = pipe.config
    new = ClassConditionalPipeline(unet, scheduler, dict(config.id2label), config.patch_size, config.guidance_scale)
    new.set_progress_bar_config(leave=False)
    return new
