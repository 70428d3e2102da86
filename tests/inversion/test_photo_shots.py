"""Labelled photos teach the heads, and the heads segment photos, through their latents."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from repgan_jax.inversion import photo_shots
from repgan_jax.io import images
from repgan_jax.palette import IGNORE

LENIENT = {
    "invert__fast__good_lpips": 1e9,
    "invert__fast__good_distance": 1e9,
    "invert__fast__poor_lpips": 1e9,
    "fewshot__photo_tolerance": 60.0,
}


@pytest.fixture(scope="module")
def changes(tiny_chain, tiny_inversion, tmp_path_factory):
    """Fields of a run whose three shots are photos of 90x70 pixels."""
    folder = tmp_path_factory.mktemp("photos") / "shots"
    for kind in ("images", "masks"):
        for i in range(3):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(tiny_chain.photos / kind / f"{i}.png", folder / kind)
    cache = folder.parent / "latents"
    return {**tiny_inversion, **LENIENT, "fewshot__shots": folder, "invert__cache": cache}


@pytest.fixture(scope="module")
def done(tiny_chain, changes, tmp_path_factory):
    """Returns (workdir, what was printed) of the finished stage."""
    workdir = tmp_path_factory.mktemp("photo_shots") / "run"
    code, out, err = tiny_chain.run(workdir, stages="fewshot", **changes)
    assert code == 0, err
    return workdir, out


def test_heads_learn_from_photos(done, changes):
    workdir, out = done
    summary = json.loads((workdir / "fewshot/stage.json").read_text())["summary"]
    assert summary["shots"] == ["0", "1", "2"] and summary["pixel_accuracy"] > 0.7
    assert (
        f"fewshot: no latents.npz in {changes['fewshot__shots']}: its pictures are taken as photos"
        in out
    )
    assert "images/2: good (LPIPS " in out and "% ignored\n" in out


def test_the_report_shows_what_was_found(done, tiny_chain, changes):
    code, _, err = tiny_chain.run(done[0], stages="report", **changes)
    assert code == 0, err
    page = (done[0] / "report.html").read_text()
    assert "<h2>Photos and the pictures found for them</h2>" in page
    for words in ("start", "10 %", "50 %", "end", "photo"):
        assert page.count(f"<span>{words}</span>") == 3
    assert page.count("good: LPIPS ") == 3


def test_what_was_not_found_teaches_nothing(done, changes):
    with np.load(done[0] / "fewshot/shots.npz") as preview:
        photos, labels = preview["images"], preview["masks"]
    square = images.read_photo(changes["fewshot__shots"] / "images/1.png")[:, 10:80]
    np.testing.assert_array_equal(photos[1], images.resize_area(square, 32))
    truth = np.asarray(Image.open(changes["fewshot__shots"] / "masks/1.png"))[:, 10:80]
    known = labels[1] != IGNORE
    assert 0.02 < (~known).mean() < 0.9
    rows = ((np.arange(32) + 0.5) * 70 / 32).astype(int)
    agree = truth[np.ix_(rows, rows)] == labels[1]
    assert agree[known].mean() > 0.95  # but for pixels on edges, by majority


def test_difference_is_that_of_the_mean_colours():
    photo, picture = np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    picture[:4, :4] = (30, 60, 90)
    found = photo_shots._difference(photo, picture, 4)
    expected = np.zeros((4, 4))
    expected[0, 0] = 60
    np.testing.assert_array_equal(found, expected)


def test_photos_that_cannot_be_made_are_refused(tiny_chain, changes, tmp_path):
    strict = {**changes, "invert__fast__poor_lpips": 0.0, "invert__fast__good_lpips": 0.0}
    code, _, err = tiny_chain.run(tmp_path, stages="fewshot", **strict)
    assert code == 2
    line = err.splitlines()[-1]
    assert "shots/images/0: the generator cannot make this photo (LPIPS " in line
    poor = {**changes, "invert__fast__good_lpips": 0.0}
    code, out, _ = tiny_chain.run(tmp_path, stages="fewshot", **poor)
    assert code == 0 and "shots/images/0: poor (LPIPS " in out


def test_photos_are_segmented_by_their_latents(done, tiny_chain, changes, tmp_path):
    segment = {"stages": "segment", "segment__method": "invert", "segment__output": tmp_path}
    photos = changes["fewshot__shots"] / "images"
    segment = {**changes, **segment, "segment__input": photos}
    code, out, err = tiny_chain.run(done[0], **segment)
    assert code == 0, err
    assert out.splitlines()[-1] == f"segment: 3 of 3 photos done, in {tmp_path}"
    agreement = []
    for i in range(3):
        mask = np.asarray(Image.open(tmp_path / f"masks/{i}.png"))
        assert mask.shape == (70, 90)
        assert (mask[:, :10] == IGNORE).all() and (mask[:, 80:] == IGNORE).all()
        assert (mask[:, 10:80] < 3).all()
        truth = np.asarray(Image.open(changes["fewshot__shots"] / f"masks/{i}.png"))[:, 10:80]
        agreement.append((mask[:, 10:80] == truth).mean())
    assert np.mean(agreement) > 0.6
    (tmp_path / "photos").mkdir()
    shutil.copy(photos / "0.png", tmp_path / "photos/small.png")
    Image.new("RGB", (20, 50)).save(tmp_path / "photos/tiny.png")
    strict = {"invert__fast__poor_lpips": 0.0, "segment__input": tmp_path / "photos"}
    code, _, err = tiny_chain.run(done[0], **{**segment, **strict})
    line = err.splitlines()[-1]
    assert code == 2 and line.startswith("error: 2 of 2 photos left out: ")
    assert "tiny.png: 20x50 pixels" in line and "small.png: failed (LPIPS " in line
    assert "or use the stand-alone network (config.segment.method=network)" in line
