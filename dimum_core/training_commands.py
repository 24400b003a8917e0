"""What `dimum train` and `dimum judge train` do. Imports wait until they are needed: they take seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from .errors import DimumError


def run_train(args) -> None:
    from .autoencoder import AUTOENCODER_PRESETS
    from .checking import check_whole
    from .errors import UnknownName
    from .judges.presets import JUDGE_PRESETS
    from .models.denoiser import PRESETS

    known = PRESETS | JUDGE_PRESETS | AUTOENCODER_PRESETS
    if args.preset not in known:
        raise UnknownName("preset", args.preset, known)
    if args.samples_every is not None:
        check_whole("--samples-every", args.samples_every)
    _use_threads(args.threads)
    settings = {
        "seed": args.seed, "resume": args.resume, "dtype": args.dtype,
        "on_log": _tensorboard_writer(args.out) if args.tensorboard else None,
        **({"steps": args.steps} if args.steps is not None else {}),
    }
    trains = {_train_judge: JUDGE_PRESETS, _train_autoencoder: AUTOENCODER_PRESETS, _train_base: PRESETS}
    result = next(train for train, presets in trains.items() if args.preset in presets)(args, settings)
    print(f"{args.out}: trained {args.preset} in {result.seconds / 60:.1f} minutes")


def _use_threads(count: int | None) -> None:
    import torch

    from .checking import check_whole

    if count is not None:
        check_whole("--threads", count)
        torch.set_num_threads(count)


def _train_judge(args, settings: dict):
    from .judges.presets import get_judge_preset
    from .judges.training import train_judge

    if args.without or args.samples_every or args.start:
        raise DimumError(
            "A judge knows every class, draws no samples and starts afresh: leave --without, --samples-every and --start out."
        )
    preset = get_judge_preset(args.preset)
    if args.image_size is not None:
        raise DimumError(
            f"{args.preset} looks at {preset.image_size} x {preset.image_size} images: leave --image-size out, or train a judge of "
            f"another size by dimum judge train --data FOLDER --image-size {args.image_size}."
        )
    return train_judge(preset, args.out, data=_own_data(args, preset.image_size), **settings)[1]


def run_judge_train(args) -> None:
    from .judges.presets import judge_preset_for
    from .judges.training import train_judge

    _use_threads(args.threads)
    preset, steps = judge_preset_for(args.image_size), {} if args.steps is None else {"steps": args.steps}
    data = _own_data(args, args.image_size)
    judge, result = train_judge(preset, args.out, data=data, seed=args.seed, resume=args.resume, **steps)
    test = data.test.resized(args.image_size)  # a named data set has a size of its own
    right = (judge.judge(test.images).labels == test.labels).float().mean()
    print(f"{args.out}: trained a judge of {', '.join(data.class_names)} in {result.seconds / 60:.1f} minutes; it is right on "
          f"{right:.1%} of {len(data.test):,} held-out pictures")


def one_or_several(names: list[str] | None) -> str | list[str] | None:
    """What --target or --without names, as Python is given it."""
    return names[0] if names and len(names) == 1 else names


def in_words(names: list[str]) -> str:
    return " and ".join(dict.fromkeys(names))


def _own_data(args, image_size: int):
    """What --data names, at this size; without it, nothing."""
    from .data import load_data

    return reported(load_data(args.data, image_size)) if args.data is not None else None


def reported(data):
    """Say, where it is in nobody's way, what one's own pictures are and what was left out."""
    import sys

    from .data import OwnPictures

    if isinstance(data, OwnPictures):
        print(data.report, file=sys.stderr, flush=True)
    return data


def _train_autoencoder(args, settings: dict):
    from .autoencoder import AUTOENCODER_PRESETS, train_autoencoder

    if args.samples_every or args.start:
        raise DimumError("An autoencoder draws no samples and starts afresh: leave --samples-every and --start out.")
    size = AUTOENCODER_PRESETS[args.preset].image_size
    if args.image_size is not None:
        raise DimumError(f"{args.preset} takes {size} x {size} images: leave --image-size out; only a model of pixels has another.")
    data = _own_data(args, size)
    return train_autoencoder(args.preset, args.out, without=one_or_several(args.without), data=data, **settings)[1]


def _train_base(args, settings: dict):
    from .models.denoiser import get_preset
    from .pretraining import train_base

    preset = get_preset(args.preset)
    if args.image_size is not None:
        if not args.data or preset.autoencoder:
            raise DimumError(
                "--image-size is for a model of the pixels of your own pictures: give --data, and a preset without autoencoder."
            )
        preset = replace(preset, image_size=args.image_size)
    data = _own_data(args, preset.image_size)
    return train_base(
        preset, args.out, without=one_or_several(args.without), data=data and data.train, start=args.start,
        evaluate_every=args.samples_every or 0, evaluate=_grid_writer(args.out) if args.samples_every else None, **settings,
    )[1]


def _grid_writer(out: Path):
    def write(step: int, pipe) -> None:
        from .pictures import image_grid, save_picture

        save_picture(image_grid(pipe), out / "samples" / f"step-{step:06d}.png")

    return write


def _tensorboard_writer(out: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DimumError("--tensorboard needs TensorBoard: pip install -e '.[tensorboard]'.") from error
    writer = SummaryWriter(out / "tensorboard")

    def write(row: dict) -> None:
        for key, value in row.items():
            writer.add_scalar(key, value, row["step"])

    return write
