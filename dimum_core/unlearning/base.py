"""What an unlearning method is, and what it may use: one step of the loop, seen by the method.

A method is a frozen dataclass of its hyper-parameters with `needs`, the data it asks for, and `loss(step)`. It knows nothing
of labels versus prompts, devices, logging or checkpoints. `register` is all that makes it known by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from ..checking import check_kind, check_number, check_whole
from ..data import ImageSet, draw_batch, step_generator
from ..errors import DataError, SettingError, TrainingError, UnknownName, brief
from ..models.conditions import ClassConditions, PromptConditions
from ..models.diffusion import NUM_TIMESTEPS, add_noise, draw_noise

DATA_KINDS = ("forget", "retain", "alternative")
METHODS: dict[str, type] = {}
SHARES, SIZES = ("keep", "share"), ("weight", "retain_weight", "forget_weight", "fisher_weight", "radius", "rate", "preserve")
RANGES = dict.fromkeys(SHARES, (0, 1)) | dict.fromkeys(SIZES, (0,))  # of hyper-parameters that mean the same in every method


class Method(Protocol):
    """What the loop asks of a method."""

    needs: ClassVar[frozenset[str]]  # of DATA_KINDS; it is given no more
    # It may have `trains`, a part of the names of the only weights that train (see ESDx), `edit(step)` in place of training
    # (see UCE), and `prompts_only`, if it makes no sense with class labels.

    def loss(self, step: Step) -> Tensor: ...


def register(name: str) -> Callable[[type], type]:
    """Class decorator: make a method known as `name` to `unlearn`, the tests and the benchmark."""

    def add(method: type) -> type:
        unknown = set(method.needs) - set(DATA_KINDS)
        if unknown:
            raise ValueError(f"{name} needs {', '.join(sorted(unknown))}, but there is only {', '.join(DATA_KINDS)}.")
        holder = METHODS.get(name)
        if holder is not None and holder.__module__ != method.__module__:
            raise SettingError(f"The name {name!r} belongs to a method of {holder.__module__}: give yours another.")
        if not is_dataclass(method):
            raise SettingError(f"{name} is no frozen dataclass, as a method must be: put @dataclass(frozen=True) below @register.")
        METHODS[name] = method
        method.name = name
        return method

    return add


def get_method(method: str | Method, **hyperparameters) -> Method:
    """A method by name with its published hyper-parameters, or as given."""
    if not isinstance(method, str):
        if not hasattr(method, "needs") or not (hasattr(method, "loss") or hasattr(method, "edit")):
            raise SettingError(f"method must be the name of a method, or one with `needs` and a `loss`, not {brief(method)}.")
        if hyperparameters:
            given = ", ".join(hyperparameters)
            raise SettingError(f"{given}: a method that is given whole has its hyper-parameters already; is a name misspelt?")
        return method
    if method not in METHODS:
        raise UnknownName("method", method, METHODS)
    for setting in fields(METHODS[method]):
        if setting.name in hyperparameters:
            _check_like(method, setting.name, hyperparameters[setting.name], setting.default)
    try:
        return METHODS[method](**hyperparameters)
    except TypeError as error:
        known = ", ".join(f.name for f in fields(METHODS[method]))
        wrong = ", ".join(hyperparameters)
        raise TrainingError(f"{method} has the hyper-parameters {known or 'none'}, but was given {wrong}.") from error


def _check_like(method: str, name: str, value: object, default: object) -> None:
    """Refuse a hyper-parameter that is of another kind than its default, or outside of its range."""
    said = f"{name} of {method}"
    if isinstance(default, (bool, str)):
        check_kind(said, value, type(default), "a word" if isinstance(default, str) else "True or False")
    elif isinstance(default, int):
        check_whole(said, value, 1, NUM_TIMESTEPS if name == "sampling_steps" else None)
    elif isinstance(default, float):
        check_number(said, value, *RANGES.get(name, ()))


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
    steps: int = 1
    state: dict = field(default_factory=dict)  # what `prepare` returned
    generator: torch.Generator = field(init=False)

    def __post_init__(self):
        self.generator = step_generator(self.seed, self.index)

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
        """x_t, eps and t for a batch, drawn from this step's stream."""
        eps, t = draw_noise(x, self.generator)
        return add_noise(x, eps, t, self.conditions.alphas_cumprod), eps, t

    def predict(self, x_t: Tensor, t: Tensor, condition: Tensor, original: bool = False) -> Tensor:
        """The student's prediction of the noise, or the frozen original's, which has no gradient."""
        if original:
            with torch.no_grad():
                return self.conditions.predict(self.original, x_t, t, condition.to(self.device))
        return self.conditions.predict(self.model, x_t, t, condition.to(self.device))

    def denoising(self, x: Tensor, condition: Tensor) -> Tensor:
        """L_den: mean |eps - eps(x_t, t, c)|^2 of the student."""
        x_t, eps, t = self.noise(x)
        return (eps - self.predict(x_t, t, condition)).square().mean()

    def retained(self) -> Tensor:
        """L_den(D_r) as in pretraining, a tenth of the conditions dropped to null, so that guidance keeps its footing."""
        x, condition = self.batch("retain")
        return self.denoising(x, self.conditions.dropped(condition, self.generator))

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
        """Conditions with the target in its place: of a filled star, an outline star. With plain classes, the target's label."""
        return self.conditions.as_target(condition)

    def anchored(self, condition: Tensor, anchor: str | int | None = None) -> Tensor:
        """The target's conditions, all with the same other word or class in its place."""
        return self.conditions.anchored(condition, anchor)


def parameters_that_train(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


# Methods that choose a direction themselves ---------------------------------------------------------------------------


def gradient(loss: Tensor, model: nn.Module) -> Tensor:
    """The gradient of a loss by all weights that train, as one vector in float32."""
    weights = [parameter for _, parameter in parameters_that_train(model)]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True)])


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
