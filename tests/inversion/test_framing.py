"""Photos become squares, and what is changed about them is said."""

import json

import numpy as np
import pytest
from PIL import Image

from repgan_jax.errors import UserError
from repgan_jax.inversion import framing
from repgan_jax.io import listing


def test_photos_become_rgb_and_that_is_said(tmp_path, capsys):
    grey = np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.full((40, 50, 4), 90, np.uint8)).save(tmp_path / "clear.png")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "plain.png")
    photos = framing.read_photos(listing.find_photos(tmp_path), 40)
    assert capsys.readouterr().out.splitlines() == [
        "photo clear.png: its mode is RGBA, it is taken as RGB",
        "photo clear.png: 50x40 pixels, its centre square is taken",
        "photo grey.png: its mode is L, it is taken as RGB",
    ]
    np.testing.assert_array_equal(photos["grey"].photo, np.repeat(grey[..., None], 3, -1))
    assert list(photos) == ["clear", "grey", "plain"]


def test_photos_are_framed_by_boxes_and_landmarks(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(photo).save(folder / name)
    faces = tmp_path / "faces.json"
    boxes = {"a.png": {"box": [10, 20, 50, 60]}, "b.png": {"box": [40, 0, 80, 40]}}
    faces.write_text(json.dumps(boxes))
    found = framing.read_photos(listing.find_photos(folder), 40, faces)
    np.testing.assert_array_equal(found["a"].photo, photo[20:60, 10:50])
    np.testing.assert_array_equal(found["b"].photo, photo[:40, 40:])
    faces.write_text(json.dumps({"a.png": boxes["a.png"]}))
    with pytest.raises(UserError, match=r"landmarks: nothing on b\.png; .*/b\.png"):
        framing.read_photos(listing.find_photos(folder), 40, faces)
    faces.write_text(json.dumps({**boxes, "b.png": {"box": [100, 100, 140, 140]}}))
    with pytest.raises(UserError, match=r"b\.png: "):
        framing.read_photos(listing.find_photos(folder), 40, faces)


def test_a_square_photo_that_exif_turned_is_announced(tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    found = framing.read_photo(tmp_path / "a.png", 40)
    np.testing.assert_array_equal(found.photo, np.rot90(photo, -1))
    assert capsys.readouterr().out == "photo a.png: turned as its EXIF orientation says\n"


def test_photos_of_one_name_are_told_apart_by_their_folders(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 80, 3), np.uint8)
    for name in ("x/a.png", "y/a.png", "y/b.png", "b.bmp", "b.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    photos = listing.find_photos(tmp_path, recursive=True)
    found = framing.read_photos(photos, 40)
    assert list(found) == ["b.bmp", "b.tif", "x/a", "y/a", "y/b"]
    assert "photo x/a.png: 80x40 pixels, its centre square is taken\n" in capsys.readouterr().out
    boxes = {
        name: {"box": [left, 0, left + 40, 40]}
        for left, name in enumerate(("b.bmp", "b.tif", "x/a.png", "y/a.png", "b.png"))
    }
    faces = tmp_path / "faces.json"
    faces.write_text(json.dumps(boxes))
    for left, each in enumerate(framing.read_photos(photos, 40, faces).values()):
        np.testing.assert_array_equal(each.photo, pixels[:, left : left + 40])
    boxes["a.png"] = boxes.pop("y/a.png")
    faces.write_text(json.dumps(boxes))
    with pytest.raises(
        UserError, match=r"'a.png' is the name of 2 photos; give their paths .* 'y/a.png'"
    ):
        framing.read_photos(photos, 40, faces)
