"""Who pays: what each class draws before and after unlearning, and after an attack; near and far neighbours are kept apart."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from diffusers import DiffusionPipeline

from .checking import check_kind, check_whole
from .data import ImageSet
from .data.targets import Wanted, find_target
from .errors import DataError
from .evaluation import draw_samples
from .judges import Judge, PairJudge, judge_for
from .metrics import confusion_matrix, difference_of_proportions
from .models.conditions import conditions_of
from .models.support import check_supported


def interference(
    pipe: DiffusionPipeline, *, judge: Judge | PairJudge | None = None, per_class: int = 50, seed: int = 0, progress: bool = True,
    **sampling,
) -> pd.DataFrame:
    """How often each class is drawn: a row for each class asked for, a column for each drawn, the last "none of these"; counts of
    `per_class` samples.

    sampling: guidance_scale, num_inference_steps. On one seed all models are drawn from the same noise.
    Drawn by the pipeline's own sampler: to compare with `evaluate`, give `with_fresh_noise(pipe)`, 25 steps.
    """
    check_supported(pipe)
    check_whole("per_class", per_class)
    judge = judge_for(pipe, judge)
    conditions = conditions_of(pipe, class_names=judge.class_names)
    labels = torch.arange(len(judge.class_names)).repeat(per_class)
    images = draw_samples(pipe, conditions.asked(labels.tolist()), seed=seed, progress=progress, **sampling)
    return confusion_matrix(judge.judge(images).labels, labels, judge.class_names)


def nearness(images: ImageSet, target: Wanted, judge: Judge | PairJudge) -> pd.Series:
    """How far each other class is from the target, nearest first: the distance between their mean features, of real images.

    images: of all classes, held out, of the judge's size. If the target has several classes, the nearest of them counts.
    """
    check_kind("images", images, ImageSet, "an image set, such as load_dataset('digits').test")
    target = find_target(target, images.class_names)
    features, classes = judge.judge(images.images).features, range(len(images.class_names))
    if lacking := [images.class_names[label] for label in classes if not (images.labels == label).any()]:
        raise DataError(f"{images.name} has no images of {', '.join(lacking)}: nearness needs some of every class.")
    means = torch.stack([features[images.labels == label].mean(0) for label in classes])
    distance = torch.cdist(means[list(target.labels)], means).amin(0)
    others = target.others.tolist()
    return pd.Series({images.class_names[label]: float(distance[label]) for label in others}).sort_values(kind="stable")


def who_pays(matrices: dict[str, pd.DataFrame], distances: pd.Series, near: int = 3) -> pd.DataFrame:
    """For each class but the target the share drawn right in each of several models, and how it changed from one to the next.

    matrices: "before", "unlearned", "attacked", say -> `interference`, of as many samples each. distances: of `nearness`.
    near: how many of the nearest classes are neighbours; the rest is far. A row for each class, nearest first, then "near" and
    "far", which pool their samples. Changes come with Newcombe's 95 % interval.
    """
    check_whole("near", near, 1, len(distances) - 1)
    groups = {name: [name] for name in distances.index}
    groups |= {"near": list(distances.index[:near]), "far": list(distances.index[near:])}
    rows = {}
    for name, members in groups.items():
        counts = {when: (_right(table, members), int(table.loc[members].to_numpy().sum())) for when, table in matrices.items()}
        rows[name] = {when: right / n for when, (right, n) in counts.items()}
        for former, latter in pairwise(counts):
            change = difference_of_proportions(*counts[latter], *counts[former])
            rows[name] |= {f"{latter} - {former}": change.value, f"{latter} - {former} low": change.low,
                           f"{latter} - {former} high": change.high}
    return pd.DataFrame(rows).T


def bill(
    before: pd.DataFrame, after: dict[str, pd.DataFrame], distances: pd.Series, costs: dict[str, dict[str, float]] | None = None,
    near: int = 3,
) -> pd.DataFrame:
    """What several ways to forget cost the other classes, and the machine: a row each.

    before: `interference` of the original. after: name -> that of the model made in this way. distances, near: as in `who_pays`.
    costs: name -> seconds, passes and memory, as `benchmark.nfe.spent` measures them.
    Columns: the share drawn right, and its change with Newcombe's 95 % interval, for near and for far classes; the class that
    lost most, and its change; then the costs.
    """
    rows = {}
    for name, table in after.items():
        paid = who_pays({"before": before, "after": table}, distances, near)
        change = paid["after - before"]
        rows[name] = {}
        for group in ("near", "far"):
            rows[name] |= {group: paid.loc[group, "after"], f"{group} change": change[group]}
            rows[name] |= {f"{group} {end}": paid.loc[group, f"after - before {end}"] for end in ("low", "high")}
        worst = change[distances.index].idxmin()
        rows[name] |= {"worst": worst, "worst change": change[worst], **(costs or {}).get(name, {})}
    return pd.DataFrame.from_dict(rows, orient="index")


def _right(table: pd.DataFrame, members: list[str]) -> int:
    return int(np.sum([table.loc[name, name] for name in members]))
