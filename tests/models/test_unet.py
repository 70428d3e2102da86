"""The stand-alone network: shapes, and what a result may depend on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.models.unet import UNet, _halve


def random_network(seed=0, **fields):
    network = UNet(num_classes=3, **fields)
    return network, jax.jit(network.init)(jax.random.key(seed), jnp.zeros((1, 16, 8, 3)))


@pytest.mark.parametrize(
    ("widths", "patch", "stride"),
    [((8,), 1, 1), ((4, 8), 1, 2), ((8, 12, 20), 2, 8)],
)
def test_logits_have_the_size_of_the_picture(widths, patch, stride):
    network = UNet(3, widths, patch)
    assert network.stride == stride
    pictures = jax.ShapeDtypeStruct((2, 16, 24, 3), jnp.float32)
    logits, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), pictures)
    assert logits.shape == (2, 16, 24, 3)


@pytest.mark.parametrize("patch", [1, 2])
def test_neighbours_in_the_batch_change_nothing(patch):
    network, variables = random_network(widths=(4, 8), patch=patch)
    apply = jax.jit(network.apply)
    pictures = jax.random.normal(jax.random.key(1), (3, 16, 8, 3))
    together = apply(variables, pictures)
    alone = apply(variables, pictures[1:2])
    # logits near 1, float32: the order of a sum may depend on the batch
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)


def test_halving_takes_the_maximum_of_each_cell_and_gives_it_the_gradient():
    x = jax.random.normal(jax.random.key(0), (2, 6, 10, 3))
    expected, pull = jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)
    found, own = jax.vjp(_halve, x)
    np.testing.assert_array_equal(found, expected)
    gradient = jax.random.normal(jax.random.key(1), expected.shape)
    np.testing.assert_array_equal(own(gradient)[0], pull(gradient)[0])
    # no quotient by the number of equal values, which may be none, see `_halve`
    assert " div " not in str(jax.make_jaxpr(own)(gradient))
