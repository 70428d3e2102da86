"""Which weights, seed and options decide what is found for a photo, as a key of the cache."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from repgan_jax.generator import Generator, loaded_digest
from repgan_jax.inversion.cache import SHARES
from repgan_jax.inversion.perceptual import Perceptual
from repgan_jax.io import checksums


@dataclass(frozen=True)
class Origin:
    """What the results of all photos depend on, beside the options.

    Attributes:
        generator: digest of its architecture and weights, see `generator.generator_digest`.
        perceptual: digest of the weights of LPIPS, see `checksums.tensor_digest`.
        seed: of all random choices.
        dtype: of the generator's arithmetic.
    """

    generator: str
    perceptual: str
    seed: int | list[int]
    dtype: str

    @classmethod
    def of(cls, key: jax.Array, generator: Generator, perceptual: Perceptual) -> "Origin":
        """Returns the origin of what is found with `key`, `generator` and `perceptual`.

        It equals that of a run whose seed and files these come from.
        """
        return cls(
            loaded_digest(generator),
            checksums.tensor_digest(perceptual.variables),
            _seed_of(key),
            jnp.dtype(generator.synthesis_module.dtype).name,
        )

    def key(self, options: Mapping[str, Any], *arrays: np.ndarray) -> str:
        """Returns the hexadecimal key of a photo, under which its result is kept.

        Args:
            options: those on which latents depend, by name.
            arrays: the photo, and the latent to start from.
        """
        decisive = {
            "settings": options,
            # names that files in existing caches were named by: they stay
            "weights": {
                "config.generator": self.generator,
                "config.invert.perceptual": self.perceptual,
            },
            "seed": self.seed,
            "dtype": self.dtype,
            "panels": SHARES,
        }
        total = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
        for array in arrays:
            total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()


def _seed_of(key: jax.Array) -> int | list[int]:
    """Returns the seed, below 2**32, that `jax.random.key` made `key` of, or else its words."""
    words = [int(word) for word in np.ravel(jax.random.key_data(key))]
    return words[1] if len(words) == 2 and not words[0] else words
