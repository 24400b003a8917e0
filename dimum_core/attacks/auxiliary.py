"""What an attacker may have: the ladder of auxiliary sets D_aux, none of which holds the target."""

from __future__ import annotations

import torch
from diffusers import DiffusionPipeline

from ..checking import check_kind, check_number, check_seed, check_whole
from ..data import Dataset, ImageSet, load_dataset, step_generator
from ..data.targets import Wanted, find_target
from ..errors import DataError, UnknownName
from ..models.sampling import check_pipeline
from ..unlearning.alternatives import drawn_set, noise_set

AUXILIARY = ("retain", "synthetic", "public", "noise")
PUBLIC = {"digits": "mnist-mini"}


def auxiliary_set(
    kind: str,
    data: Dataset,
    target: Wanted,
    *,
    pipe: DiffusionPipeline | None = None,
    share: float = 1.0,
    count: int = 512,
    seed: int = 0,
) -> ImageSet:
    """Auxiliary data for `relearn`.

    retain: the retained training data. synthetic: `count` samples that `pipe` draws for the other classes; the original model's, or
    the unlearned model's own, so that the attacker needs no data at all. public: another data set of the same classes: for
    digits, MNIST; for others, the test images, which no model was trained on. noise: `count` images of uniform noise with the
    other classes' labels, the negative control. A class that `data` lacks, as after data.without("3"), is in none of them.
    share: of the set, drawn by the seed; at least one image stays.
    """
    if kind not in AUXILIARY:
        raise UnknownName("auxiliary set", kind, AUXILIARY)
    check_kind("data", data, Dataset, "a data set, such as load_dataset('digits')")
    check_number("share", share, 0, 1, above=True)
    check_whole("count", count)
    check_seed(seed)
    full = retain = data.train.without(target)
    if kind == "public":
        public = (load_dataset(PUBLIC[data.name]).train if data.name in PUBLIC else data.test).without(target)
        full = public.select(torch.isin(public.labels, retain.labels))
    elif kind == "noise":
        full = noise_set(count, retain, find_target(target, data.class_names), step_generator(seed, 0, "noise images"))
    elif kind == "synthetic" and pipe is None:
        raise DataError("Synthetic auxiliary data need the pipeline that draws them: pass pipe=.")
    elif kind == "synthetic":
        check_pipeline(pipe)
        wanted = find_target(target, data.class_names)
        full = drawn_set("synthetic", count, pipe, retain, wanted, seed + 10**6)  # not what a defender drew to memorise
    kept = max(1, round(share * len(full)))
    return full.select(torch.randperm(len(full), generator=step_generator(seed, 0, "share"))[:kept]) if kept < len(full) else full
