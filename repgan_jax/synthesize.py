"""Pictures and their labels from a generator and its heads, sample by sample."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repgan_jax.generator import Generator
from repgan_jax.ops import resampling
from repgan_jax.ops import taps as taps_lib
from repgan_jax.training import heads as segment


def latent(
    generator: Generator, key: jax.Array, index: jax.Array, truncation: float, label: int = -1
) -> jax.Array:
    """Returns w [1, D] of sample `index`, which this and `key` alone decide.

    Args:
        generator: of pictures.
        key: of the dataset.
        index: of the sample.
        truncation: psi.
        label: class of all samples; -1 for a random one each. Ignored where there are no classes.
    """
    key = jax.random.fold_in(key, index)
    z, labels = jax.random.normal(key, (1, generator.z_dim)), None
    if generator.num_classes:
        drawn = jax.random.randint(jax.random.fold_in(key, 2), (1,), 0, generator.num_classes)
        labels = drawn if label < 0 else jnp.full_like(drawn, label)
    return generator.mapping(z, labels, truncation=truncation)


def to_uint8(images: jax.Array) -> jax.Array:
    """Returns `images` in [-1, 1] (clipped) as uint8, on the device: a quarter of the transfer."""
    return jnp.round((jnp.clip(images, -1, 1) + 1) * 127.5).astype(jnp.uint8)


def make_labeller(
    head: nn.Module, names: Sequence[str]
) -> Callable[[Generator, Any, jax.Array, Mapping[str, jax.Array]], jax.Array]:
    """Returns `label(generator, heads, w [N, L, D], noise)`: probabilities [N, S, S, K].

    Args:
        head: architecture of the heads.
        names: of the taps they read.
    """

    def label(generator, heads, w, noise):
        taps = generator.with_noise(noise).synthesis(w)[1]
        return segment.head_probabilities(head, heads, taps_lib.choose(taps, names, head.size))[0]

    return label


def make_sampler(
    head: nn.Module,
    names: Sequence[str],
    *,
    truncation: float,
    noise: str,
    picture_size: int,
    soft_size: int,
    soft_type: str = "uint8",
    label: int = -1,
) -> Callable[[tuple[Generator, Any, jax.Array], jax.Array], dict[str, jax.Array]]:
    """Returns `sample((generator, heads, key), indices [n])`, for `parallel.spread`.

    Samples are computed one after the other, so that a record is the same to the last bit
    whatever the batch and the number of devices; on two CPU cores that costs nothing.

    Args:
        head: architecture of the heads.
        names: of the taps they read.
        truncation: psi.
        noise: "stored", "none" or "fresh".
        picture_size: pixels a side of the pictures; a divisor of the generator's resolution.
        soft_size: P, pixels a side of the probabilities; a divisor of the labels' S.
        soft_type: "uint8" for probabilities times 255, or a type of floats.
        label: see `latent`.

    Returns:
        A function that returns, with leading axis n: "image" uint8 [s, s, 3], "soft" `soft_type`
        [P, P, K] (probabilities), "mask" uint8 [S, S], "confidence" [] (mean of the highest
        probability), "disagreement" [] of the heads (mean of "disputed" [S, S], nats), "latent"
        [D].
    """

    def sample(fixed: tuple[Generator, Any, jax.Array], indices: jax.Array):
        # XLA turns a loop of one round into straight code, whose last bits differ: go round twice
        rounds = indices if len(indices) > 1 else jnp.repeat(indices, 2)
        records = jax.lax.map(partial(_sample_one, *fixed), rounds)
        return jax.tree.map(lambda record: record[: len(indices)], records)

    def _sample_one(generator, heads, key, index):
        w = latent(generator, key, index, truncation, label)
        maps = jax.random.fold_in(jax.random.fold_in(key, index), 1) if noise == "fresh" else noise
        image, taps = generator.synthesis(w, noise=maps)
        chosen = taps_lib.choose(taps, names, head.size)
        mean, disagreement = segment.head_probabilities(head, heads, chosen)
        image = resampling.area_reduce(image, generator.resolution // picture_size)
        soft = resampling.area_reduce(mean, head.size // soft_size)[0]
        return {
            "image": to_uint8(image)[0],
            "soft": (jnp.round(255 * soft) if soft_type == "uint8" else soft).astype(soft_type),
            "mask": mean[0].argmax(-1).astype(jnp.uint8),
            "confidence": mean.max(-1).mean(),
            "disagreement": disagreement.mean(),
            "disputed": disagreement[0],
            "latent": w[0],
        }

    return sample
