"""The object that segments photos, of a finished run."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

import repgan_jax
from repgan_jax.errors import UserError
from repgan_jax.io import images
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
    palette = dataclasses.replace(segmenter.palette, names=("background", "left", "right"))
    sided, photos = dataclasses.replace(segmenter, palette=palette), _photos(3, 32, 32)
    mirrored, plain = sided.predict(photos[:, :, ::-1])[:, :, ::-1], sided.predict(photos)
    np.testing.assert_array_equal(mirrored, np.array([0, 2, 1])[plain])
    assert {1, 2} & set(np.unique(plain))


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
    with pytest.raises(UserError, match="no segmenter here; run the stages up to autoshot"):
        repgan_jax.load_segmenter(tmp_path)
