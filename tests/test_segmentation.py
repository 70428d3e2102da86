"""Folders of photos in; masks, overlays and areas out."""

import csv

import numpy as np
import pytest
from PIL import Image

import repgan_jax as rg
from repgan_jax import segmentation
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import Palette, default_colours
from repgan_jax.segmenter import Segmenter

NAMES = ("background", "left")


@pytest.fixture
def segmenter(monkeypatch):
    """A segmenter for which the left quarter of a photo is class 1."""

    def predict(self, photos):
        masks = np.zeros(photos.shape[:3], np.int32)
        masks[:, :, : photos.shape[2] // 4] = 1
        return masks

    monkeypatch.setattr(Segmenter, "predict", predict)
    return Segmenter({}, None, Palette(NAMES, default_colours(2)), 32)


@pytest.fixture
def photos(tmp_path):
    """A folder of two photos, one of them in a subfolder, a damaged one, and a text file."""
    folder = tmp_path / "photos"
    images.write_png(folder / "a.png", np.full((6, 8, 3), 90, np.uint8))
    images.write_png(folder / "sub" / "b.png", np.full((4, 16, 3), 90, np.uint8))
    (folder / "c.jpg").write_bytes(b"damaged")
    (folder / "notes.txt").write_text("two noses")
    return folder


def test_results_mirror_the_folder_and_failures_are_named(segmenter, photos, tmp_path):
    output = tmp_path / "out"
    done = rg.segment_folder(segmenter, photos, output, progress=False)
    assert sorted(done.areas) == ["a.png", "sub/b.png"]
    for share in done.areas.values():
        np.testing.assert_allclose(share, [3 / 4, 1 / 4])
    assert list(done.failures) == ["c.jpg"] and "not a picture" in done.failures["c.jpg"]
    assert done.notes == {} and done.passed_over == ["notes.txt"]
    expected = np.zeros((4, 16), int)
    expected[:, :4] = 1
    np.testing.assert_array_equal(Image.open(output / "masks/sub/b.png"), expected)
    overlay = images.read_photo(output / "overlays/a.png")
    np.testing.assert_array_equal(overlay[:, 2:], 90)
    assert (overlay[:, :2] != 90).any()
    with (output / "areas.csv").open() as file:
        rows = {row["photo"]: float(row["left"]) for row in csv.DictReader(file)}
    assert rows == {"a.png": 0.25, "sub/b.png": 0.25}


def test_subfolders_may_be_left_out(segmenter, photos, tmp_path):
    done = rg.segment_folder(segmenter, photos, tmp_path, recursive=False, progress=False)
    assert list(done.areas) == ["a.png"] and done.passed_over == ["notes.txt", "sub/"]


def test_results_among_the_photos_are_no_photos(segmenter, photos):
    for _ in range(2):
        done = rg.segment_folder(segmenter, photos, photos, progress=False)
        assert sorted(done.areas) == ["a.png", "sub/b.png"]


def test_what_was_changed_about_a_photo_is_noted(segmenter, tmp_path):
    Image.new("L", (8, 6)).save(tmp_path / "grey.png")
    done = rg.segment_folder(segmenter, tmp_path / "grey.png", tmp_path / "out", progress=False)
    assert done.notes == {"its mode is L, it is taken as RGB": ["grey.png"]}


def test_areas_are_shares_of_the_pixels_that_have_a_class():
    mask = np.array([[0, 1, 1, 255], [0, 0, 1, 255]])
    np.testing.assert_allclose(segmentation.measure_areas(mask, 3), [1 / 2, 1 / 2, 0])


def test_wrong_arguments_are_named_before_anything_is_written(segmenter, photos, tmp_path):
    with pytest.raises(UserError, match="batch_size: 0, expected at least 1"):
        rg.segment_folder(segmenter, photos, tmp_path / "out", batch_size=0)
    with pytest.raises(UserError, match=r"\Aoutput: .*notes.txt cannot be written \(.* no folder"):
        rg.segment_folder(segmenter, photos, photos / "notes.txt")
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        rg.segment_folder(segmenter, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()
