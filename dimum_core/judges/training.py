"""Training a judge by the one loop, calibrating it on images it did not train on, and measuring it on the test split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from ..autoencoder import get_autoencoder_preset, load_autoencoder, reconstructed
from ..checking import check_apart, check_kind
from ..data import Dataset, ImageSet, draw_batch, load_dataset, step_generator
from ..errors import DataError
from ..files import write_atomically
from ..metrics import accuracy, auroc, expected_calibration_error
from ..models.cards import command_line, provenance
from ..models.checkpoints import check_dtype, save_checkpoint
from ..models.codec import Codec
from ..resuming import check_begins
from ..training import TrainConfig, TrainResult, digest_of, train
from .classifier import Judge, class_gaussians, fit_temperature, whiten
from .outliers import fit_outliers, outliers, side_by_side
from .presets import JudgePreset, get_judge_preset


def shift_randomly(images: Tensor, by: int, generator: torch.Generator) -> Tensor:
    """Move each image by its own -by to +by pixels in both directions; what comes in is the mirrored edge."""
    if not by:
        return images
    count, _, height, width = images.shape
    padded = F.pad(images, (by,) * 4, mode="reflect")
    shift = torch.randint(2 * by + 1, (2, count, 1), generator=generator)
    rows = torch.arange(height) + shift[0]
    columns = torch.arange(width) + shift[1]
    item = torch.arange(count)[:, None, None]
    return padded[item, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cut_out(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Blank a square of side x side pixels in each image, at a place of its own (DeVries and Taylor 2017, arXiv 1708.04552)."""
    if not side:
        return images
    count, _, height, width = images.shape
    top, left = (torch.randint(length - side + 1, (count, 1), generator=generator) for length in (height, width))
    rows, columns = (
        (torch.arange(length) >= first) & (torch.arange(length) < first + side) for length, first in ((height, top), (width, left))
    )
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


FEWEST_KNOWN = 100  # images to calibrate on, of which half teach what is strange, and half set a threshold that 2 % lie beyond
ENOUGH = 10_000  # images for the means and the covariance of what a judge sees; every class has at least one among them


@dataclass(frozen=True)
class ClassificationObjective:
    """Cross-entropy, a little smoothed, on shifted, mirrored and partly blanked images, all drawn afresh for each batch."""

    data: ImageSet
    batch_size: int
    crop: int
    flip: bool
    label_smoothing: float
    cutout: int = 0
    reconstructed_by: str = ""  # a hash of the autoencoder that gave the second half of the data back

    @property
    def fingerprint(self) -> dict:
        return {"data": self.data.digest, **{k: v for k, v in vars(self).items() if k != "data"}}

    def __call__(self, model: nn.Module, seed: int, step: int) -> Tensor:
        device = next(model.parameters()).device
        images, labels = draw_batch(self.data, self.batch_size, seed, step, self.flip)
        generator = step_generator(seed, step)
        images = cut_out(shift_randomly(images, self.crop, generator), self.cutout, generator)
        logits = model(images.to(device)).float()
        return F.cross_entropy(logits, labels.to(device), label_smoothing=self.label_smoothing)


def train_judge(
    preset: str | JudgePreset,
    out: Path | None = None,
    *,
    data: Dataset | None = None,
    resume: bool = False,
    dtype: str = "float32",
    on_log=None,
    **settings,
) -> tuple[Judge, TrainResult]:
    """Train, calibrate and measure a judge.

    data: a data set of your own in place of the preset's, averaged to the preset's size; its test split measures the judge.
    settings: fields of TrainConfig that differ from the preset's.
    """
    preset = get_judge_preset(preset) if isinstance(preset, str) else preset
    check_dtype(dtype)
    check_begins(out, resume)
    config = preset.training.changed(**settings)
    own, data = data, load_dataset(preset.dataset) if data is None else data
    check_kind("data", data, Dataset, "a data set, such as load_dataset('digits'): its test split measures the judge")
    data = data.resized(preset.image_size)
    data = data if preset.word is None else data.relabelled(preset.word)
    fitting, calibration = judge_sets(data, preset.calibration_every)
    preset = replace(preset, knows_outliers=preset.knows_outliers and len(calibration) >= FEWEST_KNOWN)
    autoencoder = preset.autoencoder if own is None else ""
    again = partial(with_reconstructions, autoencoder=autoencoder) if autoencoder else lambda x: x
    judge = new_judge(preset, data.class_names, data.train.images.shape[1], config.seed)
    if preset.whitened:
        whiten(judge, fitting.images[:5_000])
    judge.to(Accelerator().device)  # it is calibrated and measured there, too
    augmented = preset.crop, preset.flip, preset.label_smoothing, preset.cutout
    codec = digest_of(load_autoencoder(autoencoder)) if autoencoder else ""
    objective = ClassificationObjective(again(fitting), config.batch_size, *augmented, codec)
    result = train(judge, objective, config, out=out, resume=resume, on_log=on_log, description=f"training {preset.name}")
    calibrate(judge, fitting, calibration, again)
    if out is not None:
        write_atomically(Path(out) / "log.csv", result.log.to_csv(index=False).encode())
        save_checkpoint(judge, Path(out), judge_card(preset, config, data, judge, result, again), dtype)
    return judge, result


def judge_sets(data: Dataset, calibration_every: int) -> tuple[ImageSet, ImageSet]:
    """What a judge is fitted on and what it is calibrated on.

    Raises DataError if a class has no images, if nothing is held out, if an image is in both, or in the test split that measures
    the judge, or has two labels in the training split: a judge that learned some of the target under another name would call the
    target forgotten.
    """
    if not len(data.test):
        raise DataError(f"{data.name} has no held-out images, by which a judge is measured: hold some out.")
    held_out = torch.arange(len(data.train)) % calibration_every == 0
    fitting, calibration = data.train.select(~held_out), data.train.select(held_out)
    for label, name in enumerate(data.class_names):
        if not (fitting.labels == label).any():
            raise DataError(f"{data.name} has no images of {name} to fit a judge on: give some, shuffle, or leave that name out.")
    if len(seen := calibration.labels.unique()) == 1 < len(data.class_names) <= len(calibration):  # classes in turn
        name = data.class_names[int(seen)]
        raise DataError(f"{data.name}: a judge is calibrated on image 0, {calibration_every}, ..., all of {name}: shuffle them.")
    labels = data.train.labels.numpy()
    _, first, same = np.unique(data.train.item_hashes, return_index=True, return_inverse=True)
    if (twice := labels != labels[first[same]]).any():
        where = f"(the first is number {twice.argmax()})"
        raise DataError(f"{data.name}: {twice.sum()} training images have two labels {where}: remove them first.")
    check_apart(data.train, data.test, "images to train the judge on are test images too")
    check_apart(calibration, fitting, "images to calibrate the judge on are among those that it is fitted on")
    return fitting, calibration


def with_reconstructions(images: ImageSet, autoencoder: str) -> ImageSet:
    """Image set, and after it the same images as a shipped autoencoder gives them back, under the same labels."""
    codec = Codec(get_autoencoder_preset(autoencoder).patch_size, load_autoencoder(autoencoder))
    twice = images.with_repeats(torch.arange(len(images)), 2)
    return replace(twice, images=torch.cat([images.images, reconstructed(codec, images.images)]))


def new_judge(preset: JudgePreset, class_names: tuple[str, ...], image_channels: int, seed: int) -> Judge:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = preset.image_size, image_channels, class_names, preset.widths, preset.pools
        kind = {"whitened": preset.whitened, "residual": preset.residual, "knows_outliers": preset.knows_outliers}
        judge = Judge(*shape, mirror=preset.flip, **kind)
    return judge.to(memory_format=torch.channels_last)  # a quarter faster on a CPU


def calibrate(
    judge: Judge, fitting: ImageSet, calibration: ImageSet, again: Callable[[ImageSet], ImageSet] = lambda images: images
) -> None:
    """Fit temperature, what is strange, and rejection threshold; the last from images the judge did not train on.

    again: what becomes of images before the judge sees them, such as `with_reconstructions`.
    """
    judge.register_to_config(temperature=1.0, threshold=float("inf"))
    some = torch.arange(0, len(fitting), -(-len(fitting) // ENOUGH))
    rare = [label for label in range(len(fitting.class_names)) if not (fitting.labels[some] == label).any()]
    fitting = fitting.select(torch.cat([some, *((fitting.labels == label).nonzero()[:1, 0] for label in rare)]))
    means, whitening = class_gaussians(judge.seen(fitting.images)[1], fitting.labels, len(fitting.class_names))
    judge.class_means.copy_(means)
    judge.whitening.copy_(whitening)
    share = 0.99
    if judge.config.knows_outliers:  # from one half of the images; what the other half is like, sets the threshold
        half, share = torch.arange(len(calibration)) % 2 == 0, 0.98
        fit_outliers(judge, again(calibration.select(half)))
        calibration = calibration.select(~half)
    calibration = again(calibration)
    verdict = judge.judge(calibration.images)
    temperature = fit_temperature(verdict.probabilities.clamp_min(1e-12).log(), calibration.labels)
    threshold = float(np.quantile(verdict.distance.numpy(), share))
    judge.register_to_config(temperature=round(temperature, 4), threshold=round(threshold, 3))


# Measuring ----------------------------------------------------------------------------------------------------------


def measure_judge(judge: Judge, test: ImageSet) -> dict:
    """Accuracy, calibration error and the detection of outliers, on images that neither training nor calibration saw."""
    verdict = judge.judge(test.images)
    quality = {
        "accuracy": str(accuracy(verdict.forced_labels, test.labels)),
        "accuracy_with_none_of_these": str(accuracy(verdict.labels, test.labels)),
        "expected_calibration_error": round(expected_calibration_error(verdict.probabilities, test.labels), 4),
        "rejected_real_images": round(float((verdict.labels < 0).float().mean()), 4),
    }
    some = test.images[:2000], test.labels[:2000]
    for kind, images in {**outliers(*some), "two halves, side by side": side_by_side(*some)}.items():
        if not len(images):  # there is one class, or so few images that none met one of another
            continue
        other = judge.judge(images)
        area = auroc(verdict.distance, other.distance)
        quality[f"rejected: {kind}"] = f"{float((other.labels < 0).float().mean()):.1%} (AUROC {area:.3f})"
    return quality


def judge_card(preset: JudgePreset, config: TrainConfig, data, judge: Judge, result: TrainResult, again) -> dict:
    seen, of_reconstructions = again(data.test), {}
    if len(seen) > len(data.test):
        verdict = judge.judge(seen.images[len(data.test) :])
        right = accuracy(verdict.forced_labels, data.test.labels)
        of_reconstructions = {
            "accuracy_on_reconstructions": str(right),
            "rejected_reconstructions": round(float((verdict.labels < 0).float().mean()), 4),
        }
    return {
        "title": preset.name,
        "summary": f"The judge of {data.name} images at {preset.image_size} x {preset.image_size} pixels: "
                   "what a sample shows, how surely, and whether it shows any class at all.",
        "kind": "judge",
        "preset": preset.name,
        "training": {
            "command": command_line(),
            "parameters": sum(p.numel() for p in judge.parameters()),
            **asdict(config),
            "precision": result.precision,
            "seconds": round(result.seconds),
        },
        "data": {"name": data.name, "images": len(data.train), "image_size": preset.image_size, "digest": data.train.digest},
        "quality": measure_judge(judge, data.test) | of_reconstructions,
        "provenance": provenance(),
    }
