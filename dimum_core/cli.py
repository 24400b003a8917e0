"""The `dimum` command. Imports wait until a command needs them, so that help is quick."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .errors import DimumError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dimum", description="Make a diffusion model forget, try to bring it back, and measure both."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    return parser


def _add_train(commands) -> None:
    train = commands.add_parser("train", help="train a base model or a judge from scratch")
    train.add_argument("preset", help="digits, cifar10-small or cifar10; with -judge behind it, the judge of its images")
    train.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the resumable state")
    train.add_argument("--steps", type=int, help="optimisation steps (default: the preset's)")
    train.add_argument("--without", metavar="CLASS", help="leave a class out: the model that never saw it")
    train.add_argument("--resume", action="store_true", help="go on where a killed run stopped, bit for bit")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the saved weights")
    train.add_argument("--threads", type=int, help="CPU threads (default: one a core)")
    train.add_argument("--samples-every", type=int, metavar="N", help="write a grid of samples every N steps")
    train.add_argument("--tensorboard", action="store_true", help="also log for TensorBoard (needs the extra of that name)")
    train.set_defaults(run=run_train)


def run_train(args) -> None:
    import torch

    from .denoiser import get_preset
    from .pretraining import train_base

    if args.threads:
        torch.set_num_threads(args.threads)
    preset = get_preset(args.preset)
    settings = {"seed": args.seed} | ({"steps": args.steps} if args.steps is not None else {})
    _, result = train_base(
        preset, args.out, without=args.without, resume=args.resume, dtype=args.dtype,
        evaluate=_grid_writer(args.out) if args.samples_every else None, evaluate_every=args.samples_every or 0,
        on_log=_tensorboard_writer(args.out) if args.tensorboard else None, **settings,
    )
    print(f"{args.out}: trained {preset.name} for {result.seconds / 60:.1f} minutes")


def _grid_writer(out: Path):
    def write(step: int, pipe) -> None:
        from .pretraining import image_grid

        grid = (image_grid(pipe).permute(1, 2, 0) + 1).mul(127.5).round().byte()
        path = out / "samples" / f"step-{step:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        from PIL import Image

        Image.fromarray(grid.squeeze(-1).numpy()).save(path)

    return write


def _tensorboard_writer(out: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise DimumError("--tensorboard needs TensorBoard: pip install 'dimum[tensorboard]'.") from error
    writer = SummaryWriter(out / "tensorboard")

    def write(row: dict) -> None:
        for key, value in row.items():
            writer.add_scalar(key, value, row["step"])

    return write


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except DimumError as error:
        print(f"dimum: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dimum: stopped; --resume goes on from the last checkpoint.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
