"""UnlearnCanvas on a GPU: one style forgotten by several methods, judged by its protocol, and attacked by DiMRA after it.

    python experiments/unlearn_canvas.py --model FOLDER --data FOLDER --style Van_Gogh --out build/canvas
        [--methods dimum esd-x uce] [--styles ...] [--objects ...] [--scale 1] [--lora-rank 8]
        [--guidance-scale S] [--minutes-only]

--model: a StableDiffusionPipeline's folder, finetuned on the data set (its authors publish one). --data: the official folders,
STYLE/OBJECT/NUMBER.jpg. --styles, --objects: some of the folders, to be quick; default, all of them.
--scale: one number for every count: steps of training, of judges, of the attack, and samples. 1 is the experiment, 0.01 tries it.
--minutes-only: time a few steps and samples, say what the whole will take, and stop.

Writes to OUT: `table.csv`, a row for each method before and after the attack (UA, IRA, CRA with 95 % intervals; the Frechet
distance of the rest on the judges' features, or on Inception's where torch-fidelity is installed; seconds, passes and memory of
unlearning and of the attack), the two judges, and a picture for each row. Rows that are there are not computed again, and so an OUT
that was begun with another model, data or scale, say, is refused (OUT/settings.json has them).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rows import check_settings, read_rows, write_rows

from dimum_core import load_pipeline
from dimum_core.benchmark.canvas import METHODS, Experiment, cost_of, judges, rows_of
from dimum_core.data import load_unlearn_canvas
from dimum_core.models.cards import provenance
from dimum_core.models.conditions import image_size

ASIDE = ("out", "style", "methods", "minutes_only")  # not of the settings that all rows of OUT share


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--style", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["dimum", "esd-x", "uce"])
    parser.add_argument("--styles", nargs="+")
    parser.add_argument("--objects", nargs="+")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--lora-rank", type=int, default=8)
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--minutes-only", action="store_true")
    return parser.parse_args()


def main() -> None:
    args = parsed()
    if not args.minutes_only:
        check_settings(args.out, {name: value for name, value in vars(args).items() if name not in ASIDE})
    pipe, table = load_pipeline(args.model), args.out / "table.csv"
    data = load_unlearn_canvas(args.data, image_size=image_size(pipe), styles=args.styles, objects=args.objects)
    args.out.mkdir(parents=True, exist_ok=True)
    run = Experiment(pipe, data, None, args.style, args.out, args.scale, args.lora_rank, args.guidance_scale)
    minutes, memory = cost_of(run, args.methods)
    print(f"about {minutes:.0f} minutes, {memory:.1f} GB of memory, and the training of two judges", flush=True)
    if args.minutes_only:
        return
    run = replace(run, judge=judges(run))
    rows = read_rows(table)
    for method in ("original", *args.methods):
        done = {(row["method"], row["attack rate"]) for row in rows if row["style"] == args.style}
        rows += [row | provenance() for row in rows_of(run, method, done)]
        write_rows(table, rows)
    columns = ["method", "attack rate", "UA", "IRA", "CRA", "Frechet distance of the rest", "seconds", "memory"]
    print(pd.DataFrame(rows)[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
