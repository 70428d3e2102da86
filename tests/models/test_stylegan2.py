"""Properties of the StyleGAN2 modules; parity with the original is tested with its converter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.models import stylegan2

ARCHITECTURE = {"w_dim": 12, "mapping_layers": 2, "widths": {"4": 10, "8": 8, "16": 6}}
LAYERS = 6


def random_variables(module, *args):
    """Returns variables for `module`, normal in every leaf: no bias, noise or strength is zero."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def synthesis():
    """Returns the synthesis of a random generator of 16 px: (w, noise) to (picture, taps)."""
    module = stylegan2.build(ARCHITECTURE)[1]
    variables = random_variables(module, jnp.zeros((1, LAYERS, 12)))
    by_name = {
        name: jax.jit(functools.partial(module.apply, variables, noise=name))
        for name in ("stored", "none", "loud")
    }
    fresh = jax.jit(functools.partial(module.apply, variables))
    return lambda w, noise="stored": (
        by_name[noise](w) if isinstance(noise, str) else fresh(w, noise)
    )


@pytest.fixture
def w():
    return jax.random.normal(jax.random.key(1), (3, LAYERS, 12))


def assert_close(found, expected):
    # float32 sums of some hundred products a layer, in another order for another batch size
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


@pytest.mark.parametrize("log_size", range(5, 11))
def test_every_resolution_has_its_shapes(log_size):
    widths = {str(2**level): 4 for level in range(10, 1, -1) if level <= log_size}  # any order
    module = stylegan2.build({**ARCHITECTURE, "widths": widths})[1]
    assert module.resolution == 2**log_size
    assert module.num_layers == 2 * log_size - 2
    w = jnp.zeros((2, module.num_layers, 12))
    (image, taps), _ = jax.eval_shape(module.init_with_output, jax.random.key(0), w)
    assert image.shape == (2, 2**log_size, 2**log_size, 3)
    assert tuple(taps) == module.tap_names
    for name, tap in taps.items():
        size = int(name.split("_")[-1])
        assert tap.shape == (2, size, size, 4)


def test_mapping_ignores_the_length_of_z():
    module = stylegan2.build(ARCHITECTURE)[0]
    z = jax.random.normal(jax.random.key(2), (3, 7))
    variables = random_variables(module, z)
    found = module.apply(variables, 5 * z)
    assert found.shape == (3, 12)
    assert_close(found, module.apply(variables, z))


def test_a_style_layer_changes_only_what_lies_above_it(synthesis, w):
    shifted = jnp.stack([w[0], *(w[0].at[layer].add(1.0) for layer in range(LAYERS))])
    image, taps = synthesis(shifted)
    for layer in range(LAYERS):
        changed = [not np.allclose(tap[0], tap[1 + layer], atol=1e-4) for tap in taps.values()]
        assert changed == [i >= layer for i in range(LAYERS - 1)]
        assert not np.allclose(image[0], image[1 + layer], atol=1e-4)


def test_no_noise_differs_from_stored_noise(synthesis, w):
    stored, none = synthesis(w)[1], synthesis(w, "none")[1]
    assert all(bool(jnp.any(stored[name] != none[name])) for name in stored)


def test_fresh_noise_belongs_to_the_sample_and_not_to_the_batch(synthesis, w):
    keys = jax.random.split(jax.random.key(3), 3)
    image, _ = synthesis(w, keys)
    alone, _ = synthesis(w[1:2], keys[1:2])
    assert_close(alone, image[1:2])


def test_one_key_gives_every_sample_and_layer_its_own_noise():
    maps = [
        stylegan2.noise_map(layer, jax.random.key(4), jnp.zeros((5, 6)), 2.0, (2, 5, 6, 1))
        for layer in (stylegan2.StyledConv(1, name=name) for name in ("conv_01", "conv_02"))
    ]
    assert maps[0].shape == (2, 5, 6, 1)
    values = np.stack(maps).ravel()
    assert len(np.unique(values)) == len(values)


def test_unknown_noise_is_refused(synthesis, w):
    with pytest.raises(ValueError, match="'loud'"):
        synthesis(w, "loud")


def test_bfloat16_stays_near_float32(synthesis, w):
    rough = stylegan2.build(ARCHITECTURE, jnp.bfloat16)[1]
    found, taps = jax.jit(rough.apply)(random_variables(rough, w), w)
    image, _ = synthesis(w)
    assert found.dtype == jnp.float32
    assert all(tap.dtype == jnp.bfloat16 for tap in taps.values())
    # eight bits of mantissa (0.4 %), over five layers
    np.testing.assert_allclose(found, image, atol=0.05 * float(jnp.abs(image).max()))


def test_truncation_moves_towards_the_mean(w):
    mean = jnp.arange(12.0)
    np.testing.assert_array_equal(stylegan2.truncate(w, mean, 0.0), jnp.broadcast_to(mean, w.shape))
    assert_close(stylegan2.truncate(w, mean, 1.0), w)
    assert_close(stylegan2.truncate(w[:, 0], mean, 0.5), (w[:, 0] + mean) / 2)


def test_mixing_takes_the_coarse_layers_from_the_first(w):
    other = w + 1
    mixed = stylegan2.mix(w, other, 3)
    np.testing.assert_array_equal(mixed[:, :3], w[:, :3])
    np.testing.assert_array_equal(mixed[:, 3:], other[:, 3:])


def test_broadcast_repeats_w_and_keeps_wplus(w):
    wide = stylegan2.broadcast(w[:, 0], LAYERS)
    assert wide.shape == w.shape
    np.testing.assert_array_equal(wide[:, 5], w[:, 0])
    assert stylegan2.broadcast(w, LAYERS) is w
