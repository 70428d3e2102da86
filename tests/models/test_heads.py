"""Every head, folded as it is, equals the head of the paper on the full stack of activations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.errors import UserError
from repgan_jax.models import heads
from repgan_jax.ops.taps import size_of

K, SIZE = 5, 16


def make_taps():
    rng = np.random.default_rng(0)
    widths = {"conv_01_8": 6, "conv_02_8": 3, "conv_03_16": 4, "conv_05_32": 2}
    return {
        name: jnp.asarray(rng.normal(size=(2, size_of(name), size_of(name), width)), jnp.float32)
        for name, width in widths.items()
    }


def random_variables(head, taps, seed=7):
    """Returns variables of `head`: nothing is zero or one, and the scales differ widely."""
    shapes = jax.eval_shape(head.init, jax.random.key(0), taps)
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(size=x.shape) * (x.shape[-1] / x.size) ** 0.5, x.dtype),
        shapes,
    )
    return {**variables, "stats": jax.tree.map(lambda s: jnp.exp(2 * s), variables["stats"])}


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("name", heads.NAMES)
def test_folded_equals_stacked(name, method, stacked):
    head, taps = heads.build(name, K, SIZE, method), make_taps()
    variables = random_variables(head, taps)
    found = jax.jit(head.apply)(variables, taps)
    with stacked():
        expected = head.apply(variables, taps)
    assert found.shape == (2, SIZE, SIZE, K)
    # float32 sums of up to 2,000 products, over up to nine layers
    np.testing.assert_allclose(found, expected, atol=1e-5 * float(jnp.abs(expected).max()))


def test_a_wide_layer_block_by_block_is_the_same(monkeypatch):
    head, taps = heads.build("mlp2", K, SIZE), make_taps()
    variables = random_variables(head, taps)

    def loss(params):
        return jnp.sum(head.apply({**variables, "params": params}, taps) ** 2)

    whole = jax.jit(jax.value_and_grad(loss))(variables["params"])
    monkeypatch.setattr(heads, "_LARGEST", 4 * 2 * SIZE**2 * 300)  # of 2000: 250 fit
    blocks = jax.jit(jax.value_and_grad(lambda params: loss(params)))(variables["params"])
    largest = [float(jnp.abs(x).max()) for x in jax.tree.leaves(whole)]
    for x, y, scale in zip(*map(jax.tree.leaves, (whole, blocks)), largest, strict=True):
        np.testing.assert_allclose(y, x, atol=1e-5 * scale)  # another order of sums


@pytest.mark.parametrize(
    ("name", "reach"),  # pixels from which one is decided: 1 + 2 * sum of the dilations
    [("mlp2", 1), ("cnn_s", 13), ("cnn_m", 29), ("cnn_l", 61)],
)
def test_receptive_field(name, reach):
    head = heads.build(name, 2, 64)
    taps = {"conv_09_64": jax.random.normal(jax.random.key(0), (1, 64, 64, 2))}
    variables = random_variables(head, taps)

    def centre(tap):
        return head.apply(variables, {"conv_09_64": tap})[0, 32, 32, 0]

    reached = np.asarray(jax.jit(jax.grad(centre))(taps["conv_09_64"]))[0].any(-1)
    rows = np.flatnonzero(reached.any(1))
    assert rows[-1] - rows[0] + 1 == min(reach, 64)


@pytest.mark.parametrize("name", ["cnn_s", "cnn_m", "cnn_l"])
def test_a_new_cnn_passes_on_each_pixel_by_itself_and_no_weaker(name):
    head = heads.build(name, K, SIZE)
    given = {"conv_03_16": jax.random.normal(jax.random.key(1), (1, SIZE, SIZE, 300))}
    variables = head.init(jax.random.key(0), given)
    logits = head.apply(variables, given)
    moved = jax.tree.map(lambda x: jnp.roll(x, (3, 5), (1, 2)), given)
    np.testing.assert_allclose(
        head.apply(variables, moved), jnp.roll(logits, (3, 5), (1, 2)), atol=1e-5
    )
    assert 0.5 < float(logits.std()) < 2  # the activations' is 1


def test_bfloat16_taps_give_float32_logits_close_to_exact_ones():
    head, taps = heads.build("mlp1", K, SIZE), make_taps()
    variables = random_variables(head, taps)
    exact = head.apply(variables, taps)
    rough = head.apply(variables, {name: tap.astype(jnp.bfloat16) for name, tap in taps.items()})
    assert rough.dtype == jnp.float32
    # eight bits of mantissa in taps, kernels and their products
    np.testing.assert_allclose(rough, exact, atol=0.03 * float(jnp.abs(exact).max()))


def test_unknown_head_is_refused():
    with pytest.raises(UserError, match="^head: 'cnn_xl' is unknown; .*'cnn_l'"):
        heads.build("cnn_xl", K, SIZE)
