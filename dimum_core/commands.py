"""What each `dimum` command does. Imports wait until a command needs them: they take seconds."""

from __future__ import annotations

import shlex

from .errors import DimumError
from .training_commands import in_words, one_or_several, reported


def _data_of(args, pipe):
    """What --data names, as it fits a pipeline; without it, the data set that is shipped for the pipeline."""
    from .fitting import data_for

    return reported(data_for(pipe, args.data))


def _pipeline(args):
    """The checkpoint, with what --adapter names added to its weights."""
    from .models.checkpoints import load_pipeline

    return load_pipeline(args.checkpoint, adapters=args.adapter)


def _economy(args) -> dict:
    """What decides how much memory a training takes."""
    return {name: getattr(args, name) for name in ("batch_size", "optimizer", "lora_rank", "gradient_checkpointing")}


def _check_low_rank(args, pipe) -> None:
    """Refuse, before the training, updates that could not be saved."""
    from .models.low_rank import check_has_format

    if args.merge and not args.lora_rank:
        raise DimumError("--merge is for --lora-rank: without it there are no updates to add to the weights.")
    if args.lora_rank and not args.merge:
        check_has_format(pipe)


def _save_trained(args, pipe, card: dict) -> None:
    """The whole model; with --lora-rank its updates alone, unless they are to be merged."""
    from .models.checkpoints import save_checkpoint
    from .models.low_rank import save_adapter

    if not args.lora_rank or args.merge:
        save_checkpoint(pipe, args.out, card)
        return
    save_adapter(pipe, args.out, card | {"kind": "adapter"})
    folders = [*args.adapter, args.out]  # those it was trained on, first
    adapters = " ".join(f"--adapter {shlex.quote(str(folder))}" for folder in folders)
    print(f"{args.out}: low-rank updates in diffusers' format; give them after {args.checkpoint} with {adapters}")


def _judge(args):
    from .judges import load_judge

    return load_judge(args.judge) if args.judge else None


def run_sample(args) -> None:
    from .evaluation import draw_samples
    from .files import check_writable
    from .models.sampling import ClassConditionalPipeline
    from .pictures import save_picture, tile

    if args.count < 1 or args.steps < 1:
        raise DimumError("--count and --steps must be at least 1.")
    if args.label is not None and args.prompt is not None:
        raise DimumError("--label and --prompt both say what to draw: leave one of them out.")
    if args.out.suffix.lower() != ".png":
        raise DimumError(f"--out must be a picture that ends in .png, not {args.out}.")
    check_writable(args.out.parent)
    pipe = _pipeline(args)
    if args.prompt is not None and isinstance(pipe, ClassConditionalPipeline):
        raise DimumError(f"{args.checkpoint} draws classes, not prompts: use --label.")
    rows = _classes_to_draw(args, pipe) if args.prompt is None else {args.prompt: args.prompt}
    images = draw_samples(
        pipe, [label for label in rows for _ in range(args.count)], seed=args.seed, guidance_scale=args.guidance_scale,
        num_inference_steps=args.steps,
    )
    save_picture(tile(images, columns=args.count), args.out)
    print(f"{args.out}: {len(images)} image{'s' * (len(images) > 1)}, a row for each of {', '.join(rows.values())}")


def _classes_to_draw(args, pipe) -> dict[int, str]:
    """Number -> name of the classes that --label asks for; without it, of all."""
    from .data.targets import find_target

    if not hasattr(pipe, "class_names"):
        raise DimumError(f"{args.checkpoint} names no classes: say with --prompt what to draw.")
    numbers = range(len(pipe.class_names)) if args.label is None else find_target(args.label, pipe.class_names).labels
    return {number: pipe.class_names[number] for number in numbers}


def run_evaluate(args) -> None:
    import json

    from .evaluation import evaluate

    if args.count < 1 or args.steps < 1:
        raise DimumError("--count and --steps must be at least 1.")
    pipe = _pipeline(args)
    measured = evaluate(
        pipe, target=one_or_several(args.target), data=_reference(args, pipe), judge=_judge(args), seed=args.seed,
        per_class=args.count, guidance_scale=args.guidance_scale, num_inference_steps=args.steps,
    )
    if args.json:
        print(json.dumps({"checkpoint": args.checkpoint, **measured.as_dict()}, indent=2, allow_nan=False))
        return
    print(measured.table.round(4).to_string(), end="\n\n")
    print(measured.per_class.round(3).to_string(), end="\n\n")
    if measured.drawn is not None:
        print(f"what the label {in_words(args.target)} draws\n{measured.drawn.round(3).to_string()}", end="\n\n")
    print(", ".join(f"{key} {value}" for key, value in measured.provenance.items()))


def _reference(args, pipe):
    """The data whose held-out images fidelity is measured against; without them, nothing, if no one named any data."""
    import sys

    import numpy as np

    from .errors import DataError
    from .models.history import history_of

    try:
        data = _data_of(args, pipe)
        if args.data or not np.isin(data.test.item_hashes, history_of(pipe).item_hashes).any():
            return data
        reason = "The model has learnt from the held-out images, as after --auxiliary public."
    except DataError as error:
        if args.data or not args.judge:
            raise
        reason = error
    print(f"dimum: fidelity is not measured. {reason}", file=sys.stderr, flush=True)
    return None


def run_unlearn(args) -> None:
    from .models.cards import command_line, provenance
    from .unlearning import load_plugin, unlearn

    if args.plugin:
        load_plugin(args.plugin)
    settings = _hyperparameters(args)
    pipe = _pipeline(args)
    _check_low_rank(args, pipe)
    data = _data_of(args, pipe)
    forgetful = unlearn(
        pipe, args.method, target=one_or_several(args.target), data=data, steps=args.steps, learning_rate=args.learning_rate,
        seed=args.seed, out=args.out, resume=args.resume, until=args.until, judge=_judge(args), **_economy(args), **settings,
    )
    record, said = forgetful.unlearning, in_words(args.target)
    card = {
        "title": f"{args.checkpoint} without {said}, by {args.method}",
        "summary": f"{args.checkpoint}, made to forget {said} by {args.method}.", "kind": "denoiser",
        "training": {"command": command_line(), "steps": record["steps"], "learning_rate": args.learning_rate, "seed": args.seed,
                     "seconds": round(record["seconds"]), **record["settings"]},
        "data": {"name": data.name, "digest": data.train.digest}, "provenance": provenance(),
    }
    _save_trained(args, forgetful, card)
    known = "UA" in record["log"]  # not, if a finished training is asked to have stopped earlier
    if args.until is not None and known and (reached := record["log"]["UA"].dropna().iloc[-1]) < args.until:
        steps = record["steps"]
        print(f"{args.out}: UA is {reached:.2f} after {steps} steps, and --until asks for {args.until:g}: give more --steps")
    else:
        print(f"{args.out}: forgot {said} in {record['seconds']:.0f} s; measure it with dimum evaluate")
    if record["left_out"]:
        print(f"{', '.join(record['left_out'])} had been forgotten before, and was left out of the retained images")


def _hyperparameters(args) -> dict[str, int | float | str]:
    """What --set says. Arguments of `unlearn` that are no hyper-parameters are refused."""
    import inspect

    from .unlearning import unlearn
    from .unlearning.choosing import setting

    settings = dict(map(setting, args.settings))
    for name in settings:
        if name in vars(args):
            raise DimumError(f"--set is for hyper-parameters of the method, and {name} is not one: use --{name.replace('_', '-')}.")
        if name in inspect.signature(unlearn).parameters:
            raise DimumError(
                f"--set is for hyper-parameters of the method, and {name} is not one: it can be given only in Python, "
                f"as unlearn(..., {name}=...)."
            )
    return settings


def run_relearn(args) -> None:
    from .attacks import auxiliary_set, relearn
    from .data import Dataset
    from .files import check_writable, write_atomically
    from .models.cards import command_line, provenance
    from .models.checkpoints import load_pipeline
    from .models.conditions import image_size
    from .models.history import history_of

    if args.drawn_by and args.auxiliary != "synthetic":
        raise DimumError("--drawn-by says who draws synthetic data: add --auxiliary synthetic, or leave it out.")
    check_writable(args.out)
    pipe = _pipeline(args)
    _check_low_rank(args, pipe)
    data, target = _data_of(args, pipe), one_or_several(args.target)
    artist, forget = load_pipeline(args.drawn_by) if args.drawn_by else pipe, data.train.only(target)
    data = Dataset(*(history_of(pipe).leave_out(part)[0] for part in (data.train, data.test))).resized(image_size(pipe))
    auxiliary = auxiliary_set(args.auxiliary, data, target, pipe=artist, share=args.share, seed=args.seed)
    attack = relearn(
        pipe, auxiliary, target=target, steps=args.steps, learning_rate=args.learning_rate, seed=args.seed,
        forget=forget, judge=_judge(args), out=args.out, resume=args.resume, **_economy(args),
    )
    card = {
        "title": f"{args.checkpoint}, attacked by DiMRA", "kind": "denoiser",
        "summary": f"{args.checkpoint}, finetuned without {in_words(args.target)}.",
        "data": {"name": data.name, "auxiliary": args.auxiliary, "images": len(auxiliary)},
        "provenance": provenance(),
        "training": {"command": command_line(), "steps": args.steps, "learning_rate": args.learning_rate, "seed": args.seed},
    }
    _save_trained(args, attack.pipeline, card)
    write_atomically(args.out / "curve.csv", attack.curve.to_csv(index=False).encode())
    print(attack.curve.round(3).to_string(index=False))


def run_audit(args) -> None:
    import json

    from .attacks import audit, report_card
    from .files import write_atomically
    from .models.checkpoints import load_pipeline

    retrained, original = (load_pipeline(name) if name else None for name in (args.retrained, args.original))
    pipe = _pipeline(args)
    found = audit(
        pipe, one_or_several(args.target), _data_of(args, pipe), retrained=retrained, original=original, judge=_judge(args),
        samples=args.samples, init_seed=args.init_seed, seed=args.seed, minutes=args.minutes, out=args.out,
    )
    numbers, page = json.dumps({"checkpoint": args.checkpoint, **found.as_dict()}, indent=2), report_card(found)
    if args.out:
        write_atomically(args.out / "report.md", page.encode())
        write_atomically(args.out / "report.json", numbers.encode())
    print(numbers if args.json else page)


def run_benchmark(args) -> None:
    from .benchmark import load_plan, run
    from .benchmark.cost import estimate_minutes
    from .benchmark.store import failures

    if args.workers < 1 or args.threads < 1:
        raise DimumError("--workers and --threads must be at least 1.")
    if args.engine == "serial" and args.workers > 1:
        raise DimumError("The serial engine has one worker: leave --workers out, or leave --engine out.")
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

    if args.capstone:
        from .course.capstones import grade_capstones

        if args.points or args.seconds is not None:
            raise DimumError("--points and --seconds are for exercises: a capstone has a rubric of its own, so leave them out.")
        results = grade_capstones(args.folder, args.out, memory=args.memory)
    else:
        limit = {} if args.seconds is None else {"seconds": args.seconds}
        results = grade(args.folder, args.out, args.points or POINTS, memory=args.memory, **limit)
    for result in results:
        note = f" ({result.note})" if result.note else ""
        print(one_line(f"{result.student}: {result.points:g} of {result.out_of:g}{note}"))


def run_doctor(args) -> None:
    from .doctor import report, report_pictures

    report() if args.data is None else report_pictures(args.data)
