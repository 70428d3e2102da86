"""Photos come in as people see them; files are written whole or not at all."""

import errno
import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repgan_jax.errors import UserError
from repgan_jax.io import files, images
from repgan_jax.palette import parse_classes

FACE = Path(__file__).parents[2] / "examples" / "face" / "images" / "seed001.png"
PALETTE = parse_classes("background #000000\nnose #e8743b\neyes #2a7fff", "test")


def _picture(height: int = 6, width: int = 9) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(name="full_disk")
def _full_disk(monkeypatch):
    def fail(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def test_real_photo_keeps_its_pixels():
    photo = images.read_photo(FACE)
    assert photo.shape == (512, 512, 3) and photo.dtype == np.uint8
    np.testing.assert_array_equal(photo, np.asarray(Image.open(FACE).convert("RGB")))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tiff"])
def test_formats(tmp_path, suffix):
    picture = np.repeat(_picture(4, 6), 16, 0).repeat(16, 1)
    path = tmp_path / f"photo.{suffix}"
    Image.fromarray(picture).save(path, quality=95)
    difference = np.abs(images.read_photo(path).astype(float) - picture)
    assert difference.mean() < 12  # colour subsampling at the edges of the blocks


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.transpose(1, 0, 2)),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
        (8, lambda x: np.rot90(x)),
    ],
)
def test_photos_come_upright(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(_picture()).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(images.read_photo(tmp_path / "turned.png"), turn(_picture()))


def test_every_mode_becomes_rgb(tmp_path):
    grey = _picture()[..., 0]
    red = np.zeros((2, 2, 4), np.uint8)
    red[..., 0] = 255
    red[0, :, 3] = 255  # the lower row is transparent
    modes = {
        "grey": (Image.fromarray(grey), np.repeat(grey[..., None], 3, 2)),
        "deep": (
            Image.fromarray(grey.astype(np.uint16) * 257),
            np.repeat(grey[..., None], 3, 2),
        ),
        "clear": (Image.fromarray(red), [[[255, 0, 0]] * 2, [[255, 255, 255]] * 2]),
        "indexed": (Image.fromarray(red[:1, :, :3]).quantize(2), [[[255, 0, 0]] * 2]),
    }
    for name, (image, expected) in modes.items():
        image.save(tmp_path / f"{name}.png")
        got = images.read_photo(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(got, expected, err_msg=name)
    Image.fromarray(red[:1, :, :3]).convert("CMYK").save(tmp_path / "print.jpg")
    assert images.read_photo(tmp_path / "print.jpg").shape == (1, 2, 3)


def test_bad_files_are_named_in_one_line(tmp_path, monkeypatch):
    whole = FACE.read_bytes()
    broken = {
        "empty.png": (b"", "not a picture"),
        "text.jpg": (b"not a photo at all", "not a picture"),
        "cut.png": (whole[: len(whole) // 2], "cannot be read"),
        "hit.png": (whole[:5000] + b"\0" * 64 + whole[5064:], "cannot be read"),
    }
    for name, (data, message) in broken.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: {message}") as error:
            images.read_photo(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="gone.png: cannot be read .No such file"):
        images.read_photo(tmp_path / "gone.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="seed001.png: too large to be read safely"):
        images.read_photo(FACE)


def test_damaged_exif_is_no_traceback(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(_picture()).save(buffer, "WEBP", exif=exif, lossless=True)
    path = tmp_path / "photo.webp"
    path.write_bytes(buffer.getvalue().replace(b"MM\0*", b"XX\0*"))
    with pytest.raises(UserError, match="photo.webp: cannot be read"):
        images.read_photo(path)


def test_png_round_trip(tmp_path):
    for array in (_picture(), _picture()[..., 0]):
        np.testing.assert_array_equal(images.decode_png(images.encode_png(array)), array)
        images.write_png(tmp_path / "new" / "picture.png", array)
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new/picture.png")), array)
    assert os.listdir(tmp_path / "new") == ["picture.png"]


def test_palette_png_shows_the_colours_of_its_ids(tmp_path):
    mask = np.array([[0, 1, 2], [2, 255, 0]])
    images.write_palette_png(tmp_path / "mask.png", mask, PALETTE)
    image = Image.open(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(image), mask)
    expected = np.array([*PALETTE.colours, *[(255, 255, 255)] * 253])[mask]
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), expected)


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, full_disk):
    path = tmp_path / "mask.png"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match=r"mask.png: not written \(No space left on device\)"):
        images.write_png(path, _picture())
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["mask.png"]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not written"):
        files.atomic_write(tmp_path / "file" / "picture.png", b"data")


def test_floats_and_bytes_are_inverse():
    every = np.arange(256, dtype=np.uint8)
    floats = images.to_float(every)
    assert floats.dtype == np.float32 and floats[0] == -1 and floats[-1] == 1
    np.testing.assert_array_equal(images.to_uint8(floats), every)
    np.testing.assert_array_equal(images.to_uint8(np.array([-1.5, 1.5])), [0, 255])


def test_resize_area_averages_and_keeps_shape():
    picture = _picture(8, 12)
    small = images.resize_area(picture, (4, 3))
    means = picture.reshape(4, 2, 3, 4, 3).mean((1, 3))
    np.testing.assert_allclose(small, means, atol=1.01)  # rounded once a side
    assert images.resize_area(picture, 16).shape == (16, 16, 3)


def test_overlay_tints_parts_only():
    photo = _picture(2, 3)
    mask = np.array([[0, 1, 2], [255, 0, 1]])
    got = images.overlay(photo, mask, PALETTE, alpha=0.25)
    plain = (mask == 0) | (mask == 255)
    np.testing.assert_array_equal(got[plain], photo[plain])
    expected = 0.25 * PALETTE.colours[mask[~plain]] + 0.75 * photo[~plain]
    np.testing.assert_allclose(got[~plain], expected, atol=0.51)
    every = images.overlay(photo, mask, PALETTE, alpha=0.25, background=True)
    expected = 0.25 * PALETTE.colours[0] + 0.75 * photo[mask == 0]
    np.testing.assert_allclose(every[mask == 0], expected, atol=0.51)
    np.testing.assert_array_equal(every[mask != 0], got[mask != 0])


def test_contact_sheet_lays_out_in_rows():
    pictures = [np.full((3, 5, 3), 10 * i, np.uint8) for i in range(1, 4)]
    sheet = images.contact_sheet(pictures, columns=2, gap=1)
    assert sheet.shape == (7, 11, 3)
    assert (sheet[:3, :5] == 10).all() and (sheet[:3, 6:] == 20).all()
    assert (sheet[4:, :5] == 30).all() and (sheet[4:, 6:] == 255).all() and (sheet[3] == 255).all()
