"""Augmentation: what it must leave alone, what it must change, and the limits of both."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from repgan_jax.training import augment

OFF = augment.Augmentation(
    flip=0.0,
    rotation=0.0,
    translation=0.0,
    scale=(1.0, 1.0),
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    grey=0.0,
    class_colour=0.0,
    background=0.0,
    blur=0.0,
    noise=0.0,
)
STRONG = augment.Augmentation(
    flip=0.5,
    rotation=30.0,
    translation=0.2,
    scale=(0.7, 1.5),
    brightness=0.3,
    contrast=0.5,
    saturation=0.7,
    hue=0.2,
    grey=0.2,
    class_colour=0.3,
    background=0.5,
    blur=1.5,
    noise=0.0,  # the one change that may leave the range
)
SIZE, COUNT = 12, 256


@pytest.fixture(scope="module")
def sample():
    """A picture of many colours [12, 12, 3] and its targets [12, 12, 4]."""
    picture = jax.random.uniform(jax.random.key(0), (SIZE, SIZE, 3), minval=-1)
    targets = jax.nn.softmax(2 * jax.random.normal(jax.random.key(1), (SIZE, SIZE, 4)))
    return picture, targets


@jax.jit  # settings are numbers like any other: compiled once for all tests
def augment_many(keys, picture, targets, settings):
    one = partial(augment.augment, settings=settings)
    return jax.vmap(one, (0, None, None))(keys, picture, targets)


def many(settings, sample):
    """Returns pictures and targets of `COUNT` keys."""
    keys = jax.random.split(jax.random.key(2), COUNT)
    return jax.tree.map(np.asarray, augment_many(keys, *sample, settings))


def repeated(x):
    return np.stack([x] * COUNT)


def spread(x):
    """Returns the largest standard deviation over samples."""
    return float(np.std(x, 0).max())


def test_all_settings_at_zero_change_nothing(sample):
    pictures, targets = many(OFF, sample)
    # colours go through hue and back: float32 rounding of a dozen operations
    np.testing.assert_allclose(pictures, repeated(sample[0]), atol=3e-6)
    np.testing.assert_array_equal(targets, repeated(sample[1]))


def test_flip_mirrors_picture_and_targets_alike(sample):
    pictures, targets = many(replace(OFF, **{"flip": 1.0}), sample)
    np.testing.assert_allclose(pictures, repeated(sample[0][:, ::-1]), atol=3e-6)
    np.testing.assert_allclose(targets, repeated(sample[1][:, ::-1]), atol=1e-6)
    flipped, _ = many(replace(OFF, **{"flip": 0.25}), sample)
    share = np.mean(np.abs(flipped - sample[0]).max((1, 2, 3)) > 0.1)
    assert 0.15 < share < 0.35  # four standard deviations of 256 draws


def test_left_and_right_trade_places_where_a_picture_is_mirrored(sample):
    settings = replace(OFF, **{"flip": 0.5, "rotation": 30.0, "class_colour": 0.3})
    one = partial(augment.augment, settings=settings, mirrored=(0, 2, 1, 3))
    keys = jax.random.split(jax.random.key(2), COUNT)
    found = np.asarray(jax.jit(jax.vmap(one, (0, None, None)))(keys, *sample)[1])
    plain = many(settings, sample)[1]
    swapped = np.abs(found - plain[..., [0, 2, 1, 3]]).max((1, 2, 3)) < 1e-6
    same = np.abs(found - plain).max((1, 2, 3)) < 1e-6
    assert (swapped ^ same).all() and 0.35 < swapped.mean() < 0.65
    still = many(replace(settings, **{"flip": 0.0}), sample)[1]
    assert (same == (np.abs(plain - still).max((1, 2, 3)) < 1e-6)).all()


def test_targets_follow_the_picture(sample):
    """A picture that shows its own targets still shows them after any change of place."""
    _, targets = sample
    shown = (2 * targets[..., :3] - 1, targets)
    places = {name: getattr(STRONG, name) for name in ("flip", "rotation", "translation", "scale")}
    pictures, moved = many(replace(OFF, **places), shown)
    np.testing.assert_allclose(pictures, 2 * moved[..., :3] - 1, atol=3e-6)
    assert spread(moved) > 0.05


def test_targets_stay_probabilities_and_pictures_in_range(sample):
    pictures, targets = many(STRONG, sample)
    assert pictures.dtype == targets.dtype == jnp.float32
    np.testing.assert_allclose(targets.sum(-1), 1, atol=1e-6)
    assert targets.min() >= 0
    assert np.abs(pictures).max() <= 1 + 1e-6
    assert spread(pictures) > 0.3


@pytest.mark.parametrize(
    "name",
    ["brightness", "contrast", "saturation", "hue", "grey", "class_colour", "background", "blur"],
)
def test_colour_settings_change_the_picture_alone(sample, name):
    pictures, targets = many(replace(OFF, **{name: getattr(STRONG, name)}), sample)
    assert spread(pictures) > 0.02
    np.testing.assert_array_equal(targets, repeated(sample[1]))


def test_grey_has_one_colour(sample):
    pictures, _ = many(replace(OFF, **{"grey": 1.0}), sample)
    np.testing.assert_allclose(np.ptp(pictures, -1), 0, atol=1e-6)
    np.testing.assert_allclose(pictures[0].mean(-1), sample[0].mean(-1), atol=3e-6)


def test_background_replaces_class_zero_alone(sample):
    targets = jax.nn.one_hot(jnp.arange(SIZE**2).reshape(SIZE, SIZE) % 3, 4)
    pictures, _ = many(replace(OFF, **{"background": 1.0}), (sample[0], targets))
    changed = np.abs(pictures - sample[0]).max(-1) > 1e-5
    assert not changed[:, targets[..., 0] == 0].any()
    assert changed[:, targets[..., 0] == 1].mean() > 0.95


def test_class_colour_shifts_each_class_as_one(sample):
    targets = jax.nn.one_hot(jnp.arange(SIZE**2).reshape(SIZE, SIZE) % 3, 4)
    pictures, _ = many(replace(OFF, **{"class_colour": 0.1}), (sample[0] / 2, targets))
    shift = np.asarray(pictures[0] - sample[0] / 2)
    for place in range(3):
        own = shift[targets[..., place] == 1]
        np.testing.assert_allclose(own, np.stack([own[0]] * len(own)), atol=3e-6)
        assert np.abs(own[0]).max() > 1e-3


def test_noise_has_the_deviation_it_says(sample):
    pictures, _ = many(replace(OFF, **{"noise": 0.1}), sample)
    deviation = np.std(pictures - sample[0], (1, 2, 3))  # of 432 numbers: within 20 %
    assert deviation.max() < 0.12
    assert 0.04 < deviation.mean() < 0.06  # uniform up to 0.1


def test_warp_by_the_identity_is_the_identity():
    x = jax.random.normal(jax.random.key(3), (7, 9, 4))
    np.testing.assert_array_equal(augment.warp(x, jnp.eye(2, 3)), x)


@pytest.mark.parametrize("seed", range(4))
def test_warp_is_the_affine_transform_of_scipy(seed):
    x = np.asarray(jax.random.normal(jax.random.key(4), (7, 9, 4)))
    matrix = np.asarray(jax.random.normal(jax.random.key(seed), (2, 3))) + [[0, 0, 3], [0, 0, 4]]
    expected = [
        ndimage.affine_transform(plane, matrix[:, :2], matrix[:, 2], order=1, mode="nearest")
        for plane in np.moveaxis(x, -1, 0)
    ]
    # a place of 10 pixels, rounded to 1e-6, times differences of up to 5
    np.testing.assert_allclose(
        augment.warp(x, jnp.asarray(matrix, jnp.float32)), np.stack(expected, -1), atol=2e-5
    )


def test_random_affine_turns_and_scales_about_the_centre():
    keys = jax.random.split(jax.random.key(5), 200)
    settings = replace(OFF, **{"rotation": 20.0, "scale": (0.5, 2.0)})
    draw = jax.vmap(lambda key: augment.random_affine(key, SIZE, settings))
    matrices = np.asarray(draw(keys))
    centre = np.array([5.5, 5.5, 1])
    np.testing.assert_allclose(matrices @ centre, np.full((200, 2), 5.5), atol=1e-5)
    zoom = np.linalg.det(matrices[:, :, :2]) ** -0.5
    angle = np.degrees(np.arctan2(matrices[:, 1, 0], matrices[:, 0, 0]))
    assert 0.5 <= zoom.min() < 0.6 and 1.8 < zoom.max() <= 2.0001
    assert -20 <= angle.min() < -18 and 18 < angle.max() <= 20
    assert 0.4 < np.mean(zoom > 1) < 0.6  # as often larger as smaller
