"""Pictures and arrays as people have them: turned, transparent, hidden, huge, oblong, in another order or range."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dimum_core import relearn, train_base, unlearn
from dimum_core.autoencoder import AUTOENCODER_PRESETS, build_autoencoder
from dimum_core.data import Dataset, ImageSet, from_uint8, load_unlearn_canvas
from dimum_core.data.picture_files import pictures_in, read_square
from dimum_core.errors import DataError, SettingError
from dimum_core.models.checkpoints import build_pipeline
from dimum_core.models.denoiser import build_denoiser

QUARTERS = np.zeros((8, 8, 3), np.uint8)
QUARTERS[:4, :4], QUARTERS[:4, 4:], QUARTERS[4:, :4] = (255, 0, 0), (0, 255, 0), (0, 0, 255)  # red, green, blue, black


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """Colours of the four corners, in reading order, to 8 steps: JPEG is not exact."""
    return [tuple(int(v) // 32 * 32 for v in pixels[:, y, x]) for y in (0, -1) for x in (0, -1)]


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".JPEG"])
def test_pictures_of_these_kinds_are_read(tmp_path, suffix):
    path = tmp_path / f"1{suffix}"
    Image.fromarray(QUARTERS.repeat(8, 0).repeat(8, 1)).save(path, quality=100)
    assert [p.name for p in pictures_in(tmp_path)] == [path.name]
    assert corners(read_square(path, 8)) == [(224, 0, 0), (0, 224, 0), (0, 0, 224), (0, 0, 0)]


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # its top is at the right of the file
    Image.fromarray(QUARTERS).save(tmp_path / "1.png", exif=exif)
    assert corners(read_square(tmp_path / "1.png", 8)) == [(0, 0, 224), (224, 0, 0), (0, 0, 0), (0, 224, 0)]


def test_a_damaged_note_of_the_camera_costs_no_picture(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0  # the second is saved as a fraction
    Image.fromarray(QUARTERS.repeat(8, 0).repeat(8, 1)).save(tmp_path / "1.jpg", exif=exif, quality=100)
    content = (tmp_path / "1.jpg").read_bytes()
    fraction = b"\x01\x1a\x00\x05"  # tag and type, big-endian, as Pillow writes them
    assert content.count(fraction) == 1
    (tmp_path / "1.jpg").write_bytes(content.replace(fraction, b"\x01\x1a\x00\x01"))  # bytes, which are none for this tag
    with pytest.raises(TypeError):
        ImageOps.exif_transpose(Image.open(tmp_path / "1.jpg"))
    assert corners(read_square(tmp_path / "1.jpg", 8)) == [(0, 0, 224), (224, 0, 0), (0, 0, 0), (0, 224, 0)]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white_and_what_was_hidden_there_stays_hidden(tmp_path, mode):
    alpha = np.full((8, 8), 255, np.uint8)
    alpha[:4] = 0
    image = Image.fromarray(np.dstack([QUARTERS, alpha]))
    if mode == "P":
        image = Image.fromarray((np.arange(64).reshape(8, 8) >= 32).astype(np.uint8), "P")
        image.putpalette([255, 0, 0, 0, 0, 255])
        image.save(tmp_path / "1.png", transparency=0)
    else:
        image.convert(mode).save(tmp_path / "1.png")
    upper, lower = np.split(read_square(tmp_path / "1.png", 8), 2, axis=1)
    assert (upper == 255).all() and not (lower == 255).all()


def test_half_transparent_is_half_white(tmp_path):
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "1.png")
    assert np.abs(read_square(tmp_path / "1.png", 4).astype(int) - 127).max() <= 1


def test_grey_of_16_bits_keeps_its_shades(tmp_path):
    shades = (np.arange(16, dtype=np.uint16).reshape(4, 4) * 4369)
    Image.fromarray(shades).save(tmp_path / "1.png")
    assert (read_square(tmp_path / "1.png", 4) == (shades // 257)[None]).all()


def test_a_picture_larger_than_is_safe_is_one_sentence(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_square(tmp_path / "1.png", 8).shape == (3, 8, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"1\.png has more than 0 million pixels: scale it down first"):
        read_square(tmp_path / "1.png", 8)


def canvas_of(folder, suffix: str = ".png"):
    for style in ("Crayon", "Ink"):
        (folder / style / "Dogs").mkdir(parents=True)
        for number in range(3):
            Image.fromarray(QUARTERS).save(folder / style / "Dogs" / f"{number}{suffix}")
    return folder


def test_what_the_system_hides_in_a_folder_is_no_picture_and_no_style(tmp_path):
    folder = canvas_of(tmp_path)
    (folder / "Ink" / "Dogs" / "._1.png").write_bytes(b"of macOS")
    for hidden in (folder / ".ipynb_checkpoints" / "Dogs", folder / "Ink" / ".ipynb_checkpoints"):
        hidden.mkdir(parents=True)
        Image.fromarray(QUARTERS).save(hidden / "1.png")
    data = load_unlearn_canvas(folder, image_size=8, per_combination=3, held_out=1)
    assert data.class_names == ("Crayon Dogs", "Ink Dogs") and len(data.train) == 4


def test_pictures_of_an_unknown_kind_are_named(tmp_path):
    with pytest.raises(DataError, match=r"Files in \.bmp are not read: \.jpg, \.jpeg, \.png, \.webp are"):
        load_unlearn_canvas(canvas_of(tmp_path, ".bmp"))


# Arrays ---------------------------------------------------------------------------------------------------------------


def test_channels_last_are_asked_about():
    pixels = np.zeros((4, 8, 8, 3), np.uint8)
    with pytest.raises(DataError, match=r"\(4, 8, 8, 3\) has its channels last: transpose to \(0, 3, 1, 2\)"):
        from_uint8("mine", pixels, [0] * 4, ("a",))
    assert from_uint8("mine", pixels.transpose(0, 3, 1, 2), [0] * 4, ("a",)).images.shape == (4, 3, 8, 8)
    assert from_uint8("latents", np.zeros((4, 8, 4, 4), np.uint8), [0] * 4, ("a",)).images.shape == (4, 8, 4, 4)


def own(images: torch.Tensor) -> ImageSet:
    count = len(images)
    return ImageSet("mine", images, torch.zeros(count, dtype=torch.int64), ("a",), np.arange(count).astype("V8"))


def test_pixels_from_0_to_1_are_warned_of_once_and_ours_never(tiny_data):
    pixels = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"mine: no pixel is below 0.*if yours were made for \[0, 1\], give 2 x - 1"):
        own(pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own(2 * pixels - 1)
        own(pixels[:2])  # a few may be bright
        tiny_data.only("left"), tiny_data.resized(4)


@pytest.fixture
def pipe(tiny_preset):
    return build_pipeline(build_denoiser(tiny_preset, 3, 1).eval(), tiny_preset, ("left", "top", "checks"))


def changed(tiny_data: ImageSet, **changes) -> Dataset:
    return Dataset(*[replace(tiny_data, **changes)] * 2)


def test_oblong_images_are_refused_before_any_training(tiny_preset, tiny_data, pipe):
    oblong = changed(tiny_data, images=torch.cat([tiny_data.images] * 2, dim=2))  # 16 x 8
    attempts = (
        lambda: train_base(tiny_preset, data=oblong.train, progress=False),
        lambda: unlearn(pipe, "finetune", target="top", data=oblong, steps=1, progress=False),
        lambda: relearn(pipe, oblong.train.without("top"), target="top", steps=1, progress=False),
    )
    for attempt in attempts:
        with pytest.raises(DataError, match="oblong images, 16 x 8: cut them square"):
            attempt()


def test_rgb_images_for_a_grey_model_are_refused_and_grey_ones_for_a_model_of_photographs(tiny_preset, tiny_data, pipe):
    coloured = changed(tiny_data, images=tiny_data.images.repeat(1, 3, 1, 1))
    photographer = build_pipeline(build_denoiser(tiny_preset, 3, 3).eval(), tiny_preset, ("left", "top", "checks"))
    for model, data, said in ((pipe, coloured, "has RGB images, and the pipeline draws grey ones"),
                              (photographer, changed(tiny_data), "has grey images, and the pipeline draws RGB ones")):
        with pytest.raises(DataError, match=said):
            unlearn(model, "finetune", target="top", data=data, steps=1, progress=False)
        with pytest.raises(DataError, match=said):
            relearn(model, data.train.without("top"), target="top", steps=1, progress=False)


def test_images_are_averaged_to_the_size_of_a_preset_and_what_cannot_be_is_said(tiny_preset, tiny_data):
    large = replace(tiny_data, images=tiny_data.images.repeat_interleave(2, 2).repeat_interleave(2, 3))
    pipes = [train_base(tiny_preset, data=data, progress=False, steps=2)[0] for data in (tiny_data, large)]
    assert all(torch.equal(a, b) for a, b in zip(*(pipe.unet.parameters() for pipe in pipes), strict=True))
    odd = replace(tiny_data, images=torch.nn.functional.pad(tiny_data.images, (0, 4, 0, 4)))
    with pytest.raises(DataError, match="12 x 12 images, which cannot be averaged to 8 x 8: scale them to a multiple of 8"):
        train_base(tiny_preset, data=odd, progress=False)


@pytest.mark.parametrize(("changes", "said"), [
    ({"image_size": 14, "channels": (32, 32, 32), "attention": (False,) * 3}, "image_size of tiny must be a multiple of 8, not 14"),
    ({"image_size": 7, "patch_size": 1}, "image_size of tiny must be a multiple of 2, not 7"),
    ({"image_size": 8, "patch_size": 3}, "image_size of tiny must be a multiple of 6"),
    ({"channels": (32, 50)}, "channels of tiny must be a multiple of 32, not 50"),
    ({"attention": (True,)}, "attention of tiny must say for each of the 2 levels"),
])
def test_a_preset_that_no_network_fits_is_refused(tiny_preset, changes, said):
    with pytest.raises(SettingError, match=said):
        build_denoiser(replace(tiny_preset, **changes), 3, 1)


def test_an_autoencoder_whose_side_does_not_divide_is_refused():
    with pytest.raises(SettingError, match="image_size of cifar10-autoencoder must be a multiple of 4, not 30"):
        build_autoencoder(replace(AUTOENCODER_PRESETS["cifar10-autoencoder"], image_size=30), 3)
