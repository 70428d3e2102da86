"""The training step of the stand-alone network."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from repgan_jax.models.unet import UNet
from repgan_jax.runtime import parallel
from repgan_jax.training import step as training
from repgan_jax.training.augment import Augmentation

AUGMENTATION = Augmentation(
    rotation=5.0,
    translation=0.05,
    scale=(0.9, 1.1),
    brightness=0.1,
    contrast=0.1,
    saturation=0.1,
    hue=0.02,
    grey=0.1,
    background=0.1,
    blur=0.5,
    noise=0.02,
)


def train():
    """Returns (states before, after one step and after twenty, losses) of a small U-Net.

    It shall find what is bright, in eight pictures, augmented anew for each step.
    """
    network = UNet(num_classes=2, widths=(4, 8))
    optimizer = optax.sgd(0.3)  # linear in the gradient: noise stays noise
    image = np.asarray(jax.random.uniform(jax.random.key(0), (8, 4, 4, 3)) * 255, np.uint8)
    image[::2] //= 2  # darker: the classes' shares differ from device to device
    image = image.repeat(4, 1).repeat(4, 2)
    bright = (image.mean(-1) > 128).astype(np.float32)
    targets = np.stack([1 - bright, bright], -1) * 0.9 + 0.05
    state = training.init_state(jax.random.key(1), network, 16, optimizer)
    step = parallel.spread_step(
        training.make_train_step(
            network,
            optimizer,
            key=jax.random.key(2),
            augmentation=AUGMENTATION,
            decay=0.5,
            class_weights=jnp.array([0.5, 3.0]),
        )
    )
    states, losses = [jax.tree.map(np.array, state)], []
    state = parallel.replicate(state)
    for i in range(20):
        batch = {"image": image, "targets": targets, "position": np.arange(8 * i, 8 * i + 8)}
        state, metrics = step(state, batch | {"stop": (np.arange(8) == i).astype(np.float32)})
        assert (metrics["stop"] > 0) == (i < 8)  # all hear what one has been told
        states.append(jax.tree.map(np.array, state))  # a copy: the next step donates it
        losses.append(float(metrics["loss"]))
    return (states[0], states[1], states[-1]), losses


class Steep(nn.Module):
    """Logits that are finite where their gradient is not."""

    @nn.compact
    def __call__(self, pictures, *, train=False, axis_name=None):
        self.variable("batch_stats", "mean", jnp.zeros, ())
        return pictures[..., :2] * jnp.sqrt(self.param("slope", nn.initializers.zeros, (2,)))


def test_a_gradient_that_is_no_number_shows_in_the_loss():
    network, optimizer = Steep(), optax.sgd(0.1)
    step = training.make_train_step(
        network,
        optimizer,
        key=jax.random.key(0),
        augmentation=AUGMENTATION,
        decay=0.5,
        class_weights=jnp.ones(2),
    )
    state = parallel.replicate(training.init_state(jax.random.key(0), network, 16, optimizer))
    image = np.arange(8 * 16 * 16 * 3, dtype=np.uint8).reshape(8, 16, 16, 3)
    batch = {"image": image, "targets": np.full((8, 16, 16, 2), 0.5, np.float32)}
    batch |= {"position": np.arange(8), "stop": np.zeros(8, np.float32)}
    assert np.isnan(parallel.spread_step(step)(state, batch)[1]["loss"])


@pytest.fixture(scope="module")
def trained():
    return train()


def test_training_lowers_the_loss(trained):
    (*_, last), losses = trained
    assert last.step == 20
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:2])


def test_average_starts_with_a_short_memory(trained):
    (before, after, _), _ = trained
    # (1 + 0) / (10 + 0) of the old, less than the decay
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, before.params, after.params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.ema_params, expected
    )


def test_one_device_learns_the_same_as_eight(trained, use_devices):
    (*_, eight), losses = trained
    use_devices(1)
    (*_, one), losses_of_one = train()
    # means of eight pictures in another order, grown over twenty steps of 0.3
    np.testing.assert_allclose(losses_of_one, losses, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one.params, eight.params)
