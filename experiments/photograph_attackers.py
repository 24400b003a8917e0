"""Every attacker on photographs: what do they get out of unlearned models, beyond two models that never saw an automobile?

    python experiments/photograph_attackers.py [--samples 48] [--seed 0] [--workers 1] [--out data/results/photograph_attackers.csv]

As `attackers.py` does it on digits: the photograph model forgets the automobile for 60 steps, and every attack of `dimum audit` is
then made on it and on two controls. One was retrained without automobiles. The other was trained on with airplanes under that label
(`photograph_control.py`), so its label draws what that of DiMUM (class) draws. Models whose rows are there already are not computed
again. Prints the leads.

Expected, before it ran: relearning for 150 steps leads by 0.3 or more with ESD and random label, and by 0.1 to 0.6 with DiMUM
(class). Optimised noise leads by more than 0.2 with DiMUM over either control, as on digits, and by at most 0.1 elsewhere. The
row alone, trained on sixteen images, leads by more than 0.2 with every method. Few-shot training teaches the retrained model the
class in more than half of the samples, and leads by more than 0.1 with DiMUM over the control of its own.
Two models that forgot for 240 steps were added when the controls and photographs-lengths.parquet had been read: 300 steps of
relearning bring nothing back from either. Expected: relearning for 150 steps gives at most 0.05 with both, and optimised noise
still leads by more than 0.1 with DiMUM; the row alone leads by more than 0.1 with neither over the larger of the two controls.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from attackers import ABOUT, WITH_ALTERNATIVES, attack_rows, grown, leads
from evaluation import unlearned
from joblib import delayed
from rows import read_rows

from dimum_core import load_dataset, load_pipeline
from dimum_core.attacks.auditing import AUDITED

ORIGINAL, DATA, TARGET = "cifar10-small", "cifar10-mini", "automobile"
KNEW_NONE = {"retrained": "cifar10-small-without-automobile", WITH_ALTERNATIVES: "cifar10-small-airplane-for-automobile"}
LENGTHS = {"60 steps": ["dimum (class)", "esd", "random-label", "erasediff"], "240 steps": ["dimum (class)", "random-label"]}
MODELS = [*((control, "0 steps") for control in KNEW_NONE), *((method, length) for length in LENGTHS for method in LENGTHS[length])]


def measure(method: str, length: str, samples: int, seed: int) -> list[dict]:
    """A row for each attack that can be made on the model."""
    pipe = load_pipeline(KNEW_NONE.get(method, ORIGINAL))
    if method not in KNEW_NONE:
        steps = int(length.split()[0])
        pipe = unlearned(pipe, method, load_dataset(DATA), TARGET, seed, steps=steps, until=None, evaluate_every=None)
    about = dict(zip(ABOUT, (method, length, TARGET, seed), strict=True))
    return [about | row for row in attack_rows(pipe, AUDITED, TARGET, samples, seed, ORIGINAL, DATA)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("data/results/photograph_attackers.csv"))
    args = parser.parse_args()
    rows = read_rows(args.out)
    done = {(row["method"], row["length"], row["seed"]) for row in rows}
    wanted = [model for model in MODELS if (*model, args.seed) not in done]
    rows = grown(rows, [delayed(measure)(*model, args.samples, args.seed) for model in wanted], args.workers, args.out)
    table = leads(pd.DataFrame(rows))
    print(table.pivot_table(index="attack", columns=["length", "method"], values="lead", sort=False).round(2).to_string())


if __name__ == "__main__":
    main()
