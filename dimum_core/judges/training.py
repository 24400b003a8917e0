"""Training a judge by the one loop, calibrating it on images it did not train on, and measuring it on the test split."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from ..checking import check_apart, check_kind, check_whole
from ..data import Dataset, ImageSet, draw_batch, load_dataset, step_generator
from ..data.captions import WORD_KINDS
from ..errors import DataError, UnknownName
from ..files import write_atomically
from ..metrics import accuracy, auroc, expected_calibration_error
from ..models.cards import command_line, provenance
from ..models.checkpoints import check_dtype, save_checkpoint
from ..training import TrainConfig, TrainResult, train
from .classifier import Judge, class_gaussians, fit_temperature, whiten


@dataclass(frozen=True)
class JudgePreset:
    """What a judge is trained on, and how.

    word: which word of the class names it tells apart, styles (0) or objects (1); default, whole names.
    crop: images move by up to so many pixels either way; flip: a fresh half of each batch is mirrored.
    cutout: side of the square that is blanked in each image, in pixels; 0 blanks none.
    whitened: see Judge.
    calibration_every: one training image in so many is kept for the temperature and the threshold.
    """

    name: str
    dataset: str
    image_size: int
    widths: tuple[int, ...]
    pools: tuple[int, ...]
    crop: int
    flip: bool
    calibration_every: int
    label_smoothing: float = 0.05
    cutout: int = 0
    whitened: bool = False
    word: int | None = None
    training: TrainConfig = field(default_factory=TrainConfig)


JUDGE_PRESETS = {
    preset.name: preset
    for preset in (
        JudgePreset(
            "digits-judge", dataset="digits", image_size=8, widths=(32, 64, 128), pools=(1, 2, 2), crop=1, flip=False,
            calibration_every=5, label_smoothing=0.0,
            training=TrainConfig(
                steps=600, batch_size=128, learning_rate=3e-3, warmup_steps=60, weight_decay=0.05, ema_decay=0
            ),
        ),
        JudgePreset(
            "cifar10-small-judge", dataset="cifar10", image_size=16, widths=(64, 192, 256), pools=(1, 2, 2), crop=1,
            flip=True, calibration_every=20,
            training=TrainConfig(
                steps=2_280, batch_size=250, learning_rate=4e-3, warmup_steps=400, weight_decay=0.05, ema_decay=0
            ),
        ),
        *(
            JudgePreset(
                f"shapes-{kind}-judge", dataset="shapes", image_size=16, widths=(32, 64, 128), pools=(1, 2, 2), crop=1, flip=False,
                calibration_every=20, word=position, label_smoothing=0.0,
                training=TrainConfig(
                    steps=900, batch_size=128, learning_rate=3e-3, warmup_steps=90, weight_decay=0.05, ema_decay=0
                ),
            )
            for position, kind in enumerate(WORD_KINDS)
        ),
        JudgePreset(
            "cifar10-judge", dataset="cifar10", image_size=32, widths=(64, 256, 256), pools=(2, 2, 2), crop=2, flip=True,
            calibration_every=20, label_smoothing=0.2, whitened=True,
            training=TrainConfig(  # airbench94's, for a mean over the batch in place of a sum, and for 14 epochs in place of 10
                steps=1_300, batch_size=512, learning_rate=0.75, warmup_steps=300, weight_decay=0.00133, grad_clip=0.0, ema_decay=0,
                optimizer="nesterov",
            ),
        ),
    )
}


def get_judge_preset(name: str) -> JudgePreset:
    if name not in JUDGE_PRESETS:
        raise UnknownName("judge preset", name, JUDGE_PRESETS)
    return JUDGE_PRESETS[name]


def judge_preset_for(image_size: int) -> JudgePreset:
    """A preset for whole classes of images of this size: that of the next size up, or else the largest, resized."""
    check_whole("image_size", image_size, 8)
    presets = sorted((p for p in JUDGE_PRESETS.values() if p.word is None), key=lambda p: p.image_size)
    fitting = next((p for p in presets if p.image_size >= image_size), presets[-1])
    return fitting if fitting.image_size == image_size else replace(fitting, name=f"judge at {image_size}", image_size=image_size)


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


@dataclass(frozen=True)
class ClassificationObjective:
    """Cross-entropy, a little smoothed, on shifted, mirrored and partly blanked images, all drawn afresh for each batch."""

    data: ImageSet
    batch_size: int
    crop: int
    flip: bool
    label_smoothing: float
    cutout: int = 0

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
    config = preset.training.changed(**settings)
    data = load_dataset(preset.dataset) if data is None else data
    check_kind("data", data, Dataset, "a data set, such as load_dataset('digits'): its test split measures the judge")
    data = data.resized(preset.image_size)
    data = data if preset.word is None else data.relabelled(preset.word)
    fitting, calibration = judge_sets(data, preset.calibration_every)
    judge = new_judge(preset, data.class_names, data.train.images.shape[1], config.seed)
    if preset.whitened:
        whiten(judge, fitting.images[:5_000])
    judge.to(Accelerator().device)  # it is calibrated and measured there, too
    objective = ClassificationObjective(fitting, config.batch_size, preset.crop, preset.flip, preset.label_smoothing, preset.cutout)
    result = train(judge, objective, config, out=out, resume=resume, on_log=on_log, description=f"training {preset.name}")
    calibrate(judge, fitting, calibration)
    if out is not None:
        write_atomically(Path(out) / "log.csv", result.log.to_csv(index=False).encode())
        save_checkpoint(judge, Path(out), judge_card(preset, config, data, judge, result), dtype)
    return judge, result


def judge_sets(data: Dataset, calibration_every: int) -> tuple[ImageSet, ImageSet]:
    """What a judge is fitted on and what it is calibrated on.

    Raises DataError if a class has no images, if an image is in both, or in the test split that measures the judge, or has two
    labels in the training split: a judge that learned some of the target under another name would call the target forgotten.
    """
    held_out = torch.arange(len(data.train)) % calibration_every == 0
    fitting, calibration = data.train.select(~held_out), data.train.select(held_out)
    for label, name in enumerate(data.class_names):
        if not (fitting.labels == label).any():
            raise DataError(f"{data.name} has no images of {name} to fit a judge on: give some, shuffle, or leave that name out.")
    labels = data.train.labels.numpy()
    _, first, same = np.unique(data.train.item_hashes, return_index=True, return_inverse=True)
    if (twice := labels != labels[first[same]]).any():
        where = f"(the first is number {twice.argmax()})"
        raise DataError(f"{data.name}: {twice.sum()} training images have two labels {where}: remove them first.")
    check_apart(data.train, data.test, "images to train the judge on are test images too")
    check_apart(calibration, fitting, "images to calibrate the judge on are among those that it is fitted on")
    return fitting, calibration


def new_judge(preset: JudgePreset, class_names: tuple[str, ...], image_channels: int, seed: int) -> Judge:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = preset.image_size, image_channels, class_names, preset.widths, preset.pools
        judge = Judge(*shape, mirror=preset.flip, whitened=preset.whitened)
    return judge.to(memory_format=torch.channels_last)  # a quarter faster on a CPU


def calibrate(judge: Judge, fitting: ImageSet, calibration: ImageSet) -> None:
    """Fit temperature, class Gaussians and rejection threshold; the last from images the judge did not train on."""
    judge.register_to_config(temperature=1.0, threshold=float("inf"))
    fitting = fitting.select(torch.arange(0, len(fitting), -(-len(fitting) // 10_000)))  # enough for means and covariance
    means, whitening = class_gaussians(judge.traces(fitting.images), fitting.labels, len(fitting.class_names))
    judge.class_means.copy_(means)
    judge.whitening.copy_(whitening)
    verdict = judge.judge(calibration.images)
    temperature = fit_temperature(verdict.probabilities.clamp_min(1e-12).log(), calibration.labels)
    threshold = float(np.quantile(verdict.distance.numpy(), 0.99))
    judge.register_to_config(temperature=round(temperature, 4), threshold=round(threshold, 3))


# Measuring ----------------------------------------------------------------------------------------------------------


def outliers(images: Tensor, labels: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Images that show none of the classes, made from real ones of N x C x H x W; used to measure, never to fit."""
    generator = torch.Generator().manual_seed(seed)
    count, channels, side, _ = images.shape
    noise = torch.randn(images.shape, generator=generator)
    coarse = torch.randn((count, channels, side // 4, side // 4), generator=generator)
    shuffled = shuffle_tiles(images, generator)
    partner = torch.randperm(count, generator=generator)
    mixed = (labels != labels[partner]).nonzero().squeeze(1)
    return {
        "white noise": noise.mul(0.5).clamp(-1, 1),
        "coloured clouds": F.interpolate(coarse, size=side, mode="bilinear").clamp(-1, 1),
        "shuffled tiles": shuffled,
        "mixtures of two classes": ((images + images[partner]) / 2)[mixed],
    }


def shuffle_tiles(images: Tensor, generator: torch.Generator) -> Tensor:
    """The 4 x 4 tiles of each image in an order of its own; a side that does not divide by 4 keeps its last pixels in place."""
    count, channels, side, _ = images.shape
    tile = side // 4
    tiles = images[:, :, : 4 * tile, : 4 * tile].unfold(2, tile, tile).unfold(3, tile, tile).reshape(count, channels, 16, -1)
    order = torch.rand((count, 16), generator=generator).argsort(1)
    tiles = tiles.gather(2, order[:, None, :, None].expand(-1, channels, -1, tile**2))
    shuffled = images.clone()
    shuffled[:, :, : 4 * tile, : 4 * tile] = (
        tiles.reshape(count, channels, 4, 4, tile, tile).permute(0, 1, 2, 4, 3, 5).reshape(count, channels, 4 * tile, 4 * tile)
    )
    return shuffled


def measure_judge(judge: Judge, test: ImageSet) -> dict:
    """Accuracy, calibration error and the detection of outliers, on images that neither training nor calibration saw."""
    verdict = judge.judge(test.images)
    quality = {
        "accuracy": str(accuracy(verdict.forced_labels, test.labels)),
        "accuracy_with_none_of_these": str(accuracy(verdict.labels, test.labels)),
        "expected_calibration_error": round(expected_calibration_error(verdict.probabilities, test.labels), 4),
        "rejected_real_images": round(float((verdict.labels < 0).float().mean()), 4),
    }
    for kind, images in outliers(test.images[:2000], test.labels[:2000]).items():
        other = judge.judge(images)
        area = auroc(verdict.distance, other.distance)
        quality[f"rejected: {kind}"] = f"{float((other.labels < 0).float().mean()):.1%} (AUROC {area:.3f})"
    return quality


def judge_card(preset: JudgePreset, config: TrainConfig, data, judge: Judge, result: TrainResult) -> dict:
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
        "quality": measure_judge(judge, data.test),
        "provenance": provenance(),
    }
