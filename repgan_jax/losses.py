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


def soft_cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy [] against probabilities, each class by its weight.

    Weights give small parts a say from the first step on. Alone they would make the network see
    small parts too large; with their logarithms added to the logits, the minimum stays at the
    logarithms of the true probabilities (cf. Menon et al. 2021, arXiv 2007.07314).

    Args:
        logits: [N, H, W, K].
        targets: [N, H, W, K] probabilities.
        weights: [K], positive.
    """
    weighted = targets * weights
    losses = -jnp.sum(weighted * jax.nn.log_softmax(logits + jnp.log(weights)), -1)
    return losses.sum() / jnp.maximum(weighted.sum(), 1.0)
