"""What an unlearning method is, and what it may use: one step of the loop, seen by the method.

A method is a frozen dataclass of its hyper-parameters that extends `Method`. It knows nothing of labels versus prompts, devices,
logging or checkpoints. `register` is all that makes it known by name.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..checking import check_entry
from ..data import ImageSet, draw_batch, step_generator
from ..errors import DataError, SettingError, TrainingError
from ..models.conditions import ClassConditions, PromptConditions
from ..models.diffusion import NUM_TIMESTEPS, TIMESTEPS, draw_noise
from ..precision import in_fp16

DATA_KINDS = ("forget", "retain", "alternative")
METHODS: dict[str, type[Method]] = {}


def ranged(default: float, low: float = -math.inf, high: float = math.inf, **settings) -> Any:
    """A hyper-parameter that must lie in [low, high]: `weight: float = ranged(1.0, low=0)`. Other whole numbers are at least 1."""
    return field(default=default, metadata={"low": low, "high": high}, **settings)


@dataclass(frozen=True)
class Everyones:
    """The hyper-parameters that every method has.

    t_min, t_max: forgetting terms draw their timesteps from t_min <= t < t_max; what is retained, and what `prepare` measures, is
        drawn at every t. After Park and Park 2025, arXiv 2510.17917, who forget at chosen times only.
    """

    t_min: int = ranged(0, 0, NUM_TIMESTEPS - 1, kw_only=True)
    t_max: int = ranged(NUM_TIMESTEPS, 1, NUM_TIMESTEPS, kw_only=True)


class Method(Everyones):
    """What the loop asks of a method, with defaults for all but its loss: `@dataclass(frozen=True) class Mine(Method)`.

    A class that does not extend this one gets the defaults of what it leaves out from `register`.

    name: as it is registered, or of its class.
    needs: the data that it asks for, of `DATA_KINDS`; it is given no more. alternative, count: which, and how many, alternative
        data are made for a method that needs them (see `build_alternative`).
    trains: a part of the names of the only weights that train, such as "attn2"; all do by default.
    prompts_only: it makes no sense where the pipeline is asked by class labels.
    compares_noise: its loss has predictions of the noise in it (`step.predict`), so that networks of flow matching, which predict
        a velocity, are refused. False: it trains by the network's own loss alone (`step.denoising`, `step.retained`).
    prepare_batches: how many steps `prepare` is given. uses_total_steps: it reads `step.steps`, as SFR-on's decay does, so that a
        training is not resumed towards another number of steps.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]] = frozenset()
    alternative: ClassVar[str] = "class"
    count: ClassVar[int] = 512
    trains: ClassVar[str] = ""
    prompts_only: ClassVar[bool] = False
    compares_noise: ClassVar[bool] = True
    prepare_batches: ClassVar[int] = 16
    uses_total_steps: ClassVar[bool] = False

    def __init_subclass__(cls, **settings):
        super().__init_subclass__(**settings)
        cls.name = cls.__name__

    def loss(self, step: Step) -> Tensor:
        """What the loop minimises: a scalar with its graph."""
        raise NotImplementedError(f"{self.name} has no loss.")

    def prepare(self, steps: list[Step]) -> dict[str, Any]:
        """Look at data before the first step, on batches that the loop will not draw. The result is every step's `state`; in
        it, `mask` may hold a tensor for the name of a weight, by which the gradient of the loss is multiplied."""
        return {}

    def edit(self, step: Step) -> bool:
        """Change the weights in closed form, and say so: then nothing is trained."""
        return False

    def trace(self, step: Step) -> dict[str, float]:
        """What to log of the method's own convergence, on the same data and noise each time, which no step of training draws."""
        return {}


def register(name: str) -> Callable[[type], type]:
    """Class decorator: make a method known as `name` to `unlearn`, the tests and the benchmark."""

    def add(method: type) -> type:
        complete(method)
        unknown = set(method.needs) - set(DATA_KINDS)
        if unknown:
            raise SettingError(f"{name} needs {', '.join(sorted(unknown))}, but there is only {', '.join(DATA_KINDS)}.")
        check_entry("a method", name, method, METHODS)
        if not does_something(method):
            raise SettingError(f"{name} has no `loss`: say what the loop shall minimise (or `edit` the weights in closed form).")
        METHODS[name] = method
        method.name = name
        return method

    return add


def complete(method: type) -> None:
    """Give a class that does not extend `Method` what it leaves out."""
    shared = {**vars(Everyones), **vars(Method)}
    defaults = {"name": method.__name__} | {key: value for key, value in shared.items() if not key.startswith("__")}
    for key, value in defaults.items():
        if not hasattr(method, key):
            setattr(method, key, value)


def does_something(method: type) -> bool:
    return method.loss is not Method.loss or method.edit is not Method.edit


@dataclass
class Step:
    """One step of the loop, as a method sees it: the student, a frozen original, its data, and a random stream of its own."""

    model: nn.Module
    original: nn.Module
    conditions: ClassConditions | PromptConditions
    data: dict[str, ImageSet]
    batch_size: int
    latent_shape: tuple[int, int, int]
    seed: int
    index: int
    total_steps: int | None = None  # of the loop, for a method that says that it uses them
    state: dict = field(default_factory=dict)  # what `prepare` returned
    timesteps: range = TIMESTEPS  # of the forgetting terms
    forgets: bool = field(init=False, default=False)  # whether one of them has drawn a timestep
    generator: torch.Generator = field(init=False)

    def __post_init__(self):
        self.generator = step_generator(self.seed, self.index)

    @property
    def steps(self) -> int:
        """How many steps the loop takes in all."""
        if self.total_steps is None:
            raise TrainingError("This method reads step.steps: let it say so by uses_total_steps = True.")
        return self.total_steps

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def batch(self, kind: str) -> tuple[Tensor, Tensor]:
        """A batch of `forget`, `retain` or `alternative` data: what the network sees, and its conditions."""
        if kind not in self.data:
            raise DataError(f"This method did not ask for {kind} data: add it to its `needs`.")
        seed = self.seed + DATA_KINDS.index(kind)
        images, labels = draw_batch(self.data[kind], self.batch_size, seed, self.index)
        condition = self.conditions.of_labels(labels, seed, self.index, partial=kind == "retain")
        return self.conditions.encode(images).to(self.device), condition.to(self.device)

    def noise(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x_t, eps and t for a batch, drawn from this step's stream, at timesteps at which the method forgets."""
        eps, t = draw_noise(x, self.generator, self.within(TIMESTEPS))
        return self.conditions.schedule.add_noise(x, eps, t), eps, t

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor, original: bool = False) -> Tensor:
        """The student's prediction of the noise, or the frozen original's, which has no gradient."""
        if original:
            with torch.no_grad():
                return self.conditions.predict(self.original, x_t, t, condition.to(self.device))
        return self.conditions.predict(self.model, x_t, t, condition.to(self.device))

    def error(self, x: Tensor, eps: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """The student's squared error on x noised by eps, B x C x H x W, in what it predicts itself: noise, image or velocity."""
        return self.conditions.denoising_error(self.model, x, eps, t, condition.to(self.device))

    def denoising(self, x: Tensor, condition: Tensor) -> Tensor:
        """L_den: mean |eps - eps(x_t, t, c)|^2 of the student, or the same of what it predicts in place of the noise."""
        return self._denoising(x, condition, self.within(TIMESTEPS))

    def retained(self) -> Tensor:
        """L_den(D_r) as in pretraining, a tenth of the conditions dropped to null, so that guidance keeps its footing."""
        x, condition = self.batch("retain")
        return self._denoising(x, self.conditions.dropped(condition, self.generator), TIMESTEPS)

    def _denoising(self, x: Tensor, condition: Tensor, timesteps: range) -> Tensor:
        eps, t = draw_noise(x, self.generator, timesteps)
        return self.error(x, eps, t, condition).mean()

    def within(self, timesteps: Sequence[int]) -> Sequence[int]:
        """Those of some timesteps at which the method forgets, in their order; TrainingError if there are none."""
        self.forgets = True
        if timesteps is TIMESTEPS:
            return self.timesteps
        if not (found := [t for t in timesteps if t in self.timesteps]):
            raise TrainingError(f"No timestep of {list(timesteps)} is from {self.timesteps.start} to {self.timesteps.stop - 1}: "
                                "widen t_min and t_max.")
        return found

    def target(self, count: int) -> Tensor:
        """Conditions of the target: of a style, with every object, drawn evenly."""
        return self.conditions.target(count, self.generator).to(self.device)

    def null(self, count: int) -> Tensor:
        return self.conditions.null(count).to(self.device)

    def others(self, count: int) -> Tensor:
        """Conditions other than the target's, drawn evenly."""
        return self.conditions.others(count, self.generator).to(self.device)

    def instead(self, condition: Tensor) -> Tensor:
        """The target's conditions, each with another in its place: of an outline star, a star in some other style."""
        return self.conditions.instead(condition, self.generator).to(self.device)

    def as_target(self, condition: Tensor) -> Tensor:
        """Conditions with the target in its place: of a filled star, an outline star. With plain classes, the target's label; of
        several targets, each in turn."""
        return self.conditions.as_target(condition, self.index)

    def anchored(self, condition: Tensor, anchor: str | int | None = None) -> Tensor:
        """The target's conditions, all with the same other word or class in its place."""
        return self.conditions.anchored(condition, anchor)


def parameters_that_train(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


# Methods that choose a direction themselves ---------------------------------------------------------------------------


def gradient(loss: Tensor, model: nn.Module) -> Tensor:
    """The gradient of a loss by all weights that train, as one vector of their precision.

    In fp16, where most of it would be too small to be told from zero, it comes from the largest multiple of the loss that fits.
    """
    if isinstance(model, DistributedDataParallel):
        raise TrainingError("This method takes gradients itself, and several processes do not share those: run it in one process.")
    weights = [parameter for _, parameter in parameters_that_train(model)]
    for power in (16, 12, 8, 4) if in_fp16(loss.device) else ():
        found = _gradient(loss * 2.0**power, weights, retain_graph=True) / 2.0**power
        if found.isfinite().all():
            return found
    return _gradient(loss, weights)


def _gradient(loss: Tensor, weights: list[nn.Parameter], **settings) -> Tensor:
    parts = torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True, **settings)
    return torch.cat([part.flatten() for part in parts])


def follow(direction: Tensor, model: nn.Module, value: Tensor) -> Tensor:
    """A loss of the given value whose gradient is `direction`: how a method with its own direction stays in the one loop."""
    weights = torch.cat([parameter.flatten() for _, parameter in parameters_that_train(model)])
    surrogate = (weights * direction).sum()
    return surrogate - surrogate.detach() + value.detach()


@contextlib.contextmanager
def shifted(model: nn.Module, shift: Tensor) -> Iterator[None]:
    """Within this context the weights that train are moved by `shift`, and come back exactly."""
    weights = [parameter for _, parameter in parameters_that_train(model)]
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight, move in zip(weights, shift.split([w.numel() for w in weights]), strict=True):
            weight.add_(move.view_as(weight))
    torch.clear_autocast_cache()  # it holds low-precision copies of the weights as they were
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
        torch.clear_autocast_cache()
