"""What must not change the verdict does not: other numbers for the classes, another order of the data, another size of batch.

Exact where nothing but integers or the same float operations are at work; where sums run in another order, the tolerance says how
much a float32 (or float64) sum may move.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from dimum_core import evaluate, relearn, unlearn
from dimum_core.attacks import refuse_leaks
from dimum_core.data import Dataset, ImageSet
from dimum_core.data.targets import find_target
from dimum_core.errors import DataError
from dimum_core.evaluation import copying_rate, draw_samples, nearest_images
from dimum_core.judges import load_judge
from dimum_core.judges.classifier import Judge, class_gaussians, fit_temperature
from dimum_core.judges.counting import accuracies, drawn_for
from dimum_core.metrics import frechet_distance, kernel_distance, per_class_accuracy, precision_recall
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.denoiser import PRESETS

MOVED = torch.tensor([4, 7, 0, 9, 1, 3, 8, 2, 5, 6])  # class k becomes number MOVED[k]
SMALL = {"batch_size": 8, "progress": False, "precision": "fp32"}


@pytest.fixture(scope="module")
def judge():
    return load_judge("digits-judge")


@pytest.fixture(scope="module")
def images(pipe):
    return draw_samples(pipe, list(range(10)) * 6, num_inference_steps=8, progress=False)


# Other numbers for the classes -------------------------------------------------------------------------------------------


def moved_names(names) -> tuple[str, ...]:
    return tuple(names[int(k)] for k in MOVED.argsort())


def moved_set(images: ImageSet) -> ImageSet:
    return replace(images, labels=MOVED[images.labels], class_names=moved_names(images.class_names))


def moved_pipe(pipe):
    """The same model, with the rows of its label table in another order."""
    unet = copy.deepcopy(pipe.unet)
    with torch.no_grad():
        unet.class_embedding.weight[MOVED] = pipe.unet.class_embedding.weight[:10]
    return build_pipeline(unet, PRESETS["digits"], moved_names(pipe.class_names))


def moved_judge(judge: Judge) -> Judge:
    settings = {key: value for key, value in judge.config.items() if not key.startswith("_")}
    moved = Judge(**settings | {"class_names": moved_names(judge.class_names)})
    moved.load_state_dict(judge.state_dict())
    with torch.no_grad():
        moved.head.weight[MOVED] = judge.head.weight
        moved.class_means[MOVED] = judge.class_means
    return moved.to(memory_format=torch.channels_last).eval()


def test_a_class_draws_the_same_images_by_any_number(pipe):
    labels = [3, 3, 8, 0, None]
    numbers = [None if k is None else int(MOVED[k]) for k in labels]
    settings = {"num_inference_steps": 5, "progress": False}
    assert torch.equal(draw_samples(moved_pipe(pipe), numbers, **settings), draw_samples(pipe, labels, **settings))


def test_the_judge_says_the_same_names(judge, images):
    plain, other = judge.judge(images), moved_judge(judge).judge(images)
    recognised = plain.labels >= 0
    assert torch.equal(other.labels[recognised], MOVED[plain.labels[recognised]]) and (other.labels[~recognised] == -1).all()
    torch.testing.assert_close(other.probabilities[:, MOVED], plain.probabilities, rtol=1e-5, atol=1e-6)
    assert torch.equal(other.features, plain.features)


def test_what_is_counted_goes_by_name(judge, images):
    asked = torch.arange(10).repeat(6)
    plain, other = judge.judge(images), moved_judge(judge).judge(images)
    names, moved = judge.class_names, moved_names(judge.class_names)
    for target in ("3", "8"):
        a, b = find_target(target, names), find_target(target, moved)
        assert accuracies(plain, asked, a) == accuracies(other, MOVED[asked], b)
        shares = [drawn_for(t, v, labels)["value"].to_dict() for t, v, labels in ((a, plain, asked), (b, other, MOVED[asked]))]
        assert shares[0] == shares[1]
    each = [per_class_accuracy(v.labels, labels, n)["value"].to_dict() for v, labels, n in (
        (plain, asked, names), (other, MOVED[asked], moved))]
    assert each[0] == each[1]


@pytest.mark.parametrize("method", ["finetune", "dimum", "esd", "negative-gradient"])
def test_unlearning_does_not_see_the_numbers(pipe, digits, method):
    """Methods that draw no label by its number. The clip of the gradient sums squares over the rows in another order, and AdamW
    magnifies a last digit where a gradient is next to nothing; hence a tolerance."""
    settings = SMALL | {"steps": 2} | ({"alternative": "images"} if method == "dimum" else {})
    plain = unlearn(pipe, method, target="3", data=digits, **settings)
    other = unlearn(moved_pipe(pipe), method, target="3", data=Dataset(moved_set(digits.train), moved_set(digits.test)), **settings)
    close(plain, other)
    assert plain.unlearning["forget_set"].item_hashes.tolist() == other.unlearning["forget_set"].item_hashes.tolist()


def test_the_attack_does_not_see_the_numbers(pipe, judge, digits):
    settings = SMALL | {"target": "3", "steps": 2, "samples": 6, "num_inference_steps": 4, "evaluate_every": 2}
    plain = relearn(pipe, digits.train.without("3"), judge=judge, **settings)
    other = relearn(moved_pipe(pipe), moved_set(digits.train.without("3")), judge=moved_judge(judge), **settings)
    close(plain.pipeline, other.pipeline)
    assert plain.curve["target accuracy"].tolist() == other.curve["target accuracy"].tolist()
    assert plain.curve["distance"].tolist() == pytest.approx(other.curve["distance"].tolist(), rel=1e-4)


def close(plain, other) -> None:
    for name, weight in plain.unet.state_dict().items():
        moved = other.unet.state_dict()[name]
        if name == "class_embedding.weight":
            moved = moved[torch.cat([MOVED, torch.tensor([10])])]
        torch.testing.assert_close(moved, weight, rtol=1e-4, atol=2e-5, msg=name)


# Another order of the data ----------------------------------------------------------------------------------------------


def shuffled(images: ImageSet, seed: int = 0) -> ImageSet:
    return images.select(torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)))


def test_splits_by_target_hold_the_same_images_in_any_order(digits):
    mixed, point = shuffled(digits.train), digits.train.only("8").select([2])
    for target in ("3", point):
        for part in ("only", "without"):
            found, again = (getattr(images, part)(target).item_hashes.tolist() for images in (digits.train, mixed))
            assert found != again or len(found) == 1
            assert sorted(found) == sorted(again)


def test_the_evaluation_does_not_see_the_order_of_the_reference(pipe, digits):
    settings = {"target": "3", "per_class": 3, "num_inference_steps": 4, "progress": False}
    plain = evaluate(pipe, data=digits, **settings).table
    other = evaluate(pipe, data=Dataset(shuffled(digits.train), shuffled(digits.test)), **settings).table
    assert plain.index.tolist() == other.index.tolist()
    counted = [name for name in plain.index if "distance" not in name and "floor" not in name]
    assert {"UA", "RA", "precision", "recall"} <= set(counted)
    assert plain.loc[counted, "value"].tolist() == other.loc[counted, "value"].tolist()
    for name in ("Frechet distance", "kernel distance"):
        assert plain.loc[name, "value"] == pytest.approx(other.loc[name, "value"], rel=1e-5, abs=1e-6)


def test_fidelity_does_not_see_the_order_of_samples_or_reference(judge, images, digits):
    a, b = (judge.judge(x).features.double().numpy() for x in (images, digits.test.images[:80]))
    order = np.random.default_rng(0).permutation
    c, d = a[order(len(a))], b[order(len(b))]
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(c, d), rel=1e-6)  # a matrix root of few items
    assert kernel_distance(a, b).value == pytest.approx(kernel_distance(c, d).value, rel=1e-9, abs=1e-12)
    assert precision_recall(reference=b, samples=a) == precision_recall(reference=d, samples=c)


def test_leaks_and_copies_are_found_in_any_order(digits, images):
    threes = digits.train.only("3")
    disguised = replace(digits.train, labels=torch.zeros_like(digits.train.labels))
    for auxiliary in (disguised, shuffled(disguised)):
        with pytest.raises(DataError, match=f"has {len(threes)} images of the forget set"):
            refuse_leaks(auxiliary, 1, forget=shuffled(threes, 1))
    drawn = torch.cat([images, digits.train.images[:5] + 0.01]).clamp(-1, 1)
    rates = [copying_rate(drawn, of=part, among=part) for part in (digits.train, shuffled(digits.train))]
    assert rates[0] == rates[1] and rates[0].value >= 5 / len(drawn)
    distances = [nearest_images(drawn, part)[0] for part in (digits.train, shuffled(digits.train))]
    torch.testing.assert_close(*distances, rtol=1e-5, atol=1e-6)


def test_the_judge_is_calibrated_alike_in_any_order(judge, digits):
    fits = []
    for part in (digits.train, shuffled(digits.train)):
        means, whitening = class_gaussians(judge.seen(part.images)[1], part.labels, 10)
        logits = judge.judge(part.images).probabilities.clamp_min(1e-12).log()
        fits.append((means, whitening @ whitening.T, torch.tensor(fit_temperature(logits, part.labels))))
    for ours, other in zip(*fits, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-3, atol=1e-4)


# Another size of batch --------------------------------------------------------------------------------------------------


def test_the_verdict_does_not_depend_on_the_batch(judge, images):
    """Labels exactly; probabilities to the last digits of a float32, as matrix products may sum in another order."""
    whole = judge.judge(images)
    for size in (1, 7, 60):
        parts = judge.judge(images, batch_size=size)
        assert torch.equal(parts.labels, whole.labels)
        torch.testing.assert_close(parts.probabilities, whole.probabilities, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(parts.features, whole.features, rtol=1e-4, atol=1e-5)


def test_samples_from_the_same_noise_do_not_depend_on_the_batch(pipe, judge):
    labels = [3, 8, 0, 5, 9, 1]
    noise = torch.randn(pipe.encode(torch.zeros(6, 1, 8, 8)).shape, generator=torch.Generator().manual_seed(0))
    settings = {"num_inference_steps": 4, "output_type": "pt"}
    whole = pipe(labels, latents=noise, **settings).images
    for size in (1, 4):
        starts = range(0, 6, size)
        parts = torch.cat([pipe(labels[k:k + size], latents=noise[k:k + size], **settings).images for k in starts])
        torch.testing.assert_close(parts, whole, rtol=0, atol=1e-3)
        assert torch.equal(judge.judge(parts).labels, judge.judge(whole).labels)
