"""A model's history: what it has seen and forgotten goes with it through every step, and no chain of steps gets round a check."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dimum_core import evaluate, load_dataset, load_pipeline, relearn, train_base, unlearn
from dimum_core.attacks import add_weight_noise, auxiliary_set, prune, swap_embedding
from dimum_core.attacks.finetuning import concatenate
from dimum_core.cli import main
from dimum_core.data import Dataset, from_uint8
from dimum_core.data.targets import find_target
from dimum_core.errors import CheckpointError, DataError
from dimum_core.judges import Judge
from dimum_core.models.checkpoints import build_pipeline, save_checkpoint
from dimum_core.models.denoiser import build_denoiser
from dimum_core.models.history import HISTORY_FILE, History, history_of, remember, with_unet
from dimum_core.unlearning import get_method
from dimum_core.unlearning.run import method_data

NAMES = ("a", "b", "c", "d", "e")
JUDGE = Judge(8, 1, NAMES, (4,), (2,))
QUICK = {"steps": 1, "batch_size": 4, "progress": False, "precision": "fp32"}
CARD = {"title": "t", "summary": "s", "kind": "denoiser"}


def images_of(seed, count):
    pixels = np.random.default_rng(seed).integers(256, size=(count, 1, 8, 8), dtype=np.uint8)
    return from_uint8("noise", pixels, np.arange(count) % 5, NAMES)


def hashes(images):
    return {item.tobytes() for item in images.item_hashes}


DATA = Dataset(images_of(0, 50), images_of(1, 60))


# Chains of steps --------------------------------------------------------------------------------------------------------


@dataclass
class Account:
    """What the test itself notes down: hashes of images seen, classes forgotten, and those of which the pixels are still known."""

    folder: Path
    donor: object  # another model of the same shape, whose row is put into this one
    seen: set[bytes]
    forgotten: list[str] = field(default_factory=list)
    in_memory: set[str] = field(default_factory=set)
    leaks: int = 0  # images of the test split, all of class e, that have slipped into what the model was shown

    def spoilt(self, images):
        self.leaks += 1
        return concatenate(images, DATA.test.only("e").select([self.leaks]))

    def kept(self, images):
        for name in self.forgotten:
            images = images.without(name)
        return images

    def forget(self, name, pipe):
        train = self.spoilt(DATA.train)
        self.seen |= hashes(self.kept(train.without(name)))
        self.forgotten.append(name)
        self.in_memory.add(name)
        return unlearn(pipe, "finetune", target=name, data=Dataset(train, DATA.test), **QUICK)

    def attack(self, pipe):
        auxiliary = self.spoilt(self.kept(DATA.train))
        self.seen |= hashes(auxiliary)
        return relearn(pipe, auxiliary, target="a", judge=JUDGE, samples=1, num_inference_steps=1, **QUICK).pipeline

    def put_the_row_back(self, pipe):
        self.seen |= hashes(history_of(self.donor))
        return swap_embedding(pipe, self.donor, "a")

    def save(self, pipe):
        self.in_memory.clear()
        save_checkpoint(pipe, self.folder / "saved", CARD)
        return load_pipeline(self.folder / "saved")

    def save_as_diffusers_does(self, pipe):
        self.in_memory.clear()
        pipe.save_pretrained(self.folder / "plain")
        return load_pipeline(self.folder / "plain")


STEPS = {
    "forget a": lambda account, pipe: account.forget("a", pipe), "forget b": lambda account, pipe: account.forget("b", pipe),
    "attack": Account.attack, "row": Account.put_the_row_back, "save": Account.save,
    "save_pretrained": Account.save_as_diffusers_does, "prune": lambda _, pipe: prune(pipe, 0.1),
    "noise": lambda _, pipe: add_weight_noise(pipe, 0.01), "copy": lambda _, pipe: with_unet(pipe, pipe.unet),
}
CHAINS = [
    ("prune", "copy", "noise"), ("attack", "attack", "save"), ("save", "prune", "forget b"),
    *random.Random(0).sample(list(itertools.product(STEPS, repeat=3)), 17),
]


@pytest.mark.parametrize("chain", CHAINS, ids=" ".join)
def test_no_chain_of_three_steps_gets_round_a_check(chain, tiny_preset, tmp_path):
    original, donor = (build_pipeline(build_denoiser(tiny_preset, 5, 1, seed).eval(), tiny_preset, NAMES) for seed in (0, 1))
    for pipe, number in ((original, 0), (donor, 11)):
        remember(pipe, History().having_seen(DATA.test.only("e").select([number])))
    account = Account(tmp_path, donor, hashes(history_of(original)))
    pipe = account.forget("a", original)
    for name in chain:
        pipe = STEPS[name](account, pipe)

    assert hashes(history_of(pipe)) == account.seen and [f.target.name for f in history_of(pipe).forgotten] == account.forgotten
    leaked = len(account.seen & hashes(DATA.test))
    with pytest.raises(DataError, match=f"{leaked} reference images are among those that this model was trained on"):
        evaluate(pipe, target="a", data=DATA, judge=JUDGE, per_class=1, progress=False)
    for name in account.forgotten:
        images = DATA.train.only(name)
        renamed = replace(images, labels=torch.full_like(images.labels, 3))
        near = replace(renamed, images=(images.images + 0.01).clamp(-1, 1), item_hashes=DATA.test.item_hashes[:10])
        leaks = {f"10 images of the target class {name}": images, "10 images of the forget set or near copies of them": renamed}
        if name in account.in_memory:
            leaks["10 images of the forget set or near copies"] = near
        for said, auxiliary in leaks.items():
            with pytest.raises(DataError, match=said):
                relearn(pipe, auxiliary, target="c", judge=JUDGE, **QUICK)
    clean = account.kept(DATA.train)
    assert relearn(pipe, clean, judge=JUDGE, samples=1, num_inference_steps=1, **QUICK | {"steps": 0}).curve["step"].tolist() == [0]


# One thing after another ------------------------------------------------------------------------------------------------


def retained_labels(pipe, target, data):
    return set(method_data(get_method("finetune"), data, pipe, target, 0)["retain"].labels.tolist())


def test_what_was_forgotten_first_is_not_taught_by_the_second(tmp_path):
    """The case that was found: 3, then 7; the second time, the 3 was among the retained data."""
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    first = unlearn(pipe, "random-label", target="3", data=data, **QUICK)
    second = unlearn(first, "finetune", target="7", data=data, **QUICK)
    assert first.unlearning["left_out"] == () and second.unlearning["left_out"] == ("3",)
    assert retained_labels(first, "7", data) == set(range(10)) - {3, 7}
    save_checkpoint(second, tmp_path, CARD)
    assert retained_labels(load_pipeline(tmp_path), "0", data) == set(range(10)) - {0, 3, 7}


def test_nothing_is_left_out_where_nothing_was_retained():
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    first = unlearn(pipe, "finetune", target="3", data=data, **QUICK)
    for method, left_out in (("esd", ()), ("finetune", ("3",)), ("dimum", ("3",))):
        assert unlearn(first, method, target="7", data=data, **QUICK).unlearning["left_out"] == left_out


def test_a_model_that_never_saw_a_class_is_not_shown_it(tiny_preset):
    data = load_dataset("digits")
    assert retained_labels(load_pipeline("digits-without-3"), "7", data) == set(range(10)) - {3, 7}
    trained, _ = train_base(tiny_preset, without="3", steps=1, progress=False)
    assert retained_labels(trained, "7", data) == set(range(10)) - {3, 7}
    with pytest.raises(DataError, match="of the target class 3"):
        relearn(trained, data.without("7"), target="7", **QUICK)


def test_a_training_that_goes_on_from_a_model_does_not_teach_it_what_it_forgot(tiny_preset, tmp_path):
    train_base(tiny_preset, tmp_path / "first", without="3", steps=1, progress=False)
    with pytest.raises(DataError, match="made to forget 3, and digits has images of it, .*: leave it out with --without"):
        train_base(tiny_preset, start=tmp_path / "first", steps=1, progress=False)
    again, _ = train_base(tiny_preset, start=tmp_path / "first", without=["3", "7"], steps=1, progress=False)
    assert retained_labels(again, "0", load_dataset("digits")) == set(range(10)) - {0, 3, 7}


def test_hidden_images_of_what_was_forgotten_are_left_out_too():
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    first = unlearn(pipe, "finetune", target="3", data=data, **QUICK)
    threes = data.train.only("3").select([0, 1])
    dirty = concatenate(data.train, replace(threes, labels=torch.full_like(threes.labels, 8)))
    retain = method_data(get_method("finetune"), Dataset(dirty, data.test), first, "7", 0)["retain"]
    assert not hashes(retain) & hashes(threes) and len(retain) == len(data.train.without("3").without("7"))


def test_nothing_stands_in_for_a_class_by_one_forgotten_before():
    """Images that the model draws for a forgotten label are not memorised under the next one."""
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    first = unlearn(pipe, "finetune", target="3", data=data, **QUICK)
    method = get_method("dimum", alternative="generated", count=16)
    assert set(method_data(method, data, first, "7", 0)["alternative"].labels.tolist()) == set(range(10)) - {3, 7}
    for kind in ("noise", "synthetic", "public"):
        made = auxiliary_set(kind, data.without("3"), "7", pipe=pipe, count=16)
        assert set(made.labels.tolist()) == set(range(10)) - {3, 7}, kind


def test_the_command_goes_on_from_a_model_that_has_forgotten(tmp_path, capsys, few_drawings):
    first, second, attacked = (str(tmp_path / name) for name in ("first", "second", "attacked"))
    forget = "--method finetune --steps 1 --target"
    assert main(f"unlearn digits {forget} 3 --out {first}".split()) == 0
    assert "had been forgotten" not in capsys.readouterr().out
    assert main(f"unlearn {first} {forget} 7 --out {second}".split()) == 0
    assert "3 had been forgotten before, and was left out of the retained images" in capsys.readouterr().out
    for auxiliary in ("retain", "noise", "public"):
        assert main(f"relearn {second} --target 7 --auxiliary {auxiliary} --steps 1 --out {attacked}-{auxiliary}".split()) == 0
    assert load_pipeline(second).unlearning["left_out"] == ["3"]


# Folders ----------------------------------------------------------------------------------------------------------------


def test_a_folder_keeps_the_history_but_no_image(tmp_path):
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    points = data.train.only("8").select([0, 5])
    for target, weight in ((points, 0.5), ("3", 1.0)):
        pipe = unlearn(pipe, "dimum", target=target, data=data, weight=weight, **QUICK)
    save_checkpoint(pipe, tmp_path, CARD)
    assert (tmp_path / HISTORY_FILE).stat().st_size < 40_000
    before, after = history_of(pipe), history_of(load_pipeline(tmp_path))
    assert hashes(before) == hashes(after) == hashes(data.train) - hashes(points) and after.weights == "raw"
    assert [each.target for each in after.forgotten] == [each.target for each in before.forgotten]
    assert all(each.images is None for each in after.forgotten) and after.training_set is None
    kept = {key: before.record[key] for key in ("target", "steps", "seconds", "settings")}
    assert after.record == kept | {"left_out": ["2 images of digits"]}
    with pytest.raises(DataError, match="has 2 images of the forget set"):
        relearn(load_pipeline(tmp_path), data.train.without("3"), **QUICK)


def test_single_images_that_only_a_folder_knows_must_be_shown_to_be_measured(tmp_path):
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    points = data.train.select([0])
    save_checkpoint(unlearn(pipe, "finetune", target=points, data=data, **QUICK), tmp_path, CARD)
    again, auxiliary = load_pipeline(tmp_path), data.train.without(points)
    with pytest.raises(DataError, match="holds no images, not even those to forget: pass them as target="):
        relearn(again, auxiliary, **QUICK)
    assert relearn(again, auxiliary, target=points, samples=1, num_inference_steps=1, **QUICK).curve["step"].tolist() == [0, 1]


def test_a_target_of_single_images_is_not_measured_by_others():
    """A Target holds no images: only those that were unlearned last are known, and only if it names them."""
    pipe, data = load_pipeline("digits"), load_dataset("digits")
    points = data.train.select([0])
    gone = unlearn(pipe, "finetune", target=points, data=data, **QUICK)
    auxiliary, few = data.train.without(points), QUICK | {"samples": 1, "num_inference_steps": 1}
    assert len(relearn(gone, auxiliary, target=find_target(points, data.class_names), **few).curve) == 2
    with pytest.raises(DataError, match="A Target or a model's folder holds no images"):
        relearn(gone, auxiliary, target=find_target(data.train.select([1]), data.class_names), **few)


def test_a_card_without_a_history_still_says_what_its_model_never_saw(tmp_path):
    assert not history_of(load_pipeline("digits")).forgotten and history_of(load_pipeline("digits")).weights == "ema"
    assert history_of(load_pipeline("digits-without-3")).last.target.name == "3"
    save_checkpoint(load_pipeline("digits"), tmp_path, CARD)
    (tmp_path / HISTORY_FILE).unlink()
    for strange in ({"without": "thirty"}, {"without": ["3", "thirty"]}, {"training": ["ema_decay"]}):
        (tmp_path / "card.json").write_text(json.dumps(CARD | strange))
        with pytest.raises(CheckpointError, match="cannot be loaded"):
            load_pipeline(tmp_path)


@pytest.mark.parametrize("spoil", [
    lambda text: text[:-20], lambda text: "[]", lambda text: json.dumps(json.loads(text) | {"seen": "!"}),
    lambda text: json.dumps(json.loads(text) | {"seen": "AAAA"}),  # three bytes are no hash
    lambda text: text.replace('"name": "3"', '"name": "thirty"'),
])
def test_a_damaged_history_is_refused_in_a_sentence(tmp_path, spoil):
    pipe = unlearn(load_pipeline("digits"), "finetune", target="3", data=load_dataset("digits"), **QUICK)
    save_checkpoint(pipe, tmp_path, CARD)
    (tmp_path / HISTORY_FILE).write_text(spoil((tmp_path / HISTORY_FILE).read_text()))
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_pipeline(tmp_path)
