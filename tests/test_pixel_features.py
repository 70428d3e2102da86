"""Activations as features of pixels: stacked, and folded into a kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import repgan_jax as rg
from repgan_jax.errors import UserError


@pytest.fixture(scope="module")
def w(tiny_generator):
    return tiny_generator.mapping(jax.random.normal(jax.random.key(0), (2, 12)))


def test_features_are_the_taps_at_one_size_from_coarse_to_fine(tiny_generator, w):
    taps = tiny_generator.synthesis(w)[1]
    found = rg.features(tiny_generator, w, size=8)
    assert found.shape == (2, 8, 8, 8 + 8 + 6 + 6)
    fine = np.asarray(taps["conv_04_16"]).reshape(2, 8, 2, 8, 2, 6).mean((2, 4))
    np.testing.assert_allclose(found[..., :8], taps["conv_01_8"], atol=1e-5)
    np.testing.assert_allclose(found[..., -6:], fine, atol=1e-5)
    some = rg.features(tiny_generator, w, size=8, taps=("conv_04_16", "conv_01_8"))
    np.testing.assert_allclose(some[..., :8], taps["conv_01_8"], atol=1e-5)
    np.testing.assert_allclose(some[..., 8:], fine, atol=1e-5)


@pytest.mark.parametrize("resize", ["bilinear", "nearest"])
@pytest.mark.parametrize("size", [8, 12, 32])  # finer taps reduced; no whole factor; enlarged
def test_folded_features_equal_the_stack_times_the_kernel(tiny_generator, w, size, resize):
    kernel = jax.random.normal(jax.random.key(1), (28, 5))
    options = {"size": size, "resize": resize, "noise": "none"}
    found = rg.project_features(tiny_generator, w, kernel, **options)
    expected = rg.features(tiny_generator, w, **options) @ kernel
    assert found.shape == (2, size, size, 5)
    # float32 sums of 28 products
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_the_folded_layer_has_the_gradient_of_the_stacked_one(tiny_generator, w):
    kernel = jax.random.normal(jax.random.key(1), (28, 5))
    weights = jax.random.normal(jax.random.key(2), (2, 16, 16, 5))

    @jax.jit
    @jax.grad
    def folded(kernel):
        return (rg.project_features(tiny_generator, w, kernel, size=16) * weights).mean()

    stack = rg.features(tiny_generator, w, size=16)
    expected = jnp.einsum("nhwc,nhwf->cf", stack, weights) / weights.size
    found = folded(kernel)
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_fresh_noise_is_that_of_the_key(tiny_generator, w):
    key = jax.random.key(3)
    taps = tiny_generator.synthesis(w, noise=key)[1]
    options = {"size": 16, "taps": ("conv_04_16",)}
    found = rg.features(tiny_generator, w, noise=key, **options)
    np.testing.assert_allclose(found, taps["conv_04_16"], atol=1e-5)
    projected = rg.project_features(tiny_generator, w, jnp.eye(6), noise=key, **options)
    np.testing.assert_allclose(projected, found, atol=1e-5)
    assert np.abs(found - rg.features(tiny_generator, w, **options)).max() > 0.1


def test_wrong_arguments_are_named(tiny_generator, w):
    with pytest.raises(UserError, match=r"taps: no tap is called \['conv_09_64'\]"):
        rg.features(tiny_generator, w, size=8, taps=("conv_09_64",))
    with pytest.raises(UserError, match="size: 0, expected at least 1"):
        rg.features(tiny_generator, w, size=0)
    with pytest.raises(UserError, match="resize: 'cubic', expected one of bilinear, nearest"):
        rg.project_features(tiny_generator, w, jnp.zeros((28, 1)), size=8, resize="cubic")
    with pytest.raises(UserError, match=r"kernel: \[27, 1\], expected \[28, F\], .*conv_01_8 8"):
        rg.project_features(tiny_generator, w, jnp.zeros((27, 1)), size=8)
