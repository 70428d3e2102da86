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
    paths = {"input": str(folder), "output": str(output)}
    options = {"method": "network", "recursive": True, "batch_size": batch_size, **paths}
    return ConfigDict({"workdir": "run", "segment": options})


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


def test_folders_are_mirrored(tmp_path, calls, capsys):
    photos = tmp_path / "photos"
    for i, name in enumerate(("a.png", "x/a.JPG", "x/y/a.jfif", "x/y/b")):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        photo(9, 12 + i).save(photos / name, "PNG" if "." not in name else None)
    (photos / "x/notes.txt").write_text("two noses")
    config = config_for(photos, output=photos / "out")
    for _ in range(2):  # the second time the results are there
        segment.run(config, tmp_path)
        for name in ("masks", "overlays"):
            folder = photos / "out" / name
            written = {p.relative_to(folder).as_posix() for p in folder.rglob("*.png")}
            assert written == {"a.png", "x/a.png", "x/y/a.png", "x/y/b.png"}
        areas = read_areas(photos / "out/areas.csv")
        assert list(areas) == ["a.png", "x/a.JPG", "x/y/a.jfif", "x/y/b"]
    out = capsys.readouterr().out
    assert out.count("segment: 1 file or folder passed over: x/notes.txt\n") == 1
    assert out.count("segment: 2 files or folders passed over: out/, x/notes.txt\n") == 1
    assert Image.open(photos / "out/masks/x/y/b.png").size == (15, 9)


def test_folders_inside_may_be_left_out(tmp_path, calls, capsys):
    (tmp_path / "photos/x").mkdir(parents=True)
    photo(9, 12).save(tmp_path / "photos/x/a.png")
    config = config_for(tmp_path / "photos")
    config.segment.recursive = False
    with pytest.raises(UserError, match=r"no photos in this folder \(1 file .* passed over: x/\)"):
        segment.check(config)
    photo(9, 12).save(tmp_path / "photos/b.png")
    segment.run(config, tmp_path / "run")
    assert list(read_areas(tmp_path / "run/segment/areas.csv")) == ["b.png"]
    assert "segment: 1 file or folder passed over: x/\n" in capsys.readouterr().out


def test_results_beside_the_photos_are_not_segmented_again(tmp_path, calls):
    photo(9, 12).save(tmp_path / "a.png")
    for _ in range(2):
        segment.run(config_for(tmp_path, output=tmp_path), tmp_path / "run")
    assert list(read_areas(tmp_path / "areas.csv")) == ["a.png"]
    assert len([*tmp_path.rglob("*.png")]) == 3


def test_what_was_changed_about_photos_is_said(tmp_path, calls, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "abcdefg":
        photo(10, 10).save(photos / f"{name}.png", exif=exif)
    photo(10, 10).convert("L").save(photos / "h.png")
    segment.run(config_for(photos), tmp_path)
    out = capsys.readouterr().out.splitlines()
    turned = "a.png, b.png, c.png, d.png, e.png and 2 more"
    assert f"segment: turned as its EXIF orientation says: {turned}" in out
    assert "segment: its mode is L, it is taken as RGB: h.png" in out


def test_no_photos_is_an_error_before_any_work(tmp_path, calls):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no photos in this folder"):
        segment.check(config_for(tmp_path / "empty"))
    with pytest.raises(UserError, match="no photos in this folder"):
        segment.run(config_for(tmp_path / "empty"), tmp_path)
    with pytest.raises(UserError, match="config.segment.input: no photos given"):
        segment.check(config_for(""))
    assert not (tmp_path / "segment").exists()
