"""`unlearn`: one call, any method, on a copy of the pipeline it is given."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from accelerate import Accelerator
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from ..checking import check_apart, check_kind, check_number, check_whole
from ..data import Dataset, ImageSet
from ..data.targets import Wanted, find_target
from ..errors import DataError, TrainingError, brief
from ..evaluation import draw_samples
from ..judges import Judge, PairJudge, identity_of, judge_for
from ..models.conditions import ClassConditions, PromptConditions, conditions_of, image_size
from ..models.diffusion import TIMESTEPS
from ..models.fresh_noise import FRESH_STEPS, with_fresh_noise
from ..models.history import history_of, remember
from ..models.networks import FLOWS, is_kind, latent_shape, network_of
from ..models.sampling import ClassConditionalPipeline, check_data
from ..models.support import check_trainable
from ..precision import as_its_weights, autocast, same_device
from ..resuming import check_begins
from ..training import TrainConfig, TrainResult, digest_of, train
from .adapters import train_only
from .alternatives import build_alternative
from .base import Method, Step
from .choosing import get_method
from .plugin import own_code
from .student import evaluation_interval, finetuning, student

Look = Callable[[int, DiffusionPipeline], dict]  # what is measured along the way, of (step, the pipeline that forgets)
UNTIL_SAMPLES = 32  # of the target, at each look at whether it is time to stop


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
    processes: int = 1  # that train together and take the batches in turn
    state: dict = field(default_factory=dict)

    @classmethod
    def of(
        cls, method: Method, pipe: DiffusionPipeline, conditions: ClassConditions | PromptConditions, data: dict[str, ImageSet],
        config: TrainConfig, about: dict,
    ) -> UnlearningObjective:
        """For a pipeline's network, which nothing changes, or a frozen copy of it where the loop will train."""
        original, accelerator = network_of(pipe), Accelerator()
        if not same_device(original.device, accelerator.device) or original.training:  # else it serves as it is: no step changes it
            original = copy.deepcopy(original).to(accelerator.device).eval().requires_grad_(False)
        shape, processes = latent_shape(pipe), accelerator.num_processes
        return cls(method, original, conditions, data, config.batch_size, shape, config.steps, about, processes)

    @property
    def fingerprint(self) -> dict:
        return {**self.conditions.fingerprint, **self.said}

    @property
    def said(self) -> dict:
        """What a record says of it."""
        digests = {f"{kind}_data": data.digest for kind, data in self.data.items()}
        target = self.conditions.target_name
        return {"method": type(self.method).__name__, **self.settings, **digests, "target": target, **self.about}

    @property
    def settings(self) -> dict:
        return dataclasses.asdict(self.method)

    def step(self, model: nn.Module, seed: int, index: int, timesteps: range = TIMESTEPS) -> Step:
        return Step(
            model, self.original, self.conditions, self.data, self.batch_size, self.latent_shape, seed, index,
            self.steps if self.method.uses_total_steps else None, self.state, timesteps,
        )

    def prepare(self, model: nn.Module, seed: int) -> None:
        """Let the method look at data before the first step, on batches that the loop will not draw: as many as it asks for."""
        steps = [self.step(model, seed, 10**6 + i) for i in range(self.method.prepare_batches)]
        with as_its_weights(model):
            self.state.update(self.method.prepare(steps))

    @contextlib.contextmanager
    def masked(self, model: nn.Module) -> Iterator[None]:
        """Within this context the method's mask, if it has one, is on the gradient that the loop steps by: not on those that the
        method takes itself, nor on those of whoever trains or measures the network later."""
        masks = self.state.get("mask", {})

        def on(weight: Tensor, mask: Tensor) -> None:  # torch's hooks return nothing
            weight.grad.mul_(mask)

        hooks = [
            parameter.register_post_accumulate_grad_hook(functools.partial(on, mask=masks[name]))
            for name, parameter in model.named_parameters() if name in masks
        ]
        yield
        for hook in hooks:
            hook.remove()

    def trace(self, model: nn.Module, config: TrainConfig) -> dict:
        """What the method says of its convergence, in training's precision."""
        with autocast(model, config.precision):
            return self.method.trace(self.step(model, config.seed, 10**7))

    def edit(self, model: nn.Module, seed: int) -> bool:
        """Let the method change the weights itself, if that is its way."""
        step = self.step(model, seed, 0)
        edited = self.method.edit(step)
        if edited:
            self._check_range(step)
        return edited

    def __call__(self, model: nn.Module, seed: int, index: int) -> Tensor:
        step = self.step(model, seed, index, self.timesteps)
        loss = self.method.loss(step)
        if index < self.processes:  # the first batch of each
            self._check_range(step)
            self._check_loss(loss)
        return loss

    @property
    def timesteps(self) -> range:
        return range(self.method.t_min, self.method.t_max)

    def _check_loss(self, loss: object) -> None:
        """Refuse what cannot be minimised: a method of one's own may forget its `return`, or the mean over the batch."""
        if not isinstance(loss, Tensor):
            wrong = brief(loss)
        elif loss.numel() != 1:
            wrong = f"a tensor of shape {tuple(loss.shape)}"
        elif not loss.requires_grad:
            wrong = "a number in which no weight takes part"
        else:
            return
        raise TrainingError(
            f"The loss of {self.method.name} must be one number that depends on the weights, as a tensor, not {wrong}."
        )

    def _check_range(self, step: Step) -> None:
        """Refuse a range of timesteps that no term of the method looks at."""
        if not step.forgets and self.timesteps != TIMESTEPS:
            raise TrainingError(f"{self.method.name} forgets at no timesteps of its own: leave t_min and t_max as they are.")


def method_data(method: Method, data: Dataset, pipe, target: Wanted, seed: int) -> dict[str, ImageSet]:
    """The training data that a method asked for, at the pipeline's size, and no more. What the model has forgotten before is not
    retained: it would be taught again."""
    train_set = data.train.resized(image_size(pipe))
    forget, retain = train_set.only(target), train_set.without(target)
    if isinstance(target, ImageSet) and len(retain) == len(train_set):
        raise DataError(f"{data.name} has none of the images to forget among its training images.")
    check_apart(retain, forget, "retained images are images to forget under another label")
    retain, _ = history_of(pipe).leave_out(retain)
    sets = {"forget": forget, "retain": retain}
    if "alternative" in method.needs:
        sets["alternative"] = build_alternative(method.alternative, method.count, retain, pipe, target, seed)
    sets = {kind: images for kind, images in sets.items() if kind in method.needs}
    target = find_target(target, train_set.class_names)
    for kind, images in sets.items():
        lacking = [part.name for part in target.each if not part.selects(images).any()] if kind == "forget" else []
        if lacking or not len(images):
            name = ", ".join(lacking) or target.name
            raise DataError(f"{data.name} has no {kind} images for the target {name!r}.")
    return sets


def unlearn(
    pipe: DiffusionPipeline, method: str | Method = "dimum", *, target: Wanted, data: Dataset,
    steps: int = 200, learning_rate: float = 1e-4, optimizer: str = "adamw", batch_size: int = 64, seed: int = 0,
    precision: str = "auto", until: float | None = None, judge: Judge | PairJudge | None = None, evaluate: Look | None = None,
    evaluate_every: int | Sequence[int] | None = None, lora_rank: int = 0, gradient_checkpointing: bool = False,
    out: Path | None = None, resume: bool = False, progress: bool = True, **hyperparameters,
) -> DiffusionPipeline:
    """Make a pipeline forget a target. Returns a new pipeline; the one it was given is not touched.

    pipe: one of this project's, or diffusers' StableDiffusionPipeline, StableDiffusionXLPipeline, StableDiffusion3Pipeline or
        FluxPipeline; of a text-to-image pipeline, only the network that denoises unlearns. The last two match flows: methods whose
        loss compares predictions of the noise refuse them.
    target: a class; with prompts, a style, an object, one combination, or a prompt that speaks of one; a list: several of these at
        once, all of one kind, which every method takes; or an image set: just its images, and not their labels. Methods that
        change all that a condition draws refuse those.
    method: a name in METHODS, with `hyperparameters` that differ from the published ones, or a method of your own.
    until: stop early when UA, measured with the judge on 32 samples of the target, reaches this; 0.9, say.
    judge: default, the shipped one of that image size.
    evaluate: called with (step, pipeline) every `evaluate_every` steps (default: a tenth of them), or after the steps that it
        lists; what it returns joins the log. A method that edits the weights, as UCE does, takes no step, and is looked at once.
    lora_rank: train low-rank updates of the attention's matrices in place of all weights, and add them to the weights at the end;
        `models.low_rank.save_adapter` saves them alone, in diffusers' format.
    gradient_checkpointing: a third slower, and needs much less memory. optimizer: "adamw8bit", too, needs less of it.
    out, resume: a folder for the state of the training, to go on from after a kill. The model is not saved there: `save_checkpoint`
        does that.
    What the pipeline was made to forget before is left out of the retained data.
    The result carries `unlearning`: target, settings, steps done, seconds, the forget set, what was left out of the retained data,
    and the log, one row every few steps; where the method traces its convergence, as DiMUM does, the trace is in it too. And it
    carries `history`, all that it has seen and forgotten, against which attacks and evaluations check their data.
    Training happens on the accelerator's device; the result's network is then where the given one is.
    """
    check_trainable(pipe, lora_rank)
    check_kind("data", data, Dataset, "a data set, such as load_dataset('digits')")
    check_whole("steps", steps)
    check_begins(out, resume)
    config = finetuning(steps, batch_size, learning_rate, seed, precision, optimizer)
    evaluate_every = evaluation_interval(evaluate_every, steps, count=10)
    method = get_method(method, **hyperparameters)
    check_data(data, pipe)
    conditions = conditions_of(pipe, target, data.class_names)
    judge = None if until is None else _who_says_when(pipe, conditions, until, judge)
    accuracy = None if judge is None else _unlearning_accuracy(conditions, judge, seed)
    sets = method_data(method, data, pipe, target, seed)
    check_fits(method, pipe, lora_rank)
    history = dataclasses.replace(history_of(pipe).having_seen(*sets.values()), training_set=data.train, weights="raw")
    with student(pipe, lora_rank, gradient_checkpointing, seed) as forgetful:
        train_only(network_of(forgetful), method.trains)
        if until:
            _warn_of_nothing_to_forget(accuracy(0, forgetful)["UA"], until, target)
        about = _made_with(pipe, method, lora_rank, steps, judge) if out else {}
        objective = UnlearningObjective.of(method, pipe, conditions, sets, config, about)
        objective.prepare(network_of(forgetful), seed)
        looks = [lambda step, pipe: objective.trace(network_of(pipe), config), *filter(None, (accuracy, evaluate))]
        with objective.masked(network_of(forgetful)):
            result = _train(remember(forgetful, history), objective, config, looks, until, evaluate_every, out, resume, progress)
    record = _record(objective, result, target, data, pipe)
    return remember(forgetful, history.having_forgotten(conditions.forgotten, record["forget_set"], record))


def check_fits(method: Method, pipe: DiffusionPipeline, lora_rank: int = 0) -> None:
    """Refuse a method that can do nothing with what the pipeline is told, with what its network predicts, or with what trains."""
    if lora_rank and type(method).edit is not Method.edit:
        raise TrainingError(f"{method.name} edits the weights themselves, so no low-rank updates train: leave lora_rank at 0.")
    if method.uses_total_steps and Accelerator().num_processes > 1:
        raise TrainingError(f"{method.name} counts its own steps, and several processes share them out: run it in one process.")
    if method.prompts_only and isinstance(pipe, ClassConditionalPipeline):
        raise TrainingError(f"{method.name} changes what words do, and this pipeline is asked by labels: take another method.")
    if method.compares_noise and is_kind(pipe, *FLOWS):
        raise TrainingError(
            f"{method.name} compares predictions of the noise, and a network of flow matching predicts a velocity: take a method "
            "that trains by the network's own loss, such as dimum or finetune."
        )


def _who_says_when(
    pipe: DiffusionPipeline, conditions: ClassConditions | PromptConditions, until: float, judge: Judge | PairJudge | None
) -> Judge | PairJudge:
    """The judge whose UA says when to stop, found and checked before anything takes long."""
    check_number("until", until, 0, 1)
    if conditions.forgotten.items:
        raise TrainingError("until asks the judge, which cannot recognise single images: pass evaluate= to measure copies.")
    return judge_for(pipe, judge, conditions)


def _unlearning_accuracy(conditions: ClassConditions | PromptConditions, judge: Judge | PairJudge, seed: int) -> Look:
    """UA, as the judge sees it."""
    target = conditions.forgotten
    labels = conditions.asked([target.labels[i % len(target.labels)] for i in range(UNTIL_SAMPLES)])

    def measure(step: int, forgetful: DiffusionPipeline) -> dict:
        images = draw_samples(
            with_fresh_noise(forgetful), labels, seed=seed + 10**6, num_inference_steps=FRESH_STEPS, progress=False
        )
        return {"UA": float((~judge.judge(images).shows(target)).float().mean())}

    return measure


def _warn_of_nothing_to_forget(before: float, until: float, target) -> None:
    """Say that a UA which the model had from the start is no sign of forgetting."""
    if before >= until:
        warnings.warn(
            f"Before any unlearning the judge sees {brief(target)} in {1 - before:.0%} of {UNTIL_SAMPLES} samples that were asked "
            f"for it, so reaching a UA of {until:g} says nothing: train the model longer, or give a judge that knows its images.",
            stacklevel=3,
        )


def _made_with(pipe: DiffusionPipeline, method: Method, lora_rank: int, steps: int, judge: Judge | PairJudge | None) -> dict:
    """What else a folder's training must have in common with this one to be resumed. judge: who says when to stop."""
    total = {"total_steps": steps} if method.uses_total_steps else {}
    asked = {} if judge is None else {"judge": identity_of(judge)}
    return {"start": digest_of(network_of(pipe)), "lora_rank": lora_rank} | total | asked | own_code(method)


def _train(
    forgetful: DiffusionPipeline, objective: UnlearningObjective, config: TrainConfig, looks: list[Look], until: float | None,
    evaluate_every: int | tuple[int, ...], out: Path | None, resume: bool, progress: bool,
) -> TrainResult:
    """Edit the weights, if the method does that, or else train them."""
    def looked_at(step: int, _: nn.Module) -> dict:
        return {key: value for look in looks for key, value in look(step, forgetful).items()}

    edited = objective.edit(network_of(forgetful), config.seed)
    if edited:
        config = dataclasses.replace(config, steps=0, warmup_steps=0)
    result = train(
        network_of(forgetful), objective, config, out=out, resume=resume, progress=progress, evaluate=looked_at,
        evaluate_every=evaluate_every, stop=None if until is None else lambda row: row.get("UA", 0.0) >= until,
        description=f"unlearning by {objective.method.name}",
    )
    if edited and (row := looked_at(0, result.model)):
        result.log = pd.DataFrame([{"step": 0, **row}])
    return result


def _record(objective: UnlearningObjective, result: TrainResult, target, data: Dataset, pipe: DiffusionPipeline) -> dict:
    """What `pipe.unlearning` says."""
    retained = {"retain", "alternative"} & set(objective.data)
    left_out = history_of(pipe).leave_out(data.train.without(target))[1] if retained else ()
    return {
        "target": target, "settings": objective.said, "steps": int(result.log["step"].iloc[-1]) if len(result.log) else 0,
        "seconds": result.seconds, "log": result.log, "forget_set": data.train.only(target), "left_out": left_out,
    }
