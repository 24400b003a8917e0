"""`unlearn`: one call, any method, on a copy of the pipeline it is given."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
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
    steps: int
    state: dict = field(default_factory=dict)

    @property
    def fingerprint(self) -> dict:
        settings = dataclasses.asdict(self.method) if dataclasses.is_dataclass(self.method) else {}
        digests = {f"{kind}_data": data.digest for kind, data in self.data.items()}
        return {"method": type(self.method).__name__, **settings, **digests, "target": self.conditions.target_label}

    def step(self, model: nn.Module, seed: int, index: int) -> Step:
        return Step(
            model, self.original, self.conditions, self.data, self.batch_size, self.latent_shape, seed, index, self.steps,
            self.state,
        )

    def prepare(self, model: nn.Module, seed: int, batches: int = 16) -> None:
        """Let the method look at the data before the first step, on batches that the loop will not draw."""
        if hasattr(self.method, "prepare"):
            self.state.update(self.method.prepare([self.step(model, seed, 10**6 + i) for i in range(batches)]))
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
    until: float | None = None,
    evaluate: Callable[[int, ClassConditionalPipeline], dict] | None = None,
    evaluate_every: int | None = None,
    progress: bool = True,
    precision: str = "auto",
    **hyperparameters,
) -> ClassConditionalPipeline:
    """Make a pipeline forget a class. Returns a new pipeline; the one it was given is not touched.

    method: a name in METHODS, with `hyperparameters` that differ from the published ones, or a method of your own.
    until: stop early when UA, measured with the shipped judge on 32 samples of the target, reaches this; 0.9, say.
    evaluate: called with (step, pipeline) every `evaluate_every` steps (default: a tenth of them); what it returns joins the log.
    The result carries `unlearning`: target, settings, steps done, seconds, the forget set (an attack checks its data against it),
    and the log, one row every few steps; where the method traces its convergence, as DiMUM does, the trace is in it too.
    """
    if steps < 1:
        raise TrainingError(f"Unlearning needs at least one step, not {steps}.")
    method = get_method(method, **hyperparameters)
    conditions = ClassConditions.of(pipe, target)
    device = Accelerator().device  # where the loop will train
    student, original = (copy.deepcopy(pipe.unet).to(device) for _ in range(2))
    original.eval().requires_grad_(False)
    given = method_data(method, data, pipe, target, seed)
    latent_shape = (pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2)
    objective = UnlearningObjective(method, original, conditions, given, batch_size, latent_shape, steps)
    objective.prepare(student, seed)
    forgetful = with_unet(pipe, student)
    measures = _measures(objective, forgetful, target, seed, until, evaluate)
    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, warmup_steps=min(10, steps // 10), decay=False,
        ema_decay=0.0, seed=seed, precision=precision,
    )
    result = train(
        student, objective, config, out=out, resume=resume, progress=progress,
        evaluate=(lambda step, _: {k: v for m in measures for k, v in m(step).items()}) if measures else None,
        evaluate_every=evaluate_every or max(1, steps // 10),
        stop=None if until is None else lambda row: row.get("UA", 0.0) >= until,
        description=f"unlearning by {getattr(method, 'name', type(method).__name__)}",
    )
    forgetful.unlearning = {
        "target": target, "settings": objective.fingerprint, "steps": int(result.log["step"].iloc[-1]),
        "seconds": result.seconds, "log": result.log, "forget_set": data.train.only(target),
    }
    return forgetful


def _measures(objective, forgetful, target, seed, until, evaluate) -> list[Callable[[int], dict]]:
    """What to measure along the way: the method's own trace, UA if it decides when to stop, and what the caller asked for."""
    measures = []
    if hasattr(objective.method, "trace"):  # on the same data and noise each time, which no step of training draws
        measures.append(lambda step: objective.method.trace(objective.step(forgetful.unet, seed, 10**7)))
    if until is not None:
        from ..evaluation import draw_samples, find_judge

        judge, label = find_judge(forgetful), objective.conditions.target_label

        def forgotten(step: int) -> dict:
            images = draw_samples(forgetful, [target] * 32, seed=seed + 10**6, num_inference_steps=10, progress=False)
            return {"UA": float((judge.judge(images).labels != label).float().mean())}

        measures.append(forgotten)
    if evaluate is not None:
        measures.append(lambda step: evaluate(step, forgetful))
    return measures


def with_unet(pipe: ClassConditionalPipeline, unet: nn.Module) -> ClassConditionalPipeline:
    """A pipeline like `pipe`, with another network and a scheduler of its own."""
    scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    config = pipe.config
    new = ClassConditionalPipeline(unet, scheduler, dict(config.id2label), config.patch_size, config.guidance_scale)
    new.set_progress_bar_config(leave=False)
    return new
