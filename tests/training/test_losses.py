"""Losses against slow loops over their definitions."""

import jax
import jax.numpy as jnp
import numpy as np

from repgan_jax.training import losses

LOGITS = 3 * jax.random.normal(jax.random.key(0), (2, 4, 3, 5))


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def masks_with_gaps():
    masks = np.array(jax.random.randint(jax.random.key(1), (2, 4, 3), 0, 5))
    masks[0, 1, 2] = masks[1, :2, 0] = losses.IGNORE
    return masks


def test_cross_entropy_is_the_mean_over_labelled_pixels():
    masks = masks_with_gaps()
    terms = [
        -log_softmax(LOGITS)[place][masks[place]]
        for place in np.ndindex(masks.shape)
        if masks[place] != 255
    ]
    assert len(terms) == 24 - 3
    np.testing.assert_allclose(losses.cross_entropy(LOGITS, masks), np.mean(terms), rtol=1e-6)


def test_ignored_pixels_have_no_gradient_and_all_others_have():
    masks = masks_with_gaps()
    grads = jax.grad(losses.cross_entropy)(LOGITS, masks)
    np.testing.assert_array_equal(np.any(grads, -1), masks != 255)


def test_nothing_labelled_is_no_loss():
    masks = jnp.full((2, 4, 3), losses.IGNORE)
    assert losses.cross_entropy(LOGITS, masks) == 0
    assert not np.any(jax.grad(losses.cross_entropy)(LOGITS, masks))


TARGETS = jax.nn.softmax(jax.random.normal(jax.random.key(2), LOGITS.shape))
WEIGHTS = jnp.array([0.2, 1.0, 3.0, 0.5, 8.0])


def test_soft_cross_entropy_weighs_classes_and_averages_over_pixels():
    terms = np.asarray(TARGETS) * np.asarray(WEIGHTS) * log_softmax(LOGITS)
    found = losses.soft_cross_entropy(LOGITS, TARGETS, WEIGHTS)
    np.testing.assert_allclose(found, -terms.sum(-1).mean(), rtol=1e-6)


def test_soft_equals_hard_for_certain_targets():
    masks = jnp.arange(24).reshape(2, 4, 3) % 5
    soft = losses.soft_cross_entropy(LOGITS, jax.nn.one_hot(masks, 5), jnp.ones(5))
    np.testing.assert_allclose(soft, losses.cross_entropy(LOGITS, masks), rtol=1e-6)
