"""The perceptual distance: what holds for any weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.models import lpips

NETS = pytest.mark.parametrize("net", sorted(lpips.STAGES))


def random_variables(net, seed=0):
    """Returns normal numbers, kernels scaled so that activations neither grow nor vanish."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if "kernel" in name else 0.1
        array = rng.normal(scale=scale, size=leaf.shape)
        return np.asarray(np.abs(array) if "head" in name else array, np.float32)

    return jax.tree.map_with_path(draw, lpips.abstract_variables(net))


def random_pictures(seed, shape):
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1)


@NETS
def test_distance_is_zero_for_equal_pictures_only_and_symmetric(net):
    variables, apply = random_variables(net), jax.jit(lpips.LPIPS(net).apply)
    a, b = (apply(variables, random_pictures(seed, (2, 48, 37, 3))) for seed in (1, 2))
    np.testing.assert_array_equal(lpips.distance(a, a), [0, 0])
    assert lpips.distance(a, b).shape == (2,)
    assert (lpips.distance(a, b) > 0.01).all()
    np.testing.assert_array_equal(lpips.distance(a, b), lpips.distance(b, a))


@NETS
def test_distance_is_that_of_the_paper(net):
    variables, pictures = random_variables(net), random_pictures(3, (2, 33, 48, 3))
    apply = jax.jit(functools.partial(lpips.LPIPS(net).apply, capture_intermediates=True))
    maps, state = apply(variables, pictures)
    found = lpips.distance(*zip(*((x[:1], x[1:]) for x in maps), strict=True))
    expected, last = 0, -1
    for index, stage in enumerate(lpips.STAGES[net]):  # equation 1
        last += len(stage.widths)
        (before_relu,) = state["intermediates"][f"conv_{last}"]["__call__"]
        y = np.maximum(np.asarray(before_relu, np.float64), 0)
        y /= np.linalg.norm(y, axis=-1, keepdims=True) + 1e-10
        weighted = variables["params"][f"head_{index}"] * (y[0] - y[1]) ** 2
        expected += weighted.sum(-1).mean()
    # float32 sums over some thousand pixels
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_gradients_are_finite_where_nothing_fires():
    variables, network = random_variables("alex"), lpips.LPIPS("alex")
    for name, layer in variables["params"].items():
        if name.startswith("conv"):
            layer["bias"] = np.full_like(layer["bias"], -1e3)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def evaluate(pictures, variables):
        maps = network.apply(variables, pictures)
        return lpips.distance(maps, [x + 1 for x in maps]).sum(), maps

    (_, maps), gradient = evaluate(jnp.zeros((1, 32, 32, 3)), variables)
    assert not any(x.any() for x in maps)
    np.testing.assert_array_equal(gradient, np.zeros((1, 32, 32, 3)))


@NETS
def test_neighbours_in_the_batch_change_nothing(net):
    variables, apply = random_variables(net), jax.jit(lpips.LPIPS(net).apply)
    pictures = random_pictures(4, (3, 40, 32, 3))
    together, alone = apply(variables, pictures), apply(variables, pictures[1:2])
    assert len(together) == len(lpips.STAGES[net])
    for x, y in zip(together, alone, strict=True):
        # unit vectors in float32: the order of a sum may depend on the batch
        np.testing.assert_allclose(x[1:2], y, atol=1e-6)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("shape", [(2, 8, 6, 3), (1, 9, 7, 4), (1, 15, 4, 2)])
def test_max_pool_is_that_of_flax(size, shape):
    x = jax.random.normal(jax.random.key(5), shape)
    expected = nn.max_pool(x, (size, size), (2, 2))
    np.testing.assert_array_equal(lpips._max_pool(x, size), expected)
