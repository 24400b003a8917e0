"""One's own pictures as a data set: every layout gives the same images, and whatever is left out is said."""

from __future__ import annotations

import os
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from dimum_core import load_images
from dimum_core.data import picture_cache
from dimum_core.data.batches import step_generator
from dimum_core.data.targets import find_target
from dimum_core.errors import DataError, FileError, SettingError

NAMES = ("cat", "dog")


def drawn(count: int = 24, side: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


PIXELS, LABELS = drawn(), [NAMES[i % 2] for i in range(24)]


@pytest.fixture
def folder(tmp_path):
    """cat and dog, twelve pictures each; the names of files sort as their numbers do."""
    for i, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        path = tmp_path / "pets" / label / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pets"


def table_of(folder) -> pd.DataFrame:
    files = sorted(folder.rglob("*.png"))
    return pd.DataFrame({"path": [str(file.relative_to(folder)) for file in files], "label": [file.parent.name for file in files]})


class Rows:
    """What a `datasets.Dataset` has, as far as it is asked for; its rows are decoded when they are asked for."""

    def __init__(self, pixels, labels, names):
        kind = lambda name, **more: type(name, (), more)()  # noqa: E731
        self.features = {"picture": kind("Image"), "animal": kind("ClassLabel", names=list(names))}
        self.column_names, self.pixels, self.labels = list(self.features), pixels, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, key):
        return self.labels if key == "animal" else {"picture": Image.fromarray(self.pixels[key]), "animal": self.labels[key]}


def by_hash(data) -> dict[bytes, tuple]:
    return {
        item.tobytes(): (part.class_names[label], image) for part in (data.train, data.test)
        for item, label, image in zip(part.item_hashes, part.labels, part.images, strict=True)
    }


def layouts(folder) -> dict:
    table = table_of(folder)
    table.to_csv(folder / "list.csv", index=False)
    table.to_parquet(folder / "list.parquet")
    absolute = table.assign(path=[str(folder / path) for path in table["path"]])
    numbers = [NAMES.index(label) for label in LABELS]
    return {
        "folder": (folder, {}), "string": (str(folder), {}), "csv": (folder / "list.csv", {}),
        "parquet": (folder / "list.parquet", {}),
        "frame": (absolute, {}), "channels last": (PIXELS, {"labels": LABELS}),
        "channels first": (PIXELS.transpose(0, 3, 1, 2), {"labels": LABELS}),
        "images": ([Image.fromarray(p) for p in PIXELS], {"labels": LABELS}),
        "tensor": (torch.from_numpy(PIXELS), {"labels": LABELS}),
        "datasets": (Rows(PIXELS, numbers, NAMES), {}),
        "datasets in splits": (
            {"train": Rows(PIXELS[:16], numbers[:16], NAMES), "test": Rows(PIXELS[16:], numbers[16:], NAMES)}, {}
        ),
    }


def test_every_layout_gives_the_same_images(folder):
    wanted = {tuple(p.transpose(2, 0, 1).reshape(3, 6, 2, 6, 2).mean((2, 4)).round().flatten().astype(int)): label
              for p, label in zip(PIXELS, LABELS, strict=True)}
    for layout, (source, settings) in layouts(folder).items():
        data = load_images(source, 6, **settings)
        assert data.class_names == NAMES and len(data.train) + len(data.test) == 24, layout
        found = by_hash(data)
        assert len(found) == 24
        for label, image in found.values():
            pixels = tuple(((image.flatten() + 1) * 127.5).round().int().tolist())
            nearest = min(wanted, key=lambda other, pixels=pixels: np.abs(np.subtract(other, pixels)).max())
            assert np.abs(np.subtract(nearest, pixels)).max() <= 1 and wanted[nearest] == label, layout


def test_the_split_is_a_share_of_each_class_and_of_the_seed_alone(folder):
    data, again = (load_images(folder, 6, held_out=0.25) for _ in range(2))
    other = load_images(folder, 6, seed=1)
    assert [int((data.test.labels == k).sum()) for k in range(2)] == [3, 3] and len(data.train) == 18
    assert data.train.digest == again.train.digest and data.test.digest == again.test.digest
    assert set(by_hash(other)) == set(by_hash(data)) and other.test.digest != load_images(folder, 6).test.digest
    state = torch.get_rng_state()
    load_images(folder, 6)
    assert torch.equal(state, torch.get_rng_state())
    order = torch.randperm(12, generator=step_generator(0, 0, "split of cat"))[:3]
    cats = [p for p, label in zip(PIXELS, LABELS, strict=True) if label == "cat"]
    held = {load_images(cats[i][None], 6, labels=["cat"], held_out=0).train.item_hashes[0].tobytes() for i in order}
    assert held == {item.tobytes() for item in data.test.only("cat").item_hashes}


def test_splits_that_are_there_are_kept(folder, tmp_path):
    for half, numbers in (("train", range(16)), ("val", range(16, 24))):
        for i in numbers:
            path = tmp_path / "split" / half / LABELS[i]
            path.mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / LABELS[i] / f"{i:02}.png", path)
    data = load_images(tmp_path / "split", 6)
    assert (len(data.train), len(data.test)) == (16, 8)
    table = table_of(folder)
    table["split"] = ["test" if int(path[-6:-4]) >= 16 else "train" for path in table["path"]]
    table.to_csv(folder / "list.csv", index=False)
    assert set(map(bytes, load_images(folder / "list.csv", 6).test.item_hashes)) == set(map(bytes, data.test.item_hashes))
    table.assign(split="train").to_csv(folder / "all.csv", index=False)
    assert len(load_images(folder / "all.csv", 6, held_out=0.25).test) == 6  # a source that holds nothing out
    table.loc[0, "split"] = "later"
    with pytest.raises(DataError, match="column split must say one of train, .*not 'later'"):
        load_images(table.assign(path=str(folder) + "/" + table["path"]), 6)


def test_what_is_left_out_is_said(folder):
    shutil.copy(folder / "cat" / "00.png", folder / "cat" / "copy.png")
    shutil.copy(folder / "cat" / "02.png", folder / "dog" / "cat.png")
    shutil.copy(folder / "cat" / "04.png", folder / "stray.png")
    (folder / "cat" / "99.png").write_bytes(b"no picture")
    (folder / "cat" / "notes.txt").write_text("mine")
    (folder / "cat" / "._04.png").write_bytes(b"the system's own")
    (folder / "empty").mkdir()
    (folder / ".ipynb_checkpoints").mkdir()
    data = load_images(folder, 6)
    said = dict(zip(data.left_out["picture"], data.left_out["why"], strict=True))
    assert said == {
        "cat/copy.png": "is there already under another name", "dog/cat.png": "is in several classes: cat, dog",
        "cat/02.png": "is in several classes: cat, dog", "stray.png": "lies beside the folders of the classes, so it has no class",
        "cat/99.png": "cannot be read as a picture", "cat/notes.txt": "is not a picture (.jpg, .jpeg, .png, .webp are read)",
        "empty": "has no pictures in it",
    }
    assert len(by_hash(data)) == 23
    assert "pets: 23 pictures, RGB, scaled to 6 x 6" in data.report
    assert "left out, 2: is in several classes: cat, dog (" in data.report


def test_grey_pictures_stay_grey_unless_colour_is_asked_for():
    grey = drawn()[..., :1]
    data = load_images(grey, 12, labels=LABELS)
    assert data.train.images.shape[1:] == (1, 12, 12)
    assert load_images(grey, 12, labels=LABELS, image_channels=3).train.images.shape[1] == 3
    assert load_images(PIXELS, 12, labels=LABELS, held_out=0, image_channels=1).train.images.shape[1] == 1
    as_pillow = np.stack([np.asarray(Image.fromarray(p).convert("L")) for p in PIXELS])
    ours = load_images(PIXELS, 12, labels=["all"] * 24, held_out=0, image_channels=1).train.images[:, 0]
    assert np.abs((ours.numpy() + 1) * 127.5 - as_pillow).max() <= 1
    one = load_images(np.concatenate([grey.repeat(3, -1), PIXELS[:1]]), 12, labels=[*LABELS, "dog"])
    assert one.train.images.shape[1] == 3
    with pytest.raises(SettingError, match=r"image_channels must be 1 \(grey\) or 3 \(RGB\), not 4"):
        load_images(grey, 12, labels=LABELS, image_channels=4)


def test_balanced_takes_as_many_of_each_class_and_says_what_it_leaves():
    labels = ["cat"] * 18 + ["dog"] * 6
    plain, data = load_images(PIXELS, 6, labels=labels), load_images(PIXELS, 6, labels=labels, balanced=True)
    count = lambda part: torch.bincount(part.labels).tolist()  # noqa: E731
    assert (count(plain.train), count(plain.test)) == ([14, 5], [4, 1])
    assert (count(data.train), count(data.test)) == ([5, 5], [1, 1])
    assert len(data.left_out) == 12 and set(data.left_out["why"]) == {"its class has more pictures than the smallest one"}
    assert set(by_hash(data)) < set(by_hash(plain))


def test_pictures_of_any_shape_are_cut_square_and_their_hash_does_not_depend_on_the_size():
    wide = [Image.fromarray(np.hstack([np.zeros_like(p), p, np.zeros_like(p)])) for p in PIXELS]
    data, small = (load_images(wide, size, labels=LABELS) for size in (12, 6))
    square = load_images(PIXELS, 12, labels=LABELS)
    assert torch.equal(data.train.images, square.train.images) and data.side == 12
    assert (data.train.item_hashes == small.train.item_hashes).all()
    assert not (data.train.item_hashes == square.train.item_hashes).any()


def test_files_are_read_once_and_again_when_they_change(folder, monkeypatch):
    data, reads = load_images(folder, 6), []
    monkeypatch.setattr(picture_cache, "square", lambda image, size: reads.append(size) or np.zeros((3, size, size), np.uint8))
    again = load_images(folder, 6)
    assert not reads and torch.equal(again.train.images, data.train.images) and again.train.digest == data.train.digest
    load_images(folder, 4)
    assert len(reads) == 24
    Image.fromarray(drawn(1, seed=1)[0]).save(folder / "cat" / "00.png")
    load_images(folder, 6)
    assert len(reads) == 48
    cache, = folder.glob(".dimum/*-6.npz")
    cache.write_bytes(b"damaged")
    load_images(folder, 6)
    assert len(reads) == 72
    with np.load(cache, allow_pickle=False) as pack:
        assert set(pack) == {"digest", "pixels", "hashes", "sides", "errors"}


def test_no_file_is_read_to_see_whether_it_changed_and_one_that_may_be_read_now_is(folder, monkeypatch):
    load_images(folder, 6)
    monkeypatch.setattr(Path, "read_bytes", pytest.fail)
    monkeypatch.setattr(picture_cache, "square", lambda image, size: pytest.fail("read again"))
    load_images(folder, 6)
    (folder / "cat" / "00.png").chmod(0o640)
    with pytest.raises(pytest.fail.Exception, match="read again"):
        load_images(folder, 6)


def test_a_file_that_nobody_may_read_is_left_out_like_any_that_cannot_be_read(folder, monkeypatch):
    secret, opened, read_bytes = folder / "cat" / "00.png", Image.open, Path.read_bytes

    def refusing(read):
        def refused(path, *arguments, **settings):
            if path == secret:
                raise PermissionError(13, "Permission denied")
            return read(path, *arguments, **settings)
        return refused

    monkeypatch.setattr(Image, "open", refusing(opened))
    monkeypatch.setattr(Path, "read_bytes", refusing(read_bytes))
    monkeypatch.setattr(Path, "is_file", refusing(Path.is_file))  # as in a folder that nobody may enter
    assert load_images(folder, 6).left_out.to_numpy().tolist() == [["cat/00.png", "cannot be read as a picture"]]


def test_a_full_disk_costs_the_cache_and_not_the_pictures(folder, monkeypatch):
    def full(path, content):
        raise FileError("no space left")

    monkeypatch.setattr(picture_cache, "write_atomically", full)
    assert len(load_images(folder, 6).train) and not (folder / ".dimum").exists()


def test_a_folder_that_nobody_may_write_to_is_read_all_the_same(folder, monkeypatch):
    monkeypatch.setattr(picture_cache.os, "access", lambda *arguments: False)
    assert len(load_images(folder, 6).train) and not (folder / ".dimum").exists()


def test_tables_of_windows_and_of_hugging_face_are_read(folder, tmp_path):
    table, again = table_of(folder), load_images(folder, 6)
    table.assign(path=table["path"].str.replace("/", "\\")).to_csv(folder / "windows.csv", index=False)
    content = [{"bytes": (folder / path).read_bytes(), "path": None} for path in table["path"]]
    pd.DataFrame({"image": content, "label": table["label"]}).to_parquet(tmp_path / "rows.parquet")
    for source in (folder / "windows.csv", tmp_path / "rows.parquet"):
        data = load_images(source, 6)
        assert set(by_hash(data)) == set(by_hash(again)) and data.class_names == NAMES, source


def test_classes_of_a_csv_keep_their_names_and_numbers_their_order(folder, tmp_path):
    table = table_of(folder)
    large = str(2**53), str(2**53 + 1)  # one number in float64
    named = (("None", "001"), ("001", "None")), (("10", "9"), ("9", "10")), (("10.0", "9"), ("9", "10")), (large, large)
    for written, known in named:
        labels = dict(zip(sorted(set(table["label"])), written, strict=True))
        table.assign(label=table["label"].map(labels)).to_csv(folder / "named.csv", index=False)
        data = load_images(folder / "named.csv", 6)
        assert data.class_names == known and not len(data.left_out)
    pd.DataFrame({"path": [*table["path"], "a.png"], "label": [1, 2] * 12 + [None]}).to_csv(folder / "named.csv", index=False)
    assert load_images(folder / "named.csv", 6).class_names == ("1", "2")


def test_bytes_are_pictures_in_a_table(folder):
    table, again = table_of(folder), load_images(folder, 6)
    data = load_images(table.assign(path=[(folder / path).read_bytes() for path in table["path"]]), 6)
    assert set(by_hash(data)) == set(by_hash(again))


def test_rows_that_nobody_labelled_are_left_out_and_not_of_the_last_class():
    """Test splits of many data sets have -1 for a label."""
    numbers = [NAMES.index(label) for label in LABELS]
    data = load_images(Rows(PIXELS, [-1, None, *numbers[2:]], NAMES), 6)
    assert len(data.train) + len(data.test) == 22 and data.left_out["picture"].tolist() == ["row 0", "row 1"]
    assert set(data.left_out["why"]) == {"has no label"}
    for lacking in (None, float("nan")):
        data = load_images(PIXELS, 6, labels=[lacking, *LABELS[1:]])
        assert data.class_names == NAMES and data.left_out["why"].tolist() == ["has no label"]


def test_splits_of_a_datasets_object_are_known_in_any_case_and_others_are_reported():
    numbers = [NAMES.index(label) for label in LABELS]
    parts = {"Train": slice(12), "extra": slice(12, 18), "TEST": slice(18, 24)}
    data = load_images({name: Rows(PIXELS[part], numbers[part], NAMES) for name, part in parts.items()}, 6)
    assert (len(data.train), len(data.test)) == (12, 6)
    assert data.left_out["picture"].tolist() == [f"extra row {i}" for i in range(6)]
    assert "left out, 6: is of the split extra, which is none of train, " in data.report
    data = load_images({"a": Rows(PIXELS[:12], numbers[:12], NAMES), "b": Rows(PIXELS[12:], numbers[12:], NAMES)}, 6)
    assert len(data.train) + len(data.test) == 24 and not len(data.left_out)


def test_one_image_of_pillows_that_cannot_be_read_does_not_stop_the_others(tmp_path):
    Image.fromarray(drawn(1, 64)[0]).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:1000])
    images = [Image.fromarray(PIXELS[0]), Image.open(tmp_path / "cut.jpg"), Image.new("La", (8, 8)), Image.fromarray(PIXELS[1])]
    data = load_images(images, 6, labels=["cat", "cat", "dog", "dog"])
    assert data.left_out["picture"].tolist() == ["number 1", "number 2"]
    assert set(data.left_out["why"]) == {"cannot be read as a picture"}


def test_whole_numbers_of_32_bits_hold_8_or_16():
    grey = PIXELS[0, :, :, 0].astype(np.int32)
    images = [Image.fromarray(grey), Image.fromarray(grey[::-1] * 257)]
    data = load_images(images, 12, labels=["cat", "dog"], held_out=0)
    assert torch.equal(data.train.images[0], data.train.images[1].flip(1))
    assert torch.equal(((data.train.images[0, 0] + 1) * 127.5).round().int(), torch.from_numpy(grey))


def test_folders_in_latin_1_and_accents_of_their_own_are_names_like_any(folder, tmp_path):
    for own, name in zip(NAMES, (os.fsdecode(b"caf\xe9"), unicodedata.normalize("NFD", "Th\u00e9")), strict=True):
        shutil.copytree(folder / own, tmp_path / "drinks" / name)
    data, typed = load_images(tmp_path / "drinks", 6), unicodedata.normalize("NFC", "Th\u00e9")
    assert typed not in data.class_names and len(data.train.only(typed)) == 10 == len(data.train.only(["caf\udce9"]))
    again = load_images(tmp_path / "drinks", 6, class_names=(typed, "caf\udce9"))
    assert again.class_names == (typed, "caf\udce9") and len(again.train.only(0)) == 10
    names = tuple(unicodedata.normalize("NFD", f"{style} {thing}") for style in ("Caf\u00e9", "oil") for thing in ("cup", "pot"))
    assert find_target("Caf\u00e9", names).labels == find_target("a caf\u00e9", names).labels == (0, 1)


def test_what_archives_and_systems_leave_in_a_folder_is_no_class(folder, tmp_path):
    for half in ("train", "test"):
        shutil.copytree(folder, tmp_path / "set" / half)
    (tmp_path / "set" / "__MACOSX" / "train").mkdir(parents=True)
    (tmp_path / "set" / "train" / "cat" / "Thumbs.db").write_bytes(b"of Windows")
    data = load_images(tmp_path / "set", 6)
    assert data.class_names == NAMES and not data.left_out["picture"].str.contains("Thumbs").any()


def test_classes_are_numbered_as_the_caller_says():
    assert load_images(PIXELS, 6, labels=[10, 9] * 12).class_names == ("9", "10")
    data = load_images(PIXELS, 6, labels=LABELS, class_names=("dog", "cow", "cat"))
    assert data.class_names == ("dog", "cow", "cat") and set(data.train.labels.tolist()) == {0, 2}
    with pytest.raises(DataError, match="arrays has pictures of 'cat', which is none of the classes dog, cow"):
        load_images(PIXELS, 6, labels=LABELS, class_names=("dog", "cow"))


@pytest.mark.parametrize(("source", "settings", "said"), [
    ("nowhere", {}, r"no folder nowhere, nor a table \(.csv or .parquet\)"),
    ("", {}, "An empty name is no folder of pictures: give its name, or '.' for the current one"),
    (["a.png", "b.png"], {"labels": [0, 1]}, "Image 0 is a path: give a folder .*or a table, pandas.DataFrame with path and label"),
    (PIXELS, {}, "Arrays need their labels"),
    (PIXELS, {"labels": LABELS[:5]}, "24 images need 24 labels, not 5"),
    (PIXELS / 255, {"labels": LABELS}, r"Image 0 must be uint8, 0 to 255, not float64: of \[0, 1\], give"),
    (PIXELS[..., :2], {"labels": LABELS}, "with 1, 3 or 4 channels, not .*12, 12, 2"),
    (PIXELS, {"labels": np.eye(24)}, r"these are rows of numbers: give argmax\(1\)"),
    (pd.DataFrame({"path": ["a.png"], "label": [1]}), {"labels": [1]}, "says its labels itself: leave labels out"),
    (".", {"labels": [1]}, "says its labels itself: leave labels out"),
    ({"train": Rows(PIXELS, LABELS, NAMES)}, {"labels": LABELS}, "says its labels itself: leave labels out"),
    (7, {"labels": [1]}, "Pictures are a folder, a table, arrays or a datasets object, not 7"),
    (pd.DataFrame({"place": ["a.png"], "label": [1]}), {}, r"no column for the paths \(path, .*its columns are place, label"),
    (pd.DataFrame({"path": [], "label": []}), {}, "no pictures that can be used. The first: there are none at all"),
    (pd.DataFrame({"path": ["a.png"], "label": [1]}), {}, "no pictures that can be used. The first: a.png is not there"),
])
def test_what_is_no_pictures_is_one_sentence(source, settings, said):
    with pytest.raises(DataError, match=said):
        load_images(source, 6, **settings)


def test_other_layouts_of_folders_are_named(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "deep" / "style")
    with pytest.raises(DataError, match="one level deeper; load_unlearn_canvas"):
        load_images(tmp_path / "deep", 6)
    with pytest.raises(DataError, match="without a folder for their class; a table"):
        load_images(folder / "cat", 6)


# From pictures to an attacked model, in the shell -----------------------------------------------------------------------
