"""What a model draws, judged: right class, unlearning and retained accuracy, and fidelity, each with its interval."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import Tensor
from tqdm.auto import tqdm

from .checking import check_apart, check_kind, check_seed, check_whole
from .data import Dataset, ImageSet, step_generator
from .data.targets import Wanted, find_target
from .errors import DataError, SettingError
from .judges import Judge, PairJudge, Verdict, accuracies, judge_for
from .judges.counting import as_table, drawn_for
from .judges.finding import size_of
from .metrics import Interval, accuracy, copied_items, fidelity, nearest_neighbours, per_class_accuracy, wilson_interval
from .models.conditions import ClassConditions, PromptConditions, conditions_of, draw, image_size
from .models.fresh_noise import FRESH_STEPS, with_fresh_noise
from .models.history import history_of
from .models.low_rank import has_attached
from .models.networks import network_of, networks_in, placed
from .models.sampling import ClassConditionalPipeline, check_pipeline, check_sampling, default_guidance
from .models.support import check_supported
from .models.text_to_image import TextToImagePipeline
from .precision import autocast, in_fp16
from .training import digest_of

_DRAWN: dict[bytes, Tensor] = {}
FEWEST = 6  # samples, or held-out images, of which fidelity compares each with its five nearest neighbours
PIXELS_AT_ONCE = 2**20
MOST_KEPT, MOST_HASHED = 256_000_000, 100_000_000  # bytes of all drawings that are remembered; weights


def at_once(pipe: DiffusionPipeline, most: int = 125) -> int:
    """How many images to draw at a time: `most`, or as few as have a million pixels, since activations go with the pixels."""
    return max(1, min(most, PIXELS_AT_ONCE // image_size(pipe) ** 2))


@contextmanager
def _decoding_in_full(pipe: DiffusionPipeline) -> Iterator[None]:
    """Within this context an autoencoder that overflows in fp16, as Stable Diffusion XL's does, decodes in its own precision."""
    vae = getattr(pipe, "vae", None)
    if vae is None or not vae.config.get("force_upcast") or not in_fp16(vae.device):
        yield
        return
    decode = vae.decode

    def in_full(latents: Tensor, *more, **named):
        with torch.autocast(vae.device.type, enabled=False):
            return decode(latents.to(vae.dtype), *more, **named)

    vae.decode = in_full
    try:
        yield
    finally:
        del vae.decode


@contextmanager
def drawing(pipe: DiffusionPipeline) -> Iterator[None]:
    """Within this context a pipeline draws on the accelerator, in the device's fastest precision, without its own progress bar."""
    bar = vars(pipe).get("_progress_bar_config", {})
    networks = [] if getattr(pipe, "hf_device_map", None) else networks_in(pipe)
    pipe.set_progress_bar_config(disable=True)
    try:
        with placed(networks, Accelerator().device), autocast(network_of(pipe)), _decoding_in_full(pipe):
            yield
    finally:
        pipe.set_progress_bar_config(**bar)


@torch.no_grad()
def draw_samples(
    pipe: DiffusionPipeline, labels, *, seed: int = 0, batch_size: int | None = None, progress: bool = True, **sampling
) -> Tensor:
    """Draw one image for each label or prompt, in batches: float32, N x C x H x W in [-1, 1], on the CPU.

    Batch k starts from noise that depends on (seed, k) alone, so two models given the same labels, seed and batch size start from
    the same noise and can be compared image by image. The network runs in the fastest precision of the device. What the same
    weights have drawn before in this process, with the same settings, is not drawn again. The pipeline is then where it was.
    seed: take another one than a training had, whose step k draws from the same stream as batch k here.
    batch_size: default, 125, and fewer of images above 91 x 91 pixels. sampling: what the pipeline takes: guidance_scale,
        num_inference_steps.
    """
    check_pipeline(pipe)
    check_kind("labels", labels, (list, tuple, range, Tensor, np.ndarray), "a list of classes or prompts")
    if not len(labels):
        raise SettingError("labels must name at least one class or prompt to draw, and is empty.")
    batch_size = at_once(pipe) if batch_size is None else batch_size
    check_whole("batch_size", batch_size)
    check_seed(seed)
    given = {name: value for name, value in sampling.items() if value is not None}
    check_sampling(given.get("num_inference_steps", 1), given.get("guidance_scale", 1.0))
    labels = labels.tolist() if isinstance(labels, (Tensor, np.ndarray)) else list(labels)
    key = _key(pipe, labels, seed, batch_size, sampling)
    if key in _DRAWN:
        return _DRAWN[key].clone()
    batches = [labels[i:i + batch_size] for i in range(0, len(labels), batch_size)]
    bar = tqdm(batches, desc="sampling", unit="batch", disable=not progress, leave=False)
    with drawing(pipe):
        images = torch.cat([draw(pipe, batch, generator=step_generator(seed, k), **sampling).cpu() for k, batch in enumerate(bar)])
    if key is not None:
        _keep(key, images)
    return images


def _keep(key: bytes, images: Tensor) -> None:
    """Remember a drawing, and forget the oldest ones that leave it no room."""
    if images.nbytes > MOST_KEPT:
        return
    _DRAWN[key] = images.clone()
    while sum(kept.nbytes for kept in _DRAWN.values()) > MOST_KEPT:
        _DRAWN.pop(next(iter(_DRAWN)))


def _key(pipe: DiffusionPipeline, labels, seed: int, batch_size: int, sampling: dict) -> bytes | None:
    """Everything that determines what is drawn, as a hash. None if the network is so large that hashing costs as much as drawing,
    if a hook, an attached adapter or somebody's own code takes part, or if a setting is neither a number nor a word."""
    networks = networks_in(pipe)
    if sum(weight.numel() for network in networks for weight in network.parameters()) > MOST_HASHED:
        return None
    plain = all(isinstance(value, (int, float, str, type(None))) for value in sampling.values())
    parts = [module for network in networks for module in network.modules()]
    if not plain or any(part._forward_hooks or part._forward_pre_hooks or has_attached(part) for part in parts):
        return None
    if not all(map(_is_known, (pipe, pipe.scheduler, *parts, *(part.processor for part in parts if hasattr(part, "processor"))))):
        return None
    sampler, digests = (type(pipe.scheduler).__name__, dict(pipe.scheduler.config)), [digest_of(network) for network in networks]
    about = (labels, seed, batch_size, sorted(sampling.items()), dict(pipe.config), sampler, digests)
    return hashlib.blake2b(repr(about).encode(), digest_size=16).digest()


def _is_known(part) -> bool:
    """Whether the code of a part is what its class and its weights say: a defence of one's own may have the original's weights."""
    home = type(part).__module__.partition(".")[0]
    return home in ("dimum_core", "diffusers", "transformers", "torch") and "forward" not in vars(part)


@dataclass(frozen=True)
class Evaluation:
    """The measurements of one model.

    table: one row for each metric: value, low, high (95 % interval), n.
    per_class: accuracy of each class, with its interval. provenance: what the numbers depend on.
    drawn: with a target, what its label draws now: the share of each class, and of none of these.
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
        table = {  # JSON has no NaN
            name: {k: None if pd.isna(v) else float(v) for k, v in row.items()} for name, row in self.table.to_dict("index").items()
        }
        per_class = {name: float(row["value"]) for name, row in self.per_class.to_dict("index").items()}
        drawn = {} if self.drawn is None else {"drawn_for_target": self.drawn["value"].to_dict()}
        return {"metrics": table, "per_class_accuracy": per_class, **drawn, "provenance": self.provenance}

    def _repr_html_(self) -> str:
        return self.table.to_html(float_format=lambda value: f"{value:.3f}")


def evaluate(
    pipe: DiffusionPipeline, *, target: Wanted | None = None, data: Dataset | None = None, judge: Judge | PairJudge | None = None,
    per_class: int = 50, guidance_scale: float | None = None, num_inference_steps: int = FRESH_STEPS,
    scheduler: SchedulerMixin | None = None, seed: int = 0, progress: bool = True,
) -> Evaluation:
    """Draw `per_class` samples of every class and measure them.

    target: what should be forgotten; gives UA = 1 - accuracy on it, RA = accuracy on the other classes, and the worst of them; with
        styles and objects also IRA and CRA (see `accuracies`). A list: several at once, with a UA of each and one of all.
    data: whose test split is the reference of fidelity (without the target, if there is one); none: no fidelity.
    judge: default, the shipped one of that image size. A sample that, by its verdict, shows none of the classes is never right.
    scheduler: the sampler; default, Euler ancestral with fresh noise in each step. `pipe.scheduler` is the pipeline's own.
    seed: as in `draw_samples`.
    """
    check_supported(pipe)
    check_whole("per_class", per_class)
    judge = judge_for(pipe, judge)
    conditions = conditions_of(pipe, target, judge.class_names)
    if target is not None and conditions.forgotten.items:
        raise DataError("A judge cannot recognise single images: measure with copying_rate how often they are copied.")
    if target is not None and not len(conditions.forgotten.others):
        raise DataError("There is no class beside the target, so nothing is retained to be measured: leave the target out.")
    reference = None if data is None else _unseen_reference(pipe, data, judge, target)
    _check_enough(reference, per_class, conditions)
    labels = torch.arange(len(conditions.class_names)).repeat(per_class)
    scale = default_guidance(pipe) if guidance_scale is None else guidance_scale
    sampler, asked = with_fresh_noise(pipe, scheduler), conditions.asked(labels.tolist())
    settings = {"guidance_scale": scale, "num_inference_steps": num_inference_steps}
    images = draw_samples(sampler, asked, seed=seed, progress=progress, **settings)
    verdict, kind = judge.judge(images), type(sampler.scheduler).__name__
    provenance = {
        "extractor": f"judge {size_of(judge, pipe)}px", "weights": history_of(pipe).weights, "sampler": kind,
        "steps": num_inference_steps, "guidance_scale": scale, "seed": seed, "resize": "none",
        "target": None if target is None else conditions.forgotten.said,
        **({} if reference is None else {"reference": data.name, "split": "test"}),
    }
    features = None if reference is None else judge.judge(reference.images).features
    return _measured(images, labels, verdict, features, conditions, provenance)


def _unseen_reference(pipe: DiffusionPipeline, data: Dataset, judge: Judge | PairJudge, target: Wanted | None) -> ImageSet:
    """The reference of fidelity, of which the model has learnt nothing."""
    check_kind("data", data, Dataset, "a data set, such as load_dataset('digits')")
    reference = reference_set(data, judge, target, size_of(judge, pipe))
    check_apart(reference, history_of(pipe), "reference images are among those that this model was trained on")
    return reference


def _check_enough(reference: ImageSet | None, per_class: int, conditions: ClassConditions | PromptConditions) -> None:
    """Refuse, before the drawing, what has too few images for its nearest neighbours to mean anything."""
    kept = len(conditions.class_names) if conditions.given_target is None else len(conditions.given_target.others)
    if reference is not None and kept * per_class < FEWEST:
        raise DataError(f"Fidelity needs at least {FEWEST} samples, and these are {kept * per_class}: raise per_class (--count).")
    if reference is not None and len(reference) < FEWEST:
        there = f"{reference.name} has {len(reference)} that may serve"
        raise DataError(
            f"Fidelity needs at least {FEWEST} held-out images, and {there}: give more, hold out more of them, or leave --data out "
            "(in Python, data=), and all but fidelity is measured."
        )


def _measured(
    images: Tensor, labels: Tensor, verdict: Verdict, reference: Tensor | None, conditions: ClassConditions | PromptConditions,
    provenance: dict,
) -> Evaluation:
    """The figures of judged samples, of which each class has the same number.

    labels: what was asked for. reference: features of held-out images, for fidelity.
    """
    names, target = conditions.class_names, conditions.given_target
    rows = accuracies(verdict, labels, target)
    rows["forced accuracy"] = accuracy(verdict.forced_labels, labels)
    if reference is not None:
        kept = labels >= 0 if target is None else ~target.among(labels)
        rows |= fidelity(verdict.features[kept], reference, provenance).intervals()
    each, drawn = per_class_accuracy(verdict.labels, labels, names), None
    if target is not None:
        worst, per_class = each.drop(index=[names[label] for label in target.labels])["value"].idxmin(), len(labels) // len(names)
        rows[f"worst class ({worst})"] = wilson_interval(round(each.loc[worst, "value"] * per_class), per_class)
        drawn = drawn_for(target, verdict, labels)
    return Evaluation(as_table(rows), each, drawn, provenance, images, verdict)


def guidance_sweep(
    pipe: ClassConditionalPipeline, target: Wanted, scales=(1.0, 2.0, 3.0, 5.0), *, per_class: int = 20, **settings
) -> pd.DataFrame:
    """UA and RA at several guidance scales: forgetting measured at one scale can hide or invent the class.

    settings: as for `evaluate`. One row for each scale.
    """
    check_kind("scales", scales, (list, tuple), "a list of guidance scales")
    rows = []
    for scale in scales:
        table = evaluate(pipe, target=target, per_class=per_class, guidance_scale=scale, **settings).table
        rows.append({"guidance_scale": scale} | {
            f"{metric}{suffix}": table.loc[metric, column]
            for metric in ("UA", "RA") for suffix, column in (("", "value"), (" low", "low"), (" high", "high"))
        })
    return pd.DataFrame(rows)


def unconditional_share(
    pipe: ClassConditionalPipeline | TextToImagePipeline, target: Wanted, *, count: int = 200, judge: Judge | None = None,
    seed: int = 0, progress: bool = True,
) -> Interval:
    """The target's share among samples drawn without a condition: avoiding the label leaves it, removal lowers it."""
    check_whole("count", count)
    judge = judge_for(pipe, judge)
    settings = {"guidance_scale": 1.0, "num_inference_steps": FRESH_STEPS}
    images = draw_samples(with_fresh_noise(pipe), [None] * count, seed=seed, progress=progress, **settings)
    shown = judge.judge(images).shows(find_target(target, judge.class_names))
    return wilson_interval(int(shown.sum()), count)


def nearest_images(images: Tensor, reference: ImageSet) -> tuple[Tensor, Tensor]:
    """For each image the nearest of a set: root-mean-square distance of pixels in [-1, 1], and its index. Small means copied.

    images: N x C x H x W; the reference is averaged to that size.
    """
    check_kind("images", images, Tensor, "a tensor, N x C x H x W in [-1, 1]")
    check_kind("reference", reference, ImageSet, "an image set, such as load_dataset('digits').train")
    flat = reference.resized(images.shape[-1]).images.flatten(1)
    distances, indices = nearest_neighbours(images.flatten(1).numpy(), flat.numpy())
    return torch.from_numpy(distances[:, 0]) / flat.shape[1] ** 0.5, torch.from_numpy(indices[:, 0])


def copying_rate(images: Tensor, of: ImageSet, among: ImageSet, ratio: float = 1 / 3) -> Interval:
    """Share of images that copy one of the images `of`, and no other of the training set `among`: see `metrics.copied_items`.

    images: N x C x H x W, such as samples of the labels of those images; both sets are averaged to that size.
    """
    check_kind("images", images, Tensor, "a tensor, N x C x H x W in [-1, 1]")
    for name, part in {"of": of, "among": among}.items():
        check_kind(name, part, ImageSet, "an image set, such as load_dataset('digits').train")
    known, rest = (part.resized(images.shape[-1]).images.flatten(1).numpy() for part in (of, among))
    copied = copied_items(images.flatten(1).numpy(), np.concatenate([known, rest]), ratio)
    return wilson_interval(int(((copied >= 0) & (copied < len(known))).sum()), len(images))


def reference_set(data: Dataset, judge: Judge | PairJudge, target: Wanted | None, size: int | None = None) -> ImageSet:
    """The held-out images that samples are compared with, at this size or the judge's, without the target, checked for leaks."""
    if data.class_names != judge.class_names:
        raise DataError(f"{data.name} has other classes than the judge: {', '.join(judge.class_names)}.")
    check_apart(data.test, data.train, "test images are training images too")
    held_out = data.test.resized(judge.image_size if size is None else size)
    reference = held_out if target is None else held_out.without(target)
    if target is not None:
        check_apart(reference, held_out.only(target), "reference images show the target under another label")
    return reference
