"""Labelled photos teach the heads, and the heads segment photos, through their latents."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from repgan_jax.configs import base
from repgan_jax.errors import UserError
from repgan_jax.inversion import cache
from repgan_jax.io import images
from repgan_jax.palette import IGNORE
from repgan_jax.stages import photo_shots

LENIENT = {
    "invert__fast__good_lpips": 1e9,
    "invert__fast__good_distance": 1e9,
    "invert__fast__poor_lpips": 1e9,
    "fewshot__photo_tolerance": 60.0,
}
MIN_AGREEMENT = 0.4


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
    assert page.count(", agreement with the other shots 0.") == 3 and "left out" not in page


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


@pytest.fixture
def spoilt(changes, tmp_path):
    """Fields of a run in which the mask of photo 1 calls disc what is background, and so on."""
    shutil.copytree(changes["fewshot__shots"], tmp_path / "shots")
    path = tmp_path / "shots/masks/1.png"
    mask = np.asarray(Image.open(path))
    images.write_png(path, np.where(mask == IGNORE, IGNORE, (mask + 1) % 3).astype(np.uint8))
    return {**changes, "fewshot__shots": tmp_path / "shots"}


def test_a_photo_that_contradicts_the_others_is_left_out_and_named(tiny_chain, spoilt, tmp_path):
    poor = {"invert__fast__good_lpips": 0.0, "fewshot__min_agreement": MIN_AGREEMENT}
    code, out, err = tiny_chain.run(tmp_path / "run", stages="fewshot", **{**spoilt, **poor})
    assert code == 0, err
    (warning,) = [line for line in out.splitlines() if "warning" in line]
    assert (
        warning.startswith("fewshot: warning: 1 of 3 photos left out") and ": 1 (LPIPS " in warning
    )
    assert "config.fewshot.min_agreement (now " in warning
    assert "images/0: poor (LPIPS " in out and "images/1: " not in out
    folder = tmp_path / "run/fewshot"
    assert json.loads((folder / "stage.json").read_text())["summary"]["shots"] == ["0", "2"]
    rows = cache.read_scores(folder)
    assert [row["used"] for row in rows] == ["yes", "no", "yes"]
    assert float(rows[1]["agreement"]) < MIN_AGREEMENT / 2 < float(rows[0]["agreement"])
    with np.load(folder / "shots.npz") as preview:
        assert len(preview["masks"]) == 2


def test_no_photo_left_ends_the_run_in_one_line(tiny_chain, changes, spoilt, tmp_path):
    strict = {"invert__fast__poor_lpips": 0.0, "invert__fast__good_lpips": 0.0}
    for fields, names, count in ((changes, "1", 1), (spoilt, "0,1", 2)):
        fields = {**fields, **strict, "fewshot__names": names, "fewshot__min_agreement": 1.0}
        code, out, err = tiny_chain.run(tmp_path / names, stages="fewshot", **fields)
        assert code == 2 and "warning" not in out
        line = err.splitlines()[-1]
        assert f"shots/images: none of {count} photos can be used: " in line
        assert f"{names[0]} (LPIPS " in line and f"{names[-1]} (LPIPS " in line
        assert "config.invert.fast.poor_lpips (now 0)" in line
        assert ("agreement 0." in line) == (count > 1)


@pytest.mark.parametrize("limit", [-0.1, 1.5])
def test_the_limit_is_a_share(limit):
    config = base.get_config()
    config.fewshot.min_agreement = limit
    with pytest.raises(UserError, match=f"config.fewshot.min_agreement: {limit}, expected 0 to 1"):
        photo_shots.check(config)


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
