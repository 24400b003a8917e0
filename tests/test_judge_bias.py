"""The shipped judge of digits against two others: the labels that a good model was given, and a classifier of another kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from dimum_core import load_dataset, load_pipeline
from dimum_core.evaluation import draw_samples
from dimum_core.judges import load_judge
from dimum_core.metrics import wilson_interval

PER_CLASS = 20


@pytest.fixture(scope="module")
def drawn():
    """Samples of the shipped model, 20 a class, the labels they were asked for, and what judge and support vectors call them."""
    labels = torch.arange(10).repeat(PER_CLASS)
    images = draw_samples(load_pipeline("digits"), labels, seed=3, num_inference_steps=10, progress=False)
    return labels, load_judge("digits-judge").judge(images), torch.from_numpy(other_judge().predict(flat(images)))


def other_judge() -> SVC:
    """Support vectors on raw pixels, fitted on the same split: no network, no features, no calibration in common."""
    train = load_dataset("digits").train
    return SVC(gamma="scale", C=10).fit(flat(train.images), train.labels.numpy())


def flat(images) -> np.ndarray:
    return images.flatten(1).numpy()


def test_the_other_judge_can_judge():
    """On held-out digits it is about as good, so that it can bear witness."""
    test = load_dataset("digits").test
    assert (other_judge().predict(flat(test.images)) == test.labels.numpy()).mean() > 0.97


def test_both_judges_agree_on_generated_images(drawn):
    _, verdict, other = drawn
    agreed = wilson_interval(int((verdict.forced_labels == other).sum()), len(other))
    assert agreed.low > 0.95


def test_the_judge_favours_no_class(drawn):
    """It calls about as many samples by a class's name as were asked for, and as the other judge does (20 a class show no less than
    3 of a difference), and recognises each class at least nine times in ten."""
    labels, verdict, other = drawn
    for label in range(10):
        asked, named, seen = ((x == label) for x in (labels, verdict.labels, other))
        for reference in (asked, seen):
            assert abs(int(named.sum()) - int(reference.sum())) <= 3, label
        assert float((verdict.labels[asked] == label).float().mean()) >= 0.9, label


def test_the_judge_rejects_generated_images_as_seldom_as_real_ones(drawn):
    """Its threshold rejects one real image in a hundred."""
    rejected = wilson_interval(int((drawn[1].labels < 0).sum()), len(drawn[0]))
    assert rejected.low <= 0.01 and rejected.value <= 0.04


def test_a_judge_with_a_bias_is_found(drawn):
    """The same checks with a judge that takes a third of the nines for fours."""
    labels, verdict, other = drawn
    biased = verdict.labels.clone()
    nines = (biased == 9).nonzero().flatten()
    biased[nines[::3]] = 4
    assert abs(int((biased == 9).sum()) - int((other == 9).sum())) > 3
    assert float((biased[labels == 9] == 9).float().mean()) < 0.9
