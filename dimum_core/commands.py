"""What each `dimum` command does. Imports wait until a command needs them: they take seconds."""

from __future__ import annotations

from pathlib import Path

from .errors import DimumError


def run_train(args) -> None:
    import torch

    from .autoencoder import AUTOENCODER_PRESETS
    from .checking import check_whole
    from .errors import UnknownName
    from .judges.training import JUDGE_PRESETS
    from .models.denoiser import PRESETS

    known = PRESETS | JUDGE_PRESETS | AUTOENCODER_PRESETS
    if args.preset not in known:
        raise UnknownName("preset", args.preset, known)
    for option, value in (("--threads", args.threads), ("--samples-every", args.samples_every)):
        if value is not None:
            check_whole(option, value)
    if args.threads:
        torch.set_num_threads(args.threads)
    settings = {
        "seed": args.seed, "resume": args.resume, "dtype": args.dtype,
        "on_log": _tensorboard_writer(args.out) if args.tensorboard else None,
        **({"steps": args.steps} if args.steps is not None else {}),
    }
    trains = {_train_judge: JUDGE_PRESETS, _train_autoencoder: AUTOENCODER_PRESETS, _train_base: PRESETS}
    result = next(train for train, presets in trains.items() if args.preset in presets)(args, settings)
    print(f"{args.out}: trained {args.preset} in {result.seconds / 60:.1f} minutes")


def _train_judge(args, settings: dict):
    from .judges.training import train_judge

    if args.without or args.samples_every or args.start:
        raise DimumError(
            "A judge knows every class, draws no samples and starts afresh: leave --without, --samples-every and --start out."
        )
    return train_judge(args.preset, args.out, **settings)[1]


def _train_autoencoder(args, settings: dict):
    from .autoencoder import train_autoencoder

    if args.samples_every or args.start:
        raise DimumError("An autoencoder draws no samples and starts afresh: leave --samples-every and --start out.")
    return train_autoencoder(args.preset, args.out, without=args.without, **settings)[1]


def _train_base(args, settings: dict):
    from .pretraining import train_base

    return train_base(
        args.preset, args.out, without=args.without, start=args.start, evaluate_every=args.samples_every or 0,
        evaluate=_grid_writer(args.out) if args.samples_every else None, **settings,
    )[1]


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
    from .models.cards import command_line, provenance
    from .models.checkpoints import load_pipeline, save_checkpoint
    from .unlearning import load_plugin, unlearn

    if args.plugin:
        load_plugin(args.plugin)
    settings = _hyperparameters(args)
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


def _hyperparameters(args) -> dict[str, int | float | str]:
    """What --set says, without what is no hyper-parameter but an argument of `unlearn`."""
    import inspect

    from .unlearning import unlearn

    settings = dict(map(_setting, args.settings))
    for name in settings:
        if name in vars(args):
            raise DimumError(f"--set is for hyper-parameters of the method, and {name} is not one: use --{name.replace('_', '-')}.")
        if name in inspect.signature(unlearn).parameters:
            raise DimumError(
                f"--set is for hyper-parameters of the method, and {name} is not one: it can be given in Python alone, "
                f"as unlearn(..., {name}=...)."
            )
    return settings


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
    from .models.cards import command_line, provenance
    from .models.checkpoints import load_pipeline, save_checkpoint
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
