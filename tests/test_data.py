"""Image sets: what they hold, how they split, and batches that are a pure function of seed and step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dimum_core.attacks import auxiliary_set
from dimum_core.data import Dataset, batch_indices, draw_batch, load_data, load_dataset, loaders, step_generator
from dimum_core.errors import DataError, UnknownName
from dimum_core.models.checkpoints import load_pipeline
from dimum_core.models.diffusion import drop_labels


@pytest.mark.parametrize(("name", "shape", "train", "test"), [
    ("digits", (1, 8, 8), 1442, 355), ("cifar10-mini", (3, 32, 32), 9_981, 1_995),
])
def test_the_sets_that_need_no_download(name, shape, train, test):
    data = load_dataset(name)
    assert (len(data.train), len(data.test)) == (train, test)
    for split in (data["train"], data["test"]):
        assert split.images.shape[1:] == shape and split.images.dtype == torch.float32 and split.labels.dtype == torch.int64
        assert split.images.min() == -1 and split.images.max() == 1
        counts = torch.bincount(split.labels)
        assert len(counts) == 10 and counts.min() > 0.9 * counts.max()
    assert not set(data.train.item_hashes.tolist()) & set(data.test.item_hashes.tolist()) or name == "digits"


def test_a_folder_of_the_name_of_a_data_set_is_spoken_of(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match="digits is the shipped data set; for the folder digits here, give ./digits"):
        assert len(load_data("digits", 8).train) == 1442


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    digits, original = load_dataset("digits"), load_digits()
    everything = torch.cat([digits.train.images, digits.test.images]).flatten(1)
    ours = sorted(map(tuple, ((everything + 1) * 8).round().int().tolist()))
    assert ours == sorted(map(tuple, original.data.astype(int).tolist()))


def test_labels_and_channels_of_cifar10_mini_belong_to_the_pixels():
    """On average, ships and aeroplanes are bluest, and deer and frogs are greener or redder than blue."""
    train = load_dataset("cifar10-mini").train
    red, _, blue = (torch.stack([train.only(name).images[:, k].mean() for name in train.class_names]) for k in range(3))
    bluest = (blue - red).argsort(descending=True)[:2].tolist()
    assert {train.class_names[i] for i in bluest} == {"airplane", "ship"}
    assert all(red[train.class_index(name)] > blue[train.class_index(name)] for name in ("deer", "frog"))


def test_the_forget_and_the_retain_set_are_a_partition(tiny_data):
    forget, retain = tiny_data.only("top"), tiny_data.without("top")
    assert len(forget) + len(retain) == len(tiny_data)
    assert set(forget.labels.tolist()) == {1} and set(retain.labels.tolist()) == {0, 2}
    assert sorted([*forget.item_hashes.tolist(), *retain.item_hashes.tolist()]) == sorted(tiny_data.item_hashes.tolist())
    assert forget.class_names == retain.class_names == tiny_data.class_names
    dataset = Dataset(tiny_data, tiny_data)
    assert len(dataset.without(1).test) == len(retain) and len(dataset.only("top").train) == len(forget)


def test_resizing_is_a_box_average_and_keeps_provenance(tiny_data):
    small = tiny_data.resized(4)
    by_hand = tiny_data.images.numpy().reshape(60, 1, 4, 2, 4, 2).mean((3, 5))
    np.testing.assert_allclose(small.images.numpy(), by_hand, atol=1e-6)
    assert small.item_hashes.tolist() == tiny_data.item_hashes.tolist() and small.digest != tiny_data.digest
    with pytest.raises(DataError, match="8 x 8 images, which cannot be averaged to 3 x 3"):
        tiny_data.resized(3)


def test_the_digest_sees_order_labels_and_pixels(tiny_data):
    same = tiny_data.select(torch.arange(60))
    swapped = tiny_data.select(torch.tensor([1, 0, *range(2, 60)]))
    relabelled = replace(tiny_data, labels=(tiny_data.labels + 1) % 3)
    assert tiny_data.digest == same.digest
    assert len({tiny_data.digest, swapped.digest, relabelled.digest}) == 3


def test_batches_are_pure_and_an_epoch_is_a_permutation(tiny_data):
    assert torch.equal(batch_indices(60, 16, seed=0, step=5), batch_indices(60, 16, seed=0, step=5))
    sequence = torch.cat([batch_indices(60, 16, 0, step) for step in range(15)])  # four epochs of 60
    epochs = sequence.view(4, 60)
    assert all(sorted(epoch.tolist()) == list(range(60)) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(batch_indices(60, 60, 0, 0), batch_indices(60, 60, 1, 0))
    images, labels = draw_batch(tiny_data, 16, 0, 3)
    indices = batch_indices(60, 16, 0, 3)
    assert torch.equal(images, tiny_data.images[indices]) and torch.equal(labels, tiny_data.labels[indices])


def test_a_batch_larger_than_the_set_wraps_around():
    indices = batch_indices(10, 25, 0, 1)  # positions 25 to 49
    assert len(indices) == 25
    assert torch.bincount(indices, minlength=10).sum() == 25 and torch.bincount(indices).max() <= 3


def test_mirroring_is_drawn_afresh_and_not_frozen(tiny_data):
    one = tiny_data.select(torch.tensor([0]))
    mirrored = [not torch.equal(draw_batch(one, 1, 0, step, flip=True)[0], one.images) for step in range(200)]
    assert 70 < sum(mirrored) < 130
    images, _ = draw_batch(tiny_data, 60, 0, 0, flip=True)
    plain, _ = draw_batch(tiny_data, 60, 0, 0)
    for image, original in zip(images, plain, strict=True):
        assert torch.equal(image, original) or torch.equal(image, original.flip(-1))


def test_what_is_mirrored_has_nothing_to_do_with_whose_label_is_dropped(tiny_data):
    one, both = tiny_data.select(torch.tensor([0])), torch.zeros(2, 2)
    for step in range(100):
        mirrored = (draw_batch(one, 8, 0, step, flip=True)[0] != one.images).flatten(1).any(1)
        dropped = drop_labels(torch.zeros(8, dtype=torch.int64), 9, 0.3, step_generator(0, step)) == 9  # as in pretraining
        for m, d in zip(mirrored, dropped, strict=True):
            both[int(m), int(d)] += 1
    shares = both[1] / both.sum(0)  # of mirrored images among the kept and among the dropped
    assert abs(float(shares[0] - shares[1])) < 0.12


def test_step_streams_are_independent():
    draws = {tuple(torch.rand(2, generator=step_generator(seed, step)).tolist()) for seed in range(5) for step in range(-2, 5)}
    assert len(draws) == 35


def test_the_orders_of_epochs_are_these_and_no_named_stream_is_one():
    orders = [batch_indices(7, 7, seed, epoch).tolist() for seed, epoch in ((0, 0), (3, 2))]
    assert orders == [[1, 5, 4, 6, 3, 0, 2], [4, 5, 3, 1, 6, 2, 0]]
    draws = [torch.rand(4, generator=step_generator(0, step, purpose)) for step in range(-9, 9) for purpose in ("", "a", "b")]
    assert len({tuple(draw.tolist()) for draw in draws}) == len(draws)


def test_a_share_of_an_auxiliary_set_is_not_the_beginning_of_an_epoch(tiny_data):
    """The share had been the first images of the third epoch of every training on that set."""
    data, retain = Dataset(tiny_data, tiny_data), tiny_data.without("top")
    share = auxiliary_set("retain", data, "top", share=0.5).item_hashes
    for epoch in range(8):
        order = batch_indices(len(retain), len(retain), 0, epoch)
        assert share.tolist() != retain.select(order[: len(share)]).item_hashes.tolist()


def test_names_that_do_not_exist_are_refused_with_the_nearest(tiny_data):
    with pytest.raises(UnknownName, match="There is no data set 'digts'. Did you mean 'digits'"):
        load_dataset("digts")
    with pytest.raises(UnknownName, match="no class 'topp'. Did you mean 'top'.*left, top, checks"):
        tiny_data.only("topp")
    for wrong in (3, -1, True, None):
        with pytest.raises(UnknownName, match="no class"):
            tiny_data.without(wrong)
    with pytest.raises(UnknownName, match="no split 'validation'"):
        load_dataset("digits")["validation"]


@pytest.mark.parametrize(("change", "said"), [
    (lambda d: {"images": d.images.double()}, "must be float32"),
    (lambda d: {"images": d.images[:, 0]}, "N x C x H x W"),
    (lambda d: {"images": d.images * 3}, r"lie in \[-1, 1\]"),
    (lambda d: {"images": d.images * float("nan")}, "finite"),
    (lambda d: {"labels": d.labels[:5]}, "need 60 int64 labels"),
    (lambda d: {"labels": d.labels.int()}, "int64 labels"),
    (lambda d: {"labels": d.labels + 1}, r"lie in \[0, 2\]"),
])
def test_what_is_no_image_set_is_refused(tiny_data, change, said):
    with pytest.raises(DataError, match=said):
        replace(tiny_data, **change(tiny_data))


def test_a_set_and_a_history_are_printed_in_a_line():
    data = load_dataset("digits").train
    assert repr(data) == "ImageSet(digits: 1,442 images of 1 x 8 x 8, 10 classes)"
    pipe = load_pipeline("digits-without-3")
    assert len(repr(pipe.history)) < 500 and "'3'" in repr(pipe.history)


def test_zero_images_make_a_set_but_no_batch(tiny_data):
    empty = tiny_data.select(torch.zeros(60, dtype=torch.bool))
    assert len(empty) == 0
    with pytest.raises(DataError, match="no images to draw a batch from"):
        draw_batch(empty, 4, 0, 0)


@pytest.mark.parametrize("content", [None, b"", b"PK nothing", "truncated"])
def test_a_missing_or_damaged_mini_set_says_how_to_mend_it(tmp_path, monkeypatch, content):
    path = tmp_path / "cifar10-mini" / "images.npz"
    path.parent.mkdir()
    if content == "truncated":
        content = (loaders.DATA_FOLDER / "cifar10-mini" / "images.npz").read_bytes()[:100_000]
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(loaders, "DATA_FOLDER", tmp_path)
    loaders._load_cifar10_mini.cache_clear()
    with pytest.raises(DataError, match=r"images.npz is (missing|damaged).*git checkout -- data"):
        load_dataset("cifar10-mini")
    loaders._load_cifar10_mini.cache_clear()


def test_which_images_are_mirrored_depends_on_seed_and_step_alone(tiny_data):
    batches = []
    for state in (0, 1):
        torch.manual_seed(state)
        batches.append(draw_batch(tiny_data, 32, 0, 5, flip=True)[0])
    plain = draw_batch(tiny_data, 32, 0, 5)[0]
    mirrored = (batches[0] != plain).flatten(1).any(1)
    assert torch.equal(*batches) and 4 < mirrored.sum() < 28
    assert torch.equal(batches[0][mirrored], plain[mirrored].flip(-1))
