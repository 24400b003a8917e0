"""The judges that the course trains: what each sees, how large it is, and for how long it learns."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..checking import check_whole
from ..data.captions import WORD_KINDS
from ..errors import UnknownName
from ..training import TrainConfig


@dataclass(frozen=True)
class JudgePreset:
    """What a judge is trained on, and how.

    word: which word of the class names it tells apart, styles (0) or objects (1); default, whole names.
    crop: images move by up to so many pixels either way; flip: a fresh half of each batch is mirrored.
    cutout: side of the square that is blanked in each image, in pixels; 0 blanks none.
    whitened, residual, knows_outliers: see Judge.
    calibration_every: one training image in so many is kept for the temperature and the threshold.
    autoencoder: half of what it is fitted on are images as this shipped autoencoder gives them back: samples have passed its
        decoder, and what that loses is no evidence against a class. Only for the preset's own data set.
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
    residual: bool = False
    knows_outliers: bool = False
    word: int | None = None
    autoencoder: str | None = None
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
            calibration_every=20, label_smoothing=0.2, whitened=True, knows_outliers=True,
            autoencoder="cifar10-autoencoder",
            training=TrainConfig(  # airbench94's, for a mean over the batch in place of a sum, and for 17 epochs in place of 10
                steps=1_600, batch_size=512, learning_rate=0.75, warmup_steps=300, weight_decay=0.00133, grad_clip=0.0, ema_decay=0,
                optimizer="nesterov",
            ),
        ),
        JudgePreset(
            "cifar10-second-judge", dataset="cifar10", image_size=32, widths=(64, 128, 256), pools=(2, 2, 2), crop=2, flip=True,
            calibration_every=20, label_smoothing=0.1, residual=True, knows_outliers=True, autoencoder="cifar10-autoencoder",
            training=TrainConfig(
                steps=3_200, batch_size=256, learning_rate=3e-3, warmup_steps=300, weight_decay=0.05, ema_decay=0
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
