"""Images and their labels from a generator and its labeller, sample by sample."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from repgan_jax.generator import Generator
from repgan_jax.ops import resampling

NOISES = ("stored", "none", "fresh")


class LabelsTaps(Protocol):
    """What a sampler needs of a `labeller.Labeller`."""

    @property
    def label_size(self) -> int:
        """S, side length of the labels in pixels."""

    def with_disagreement(self, taps: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Returns (mean probabilities [N, S, S, K], disagreement of the heads [N, S, S])."""


Fixed = tuple[Generator, LabelsTaps, jax.Array]


class Sample(NamedTuple):
    """Generated images with their labels.

    Attributes:
        images: uint8 [N, s, s, 3].
        masks: int32 [N, S, S], the most likely class of each pixel.
        probabilities: float32 [N, S, S, K].
        latents: float32 [N, D].
        disagreement: float32 [N, S, S] of the ensemble's heads in nats; 0 for a single head.
    """

    images: np.ndarray
    masks: np.ndarray
    probabilities: np.ndarray
    latents: np.ndarray
    disagreement: np.ndarray


def latent(
    generator: Generator, key: jax.Array, index: jax.Array, truncation: float, label: int = -1
) -> jax.Array:
    """Returns w [1, D] of sample `index`, which depends on `key` and `index` alone.

    Args:
        generator: of the images.
        key: of the dataset.
        index: of the sample.
        truncation: psi.
        label: class of all samples; -1 = random. Ignored by a generator without classes.
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


def make_sampler(
    *,
    truncation: float,
    noise: str,
    image_size: int,
    soft_size: int,
    soft_type: str = "uint8",
    label: int = -1,
) -> Callable[[Fixed, jax.Array], dict[str, jax.Array]]:
    """Returns `sample((generator, labeller, key), indices [n])`, for `parallel.spread`.

    Samples are computed one after the other, so that a record is the same to the last bit
    whatever the batch and the number of devices; on two CPU cores that costs nothing.

    Args:
        truncation: psi.
        noise: one of `NOISES`.
        image_size: s, side length of the images in pixels; a divisor of the generator's resolution.
        soft_size: P, side length of the probabilities in pixels; a divisor of the labels' S.
        soft_type: "uint8" for probabilities times 255, or a floating-point type.
        label: see `latent`.

    Returns:
        A function that returns, with leading axis n: "image" uint8 [s, s, 3], "soft" `soft_type`
        [P, P, K] (probabilities), "mask" uint8 [S, S], "confidence" [] (mean of the highest
        probability), "disagreement" [] of the heads (mean of "disputed" [S, S], nats), "latent"
        [D].
    """

    def sample(fixed: Fixed, indices: jax.Array):
        # XLA turns a loop of one round into straight code, whose last bits differ: go round twice
        rounds = indices if len(indices) > 1 else jnp.repeat(indices, 2)
        records = jax.lax.map(partial(_sample_one, *fixed), rounds)
        return jax.tree.map(lambda record: record[: len(indices)], records)

    def _sample_one(generator, labeller, key, index):
        w = latent(generator, key, index, truncation, label)
        maps = jax.random.fold_in(jax.random.fold_in(key, index), 1) if noise == "fresh" else noise
        image, taps = generator.synthesis(w, noise=maps)
        mean, disagreement = labeller.with_disagreement(taps)
        image = resampling.area_reduce(image, generator.resolution // image_size)
        soft = resampling.area_reduce(mean, labeller.label_size // soft_size)[0]
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
