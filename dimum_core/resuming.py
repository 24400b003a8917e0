"""What a training needs to go on where it stopped, as one safetensors file; nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .checking import check_kind
from .errors import CheckpointError, TrainingError, brief
from .files import locked, write_atomically

STATE_FILE, LOCK_FILE = "training.safetensors", ".training.lock"
OPTIMIZER_STATE = {  # what each keeps for a weight
    "adamw": ("step", "exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",), "nesterov": ("momentum_buffer",),
    "adamw8bit": ("step", "state1", "state2", "qmap1", "qmap2", "absmax1", "absmax2"),
}
# What older states do not say; they are gone on with all the same.
NOT_NOTED_AT_FIRST = (
    "network", "class_names", "noise_levels", "prediction_type", "text_encoder", "text_encoder_2", "text_encoder_3",
    "judge", "reconstructed_by",
)


@dataclass
class Progress:
    """Where a training stands: steps done, seconds taken, the log, and the losses since its last row."""

    step: int = 0
    seconds: float = 0.0
    rows: list[dict] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def count(self, loss: float, seconds: float) -> None:
        """One step more."""
        self.step, self.seconds = self.step + 1, seconds
        self.losses.append(loss)

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


@dataclass
class State:
    """Everything a training needs to go on, and the settings that must be the same then.

    Where these say which weights it began with, those that are frozen are not saved: beside low-rank updates they are gigabytes.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    ema: EMAModel | None
    scaler: torch.amp.GradScaler
    fingerprint: dict

    @functools.cached_property
    def frozen(self) -> dict[str, Tensor]:
        """The weights that are the same whenever this training begins."""
        known = "start" in self.fingerprint["objective"]
        return {name: weight for name, weight in self.model.named_parameters() if known and not weight.requires_grad}

    @functools.cached_property
    def digest_of_frozen(self) -> str:
        return digest_of_tensors(self.frozen)

    def save(self, out: Path, at: Progress) -> None:
        """Write it whole or not at all; TrainingError, and the former file stays, if a weight is not finite."""
        check_weights(self.model, at.step)
        parameters = dict(self.model.named_parameters())
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items() if name not in self.frozen}
        for name, parameter in parameters.items():
            for key, value in self.optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value)  # 8-bit Adam counts its steps in an int
        if self.ema:
            tensors |= {f"ema.{name}": p for name, p in zip(parameters, self.ema.shadow_params, strict=True)}
        content = {
            "fingerprint": self.fingerprint,
            "progress": asdict(at),
            "scaler": self.scaler.state_dict(),
            "ema_step": self.ema.optimization_step if self.ema else 0,
            "frozen": self.digest_of_frozen,
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write_atomically(Path(out) / STATE_FILE, save(tensors, metadata={"dimum": json.dumps(content)}))

    def load(self, out: Path | None, strict_steps: bool) -> Progress:
        path = Path(out) / STATE_FILE if out else None
        if path is None or not path.exists():
            return Progress()
        tensors, content = read_state(path)
        self._compare(path, content["fingerprint"], strict_steps, content["progress"]["step"])
        self.fingerprint["config"]["warmup_steps"] = content["fingerprint"]["config"]["warmup_steps"]  # what these weights have had
        done, asked = content["progress"]["step"], self.fingerprint["config"]["steps"]
        if done > asked:
            raise CheckpointError(f"{path} has {done} steps behind it, and {asked} are asked for: ask for more, or another folder.")
        if content.get("frozen", self.digest_of_frozen) != self.digest_of_frozen:  # older files have these weights in them
            raise CheckpointError(f"{path} was made with other frozen weights than the model has now: load it as it was then.")
        self._restore(tensors, content)
        saved = content["progress"]
        return Progress(saved["step"], saved["seconds"], saved["rows"], saved["losses"])

    def _compare(self, path: Path, saved: dict, strict_steps: bool, done: int) -> None:
        now = json.loads(json.dumps(self.fingerprint))
        free = set() if strict_steps else {"steps", "warmup_steps"}
        if done < max(each["config"].get("warmup_steps", 0) for each in (now, saved)):  # later the rate is the same
            free.discard("warmup_steps")
        free |= {"judge"} - now["objective"].keys()  # an unlearning has one only where somebody says when to stop
        for part in ("config", "objective"):
            for key in now[part] | saved[part]:
                before, after = saved[part].get(key), now[part].get(key)
                if key in NOT_NOTED_AT_FIRST and key not in saved[part]:
                    continue
                if key not in saved[part]:
                    raise CheckpointError(f"{path} does not say its {key}, as older versions did not: begin in another folder.")
                if before != after and key not in free:
                    hashed = key == "judge" or (re.fullmatch(r"[0-9a-f]{32}", f"{before}") and isinstance(after, str))
                    asked = f"{key} = {brief(before)}, and {brief(after)} is asked for now"
                    what = f"{key} other than is given now" if hashed else asked  # a hash tells a reader nothing
                    raise CheckpointError(f"{path} was made with {what}: use the same settings, or another folder.")

    def _restore(self, tensors: dict[str, Tensor], content: dict) -> None:
        prefix = "model."
        self.model.load_state_dict(self.frozen | {k[len(prefix):]: v for k, v in tensors.items() if k.startswith(prefix)})
        optimizer = self.fingerprint["config"]["optimizer"]
        for name, parameter in self.model.named_parameters():
            keys = [key for key in OPTIMIZER_STATE[optimizer] if f"{key}.{name}" in tensors]  # none, if it is frozen
            found = {key: tensors[f"{key}.{name}"] for key in keys}
            self.optimizer.state[parameter] = {key: _like(parameter, value) for key, value in found.items()}
            if optimizer == "adamw8bit" and found:
                self.optimizer.state[parameter]["step"] = int(found["step"])
        if self.ema:
            self.ema.shadow_params = [_like(p, tensors[f"ema.{name}"]) for name, p in self.model.named_parameters()]
            self.ema.optimization_step = content["ema_step"]
        if content["scaler"]:
            self.scaler.load_state_dict(content["scaler"])


def check_begins(out: Path | None, resume: bool) -> None:
    """Refuse a folder that holds a training which nobody asked to go on with, or a model, or where another process trains; to be
    asked before anything takes long."""
    if out is None:
        return
    check_kind("out", out, (str, os.PathLike), "a folder")
    has_state = (Path(out) / STATE_FILE).exists()
    if has_state and not resume:
        raise CheckpointError(
            f"{Path(out)} already holds a training: continue it with --resume (resume=True), or choose another folder."
        )
    if not has_state and any((Path(out) / name).exists() for name in ("model_index.json", "config.json")):
        begun = f", and no {STATE_FILE} to go on from" if resume else ""
        raise CheckpointError(f"{Path(out)} already holds a model, which would be overwritten{begun}: choose another folder.")
    if (Path(out) / LOCK_FILE).exists() and os.environ.get("RANK", "0") == "0":  # of several processes the first holds it
        with alone_in(Path(out)):
            pass


@contextlib.contextmanager
def alone_in(out: Path | None) -> Iterator[None]:
    """Keep a folder from a second training while this one runs there: each would overwrite what the other saves."""
    if out is None:
        yield
        return
    path = Path(out) / LOCK_FILE
    with locked(path, wait=False) as free:
        if not free:
            raise CheckpointError(f"Another process is training in {Path(out)}: wait until it is done, or choose another folder.")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows removes it by itself, and only then
                path.unlink()


def _like(parameter: Tensor, saved: Tensor) -> Tensor:
    """A saved tensor on a parameter's device and in its memory layout, without which fused optimisers mix up its elements."""
    if saved.shape != parameter.shape:  # a count of steps; a table of 8-bit values
        return saved.to(parameter.device if parameter.is_cuda else "cpu")
    return torch.empty_like(parameter, dtype=saved.dtype, requires_grad=False).copy_(saved)


def digest_of_tensors(named: Mapping[str, Tensor]) -> str:
    """A hash of names and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in named.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def check_weights(model: nn.Module, step: int) -> None:
    """Refuse weights that overflowed, although loss and gradient were finite."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise TrainingError(
                f"The weights {name} are no longer finite at step {step}: lower the learning rate; what was saved before is intact."
            )


def read_state(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors and settings of a saved training; CheckpointError if the file is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            content = json.loads(file.metadata()["dimum"])
            return {key: file.get_tensor(key) for key in file.keys()}, content  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): delete it and start this training again.") from error
