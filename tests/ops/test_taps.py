"""Choosing, folding and describing activations."""

import jax
import numpy as np
import pytest

from repgan_jax.errors import UserError
from repgan_jax.ops import resampling, taps

AVAILABLE = ("conv_00_4", "conv_01_8", "conv_02_8", "conv_03_16", "conv_04_16")


def make(channels=(5, 4, 3, 6, 2), batch=2):
    return {
        name: jax.random.normal(jax.random.key(i), (batch, *[taps.size_of(name)] * 2, width))
        for i, (name, width) in enumerate(zip(AVAILABLE, channels, strict=True))
    }


def test_size_stands_in_the_name():
    assert [taps.size_of(name) for name in AVAILABLE] == [4, 8, 8, 16, 16]
    assert taps.size_of("conv_16_1024") == 1024


def test_select_keeps_the_generators_order_and_leaves_out_4x4_by_default():
    assert taps.select(AVAILABLE) == AVAILABLE[1:]
    assert taps.select(AVAILABLE, ("conv_04_16", "conv_00_4")) == ("conv_00_4", "conv_04_16")


def test_select_names_the_unknown():
    with pytest.raises(UserError, match=r"\Ataps: .*'conv_09_64'.*conv_04_16") as info:
        taps.select(AVAILABLE, ("conv_09_64", "conv_01_8"))
    assert "\n" not in str(info.value)


def test_choose_averages_finer_taps_and_keeps_coarser_ones():
    found = taps.choose(given := make(), ("conv_01_8", "conv_03_16"), 8)
    assert list(found) == ["conv_01_8", "conv_03_16"]
    np.testing.assert_array_equal(found["conv_01_8"], given["conv_01_8"])
    x = np.asarray(given["conv_03_16"])
    cells = (x[:, ::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, ::2] + x[:, 1::2, 1::2]) / 4
    np.testing.assert_allclose(found["conv_03_16"], cells, atol=1e-6)  # means of four


@pytest.mark.parametrize(("size", "reduced"), [(3, 4), (5, 8), (9, 16), (40, 16)])
def test_choose_keeps_what_a_size_does_not_divide(size, reduced):
    found = taps.choose(make(), ("conv_03_16",), size)
    assert found["conv_03_16"].shape[1:3] == (reduced, reduced)


def test_root_mean_square_of_each_channel():
    for name, found in taps.root_mean_square(given := make()).items():
        expected = np.sqrt(np.mean(np.square(given[name]), (0, 1, 2)))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [8, 16, 24])  # finer taps reduced; all enlarged; by one and a half
def test_projecting_first_equals_projecting_the_stack(method, size):
    given = make()
    kernels = {
        name: jax.random.normal(jax.random.key(9 + i), (tap.shape[-1], 7))
        for i, (name, tap) in enumerate(given.items())
    }
    resized = [resampling.resize(tap, size, method=method) for tap in given.values()]
    stack = np.concatenate(resized, -1)
    expected = stack @ np.concatenate(list(kernels.values()))
    found = taps.project_and_sum(given, kernels, size, method=method)
    # float32 sums of 20 products, about 15 at most
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_taps_without_a_kernel_are_not_read():
    given = make()
    kernel = {"conv_01_8": np.eye(4, 3, dtype=np.float32)}
    found = taps.project_and_sum(given, kernel, 8)
    np.testing.assert_array_equal(found, given["conv_01_8"][..., :3])
