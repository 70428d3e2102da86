"""Properties of the MobileStyleGAN modules; parity is tested with their converter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.models import mobilestylegan

ARCHITECTURE = {"w_dim": 10, "mapping_layers": 2, "widths": {"4": 8, "16": 4, "8": 12}}


@pytest.fixture(scope="module")
def network():
    """Returns (module, variables with normal numbers in every tensor)."""
    module = mobilestylegan.build(ARCHITECTURE)[1]
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 10)))
    rng = np.random.default_rng(0)
    return module, jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), shapes)


@pytest.fixture(scope="module")
def draw(network):
    """Returns the jitted synthesis: w and noise to (picture, taps)."""
    module, variables = network
    return jax.jit(
        lambda w, noise="stored": module.apply(variables, w, noise), static_argnames="noise"
    )


@pytest.fixture(scope="module")
def w():
    return jax.random.normal(jax.random.key(1), (3, 8, 10))


def test_sizes_follow_from_the_widths(network, draw, w):
    module, _ = network
    picture, taps = draw(w)
    assert (module.resolution, module.num_layers) == (32, 8)
    assert picture.shape == (3, 32, 32, 3)
    shapes = {name: tap.shape[1:] for name, tap in taps.items()}
    assert shapes == {
        "conv_00_4": (4, 4, 8),
        "conv_01_8": (8, 8, 12),
        "conv_02_8": (8, 8, 12),
        "conv_03_16": (16, 16, 4),
        "conv_04_16": (16, 16, 4),
    }
    assert module.tap_names == tuple(shapes)


def test_each_layer_reads_its_own_latent(draw, w):
    """A latent changes all from its layer on, and nothing before."""
    picture, taps = draw(w)
    first_changed = ("conv_00_4", "conv_01_8", "conv_01_8", "conv_02_8", "conv_03_16")
    first_changed += ("conv_03_16", "conv_04_16", None)
    for layer, first in enumerate(first_changed):
        other, other_taps = draw(w.at[:, layer].add(1.0))
        changed = [name for name in sorted(taps) if (taps[name] != other_taps[name]).any()]
        assert changed == [name for name in sorted(taps) if first and name >= first]
        assert (picture != other).any()


def test_neighbours_in_the_batch_change_nothing(draw, w):
    together, alone = draw(w), draw(w[1:2])
    # float32 sums of at most 72 products, over seven layers
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1:2], b, atol=1e-5 * float(jnp.abs(b).max())),
        together,
        alone,
    )


def test_noise_changes_the_picture_unless_its_strength_is_zero(network, draw, w):
    module, variables = network
    stored, none = draw(w, noise="stored")[0], draw(w, noise="none")[0]
    assert (stored != none).any((1, 2, 3)).all()
    strengths = jax.tree_util.tree_map_with_path(
        lambda path, x: 0 * x if "noise_strength" in jax.tree_util.keystr(path) else x, variables
    )
    silent = jax.jit(module.apply)(strengths, w)[0]
    np.testing.assert_allclose(silent, none, atol=1e-5 * float(jnp.abs(none).max()))


def test_fresh_noise_belongs_to_the_sample(network, w):
    module, variables = network
    keys = jax.random.split(jax.random.key(4), 3)
    fresh = jax.jit(module.apply)
    together = fresh(variables, w, keys)[0]
    alone = fresh(variables, w[2:], keys[2:])[0]
    np.testing.assert_allclose(together[2:], alone, atol=1e-5 * float(jnp.abs(alone).max()))
    other = fresh(variables, w[2:], keys[:1])[0]
    assert np.abs(other - alone).max() > 1e-2


def test_bfloat16_is_close_to_float32(network, draw, w):
    _, variables = network
    rough = mobilestylegan.build(ARCHITECTURE, jnp.bfloat16)[1]
    picture, taps = jax.jit(rough.apply)(variables, w)
    exact, exact_taps = draw(w)
    assert taps["conv_04_16"].dtype == jnp.bfloat16
    assert picture.dtype == jnp.float32
    # eight bits of mantissa, over seven layers of random signs: some per cent of the spread
    assert np.std(picture - exact) < 0.05 * np.std(exact)
    for name, tap in taps.items():
        assert np.std(tap.astype(jnp.float32) - exact_taps[name]) < 0.05 * np.std(exact_taps[name])
