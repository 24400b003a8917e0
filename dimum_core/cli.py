"""The `dimum` command: its options, and what it prints when something goes wrong. What each command does is in `commands`."""

from __future__ import annotations

import argparse
import codecs
import io
import os
import sys
import warnings
from pathlib import Path

from .commands import (
    run_audit,
    run_benchmark,
    run_benchmark_report,
    run_doctor,
    run_evaluate,
    run_grade,
    run_relearn,
    run_sample,
    run_unlearn,
)
from .errors import DimumError
from .training_commands import run_judge_train, run_train

STATE_FILE = "training.safetensors"  # as in `resuming`, from which it cannot come: see _how_to_go_on
OWN = "a data set by name, or your pictures: a folder that has one for each class, or a CSV or Parquet file of paths and labels"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dimum", description="Make a diffusion model forget something, try to bring it back, and measure both."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_judge(commands)
    _add_sample(commands)
    _add_evaluate(commands)
    _add_unlearn(commands)
    _add_relearn(commands)
    _add_audit(commands)
    _add_benchmark(commands)
    _add_grade(commands)
    doctor = commands.add_parser("doctor", help="say what this machine is, what is installed, and how long a preset takes here")
    doctor.add_argument("--data", help="your pictures (a folder or a table): what they are, what was left out, presets and minutes")
    doctor.set_defaults(run=run_doctor)
    return parser


def _add_train(commands) -> None:
    train = commands.add_parser("train", help="train a base model or a judge from scratch")
    train.add_argument(
        "preset", help="a model: digits, shapes, cifar10-small or cifar10; a judge: digits-judge, shapes-style-judge, "
        "shapes-object-judge, cifar10-judge or cifar10-second-judge; or cifar10-autoencoder"
    )
    train.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the resumable state")
    train.add_argument("--data", help=f"{OWN} (default: the preset's own data set)")
    train.add_argument("--image-size", type=int, metavar="N", help="side of your own pictures, for a model of pixels")
    train.add_argument("--steps", type=int, help="optimisation steps (default: the preset's)")
    train.add_argument(
        "--without", nargs="+", action="extend", metavar="CLASS", help="leave a class out, or several: the model that never saw it"
    )
    train.add_argument("--start", metavar="CHECKPOINT", help="train on the weights of a checkpoint of the same preset")
    train.add_argument("--resume", action="store_true", help="go on where a killed run stopped, bit for bit")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the saved weights")
    train.add_argument("--threads", type=int, help="CPU threads (default: one for each core)")
    train.add_argument("--samples-every", type=int, metavar="N", help="write a grid of samples every N steps")
    train.add_argument("--tensorboard", action="store_true", help="also log for TensorBoard (needs the extra of that name)")
    train.set_defaults(run=run_train)


def _add_judge(commands) -> None:
    judge = commands.add_parser("judge", help="train a judge of your own pictures")
    train = judge.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser("train", help="from scratch")
    train.add_argument("--data", required=True, help=OWN)
    train.add_argument("--out", type=Path, required=True, help="folder for the judge and the resumable state")
    train.add_argument("--image-size", type=int, default=32, metavar="N", help="side of the images that it looks at (default: 32)")
    train.add_argument("--steps", type=int, help="optimisation steps (default: those of the shipped judge of that size)")
    train.add_argument("--resume", action="store_true", help="go on where a killed run stopped, bit for bit")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--threads", type=int, help="CPU threads (default: one for each core)")
    train.set_defaults(run=run_judge_train)


def _add_judge_option(parser) -> None:
    parser.add_argument("--judge", metavar="CHECKPOINT", help="judge of what a sample shows (default: the shipped one that fits)")


def _add_target(parser, help: str, required: bool = True) -> None:
    parser.add_argument(
        "--target", nargs="+", action="extend", required=required, metavar="CLASS", help=f"{help}; or several, such as 3 7"
    )


def _add_model(parser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or the name of a shipped one, e.g. digits")
    parser.add_argument(
        "--adapter", action="append", default=[], metavar="DIR",
        help="low-rank updates in diffusers' format, added to the weights; may be given again",
    )


def _add_checkpoint(parser, steps: int) -> None:
    _add_model(parser)
    parser.add_argument("--guidance-scale", type=float, metavar="S", help="1 is no guidance (default: the checkpoint's)")
    parser.add_argument("--steps", type=int, default=steps, metavar="K", help=f"sampling steps (default: {steps})")
    parser.add_argument("--seed", type=int, default=0)


def _add_sample(commands) -> None:
    sample = commands.add_parser("sample", help="draw images from a checkpoint")
    _add_checkpoint(sample, steps=20)
    sample.add_argument("--label", metavar="CLASS", help="what to draw: a class, style or object (default: every class)")
    sample.add_argument("--prompt", metavar="TEXT", help="for a text-to-image checkpoint, what to draw in words of your own")
    sample.add_argument("--count", type=int, default=8, metavar="N", help="images of each class (default: 8)")
    sample.add_argument("--out", type=Path, required=True, metavar="FILE", help="a picture, .png")
    sample.set_defaults(run=run_sample)


def _add_evaluate(commands) -> None:
    evaluate = commands.add_parser("evaluate", help="let the judge say what a checkpoint draws, and how faithfully")
    _add_checkpoint(evaluate, steps=25)
    _add_target(evaluate, "what should be forgotten; adds UA and RA, for styles also IRA and CRA", required=False)
    evaluate.add_argument("--count", type=int, default=100, metavar="N", help="samples of each class (default: 100)")
    evaluate.add_argument(
        "--data", help=f"reference of fidelity: {OWN} (default: digits, cifar10-mini or shapes; if none fits, none is measured)"
    )
    _add_judge_option(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(run=run_evaluate)


def _add_unlearn(commands) -> None:
    unlearn = commands.add_parser("unlearn", help="make a checkpoint forget a class, a style or an object")
    _add_finetuning(unlearn, steps=200)
    unlearn.add_argument("--method", default="dimum", help="dimum, esd, salun, ... (default: dimum)")
    unlearn.add_argument("--plugin", type=Path, metavar="FILE", help="a Python file that registers a method of your own")
    _add_target(unlearn, "what to forget: a class, style or object")
    unlearn.add_argument(
        "--set", dest="settings", nargs="*", action="extend", default=[], metavar="NAME=VALUE",
        help="hyper-parameters of the method",
    )
    unlearn.add_argument("--until", type=float, metavar="UA", help="stop when the unlearning accuracy reaches this, e.g. 0.9")
    unlearn.add_argument("--resume", action="store_true", help="go on where a killed run stopped")
    unlearn.set_defaults(run=run_unlearn)


def _add_relearn(commands) -> None:
    relearn = commands.add_parser("relearn", help="DiMRA: try to bring a forgotten class back")
    _add_finetuning(relearn, steps=200)
    _add_target(relearn, "what is measured; the attack never sees it")
    relearn.add_argument(
        "--auxiliary", choices=("retain", "synthetic", "public", "noise"), default="retain",
        help="what the attacker has (default: the retained data); synthetic: samples of the other classes",
    )
    relearn.add_argument("--drawn-by", metavar="CHECKPOINT", help="who draws synthetic data (default: the attacked checkpoint)")
    relearn.add_argument("--share", type=float, default=1.0, help="share of the auxiliary set (default: all of it)")
    relearn.add_argument("--resume", action="store_true", help="go on where a killed run stopped")
    relearn.set_defaults(run=run_relearn)


def _add_audit(commands) -> None:
    tried = "every attack but the search for words, which takes longer"
    audit = commands.add_parser("audit", help=f"run {tried}, and say what came back")
    _add_model(audit)
    _add_target(audit, "what it should have forgotten")
    audit.add_argument("--retrained", metavar="CHECKPOINT", help="a model that never knew it: only a lead over that shows memory")
    audit.add_argument("--original", metavar="CHECKPOINT", help="the model before it forgot, for attackers who know a part of it")
    audit.add_argument("--data", help=f"{OWN} (default: digits, cifar10-mini or shapes, whichever fits)")
    _add_judge_option(audit)
    audit.add_argument("--samples", type=int, default=64, metavar="N", help="images of the target for each attack (default: 64)")
    audit.add_argument("--minutes", type=float, metavar="M", help="begin no new attack after so many minutes (default: run all)")
    audit.add_argument("--init-seed", type=int, default=0, metavar="S", help="seed of the original's training (default: 0)")
    audit.add_argument("--seed", type=int, default=0)
    audit.add_argument("--out", type=Path, metavar="DIR", help="keep each finished attack, and go on from there")
    audit.add_argument("--json", action="store_true", help="print one JSON object")
    audit.set_defaults(run=run_audit)


def _add_benchmark(commands) -> None:
    benchmark = commands.add_parser("benchmark", help="run a grid of methods and attacks, and say what it shows")
    actions = benchmark.add_subparsers(dest="action", required=True, metavar="ACTION")
    run = actions.add_parser("run", help="compute what is still missing of a plan in a results folder; may be killed and run again")
    run.add_argument("plan", type=Path, metavar="PLAN.yaml")
    run.add_argument("--out", type=Path, required=True, help="results folder")
    run.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    run.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads in each (default: 1)")
    run.add_argument("--engine", choices=("serial", "loky", "dask"), default="loky")
    run.add_argument("--scheduler", metavar="ADDRESS", help="of a running dask cluster")
    run.set_defaults(run=run_benchmark)
    report = actions.add_parser("report", help="show what has been computed so far: a table, a page with figures, files")
    report.add_argument("results", type=Path, metavar="DIR", help="results folder, or a Parquet or CSV file made from one")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="write report.html with its figures and tables")
    report.add_argument("--parquet", type=Path, metavar="FILE", help="write every row of every recovery curve")
    report.add_argument("--csv", type=Path, metavar="FILE", help="the same as CSV")
    report.set_defaults(run=run_benchmark_report)


def _add_grade(commands) -> None:
    grade = commands.add_parser("grade", help="mark the exercises that a class has handed in, or its capstones")
    grade.add_argument("folder", type=Path, metavar="FOLDER", help="submissions: .ipynb, .py or .json, or a folder per student")
    grade.add_argument("--out", type=Path, required=True, metavar="DIR", help="for marks.csv and a page for each student")
    grade.add_argument(
        "--capstone", action="store_true", help="the folder has capstones (mine.py, a folder per student): run on seeds drawn now"
    )
    grade.add_argument("--points", type=Path, metavar="FILE", help="what an exercise is worth (default: the course's points.yaml)")
    grade.add_argument("--seconds", type=float, help="limit for each answer (default: 20)")
    grade.add_argument("--memory", type=float, default=2.0, metavar="GB", help="limit beyond what torch needs (default: 2)")
    grade.set_defaults(run=run_grade)


def _add_finetuning(parser, steps: int) -> None:
    _add_model(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the new checkpoint")
    parser.add_argument("--data", help=f"{OWN} (default: digits, cifar10-mini or shapes, whichever fits)")
    _add_judge_option(parser)
    parser.add_argument("--steps", type=int, default=steps, help=f"optimisation steps (default: {steps})")
    parser.add_argument("--learning-rate", type=float, default=1e-4, metavar="LR")
    parser.add_argument(
        "--lora-rank", type=int, default=0, metavar="R",
        help="train low-rank updates of attention, and save these alone, in diffusers' format (default: all weights)",
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="B", help="images in a step (default: 64)")
    parser.add_argument("--optimizer", choices=("adamw", "adamw8bit", "sgd"), default="adamw", help="adamw8bit needs bitsandbytes")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="a third slower, and needs much less memory")
    parser.add_argument("--merge", action="store_true", help="with --lora-rank: add them to the weights, and save the whole model")
    parser.add_argument("--seed", type=int, default=0)


def _write_any_character() -> None:
    """Where the shell's encoding lacks a character, its number is written; the C locale gets UTF-8, as in Python's UTF-8 mode."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if codecs.lookup(stream.encoding).name == "ascii":
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        else:
            stream.reconfigure(errors="backslashreplace")


def _one_line(message, category, *_, **__) -> str:
    """A warning without the place in our code that it came from, which tells a user nothing."""
    return f"dimum: {message}\n" if category is UserWarning else f"{category.__name__}: {message}\n"


def main(argv: list[str] | None = None) -> int:
    _write_any_character()
    warnings.formatwarning = _one_line
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except DimumError as error:
        return _said(str(error))
    except BrokenPipeError:  # whoever reads has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # the system's: a disk that is full, a folder that is gone
        return _said(f"the system says: {error}.")
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or "allocate memory" in str(error) or "out of memory" in str(error)):
            raise
        return _said("there is not enough memory: end other programs, or take a smaller model, fewer samples or a larger machine.")
    except KeyboardInterrupt:
        print(f"dimum: stopped; {_how_to_go_on(args)}.", file=sys.stderr)
        return 130
    return 0


def _said(sentence: str) -> int:
    print(f"dimum: {sentence}", file=sys.stderr)
    return 1


def _how_to_go_on(args) -> str:
    """Whether there is anything yet to go on from.

    Nothing is imported here: if an import of torch was what was broken off, the next one fails, or brings Python down.
    """
    resumable = hasattr(args, "resume") and (args.out / STATE_FILE).is_file()
    return "--resume goes on from the last checkpoint" if resumable else "run it again"


if __name__ == "__main__":
    sys.exit(main())
