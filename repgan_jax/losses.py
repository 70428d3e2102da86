"""Losses of the heads and of the stand-alone network."""

import jax
import jax.numpy as jnp
import optax

from repgan_jax.palette import IGNORE


def cross_entropy(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy [] of labelled pixels.

    Args:
        logits: [N, H, W, K].
        masks: [N, H, W] ids; `IGNORE` counts for nothing.
    """
    labelled = masks != IGNORE
    ids = jnp.where(labelled, masks, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
    return jnp.sum(losses * labelled) / jnp.maximum(labelled.sum(), 1)


def soft_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy [] against probabilities, per unit of their mass.

    Args:
        logits: [N, H, W, K].
        targets: [N, H, W, K]; a pixel of zeros (outside an augmented picture) counts for nothing.
    """
    losses = -jnp.sum(targets * jax.nn.log_softmax(logits), -1)
    return losses.sum() / jnp.maximum(targets.sum(), 1.0)
