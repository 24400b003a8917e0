"""What a model draws, judged: right class, unlearning and retained accuracy, and fidelity, each with its interval."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .checkpoints import CHECKPOINT_FOLDER, find_checkpoint, loading_errors, quiet_diffusers, read_card, shipped_checkpoints
from .conditions import draw
from .data import Dataset, ImageSet, load_dataset, step_generator
from .errors import CheckpointError, DataError
from .judge import Judge, Verdict
from .metrics import Interval, accuracy, fidelity, nearest_neighbours, wilson_interval
from .sampling import ClassConditionalPipeline
from .training import autocast, native_precision

_DRAWN: dict[bytes, Tensor] = {}
MOST_KEPT = 4096  # images of one drawing that are remembered


def load_judge(checkpoint) -> Judge:
    """A judge in float32, from a folder or by the name of a shipped one. Never unpickles."""
    folder = find_checkpoint(checkpoint)
    with loading_errors(folder), quiet_diffusers():
        judge = Judge.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    return judge.to(memory_format=torch.channels_last).eval()


def find_judge(pipe: ClassConditionalPipeline) -> Judge:
    """The shipped judge of the images that a pipeline draws: of the same size and the same classes."""
    channels, side, _ = pipe.image_shape
    return _shipped_judge(side, channels, pipe.class_names)


@lru_cache(maxsize=4)
def _shipped_judge(image_size: int, image_channels: int, class_names: tuple[str, ...]) -> Judge:
    judges = [name for name in shipped_checkpoints() if read_card(CHECKPOINT_FOLDER / name).get("kind") == "judge"]
    for name in judges:
        judge = load_judge(name)
        if (judge.config.image_size, judge.config.image_channels, judge.class_names) == (
            image_size, image_channels, class_names
        ):
            return judge
    raise CheckpointError(
        f"No shipped judge ({', '.join(judges) or 'there are none'}) looks at {image_size} x {image_size} images of these "
        "classes: train one with `dimum train`, and pass it as judge=."
    )


@torch.no_grad()
def draw_samples(
    pipe: ClassConditionalPipeline, labels, *, seed: int = 0, batch_size: int = 125, progress: bool = True, **sampling
) -> Tensor:
    """Draw one image for each label, in batches: float32, N x C x H x W in [-1, 1], on the CPU.

    Batch k starts from noise that depends on (seed, k) alone, so two models given the same labels, seed and batch size
    start from the same noise and can be compared image by image. The network runs in the fastest precision of the device. What
    the same weights have drawn before in this process, with the same settings, is not drawn again.
    sampling: what the pipeline takes: guidance_scale, num_inference_steps.
    """
    key = _drawing(pipe, labels, seed, batch_size, sampling)
    if key in _DRAWN:
        return _DRAWN[key].clone()
    batches = [labels[i:i + batch_size] for i in range(0, len(labels), batch_size)]
    shown = pipe._progress_bar_config if hasattr(pipe, "_progress_bar_config") else {}
    pipe.set_progress_bar_config(disable=True)
    try:
        with autocast(pipe.device, native_precision(pipe.device)):
            drawn = torch.cat([
                draw(pipe, batch, generator=step_generator(seed, k), **sampling).cpu()
                for k, batch in enumerate(tqdm(batches, desc="sampling", unit="batch", disable=not progress, leave=False))
            ])
    finally:
        pipe.set_progress_bar_config(**shown)
    if len(drawn) <= MOST_KEPT:
        _DRAWN[key] = drawn.clone()
        if len(_DRAWN) > 32:
            _DRAWN.pop(next(iter(_DRAWN)))
    return drawn


def _drawing(pipe: ClassConditionalPipeline, labels, seed: int, batch_size: int, sampling: dict) -> bytes:
    """All that determines what is drawn, as a hash."""
    settings = (list(labels), seed, batch_size, sorted(sampling.items()), dict(pipe.config), dict(pipe.scheduler.config))
    digest = hashlib.blake2b(repr(settings).encode(), digest_size=16)
    digest.update(type(pipe.scheduler).__name__.encode())
    for parameter in pipe.unet.parameters():
        digest.update(parameter.detach().float().cpu().contiguous().numpy())
    return digest.digest()


@dataclass(frozen=True)
class Evaluation:
    """The measurements of one model.

    table: one row a metric: value, low, high (95 % interval), n.
    per_class: accuracy of each class, with its interval.
    drawn: with a target, what its label draws now: the share of each class, and of none of these.
    provenance: what the numbers depend on.
    """

    table: pd.DataFrame
    per_class: pd.DataFrame
    drawn: pd.DataFrame | None
    provenance: dict
    images: Tensor
    verdict: Verdict

    def __getitem__(self, metric: str) -> float:
        return float(self.table.loc[metric, "value"])

    def as_dict(self) -> dict:
        table = {name: {k: float(v) for k, v in row.items()} for name, row in self.table.to_dict("index").items()}
        per_class = {name: float(row["value"]) for name, row in self.per_class.to_dict("index").items()}
        drawn = {} if self.drawn is None else {"drawn_for_target": self.drawn["value"].to_dict()}
        return {"metrics": table, "per_class_accuracy": per_class, **drawn, "provenance": self.provenance}

    def _repr_html_(self) -> str:
        return self.table.to_html(float_format=lambda value: f"{value:.3f}")


def evaluate(
    pipe: ClassConditionalPipeline,
    *,
    target: str | None = None,
    data: Dataset | None = None,
    judge: Judge | None = None,
    per_class: int = 50,
    guidance_scale: float | None = None,
    num_inference_steps: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Evaluation:
    """Draw `per_class` samples of every class and measure them.

    target: the class that should be forgotten; gives UA = 1 - accuracy on it, RA = accuracy on the others, and the worst of them.
    data: whose test split is the reference of fidelity (without the target, if there is one); none: no fidelity.
    judge: default, the shipped one of that image size. A sample that it says shows none of the classes is never right.
    """
    judge = find_judge(pipe) if judge is None else judge
    target_label = None if target is None else int(pipe.label_tensor([target])[0])
    labels = torch.arange(len(pipe.class_names)).repeat(per_class)
    scale = pipe.config.guidance_scale if guidance_scale is None else guidance_scale
    images = draw_samples(
        pipe, labels.tolist(), seed=seed, progress=progress, guidance_scale=scale, num_inference_steps=num_inference_steps
    )
    verdict = judge.judge(images)
    provenance = {
        "extractor": f"judge {judge.config.image_size}px", "weights": "ema", "sampler": type(pipe.scheduler).__name__,
        "steps": num_inference_steps, "guidance_scale": scale, "seed": seed, "resize": "none", "target": target,
    }
    rows = accuracies(verdict.labels, labels, target_label)
    rows["forced accuracy"] = accuracy(verdict.forced_labels, labels)
    if data is not None:
        kept = labels != target_label if target is not None else labels >= 0
        reference = reference_set(data, judge, target)
        provenance |= {"reference": data.name, "split": "test"}
        measured = fidelity(verdict.features[kept], judge.judge(reference.images).features, provenance)
        rows |= measured.intervals()
    each, drawn = _per_class(verdict.labels, labels, pipe.class_names), None
    if target is not None:
        worst = each.drop(index=pipe.class_names[target_label])["value"].idxmin()
        rows[f"worst class ({worst})"] = wilson_interval(round(each.loc[worst, "value"] * per_class), per_class)
        drawn = shares(verdict.labels[labels == target_label], pipe.class_names)
    return Evaluation(_table(rows), each, drawn, provenance, images, verdict)


def shares(judged: Tensor, class_names: tuple[str, ...]) -> pd.DataFrame:
    """How often each class, and none of these, was seen; judged: int64, N, -1 for none."""
    names = dict(enumerate(class_names)) | {-1: "none of these"}
    return _table({name: wilson_interval(int((judged == label).sum()), len(judged)) for label, name in names.items()})


def guidance_sweep(
    pipe: ClassConditionalPipeline, target: str, scales=(1.0, 2.0, 3.0, 5.0), *, per_class: int = 20, **settings
) -> pd.DataFrame:
    """UA and RA at several guidance scales: forgetting measured at one scale can hide or invent the class.

    settings: as for `evaluate`. One row a scale.
    """
    rows = []
    for scale in scales:
        table = evaluate(pipe, target=target, per_class=per_class, guidance_scale=scale, **settings).table
        rows.append({"guidance_scale": scale} | {
            f"{metric}{suffix}": table.loc[metric, column]
            for metric in ("UA", "RA") for suffix, column in (("", "value"), (" low", "low"), (" high", "high"))
        })
    return pd.DataFrame(rows)


def unconditional_share(
    pipe: ClassConditionalPipeline,
    target: str,
    *,
    count: int = 200,
    judge: Judge | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Interval:
    """The target's share among samples drawn without a condition: avoiding the label leaves it, removal lowers it."""
    judge = find_judge(pipe) if judge is None else judge
    images = draw_samples(pipe, [None] * count, seed=seed, progress=progress, guidance_scale=1.0)
    label = int(pipe.label_tensor([target])[0])
    return wilson_interval(int((judge.judge(images).labels == label).sum()), count)


def nearest_images(images: Tensor, reference: ImageSet) -> tuple[Tensor, Tensor]:
    """For each image the nearest of a set: root-mean-square distance of pixels in [-1, 1], and its index. Small means copied.

    images: N x C x H x W; the reference is averaged to that size.
    """
    flat = reference.resized(images.shape[-1]).images.flatten(1)
    distances, indices = nearest_neighbours(images.flatten(1).numpy(), flat.numpy())
    return torch.from_numpy(distances[:, 0]) / flat.shape[1] ** 0.5, torch.from_numpy(indices[:, 0])


def accuracies(judged: Tensor, labels: Tensor, target_label: int | None) -> dict[str, Interval]:
    """Accuracy over all samples and, with a target, UA and RA; judged and labels: int64, N."""
    right = judged == labels
    rows = {"accuracy": wilson_interval(int(right.sum()), len(right))}
    if target_label is not None:
        on_target = labels == target_label
        rows["UA"] = wilson_interval(int((~right[on_target]).sum()), int(on_target.sum()))
        rows["RA"] = wilson_interval(int(right[~on_target].sum()), int((~on_target).sum()))
    rows["none of these"] = wilson_interval(int((judged < 0).sum()), len(judged))
    return rows


def reference_set(data: Dataset, judge: Judge, target: str | None) -> ImageSet:
    """The held-out images that samples are compared with, at the judge's size and without the target."""
    if data.class_names != judge.class_names:
        raise DataError(f"{data.name} has other classes than the judge: {', '.join(judge.class_names)}.")
    held_out = data.test.resized(judge.config.image_size)
    return held_out if target is None else held_out.without(target)


def _table(rows: dict[str, Interval]) -> pd.DataFrame:
    return pd.DataFrame({name: {"value": r.value, "low": r.low, "high": r.high, "n": r.n} for name, r in rows.items()}).T


def _per_class(judged: Tensor, labels: Tensor, class_names: tuple[str, ...]) -> pd.DataFrame:
    return _table({
        name: wilson_interval(int((judged[labels == i] == i).sum()), int((labels == i).sum()))
        for i, name in enumerate(class_names)
    })


def default_data(pipe: ClassConditionalPipeline) -> Dataset:
    """The data set without download that a pipeline's classes belong to."""
    return load_dataset("digits" if pipe.image_shape[0] == 1 else "cifar10-mini")
