"""The one optimisation loop. Pretraining, judges, unlearning and relearning differ only in objective and data.

Everything random in step k depends on (seed, k) alone, so a checkpoint needs no generator state and a resumed run equals
an unbroken one bit for bit (same machine, same number of threads).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from tqdm.auto import tqdm

from .checking import check_number, check_seed, check_whole
from .data import step_generator
from .errors import CheckpointError, SettingError, TrainingError, UnknownName, brief
from .files import check_writable, clear_debris, write_atomically
from .precision import autocast, resolved_precision

STATE_FILE = "training.safetensors"
OPTIMIZER_STATE = {"adamw": ("step", "exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}  # what each keeps for a weight


@dataclass(frozen=True)
class TrainConfig:
    """How to optimise: AdamW (or SGD with momentum 0.9) with linear warm-up, cosine decay to zero (or none), gradient clip and EMA.

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


@dataclass
class _Progress:
    """Where a training stands: steps done, seconds taken, the log, and the losses since its last row."""

    step: int = 0
    seconds: float = 0.0
    rows: list[dict] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def log(self, learning_rate: float, grad_norm: float) -> dict:
        self.rows.append({
            "step": self.step,
            "loss": sum(self.losses) / len(self.losses),
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "seconds": round(self.seconds, 3),
        })
        self.losses.clear()
        return self.rows[-1]


def train(
    model: nn.Module,
    objective: Objective,
    config: TrainConfig,
    *,
    out: Path | None = None,
    resume: bool = False,
    evaluate: Callable[[int, nn.Module], dict | None] | None = None,
    evaluate_every: int = 0,
    stop: Callable[[dict], bool] | None = None,
    on_log: Callable[[dict], None] | None = None,
    checkpoint_seconds: float = 60.0,
    description: str = "training",
    progress: bool = True,
) -> TrainResult:
    """Minimise an objective; the given model is trained in place, on the accelerator, and the result holds its average; in the end
    it is on the device where it was.

    out: folder for the resumable state; none is kept without it. Its file is removed by nobody but the caller.
    evaluate: called with (step, averaged model) every `evaluate_every` steps; what it returns, if anything, joins the log.
    stop: told each row that `evaluate` makes; true ends the training early.
    Raises TrainingError at the first non-finite loss (the last checkpoint stays), CheckpointError if `out` holds a
    training with other settings, or holds one at all and `resume` is false.
    """
    if out:
        check_writable(out)
    accelerator = Accelerator()
    device = accelerator.device
    precision = resolved_precision(device, config.precision)
    torch.set_flush_denormal(True)  # late in training, denormals slow CPU kernels several times over
    home = next(model.parameters()).device
    model.train().to(device)
    optimizer = _optimizer(model, config, fused=device.type in ("cpu", "cuda"))
    ema = EMAModel(model.parameters(), decay=config.ema_decay, foreach=True) if config.ema_decay else None
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    state = _State(model, optimizer, ema, scaler, {"config": asdict(config), "objective": objective.fingerprint})
    at = state.load(out, resume, config.decay)
    # Not before `load`, which refuses a folder that another training may be writing to; other processes wait in `prepare`.
    if out and accelerator.is_main_process:
        clear_debris(Path(out), STATE_FILE)
    wrapped = accelerator.prepare(model)
    started = last_saved = time.monotonic() - at.seconds
    bar = tqdm(
        total=config.steps, initial=at.step, desc=description, unit="step", mininterval=0.5, disable=not progress
    )
    finished = bool(stop and at.rows and stop(at.rows[-1]))
    with torch.random.fork_rng(), bar:
        while at.step < config.steps and not finished:
            loss, grad_norm = _step(wrapped, objective, optimizer, scaler, config, precision, at.step, accelerator)
            if ema:
                ema.step(model.parameters())
            at.step, at.seconds = at.step + 1, time.monotonic() - started
            at.losses.append(loss)
            bar.update()
            if _due(at.step, max(1, config.steps // 400), config.steps):
                row = at.log(config.learning_rate_at(at.step - 1), grad_norm)
                bar.set_postfix(loss=f"{row['loss']:.4f}", refresh=False)
                if on_log:
                    on_log(row)
            if evaluate and evaluate_every and _due(at.step, evaluate_every, config.steps):
                with averaged(model, ema):
                    measured = evaluate(at.step, model)
                if measured:
                    at.rows.append({"step": at.step, **measured})
                finished = bool(stop and measured and stop(at.rows[-1]))
                model.train()
            late = time.monotonic() - last_saved > checkpoint_seconds
            if out and accelerator.is_main_process and (late or finished or at.step == config.steps):
                state.save(out, at)
                last_saved = time.monotonic()
    if ema:
        ema.copy_to(model.parameters())
    return TrainResult(model.eval().to(home), pd.DataFrame(at.rows), at.seconds, precision)


def _optimizer(model: nn.Module, config: TrainConfig, fused: bool) -> torch.optim.Optimizer:
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": fused}
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, **settings)
    return torch.optim.AdamW(model.parameters(), **settings)


def _due(step: int, every: int, last: int) -> bool:
    return step % every == 0 or step == last


def _step(model, objective, optimizer, scaler, config, precision, step, accelerator) -> tuple[float, float]:
    """One update; returns loss, the mean over processes, and gradient norm. Several processes take neighbouring batches."""
    for group in optimizer.param_groups:
        group["lr"] = config.learning_rate_at(step)
    shard = step * accelerator.num_processes + accelerator.process_index
    torch.manual_seed(step_generator(config.seed, shard).initial_seed())  # for dropout
    with autocast(accelerator.device, precision):
        loss = objective(model, config.seed, shard)
    value = accelerator.reduce(loss.detach().float(), "mean").item()  # so that all processes see a bad loss, and stop together
    if not math.isfinite(value):
        raise TrainingError(
            f"The loss became {value} at step {step}: lower the learning rate (it was {config.learning_rate_at(step):.3g}) "
            "or look for NaN in the data; the last checkpoint is intact."
        )
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip or math.inf)
    scaler.step(optimizer)
    scaler.update()
    return value, float(grad_norm)


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


# Resumable state ----------------------------------------------------------------------------------------------------


@dataclass
class _State:
    """Everything a training needs to go on, as one safetensors file (nothing is ever unpickled)."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: EMAModel | None
    scaler: torch.amp.GradScaler
    fingerprint: dict

    def save(self, out: Path, at: _Progress) -> None:
        parameters = dict(self.model.named_parameters())
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = value
        if self.ema:
            tensors |= {f"ema.{name}": p for name, p in zip(parameters, self.ema.shadow_params, strict=True)}
        content = {
            "fingerprint": self.fingerprint,
            "progress": asdict(at),
            "scaler": self.scaler.state_dict(),
            "ema_step": self.ema.optimization_step if self.ema else 0,
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_atomically(Path(out) / STATE_FILE, save(tensors, metadata={"dimum": json.dumps(content)}))

    def load(self, out: Path | None, resume: bool, strict_steps: bool) -> _Progress:
        path = Path(out) / STATE_FILE if out else None
        if path is None or not path.exists():
            return _Progress()
        if not resume:
            raise CheckpointError(
                f"{path.parent} already holds a training: continue it with --resume (resume=True), or choose another folder."
            )
        tensors, content = read_state(path)
        self._compare(path, content["fingerprint"], strict_steps)
        self._restore(tensors, content)
        saved = content["progress"]
        return _Progress(saved["step"], saved["seconds"], saved["rows"], saved["losses"])

    def _compare(self, path: Path, found: dict, strict_steps: bool) -> None:
        wanted = json.loads(json.dumps(self.fingerprint))
        for part in ("config", "objective"):
            for key in wanted[part] | found[part]:
                a, b = found[part].get(key), wanted[part].get(key)
                if a != b and (key != "steps" or strict_steps):
                    raise CheckpointError(
                        f"{path} was made with {key} = {a!r}, and {b!r} is asked for now: "
                        "use the same settings, or another folder."
                    )

    def _restore(self, tensors: dict[str, Tensor], content: dict) -> None:
        prefix = "model."
        self.model.load_state_dict({k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)})
        for name, parameter in self.model.named_parameters():
            self.optimizer.state[parameter] = {
                key: _like(parameter, tensors[f"{key}.{name}"], scalar=key == "step")
                for key in OPTIMIZER_STATE[self.fingerprint["config"]["optimizer"]] if f"{key}.{name}" in tensors  # not if frozen
            }
        if self.ema:
            self.ema.shadow_params = [_like(p, tensors[f"ema.{name}"]) for name, p in self.model.named_parameters()]
            self.ema.optimization_step = content["ema_step"]
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])


def _like(parameter: Tensor, saved: Tensor, scalar: bool = False) -> Tensor:
    """A saved tensor on a parameter's device and in its memory layout, without which fused optimisers mix up its elements."""
    if scalar:
        return saved.to(parameter.device if parameter.is_cuda else "cpu")
    return torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)


def digest_of(model: nn.Module) -> str:
    """A hash of all weights, to tell one network from another on one machine: to resume a training, or not to draw twice."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def read_state(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and settings of a saved training; CheckpointError if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()["dimum"])
            return {key: file.get_tensor(key) for key in file.keys()}, content  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): delete it and start this training again.") from error
