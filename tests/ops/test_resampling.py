"""Wavelet, resizing and cells against slow NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.ops import resampling


def random(seed, *shape):
    return np.asarray(jax.random.normal(jax.random.key(seed), shape))


def haar(picture):
    """Returns (means, details [..., 3]) of `picture` [N, 2H, 2W, C], each [N, H, W, C]."""
    a, b = picture[:, ::2, ::2], picture[:, ::2, 1::2]
    c, d = picture[:, 1::2, ::2], picture[:, 1::2, 1::2]
    vertical, horizontal, diagonal = a + b - c - d, a - b + c - d, a - b - c + d
    return 0.5 * (a + b + c + d), 0.5 * np.stack([vertical, horizontal, diagonal], -1)


def test_inverse_haar_undoes_the_transform():
    picture = random(0, 2, 6, 10, 3)
    means, details = haar(picture)
    details = details.reshape(*means.shape[:3], -1)
    restored = resampling.inverse_haar(jnp.concatenate([means, details], -1))
    np.testing.assert_allclose(restored, picture, atol=1e-6)  # sums of four


def bilinear_matrix(source, target):
    """Returns [target, source]: weights of enlarging, pixel centres aligned, edges continued."""
    matrix = np.zeros((target, source))
    for i in range(target):
        place = min(max((i + 0.5) * source / target - 0.5, 0), source - 1)
        low = min(int(place), source - 2)
        matrix[i, low : low + 2] = 1 - (place - low), place - low
    return matrix


@pytest.mark.parametrize("size", [8, 12, 16])
def test_bilinear_enlarging(size):
    x = random(3, 2, 4, 4, 3)
    matrix = bilinear_matrix(4, size)
    expected = np.einsum("ih,jw,nhwc->nijc", matrix, matrix, x)
    found = resampling.resize(x, size)
    np.testing.assert_allclose(found, expected, atol=2e-6)  # sums of four products


def test_nearest_enlarging_repeats():
    x = random(4, 2, 4, 4, 3)
    found = resampling.resize(x, 12, method="nearest")
    np.testing.assert_array_equal(found, x.repeat(3, 1).repeat(3, 2))


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
def test_reducing_by_a_whole_factor_averages_cells(method):
    x = random(5, 2, 12, 12, 3)
    found = resampling.resize(x, 4, method=method)
    for i in range(4):
        for j in range(4):
            cell = x[:, 3 * i : 3 * i + 3, 3 * j : 3 * j + 3].mean((1, 2))
            np.testing.assert_allclose(found[:, i, j], cell, atol=1e-6)


def test_resize_refuses_an_unknown_method():
    with pytest.raises(ValueError, match="cubic.*expected 'bilinear' or 'nearest'"):
        resampling.resize(jnp.zeros((1, 2, 2, 1)), 4, method="cubic")


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
def test_enlarge_is_bilinear(factor):
    x = random(8, 2, 5, 4, 3)
    shape = (2, 5 * factor, 4 * factor, 3)
    expected, pull = jax.vjp(lambda x: jax.image.resize(x, shape, "bilinear"), x)
    found, own = jax.vjp(lambda x: resampling.enlarge(x, factor), x)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    gradient = random(9, *shape)
    np.testing.assert_allclose(own(gradient)[0], pull(gradient)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "sides"),
    [
        (32, (4, 8, 16, 32)),  # a generator's
        (32, (2, 16)),  # some left out
        (32, (1, 8)),  # the finest left out, one pixel
        (32, (16, 32)),  # doubled alone
        (24, (3, 12, 6)),  # in any order
        (24, (8, 16, 24, 4)),  # three times, one and a half times, once, six times
        (8, (8, 4, 8, 4)),  # two of one size
    ],
)
def test_resize_and_sum_does_as_resizing_each(size, sides):
    xs = [random(10 + i, 2, side, side, 3) for i, side in enumerate(sides)]

    def one_by_one(xs):
        enlarged = [jax.image.resize(x, (2, size, size, 3), "bilinear") for x in xs]
        return sum(enlarged)

    expected, pull = jax.vjp(one_by_one, xs)
    found, own = jax.vjp(lambda xs: resampling.resize_and_sum(xs, size), xs)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    gradient = random(9, 2, size, size, 3)
    for ours, theirs in zip(own(gradient)[0], pull(gradient)[0], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())


def test_space_to_depth_moves_each_cell_into_channels():
    x = random(6, 2, 6, 4, 3)
    deep = resampling.space_to_depth(x, 2)
    np.testing.assert_array_equal(deep[1, 2, 1], x[1, 4:6, 2:4].ravel())  # row by row
    np.testing.assert_array_equal(resampling.depth_to_space(deep, 2), x)
