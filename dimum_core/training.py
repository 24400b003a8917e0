"""The one optimisation loop. Pretraining, judges, unlearning and relearning differ only in objective and data.

Everything random in step k depends on (seed, k) alone, so a checkpoint needs no generator state and a resumed run equals
an unbroken one bit for bit (same machine, threads and number of steps; more steps may ask for a longer warm-up, which is not had).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm.auto import tqdm

from .checking import check_number, check_seed, check_whole
from .data import step_generator
from .errors import SettingError, TrainingError, UnknownName, brief
from .files import check_writable, clear_debris
from .precision import autocast, resolved_precision
from .resuming import OPTIMIZER_STATE, STATE_FILE, Progress, State, alone_in, check_begins, check_weights, digest_of_tensors


@dataclass(frozen=True)
class TrainConfig:
    """How to optimise: AdamW (or SGD with momentum 0.9) with linear warm-up, cosine decay to zero (or none), gradient clip and EMA.

    optimizer: "adamw8bit" is AdamW with moments of 8 bits in place of 32 (Dettmers et al. 2022, arXiv 2110.02861), 2 bytes for
        each weight, not 8. It needs bitsandbytes.
        "nesterov" is SGD for classifiers that begin whitened (airbench, Jordan 2024, arXiv 2404.00498): Nesterov's momentum
        0.85, and vectors, which are biases there, learn 64 times as fast as matrices and decay as slowly.

    precision: "fp32", "bf16", "fp16", or "auto", the fastest that the device computes natively.
    ema_decay: 0 keeps no average. The average warms up as (1 + step) / (10 + step).
    """

    steps: int = 1_000
    batch_size: int = 128
    learning_rate: float = 2e-4
    warmup_steps: int = 0
    decay: bool = True
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    ema_decay: float = 0.999
    precision: str = "auto"
    optimizer: str = "adamw"
    seed: int = 0

    def __post_init__(self):
        for name, least in (("steps", 0), ("batch_size", 1), ("warmup_steps", 0)):
            check_whole(name, getattr(self, name), least)
        check_number("learning_rate", self.learning_rate, 0, above=True)
        for name, most in (("weight_decay", math.inf), ("grad_clip", math.inf), ("ema_decay", math.nextafter(1, 0))):
            check_number(name, getattr(self, name), 0, most)
        check_seed(self.seed)
        if self.precision not in ("auto", "fp32", "bf16", "fp16"):
            raise SettingError(f"precision must be auto, fp32, bf16 or fp16, not {brief(self.precision)}.")
        if self.optimizer not in OPTIMIZER_STATE:
            raise UnknownName("optimizer", self.optimizer, OPTIMIZER_STATE)
        if self.optimizer == "adamw8bit" and find_spec("bitsandbytes") is None:
            raise SettingError("adamw8bit needs bitsandbytes, which is not installed: pip install bitsandbytes, or take adamw.")

    def changed(self, **settings) -> TrainConfig:
        """The same but for these settings; UnknownName if one of them is not a setting."""
        known = [each.name for each in fields(self)]
        for name in settings:
            if name not in known:
                raise UnknownName("setting of a training", name, known)
        return replace(self, **settings)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step 0, 1, ...: linear warm-up, then half a cosine down to zero at `steps`."""
        warm = min(1.0, (step + 1) / (self.warmup_steps + 1))
        if not self.decay:
            return self.learning_rate * warm
        progress = max(0, step - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


class Objective(Protocol):
    """What to minimise. It draws its own batch, as a pure function of (seed, step)."""

    @property
    def fingerprint(self) -> dict: ...  # what determines it: data digests, weights; compared on resume

    def __call__(self, model: nn.Module, seed: int, step: int) -> Tensor: ...


@dataclass
class TrainResult:
    """The averaged weights (the raw ones if there is no average), and the log: one row every few steps."""

    model: nn.Module
    log: pd.DataFrame
    seconds: float
    precision: str


def train(
    model: nn.Module, objective: Objective, config: TrainConfig, *, out: Path | None = None, resume: bool = False,
    evaluate: Callable[[int, nn.Module], dict | None] | None = None, evaluate_every: int | tuple[int, ...] = 0,
    stop: Callable[[dict], bool] | None = None, on_log: Callable[[dict], None] | None = None,
    checkpoint_seconds: float = 60.0, description: str = "training", progress: bool = True,
) -> TrainResult:
    """Minimise an objective; the given model is trained in place, on the accelerator, and the result holds its average; in the end
    it is on the device where it was.

    out: folder for the resumable state; none is kept without it. Only the caller removes its file.
    evaluate: called with (step, averaged model) every `evaluate_every` steps, or after these very
        steps, and after the last; with 0, after the last alone. What it returns, if anything, joins the log.
    stop: told each row that `evaluate` makes; true ends the training early.
    Raises TrainingError at the first loss, gradient or weight that is not finite (what was saved before stays), CheckpointError if
    `out` holds a training with other settings, or holds one at all and `resume` is false, or if another process trains there.
    """
    check_begins(out, resume)
    if out:
        check_writable(out)
    loop = _Loop(model, objective, config, out)
    with alone_in(out if loop.writes else None), torch.random.fork_rng():
        at = loop.begin()
        started, last_saved = time.monotonic() - at.seconds, time.monotonic()
        finished = bool(stop and at.rows and "learning_rate" not in at.rows[-1] and stop(at.rows[-1]))
        bar = tqdm(total=config.steps, initial=at.step, desc=description, unit="step", mininterval=0.5, disable=not progress)
        with bar:
            while at.step < config.steps and not finished:
                loss, grad_norm = loop.step(at.step)
                at.count(loss, time.monotonic() - started)
                bar.update()
                if _due(at.step, max(1, config.steps // 400), config.steps):
                    row = at.log(config.learning_rate_at(at.step - 1), grad_norm)
                    bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
                    if on_log:
                        on_log(row)
                if evaluate and _due(at.step, evaluate_every, config.steps):
                    row = loop.evaluated(evaluate, at)
                    finished = bool(stop and row and stop(row))
                late = time.monotonic() - last_saved > checkpoint_seconds
                if loop.writes and (late or finished or at.step == config.steps):
                    loop.state.save(out, at)
                    last_saved = time.monotonic()
    return TrainResult(loop.finish(at.step), pd.DataFrame(at.rows), at.seconds, loop.precision)


def _due(step: int, every: int | tuple[int, ...], last: int) -> bool:
    return step == last or (step in every if isinstance(every, tuple) else every > 0 and step % every == 0)


class _Loop:
    """A network with all that changes it: optimiser, average, scaler, on the accelerator."""

    def __init__(self, model: nn.Module, objective: Objective, config: TrainConfig, out: Path | None):
        torch.set_flush_denormal(True)  # late in training, denormals slow CPU kernels several times over
        self.accelerator = Accelerator()
        self.out, self.writes = out, bool(out) and self.accelerator.is_main_process
        self.home, device = next(model.parameters()).device, self.accelerator.device
        self.precision = resolved_precision(model, device, config.precision)
        self.model, self.objective, self.config = model.train().to(device), objective, config
        self.optimizer = _optimizer(model, config, fused=device.type in ("cpu", "cuda"))
        self.ema = EMAModel(model.parameters(), decay=config.ema_decay, foreach=True) if config.ema_decay else None
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        layers = hashlib.blake2b(repr(model).encode(), digest_size=16).hexdigest()  # all sizes and rates: dropout has no weight
        objective = {**objective.fingerprint, "network": layers} if out else {}
        self.state = State(model, self.optimizer, self.ema, self.scaler, {"config": asdict(config), "objective": objective})

    def begin(self) -> Progress:
        """Go on from the state in the folder, if there is one; then let several processes share their gradients.

        What a killed process left goes only after `load`, which refuses another training's folder; other processes wait in
        `prepare`.
        """
        at = self.state.load(self.out, self.config.decay)
        if self.writes:
            clear_debris(Path(self.out), STATE_FILE)
        self.wrapped = self.accelerator.prepare(self.model)
        return at

    def step(self, index: int) -> tuple[float, float]:
        """One update; returns loss, the mean over processes, and gradient norm. Several processes take neighbouring batches."""
        config, accelerator = self.config, self.accelerator
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate_at(index) * group.get("rate_factor", 1)
        shard = index * accelerator.num_processes + accelerator.process_index
        torch.manual_seed(step_generator(config.seed, shard, "dropout").initial_seed())
        with autocast(self.model, self.precision):
            loss = self.objective(self.wrapped, config.seed, shard)
        value = accelerator.reduce(loss.detach().float(), "mean").item()  # so that all processes see a bad loss, and stop together
        self._check("loss", value, index)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        grad_norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), config.grad_clip or math.inf))
        if not self.scaler.is_enabled():  # which would skip this step and try smaller ones
            self._check("gradient", grad_norm, index)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema:
            self.ema.step(self.model.parameters())
        return value, grad_norm

    def _check(self, what: str, value: float, index: int) -> None:
        if not math.isfinite(value):
            rate = f"{self.config.learning_rate_at(index):.3g}"
            raise TrainingError(
                f"The {what} became {value} at step {index}: lower the learning rate (it was {rate}) or look for NaN in the data; "
                "what was saved before is intact."
            )

    def evaluated(self, evaluate: Callable[[int, nn.Module], dict | None], at: Progress) -> dict | None:
        """The row that joins the log, if anything was measured."""
        with averaged(self.model, self.ema):
            measured = evaluate(at.step, self.model)
        self.model.train()
        if not measured:
            return None
        at.rows.append({"step": at.step, **measured})
        return at.rows[-1]

    def finish(self, index: int) -> nn.Module:
        """The network with its averaged weights, ready for use, on the device where it was."""
        check_weights(self.model, index)
        if self.ema:
            self.ema.copy_to(self.model.parameters())
        return self.model.eval().to(self.home)


def _optimizer(model: nn.Module, config: TrainConfig, fused: bool) -> torch.optim.Optimizer:
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": fused}
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, **settings)
    if config.optimizer == "nesterov":
        vectors = [each for each in model.parameters() if each.ndim < 2]
        matrices = [each for each in model.parameters() if each.ndim > 1]
        fast = {"params": vectors, "rate_factor": 64, "weight_decay": config.weight_decay / 64}
        return torch.optim.SGD([{"params": matrices}, fast], momentum=0.85, nesterov=True, **settings)
    if config.optimizer == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.AdamW(model.parameters(), **settings)


@contextlib.contextmanager
def averaged(model: nn.Module, ema: EMAModel | None):
    """Within this context the model has its averaged weights and is in evaluation mode."""
    if ema:
        ema.store(model.parameters())
        ema.copy_to(model.parameters())
    model.eval()
    try:
        yield
    finally:
        if ema:
            ema.restore(model.parameters())


def digest_of(model: nn.Module) -> str:
    """A hash of all weights, to tell one network from another on one machine: to resume a training, or not to draw twice."""
    return digest_of_tensors(model.state_dict())
