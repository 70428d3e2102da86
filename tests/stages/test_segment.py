import csv
import types

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import repgan_jax
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import Palette, default_colours
from repgan_jax.stages import segment

NAMES = ("background", "left", "bright")


@pytest.fixture
def calls(monkeypatch):
    """The shapes that a segmenter was asked for; it finds the left third, and what is bright."""
    shapes = []

    def predict(photos):
        shapes.append(photos.shape)
        masks = np.where(photos.mean(-1) > 200, 2, 0).astype(np.int32)
        masks[:, :, : photos.shape[2] // 3] = 1
        return masks

    palette = Palette(NAMES, default_colours(3))
    fake = types.SimpleNamespace(predict=predict, palette=palette, class_names=NAMES)
    monkeypatch.setattr(repgan_jax, "load_segmenter", lambda workdir: fake, raising=False)
    return shapes


def config_for(folder, output="", batch_size=2):
    segment_options = {"input": str(folder), "output": str(output), "batch_size": batch_size}
    return ConfigDict({"workdir": "run", "segment": {"method": "network", **segment_options}})


def photo(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 180, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def read_areas(path):
    with path.open() as file:
        return {row["photo"]: row for row in csv.DictReader(file)}


def test_masks_have_the_size_of_the_photos_and_colours_of_the_classes(tmp_path, calls):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, size in enumerate([(30, 21), (30, 21), (30, 21), (12, 40)]):
        photo(*size, seed=i).save(photos / f"p{i}.png")
    segment.run(config_for(photos), tmp_path)
    assert calls == [(2, 30, 21, 3), (1, 30, 21, 3), (1, 12, 40, 3)]
    mask = Image.open(tmp_path / "segment" / "masks" / "p3.png")
    assert (mask.mode, mask.size) == ("P", (40, 12))
    ids = np.asarray(mask)
    assert (ids[:, :13] == 1).all() and (ids[:, 13:] == 0).all()
    assert tuple(np.asarray(mask.convert("RGB"))[0, 0]) == tuple(default_colours(3)[1])
    overlay = images.read_photo(tmp_path / "segment" / "overlays" / "p3.png")
    np.testing.assert_array_equal(overlay[:, 13:], images.read_photo(photos / "p3.png")[:, 13:])
    areas = read_areas(tmp_path / "segment" / "areas.csv")
    assert list(areas) == ["p0.png", "p1.png", "p2.png", "p3.png"]
    assert float(areas["p0.png"]["left"]) == pytest.approx(1 / 3, abs=1e-6)
    assert float(areas["p0.png"]["background"]) == pytest.approx(2 / 3, abs=1e-6)


def test_a_turned_photo_is_segmented_upright(tmp_path, calls):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    photo(20, 33).save(tmp_path / "turned.jpg", exif=exif)
    segment.run(config_for(tmp_path / "turned.jpg"), tmp_path)
    assert calls == [(1, 33, 20, 3)]


def test_what_cannot_be_read_is_named_and_the_rest_is_done(tmp_path, calls):
    photos, output = tmp_path / "photos", tmp_path / "elsewhere"
    photos.mkdir()
    photo(9, 12).save(photos / "a.png")
    (photos / "b.jpg").write_bytes(b"not a picture")
    photo(9, 12).save(photos / "c.png")
    with pytest.raises(UserError, match="1 of 3 photos left out: .*b.jpg"):
        segment.run(config_for(photos, output), tmp_path)
    assert sorted(p.name for p in (output / "masks").iterdir()) == ["a.png", "c.png"]
    assert list(read_areas(output / "areas.csv")) == ["a.png", "c.png"]


def test_photos_that_share_a_stem_do_not_overwrite_each_other(tmp_path, calls):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "a.bmp", "b.png"):
        photo(9, 12).save(photos / name)
    segment.run(config_for(photos), tmp_path)
    written = sorted(p.name for p in (tmp_path / "segment" / "masks").iterdir())
    assert written == ["a.bmp.png", "a.png.png", "b.png"]


def test_no_photos_is_an_error_before_any_work(tmp_path, calls):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photos in this folder"):
        segment.check(config_for(tmp_path / "empty"))
    with pytest.raises(UserError, match="no photos in this folder"):
        segment.run(config_for(tmp_path / "empty"), tmp_path)
    with pytest.raises(UserError, match="config.segment.input: no photos given"):
        segment.check(config_for(""))
    assert not (tmp_path / "segment").exists()
