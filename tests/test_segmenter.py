"""The object that segments photos, of a finished run."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import repgan_jax
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, images, json_files
from repgan_jax.segmenter import most_likely


@pytest.fixture(scope="module")
def segmenter(tiny_run):
    return repgan_jax.load_segmenter(tiny_run.workdir)


def _photos(count, height, width):
    """Returns soft random pictures, uint8 [count, height, width, 3]."""
    coarse = np.random.default_rng(0).integers(0, 255, (count, 6, 5, 3), np.uint8)
    return np.stack([images.resize_area(picture, (height, width)) for picture in coarse])


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (9, 8), (32, 32), (120, 41)])
def test_any_size_in_the_same_size_out(segmenter, size):
    masks = segmenter.predict(_photos(2, *size))
    assert masks.shape == (2, *size) and masks.dtype == np.int32
    assert 0 <= masks.min() <= masks.max() < len(segmenter.class_names)


def test_it_knows_its_classes(segmenter):
    assert segmenter.class_names == ("background", "disc", "bright")
    assert segmenter.palette.colours.shape == (3, 3)
    assert segmenter.size == 32


def test_grey_photos(segmenter):
    grey = np.repeat(_photos(1, 40, 40)[..., :1], 3, axis=-1)
    assert segmenter.predict(grey).shape == (1, 40, 40)


def test_photo_does_not_depend_on_its_neighbours(segmenter):
    photos = _photos(5, 37, 53)
    together = segmenter.predict(photos)
    assert len(np.unique(together)) > 1
    for i in (0, 3):
        alone = segmenter.predict(photos[i : i + 1])[0]
        # float32 sums of another order may turn a pixel where two classes are level
        assert (alone == together[i]).mean() > 0.998


@pytest.mark.parametrize(("size", "agreement"), [((32, 32), 1.0), ((37, 53), 0.98)])
def test_mirrored_photo_gives_the_mirrored_mask(segmenter, size, agreement):
    photos = _photos(3, *size)
    mirrored = segmenter.predict(photos[:, :, ::-1])[:, :, ::-1]
    # the mean over both sides is exact; resizing rounds to whole grey values, not always alike
    assert (mirrored == segmenter.predict(photos)).mean() >= agreement


def test_left_and_right_trade_places_in_the_mirrored_photo(segmenter):
    palette = segmenter.palette.with_pairs("disc <-> bright", "test")
    sided, photos = dataclasses.replace(segmenter, palette=palette), _photos(3, 32, 32)
    mirrored, plain = sided.predict(photos[:, :, ::-1])[:, :, ::-1], sided.predict(photos)
    np.testing.assert_array_equal(mirrored, np.array([0, 2, 1])[plain])
    assert {1, 2} & set(np.unique(plain))


def test_without_flips_the_network_alone_decides(segmenter):
    alone, photos = dataclasses.replace(segmenter, flip=False), _photos(3, 32, 32)
    logits = segmenter.network.apply(segmenter.variables, images.to_float(photos))
    expected = np.argmax(logits, -1)
    np.testing.assert_array_equal(alone.predict(photos), expected)
    assert (segmenter.predict(photos) != expected).any()


@pytest.mark.parametrize("flip", [True, False, None])
def test_what_was_decided_on_flips_is_stored(segmenter, tiny_run, tmp_path, flip):
    if flip is None:  # as version 0.1.0 wrote it
        checkpoint.write_tree(tmp_path / "autoshot/best", segmenter.variables)
        palette = segmenter.palette.to_json()
        del palette["pairs"]
        stored = {"widths": segmenter.network.widths, "patch": segmenter.network.patch}
        stored |= {"size": segmenter.size, "palette": palette}
        json_files.write(tmp_path / "autoshot/segmenter.json", stored)
    else:
        dataclasses.replace(segmenter, flip=flip).save(tmp_path / "autoshot/segmenter")
    assert repgan_jax.load_segmenter(tmp_path).flip == (flip is not False)


def test_one_photo_gives_one_mask(segmenter):
    photos = _photos(2, 37, 53)
    expected = segmenter.predict(photos[:1])[0]
    assert expected.shape == (37, 53)
    for photo in (photos[0], jnp.asarray(photos[0]), Image.fromarray(photos[0])):
        np.testing.assert_array_equal(segmenter.predict(photo), expected)
    grey = Image.fromarray(photos[0]).convert("L")
    np.testing.assert_array_equal(segmenter.predict(grey), segmenter.predict(grey.convert("RGB")))
    clear = Image.fromarray(photos[0]).convert("RGBA")
    np.testing.assert_array_equal(segmenter.predict(clear), expected)
    clear.putalpha(0)  # shows white
    white = np.full_like(photos[0], 255)
    np.testing.assert_array_equal(segmenter.predict(clear), segmenter.predict(white))
    both = segmenter.predict([photos[0], Image.fromarray(photos[1])])
    np.testing.assert_array_equal(both, segmenter.predict(photos))
    assert segmenter.predict(photos[:0]).shape == (0, 37, 53)


@pytest.mark.parametrize(
    ("photos", "given"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "float32 [2, 8, 8, 3]"),
        (np.zeros((8, 8, 3)), "float64 [8, 8, 3]"),
        (np.zeros((8, 8, 3), np.int32), "int32 [8, 8, 3]"),
        (np.zeros((8, 8, 3), bool), "bool [8, 8, 3]"),
        (np.zeros((8, 8), np.uint8), "uint8 [8, 8]"),
        (np.zeros((3, 8, 8), np.uint8), "uint8 [3, 8, 8]"),
        (np.zeros((1, 3, 8, 8), np.uint8), "uint8 [1, 3, 8, 8]"),
        (np.zeros((8, 8, 4), np.uint8), "uint8 [8, 8, 4]"),
        (np.zeros((1, 1, 8, 8, 3), np.uint8), "uint8 [1, 1, 8, 8, 3]"),
        (np.zeros((2, 0, 8, 3), np.uint8), "uint8 [2, 0, 8, 3]"),
        (Image.new("F", (8, 8), 300), "floats from 300 to 300"),
        (Image.new("RGB", (0, 8)), "uint8 [8, 0, 3]"),
        ("photo.jpg", "str"),
        (None, "NoneType"),
        ([], "a list of 0 photos"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], "a list of 2 photos"),
        ([np.zeros((1, 8, 8, 3), np.uint8)], "a list of 1 photos of the shapes [(1, 8, 8, 3)]"),
        ([[0, 0, 0]], "int"),
    ],
)
def test_what_is_no_photo_is_refused_in_one_line(segmenter, photos, given):
    with pytest.raises(UserError) as error:
        segmenter.predict(photos)
    message = str(error.value)
    assert message.startswith(f"predict: {given}") and "expected" in message
    assert "\n" not in message
    assert ("images.to_uint8" in message) == ("float32" in given or "float64" in given)


def test_classes_are_those_of_the_enlarged_probabilities():
    probabilities = np.random.default_rng(1).dirichlet(np.ones(4), (5, 7)).astype(np.float32)
    enlarged = [
        np.asarray(Image.fromarray(plane).resize((30, 11), Image.Resampling.BILINEAR))
        for plane in np.moveaxis(probabilities, -1, 0)
    ]
    classes = most_likely(probabilities, (11, 30))
    assert classes.shape == (11, 30) and classes.dtype == np.int32
    np.testing.assert_array_equal(classes, np.argmax(enlarged, 0))


def test_no_run_no_segmenter(tmp_path):
    with pytest.raises(UserError, match="no segmenter here; expected a folder that"):
        repgan_jax.load_segmenter(tmp_path)
