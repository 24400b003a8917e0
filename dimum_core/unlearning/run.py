"""`unlearn`: one call, any method, on a copy of the pipeline it is given."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..checking import check_apart, check_kind, check_number, check_whole
from ..data import Dataset, ImageSet
from ..data.targets import find_target
from ..errors import DataError, TrainingError
from ..evaluation import draw_samples
from ..judges import Judge, PairJudge, check_judge, find_judge
from ..models.conditions import ClassConditions, PromptConditions, conditions_of, image_size
from ..models.history import history_of, remember, with_unet
from ..models.sampling import check_classes, check_pipeline
from ..precision import autocast
from ..training import TrainConfig, digest_of, train
from .adapters import add_lora, merged, train_only
from .alternatives import build_alternative
from .base import Method, Step, get_method


@dataclass
class UnlearningObjective:
    """A method's loss as an objective of the loop."""

    method: Method
    original: nn.Module
    conditions: ClassConditions | PromptConditions
    data: dict[str, ImageSet]
    batch_size: int
    latent_shape: tuple[int, int, int]
    steps: int
    about: dict = field(default_factory=dict)  # what else makes another training, of one that may be resumed
    state: dict = field(default_factory=dict)
    hooks: list = field(default_factory=list)

    @property
    def fingerprint(self) -> dict:
        digests = {f"{kind}_data": data.digest for kind, data in self.data.items()}
        target = self.conditions.target_name
        return {"method": type(self.method).__name__, **self.settings, **digests, "target": target, **self.about}

    @property
    def settings(self) -> dict:
        return dataclasses.asdict(self.method)

    def step(self, model: nn.Module, seed: int, index: int) -> Step:
        return Step(
            model, self.original, self.conditions, self.data, self.batch_size, self.latent_shape, seed, index,
            self.steps if self.method.uses_total_steps else None, self.state,
        )

    def prepare(self, model: nn.Module, seed: int) -> None:
        """Let the method look at data before the first step, on batches that the loop will not draw: as many as it asks for."""
        steps = [self.step(model, seed, 10**6 + i) for i in range(self.method.prepare_batches)]
        self.state.update(self.method.prepare(steps))
        for name, parameter in model.named_parameters():
            if name in self.state.get("mask", {}):
                mask = self.state["mask"][name]
                self.hooks.append(parameter.register_hook(lambda gradient, mask=mask: gradient * mask))

    def release(self) -> None:
        """Take the mask off the gradients again: whoever trains or measures the network next shall see all of them."""
        for hook in self.hooks:
            hook.remove()

    def __call__(self, model: nn.Module, seed: int, index: int) -> Tensor:
        return self.method.loss(self.step(model, seed, index))


def _made_with(method: Method, original: nn.Module, lora_rank: int, steps: int) -> dict:
    """What else a folder's training must have in common with this one to be gone on with."""
    total = {"total_steps": steps} if method.uses_total_steps else {}
    return {"start": digest_of(original), "lora_rank": lora_rank} | total


def method_data(method: Method, data: Dataset, pipe, target: str | int | ImageSet, seed: int) -> dict[str, ImageSet]:
    """The training data that a method asked for, at the pipeline's size, and no more. What the model has forgotten before is not
    retained: it would be taught again."""
    train_set = data.train.resized(image_size(pipe))
    retain, name = train_set.without(target), find_target(target, train_set.class_names).name
    if isinstance(target, ImageSet) and len(retain) == len(train_set):
        raise DataError(f"{data.name} has none of the images to forget among its training images.")
    given, forget = {}, train_set.only(target)
    check_apart(retain, forget, "retained images are images to forget under another label")
    retain, _ = history_of(pipe).leave_out(retain)
    if "forget" in method.needs:
        given["forget"] = forget
    if "retain" in method.needs:
        given["retain"] = retain
    if "alternative" in method.needs:
        given["alternative"] = build_alternative(method.alternative, method.count, retain, pipe, target, seed)
    for kind, images in given.items():
        if not len(images):
            raise DataError(f"{data.name} has no {kind} images for the target {name!r}.")
    return given


def unlearn(
    pipe: DiffusionPipeline,
    method: str | Method = "dimum",
    *,
    target: str | int | ImageSet,
    data: Dataset,
    steps: int = 200,
    learning_rate: float = 1e-4,
    batch_size: int = 64,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    until: float | None = None,
    judge: Judge | PairJudge | None = None,
    evaluate: Callable[[int, DiffusionPipeline], dict] | None = None,
    evaluate_every: int | None = None,
    progress: bool = True,
    precision: str = "auto",
    lora_rank: int = 0,
    gradient_checkpointing: bool = False,
    **hyperparameters,
) -> DiffusionPipeline:
    """Make a pipeline forget a target. Returns a new pipeline; the one it was given is not touched.

    pipe: one of this project's, or diffusers' StableDiffusionPipeline; of a text-to-image pipeline, only the unet unlearns.
    target: a class; with prompts, a style, an object, one combination, or a prompt that speaks of one; or an image set: just its
        images, and not their labels. Methods that change all that a condition draws refuse those.
    method: a name in METHODS, with `hyperparameters` that differ from the published ones, or a method of your own.
    until: stop early when UA, measured with the judge on 32 samples of the target, reaches this; 0.9, say.
    judge: default, the shipped one of that image size.
    evaluate: called with (step, pipeline) every `evaluate_every` steps (default: a tenth of them); what it returns joins the log.
    lora_rank: train low-rank updates of the attention's matrices in place of all weights, and add them to the weights at the end.
    gradient_checkpointing: a third slower, and needs much less memory.
    What the pipeline was made to forget before is left out of the retained data.
    The result carries `unlearning`: target, settings, steps done, seconds, the forget set, what was left out of the retained data,
    and the log, one row every few steps; where the method traces its convergence, as DiMUM does, the trace is in it too. And it
    carries `history`, all that it has seen and forgotten, against which attacks and evaluations check their data.
    Training happens on the accelerator's device; the result's unet is then where the given one is.
    """
    check_pipeline(pipe)
    check_kind("data", data, Dataset, "a data set, such as load_dataset('digits')")
    check_whole("steps", steps)
    check_whole("lora_rank", lora_rank, 0)
    if until is not None:
        check_number("until", until, 0, 1)
    if evaluate_every is not None:
        check_whole("evaluate_every", evaluate_every)
    config = TrainConfig(
        steps=steps, batch_size=batch_size, learning_rate=learning_rate, warmup_steps=min(10, steps // 10), decay=False,
        ema_decay=0.0, seed=seed, precision=precision,
    )
    method = get_method(method, **hyperparameters)
    check_classes(data, pipe)
    conditions = conditions_of(pipe, target, data.class_names)
    judge = None if until is None else _judge_of(pipe, conditions, judge)
    given = method_data(method, data, pipe, target, seed)
    if method.prompts_only and isinstance(conditions, ClassConditions):
        raise TrainingError(f"{method.name} changes what words do, and this pipeline is asked by labels: take another method.")
    home, device = pipe.unet.device, Accelerator().device  # the second is where the loop will train
    student, original = (copy.deepcopy(pipe.unet).to(device).requires_grad_(True) for _ in range(2))
    original.eval().requires_grad_(False)
    if lora_rank:
        add_lora(student, lora_rank, seed)
    train_only(student, method.trains)
    if gradient_checkpointing:
        student.enable_gradient_checkpointing()
    latent_shape = (pipe.unet.config.in_channels, *[pipe.unet.config.sample_size] * 2)
    about = _made_with(method, original, lora_rank, steps) if out else {}
    objective = UnlearningObjective(method, original, conditions, given, batch_size, latent_shape, steps, about)
    objective.prepare(student, seed)
    if method.edit(objective.step(student, seed, 0)):
        steps, config = 0, dataclasses.replace(config, steps=0, warmup_steps=0)
    history = dataclasses.replace(history_of(pipe).having_seen(*given.values()), training_set=data.train, weights="raw")
    forgetful = remember(with_unet(pipe, student), history)
    measures = _measures(objective, forgetful, config, judge, evaluate)
    result = train(
        student, objective, config, out=out, resume=resume, progress=progress,
        evaluate=lambda step, _: {k: v for m in measures for k, v in m(step).items()},
        evaluate_every=evaluate_every or max(1, steps // 10),
        stop=None if until is None else lambda row: row.get("UA", 0.0) >= until,
        description=f"unlearning by {method.name}",
    )
    objective.release()
    if lora_rank:
        forgetful = with_unet(pipe, merged(student))
    forgetful.unet.to(home).requires_grad_(True)
    forget, (_, left_out) = data.train.only(target), history_of(pipe).leave_out(data.train.without(target))
    record = {
        "target": target, "settings": objective.fingerprint, "steps": int(result.log["step"].iloc[-1]) if steps else 0,
        "seconds": result.seconds, "log": result.log, "forget_set": forget, "left_out": left_out,
    }
    return remember(forgetful, history.having_forgotten(conditions.forgotten, forget, record))


def _judge_of(pipe: DiffusionPipeline, conditions: ClassConditions | PromptConditions, judge) -> Judge | PairJudge:
    """Who says when to stop, found and checked before anything takes long."""
    if conditions.forgotten.items:
        raise TrainingError("until asks the judge, which knows no single images: pass evaluate= to measure copies.")
    judge = find_judge(pipe) if judge is None else judge
    check_judge(judge, conditions)
    return judge


def _measures(objective, forgetful, config, judge, evaluate) -> list[Callable[[int], dict]]:
    """What to measure along the way: the method's own trace, UA if it decides when to stop, and what the caller asked for."""
    seed = config.seed

    def traced(step: int) -> dict:
        """On the same data and noise each time, which no step of training draws, and in training's precision."""
        with autocast(forgetful.unet.device, config.precision):
            return objective.method.trace(objective.step(forgetful.unet, seed, 10**7))

    measures = [traced]
    if judge is not None:
        conditions = objective.conditions
        wanted = conditions.forgotten
        asked = conditions.asked([wanted.labels[i % len(wanted.labels)] for i in range(32)])

        def forgotten(step: int) -> dict:
            images = draw_samples(forgetful, asked, seed=seed + 10**6, num_inference_steps=10, progress=False)
            return {"UA": float((~judge.judge(images).shows(wanted)).float().mean())}

        measures.append(forgotten)
    if evaluate is not None:
        measures.append(lambda step: evaluate(step, forgetful))
    return measures
