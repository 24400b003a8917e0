"""The `dimum` command. Imports wait until a command needs them, so that help is quick."""

from __future__ import annotations

import argparse
import codecs
import io
import sys
from pathlib import Path

from .errors import DimumError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dimum", description="Make a diffusion model forget, try to bring it back, and measure both."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_sample(commands)
    _add_evaluate(commands)
    _add_unlearn(commands)
    _add_relearn(commands)
    _add_benchmark(commands)
    _add_grade(commands)
    doctor = commands.add_parser("doctor", help="say what this machine is, what is there, and what a preset costs here")
    doctor.set_defaults(run=run_doctor)
    return parser


def _add_train(commands) -> None:
    train = commands.add_parser("train", help="train a base model or a judge from scratch")
    train.add_argument(
        "preset", help="digits, cifar10-small, cifar10 or shapes; with -judge behind it, the judge of its images, and for shapes, "
        "with -style-judge or -object-judge"
    )
    train.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and the resumable state")
    train.add_argument("--steps", type=int, help="optimisation steps (default: the preset's)")
    train.add_argument("--without", metavar="CLASS", help="leave a class out: the model that never saw it")
    train.add_argument("--start", metavar="CHECKPOINT", help="train on the weights of a checkpoint of the same preset")
    train.add_argument("--resume", action="store_true", help="go on where a killed run stopped, bit for bit")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the saved weights")
    train.add_argument("--threads", type=int, help="CPU threads (default: one a core)")
    train.add_argument("--samples-every", type=int, metavar="N", help="write a grid of samples every N steps")
    train.add_argument("--tensorboard", action="store_true", help="also log for TensorBoard (needs the extra of that name)")
    train.set_defaults(run=run_train)


def _add_checkpoint(parser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or the name of a shipped one, e.g. digits")
    parser.add_argument("--guidance-scale", type=float, metavar="S", help="1 is no guidance (default: the checkpoint's)")
    parser.add_argument("--steps", type=int, default=20, metavar="K", help="sampling steps (default: 20)")
    parser.add_argument("--seed", type=int, default=0)


def _add_sample(commands) -> None:
    sample = commands.add_parser("sample", help="draw images from a checkpoint")
    _add_checkpoint(sample)
    sample.add_argument("--label", metavar="CLASS", help="what to draw: a class, style or object (default: every class)")
    sample.add_argument("--prompt", metavar="TEXT", help="for a text-to-image checkpoint, what to draw in words of your own")
    sample.add_argument("--count", type=int, default=8, metavar="N", help="images of each class (default: 8)")
    sample.add_argument("--out", type=Path, required=True, metavar="FILE", help="a picture, .png")
    sample.set_defaults(run=run_sample)


def _add_evaluate(commands) -> None:
    evaluate = commands.add_parser("evaluate", help="let the judge say what a checkpoint draws, and how faithfully")
    _add_checkpoint(evaluate)
    evaluate.add_argument("--target", metavar="CLASS", help="what should be forgotten: adds UA and RA, with styles IRA and CRA")
    evaluate.add_argument("--count", type=int, default=100, metavar="N", help="samples of each class (default: 100)")
    evaluate.add_argument("--data", help="reference of fidelity (default: digits, cifar10-mini or shapes)")
    evaluate.add_argument("--json", action="store_true", help="print one JSON object")
    evaluate.set_defaults(run=run_evaluate)


def _add_unlearn(commands) -> None:
    unlearn = commands.add_parser("unlearn", help="make a checkpoint forget a class, a style or an object")
    _add_finetuning(unlearn, steps=200)
    unlearn.add_argument("--method", default="dimum", help="dimum, esd, salun, ... (default: dimum)")
    unlearn.add_argument("--plugin", type=Path, metavar="FILE", help="a Python file that registers a method of your own")
    unlearn.add_argument("--target", metavar="CLASS", required=True, help="what to forget: a class, style or object")
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
    relearn.add_argument("--target", metavar="CLASS", required=True, help="what is measured; the attack never sees it")
    relearn.add_argument(
        "--auxiliary", choices=("retain", "synthetic", "public", "noise"), default="retain",
        help="what the attacker has (default: the retained data); synthetic: samples of the other classes",
    )
    relearn.add_argument("--drawn-by", metavar="CHECKPOINT", help="who draws synthetic data (default: the attacked checkpoint)")
    relearn.add_argument("--share", type=float, default=1.0, help="share of the auxiliary set (default: all of it)")
    relearn.add_argument("--optimizer", choices=("adamw", "sgd"), default="adamw")
    relearn.add_argument("--resume", action="store_true", help="go on where a killed run stopped")
    relearn.set_defaults(run=run_relearn)


def _add_benchmark(commands) -> None:
    benchmark = commands.add_parser("benchmark", help="run a grid of methods and attacks, and say what it shows")
    actions = benchmark.add_subparsers(dest="action", required=True, metavar="ACTION")
    run = actions.add_parser("run", help="compute what a results folder lacks of a plan; may be killed and run again")
    run.add_argument("plan", type=Path, metavar="PLAN.yaml")
    run.add_argument("--out", type=Path, required=True, help="results folder")
    run.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    run.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads in each (default: 1)")
    run.add_argument("--engine", choices=("serial", "loky", "dask"), default="loky")
    run.add_argument("--scheduler", metavar="ADDRESS", help="of a running dask cluster")
    run.set_defaults(run=run_benchmark)
    report = actions.add_parser("report", help="what has been computed so far: a table, a page with figures, files")
    report.add_argument("results", type=Path, metavar="DIR", help="results folder, or a Parquet or CSV file made from one")
    report.add_argument("--out", type=Path, metavar="FOLDER", help="write report.html with its figures and tables")
    report.add_argument("--parquet", type=Path, metavar="FILE", help="write every row of every recovery curve")
    report.add_argument("--csv", type=Path, metavar="FILE", help="the same as CSV")
    report.set_defaults(run=run_benchmark_report)


def _add_grade(commands) -> None:
    grade = commands.add_parser("grade", help="mark the exercises that a class has handed in")
    grade.add_argument("folder", type=Path, metavar="FOLDER", help="submissions: .ipynb, .py or .json, or a folder a student")
    grade.add_argument("--out", type=Path, required=True, metavar="DIR", help="for marks.csv and a page a student")
    grade.add_argument("--points", type=Path, metavar="FILE", help="what an exercise is worth (default: the course's points.yaml)")
    grade.add_argument("--seconds", type=float, default=20.0, help="limit for each answer (default: 20)")
    grade.add_argument("--memory", type=float, default=2.0, metavar="GB", help="limit beyond what torch needs (default: 2)")
    grade.set_defaults(run=run_grade)


def _add_finetuning(parser, steps: int) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a folder, or the name of a shipped one, e.g. digits")
    parser.add_argument("--out", type=Path, required=True, help="folder for the new checkpoint")
    parser.add_argument("--data", help="data set (default: digits, cifar10-mini or shapes, whichever fits)")
    parser.add_argument("--steps", type=int, default=steps, help=f"optimisation steps (default: {steps})")
    parser.add_argument("--learning-rate", type=float, default=1e-4, metavar="LR")
    parser.add_argument("--seed", type=int, default=0)


def run_train(args) -> None:
    import torch

    from .autoencoder import AUTOENCODER_PRESETS, train_autoencoder
    from .checking import check_whole
    from .errors import UnknownName
    from .judges.training import JUDGE_PRESETS, train_judge
    from .models.denoiser import PRESETS
    from .pretraining import train_base

    known = PRESETS | JUDGE_PRESETS | AUTOENCODER_PRESETS
    if args.preset not in known:
        raise UnknownName("preset", args.preset, known)
    for option, value in (("--threads", args.threads), ("--samples-every", args.samples_every)):
        if value is not None:
            check_whole(option, value)
    if args.threads:
        torch.set_num_threads(args.threads)
    settings = {"seed": args.seed} | ({"steps": args.steps} if args.steps is not None else {})
    settings |= {
        "resume": args.resume, "dtype": args.dtype, "on_log": _tensorboard_writer(args.out) if args.tensorboard else None
    }
    if args.preset in JUDGE_PRESETS:
        if args.without or args.samples_every or args.start:
            raise DimumError(
                "A judge knows every class, draws no samples and starts afresh: leave --without, --samples-every and --start out."
            )
        _, result = train_judge(args.preset, args.out, **settings)
    elif args.preset in AUTOENCODER_PRESETS:
        if args.samples_every or args.start:
            raise DimumError("An autoencoder draws no samples and starts afresh: leave --samples-every and --start out.")
        _, result = train_autoencoder(args.preset, args.out, without=args.without, **settings)
    else:
        _, result = train_base(
            args.preset, args.out, without=args.without, start=args.start, evaluate_every=args.samples_every or 0,
            evaluate=_grid_writer(args.out) if args.samples_every else None, **settings,
        )
    print(f"{args.out}: trained {args.preset} in {result.seconds / 60:.1f} minutes")


def run_sample(args) -> None:
    from .evaluation import draw_samples
    from .files import check_writable
    from .models.checkpoints import load_pipeline
    from .models.sampling import ClassConditionalPipeline
    from .pictures import save_picture, tile

    if args.count < 1 or args.steps < 1:
        raise DimumError("--count and --steps must be at least 1.")
    if args.label is not None and args.prompt is not None:
        raise DimumError("--label and --prompt both say what to draw: leave one of them out.")
    if args.out.suffix.lower() != ".png":
        raise DimumError(f"--out must be a picture that ends in .png, not {args.out}.")
    check_writable(args.out.parent)
    pipe = load_pipeline(args.checkpoint)
    if args.prompt is not None and isinstance(pipe, ClassConditionalPipeline):
        raise DimumError(f"{args.checkpoint} draws classes, not prompts: use --label.")
    rows = _classes_to_draw(args, pipe) if args.prompt is None else {args.prompt: args.prompt}
    images = draw_samples(
        pipe, [label for label in rows for _ in range(args.count)], seed=args.seed, guidance_scale=args.guidance_scale,
        num_inference_steps=args.steps,
    )
    save_picture(tile(images, columns=args.count), args.out)
    print(f"{args.out}: {len(images)} images, a row for each of {', '.join(rows.values())}")


def _classes_to_draw(args, pipe) -> dict[int, str]:
    """Number -> name of the classes that --label asks for; without it, of all."""
    from .data.targets import find_target

    if not hasattr(pipe, "class_names"):
        raise DimumError(f"{args.checkpoint} names no classes: say with --prompt what to draw.")
    numbers = range(len(pipe.class_names)) if args.label is None else find_target(args.label, pipe.class_names).labels
    return {number: pipe.class_names[number] for number in numbers}


def run_evaluate(args) -> None:
    import json

    from .data import load_dataset
    from .evaluation import default_data, evaluate
    from .models.checkpoints import load_pipeline

    if args.count < 1 or args.steps < 1:
        raise DimumError("--count and --steps must be at least 1.")
    pipe = load_pipeline(args.checkpoint)
    measured = evaluate(
        pipe, target=args.target, data=load_dataset(args.data) if args.data else default_data(pipe), seed=args.seed,
        per_class=args.count, guidance_scale=args.guidance_scale, num_inference_steps=args.steps,
    )
    if args.json:
        print(json.dumps({"checkpoint": args.checkpoint, **measured.as_dict()}, indent=2, allow_nan=False))
        return
    print(measured.table.round(4).to_string(), end="\n\n")
    print(measured.per_class.round(3).to_string(), end="\n\n")
    if measured.drawn is not None:
        print(f"what the label {args.target} draws\n{measured.drawn.round(3).to_string()}", end="\n\n")
    print(", ".join(f"{key} {value}" for key, value in measured.provenance.items()))


def run_unlearn(args) -> None:
    from .data import load_dataset
    from .evaluation import default_data
    from .models.checkpoints import command_line, load_pipeline, provenance, save_checkpoint
    from .unlearning import load_plugin, unlearn

    if args.plugin:
        load_plugin(args.plugin)
    settings = dict(map(_setting, args.settings))
    for name in settings:
        if name in (*vars(args), "pipe"):
            raise DimumError(f"--set is for hyper-parameters of the method, and {name} is not one: use --{name.replace('_', '-')}.")
    pipe = load_pipeline(args.checkpoint)
    data = load_dataset(args.data) if args.data else default_data(pipe)
    forgetful = unlearn(
        pipe, args.method, target=args.target, data=data, steps=args.steps, learning_rate=args.learning_rate, seed=args.seed,
        out=args.out, resume=args.resume, until=args.until, **settings,
    )
    record = forgetful.unlearning
    card = {
        "title": f"{args.checkpoint} without {args.target}, by {args.method}",
        "summary": f"{args.checkpoint}, made to forget {args.target} by {args.method}.", "kind": "denoiser",
        "training": {"command": command_line(), "steps": record["steps"], "learning_rate": args.learning_rate, "seed": args.seed,
                     "seconds": round(record["seconds"]), **record["settings"]},
        "data": {"name": data.name, "digest": data.train.digest}, "provenance": provenance(),
    }
    save_checkpoint(forgetful, args.out, card)
    print(f"{args.out}: forgot {args.target} in {record['seconds']:.0f} s; measure it with dimum evaluate")
    if record["left_out"]:
        print(f"{', '.join(record['left_out'])} had been forgotten before, and was left out of the retained images")


def _setting(text: str) -> tuple[str, int | float | str]:
    """name=value as a pair; numbers become numbers."""
    import ast

    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise DimumError(f"--set takes NAME=VALUE, such as weight=2.0, not {text!r}.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def run_relearn(args) -> None:
    from .attacks import auxiliary_set, relearn
    from .data import Dataset, load_dataset
    from .evaluation import default_data
    from .files import check_writable, write_atomically
    from .models.checkpoints import command_line, load_pipeline, provenance, save_checkpoint
    from .models.history import history_of

    if args.drawn_by and args.auxiliary != "synthetic":
        raise DimumError("--drawn-by says who draws synthetic data: add --auxiliary synthetic, or leave it out.")
    check_writable(args.out)
    pipe = load_pipeline(args.checkpoint)
    data = load_dataset(args.data) if args.data else default_data(pipe)
    artist, forget = load_pipeline(args.drawn_by) if args.drawn_by else pipe, data.train.only(args.target)
    data = Dataset(*(history_of(pipe).leave_out(part)[0] for part in (data.train, data.test)))
    auxiliary = auxiliary_set(args.auxiliary, data, args.target, pipe=artist, share=args.share, seed=args.seed)
    attack = relearn(
        pipe, auxiliary, target=args.target, steps=args.steps, learning_rate=args.learning_rate, seed=args.seed,
        optimizer=args.optimizer, forget=forget, out=args.out, resume=args.resume,
    )
    card = {
        "title": f"{args.checkpoint}, attacked by DiMRA", "summary": f"{args.checkpoint}, finetuned without {args.target}.",
        "kind": "denoiser", "data": {"name": data.name, "auxiliary": args.auxiliary, "images": len(auxiliary)},
        "provenance": provenance(),
        "training": {"command": command_line(), "steps": args.steps, "learning_rate": args.learning_rate, "seed": args.seed},
    }
    save_checkpoint(attack.pipeline, args.out, card)
    write_atomically(args.out / "curve.csv", attack.curve.to_csv(index=False).encode())
    print(attack.curve.round(3).to_string(index=False))


def run_benchmark(args) -> None:
    from .benchmark import load_plan, run
    from .benchmark.cost import estimate_minutes
    from .benchmark.store import failures

    if args.workers < 1 or args.threads < 1:
        raise DimumError("--workers and --threads must be at least 1.")
    plan = load_plan(args.plan)
    models, minutes = plan.models(), estimate_minutes(plan, args.threads) / args.workers
    attacks = sum(len(plan.attacks(model)) for model in models)
    print(f"{plan.name}: {len(models)} models, {attacks} attacks, about {minutes:.0f} minutes if nothing is there yet", flush=True)
    done = run(plan, args.out, engine=args.engine, workers=args.workers, threads=args.threads, scheduler=args.scheduler)
    print(f"{args.out}: {done.computed} attacks computed, {done.reused} were there, {done.failed} failed")
    if done.failed:
        raise DimumError(f"{done.failed} attacks failed; the latest traceback is in {failures(args.out)[0]}.")


def run_benchmark_report(args) -> None:
    from .benchmark import read_results, report, write_results

    rows = read_results(args.results)
    print(report(rows).to_string(index=False))
    for file in filter(None, (args.parquet, args.csv)):
        write_results(rows, file)
    if args.out:
        from .benchmark.page import write_report

        print(write_report(rows, args.out, f"Leaderboard: {args.results.resolve().stem}"))


def run_grade(args) -> None:
    from .course.grade import POINTS, grade
    from .course.marks import one_line

    for result in grade(args.folder, args.out, args.points or POINTS, args.seconds, args.memory):
        note = f" ({result.note})" if result.note else ""
        print(one_line(f"{result.student}: {result.points:g} of {result.out_of:g}{note}"))


def run_doctor(args) -> None:
    from .doctor import report

    report()


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


def _write_any_character() -> None:
    """Where the shell's encoding lacks a character, its number is written; the C locale gets UTF-8, as in Python's UTF-8 mode."""
    for stream in (sys.stdout, sys.stderr):
        if not isinstance(stream, io.TextIOWrapper):
            continue
        if codecs.lookup(stream.encoding).name == "ascii":
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")
        else:
            stream.reconfigure(errors="backslashreplace")


def main(argv: list[str] | None = None) -> int:
    _write_any_character()
    args = build_parser().parse_args(argv)
    try:
        args.run(args)
    except DimumError as error:
        print(f"dimum: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        further = "--resume goes on from the last checkpoint" if hasattr(args, "resume") else "run it again"
        print(f"dimum: stopped; {further}.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
