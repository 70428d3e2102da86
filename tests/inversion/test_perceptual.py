"""The perceptual distance as an object: its folder, and its features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.errors import UserError
from repgan_jax.inversion.perceptual import Perceptual, load_perceptual
from repgan_jax.io import checkpoint
from repgan_jax.models import lpips


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with random weights of AlexNet."""
    folder = tmp_path_factory.mktemp("lpips")
    rng = np.random.default_rng(0)

    def draw(leaf):
        return rng.uniform(size=leaf.shape).astype(np.float32) / np.prod(leaf.shape[:-1])

    checkpoint.write_tree(folder / "alex", jax.tree.map(draw, lpips.abstract_variables("alex")))
    return folder


def test_optimisation_finds_its_target(weights):
    perceptual = load_perceptual(weights, net="alex")
    target, start = jax.random.uniform(jax.random.key(1), (2, 1, 40, 48, 3), minval=-1)
    features = jax.jit(Perceptual.features)(perceptual, target)

    @jax.jit
    def gradient(perceptual, picture):
        return jax.value_and_grad(lambda x: perceptual.distance(x, features).sum())(picture)

    before, direction = gradient(perceptual, start)
    step = 0.05 * before / jnp.square(direction).sum()
    after, _ = gradient(perceptual, start - step * direction)
    assert 0 < after < before
    assert gradient(perceptual, target)[0] < 1e-10  # two programs may differ in the last bits


def test_one_target_serves_many_pictures(weights):
    perceptual = load_perceptual(weights, net="alex")
    pictures = jax.random.uniform(jax.random.key(2), (3, 32, 40, 3), minval=-1)
    features = jax.jit(Perceptual.features)(perceptual, pictures[:1])
    distances = jax.jit(Perceptual.distance)(perceptual, pictures, features)
    assert distances.shape == (3,)
    assert distances[0] < 1e-6 < distances[1:].min()


@pytest.mark.parametrize("net", sorted(lpips.STAGES))
def test_missing_weights_name_the_command(tmp_path, net):
    with pytest.raises(UserError) as info:
        load_perceptual(tmp_path / "nowhere", net=net)
    command = f"fetch them: python -m repgan_jax.converters.lpips {tmp_path / 'nowhere'}"
    assert str(info.value) == f"{tmp_path / 'nowhere' / net}: no weights of LPIPS here; {command}"


def test_unknown_network(tmp_path):
    with pytest.raises(UserError, match=r"'squeeze' is unknown; expected one of \['vgg', 'alex'\]"):
        load_perceptual(tmp_path, net="squeeze")


def test_weights_of_another_network_are_refused(weights, tmp_path):
    (tmp_path / "vgg").symlink_to(weights / "alex")
    with pytest.raises(UserError, match="vgg: not the weights of LPIPS; fetch them again: python"):
        load_perceptual(tmp_path)
