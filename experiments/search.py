"""Is a style still in the weights? A search over embeddings, in unlearned models and in one that never saw the style.

    python experiments/search.py [--seeds 0 1 2] [--methods uce dimum ...] [--out data/results/search.csv]

One row for each method, seed and evaluation of the search: how many samples show the target, with a 95 % interval. Only if the
control stays near zero does a find in another model say that the style is still in it. Rows that the file has already are not
computed again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rows import read_rows, write_rows
from shapes import METHODS, obtain

from dimum_core import load_dataset, load_pipeline
from dimum_core.attacks import search_embedding
from dimum_core.models.cards import provenance

TARGET = "hatched"
SEARCH = {"steps": 300, "evaluate_every": 60, "batch_size": 48, "samples": 60, "progress": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="shapes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--methods", nargs="+", default=["retrained", "uce", "concept-ablation", "random-label", "dimum"], choices=METHODS
    )
    parser.add_argument("--out", type=Path, default=Path("data/results/search.csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = read_rows(args.out)
    done = {(r["method"], r["seed"]) for r in rows}
    pipe, data = load_pipeline(args.checkpoint), load_dataset("shapes")
    for method, seed in ((m, s) for s in args.seeds for m in args.methods):
        if (method, seed) not in done:
            model = obtain(pipe, data, TARGET, method, seed)
            found = search_embedding(model, data.train.only(TARGET), target=TARGET, seed=seed, **SEARCH).curve
            rows += found.assign(target=TARGET, method=method, seed=seed, **provenance()).to_dict("records")
            write_rows(args.out, rows)
            print(method, seed, " ".join(f"{v:.2f}" for v in found["target accuracy"]), flush=True)


if __name__ == "__main__":
    main()
