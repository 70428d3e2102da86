"""Losses of the heads and of the stand-alone network."""

import jax
import jax.numpy as jnp
import optax

from repgan_jax.palette import IGNORE


def cross_entropy(
    logits: jax.Array, masks: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
    """Returns the mean cross-entropy [] of labelled pixels.

    Args:
        logits: [N, H, W, K].
        masks: [N, H, W] ids; pixels with the id `IGNORE` are excluded.
        axis_name: of the devices over which the batch is spread. Each then has its part of the
            mean, whose sum over the devices is the mean.
    """
    labelled = masks != IGNORE
    ids = jnp.where(labelled, masks, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, ids)
    count = labelled.sum()
    if axis_name:
        count = jax.lax.psum(count, axis_name)
    return jnp.sum(losses * labelled) / jnp.maximum(count, 1)


def soft_cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the mean over pixels [] of the cross-entropy, each class times its weight.

    Args:
        logits: [N, H, W, K].
        targets: [N, H, W, K] probabilities.
        weights: [K], positive.
    """
    return -jnp.mean(jnp.sum(targets * weights * jax.nn.log_softmax(logits), -1))
