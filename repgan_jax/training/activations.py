"""The activations of labelled images, computed once from their latents."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from repgan_jax import synthesize
from repgan_jax.data.masks import Shots
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.ops import resampling
from repgan_jax.ops import taps as taps_lib


def read_activations(
    generator: Generator,
    shots: Shots,
    names: Sequence[str],
    size: int,
    *,
    image_tolerance: float | None,
) -> dict[str, jax.Array]:
    """Returns the taps of all shots by name, [k, h, w, C], reduced to about `size` pixels.

    Args:
        generator: of the shots.
        shots: with their latents.
        names: of the taps.
        size: side length of the labels in pixels.
        image_tolerance: largest mean absolute difference (0 to 255) between a shot and the image
            that its latent makes; None for photos, which no latent makes exactly.

    Raises:
        UserError: a latent does not fit the generator, or makes another image.
    """
    check_shapes(generator, shots)
    factor = generator.resolution // shots.images.shape[1]

    @jax.jit
    def activations(generator: Generator, w: jax.Array, noise: Mapping[str, jax.Array]):
        image, taps = generator.with_noise(noise).synthesis(w)
        made = synthesize.to_uint8(resampling.area_reduce(image, factor))
        return made, taps_lib.choose(taps, names, size)

    found = [
        activations(generator, w[None], {layer: maps[i] for layer, maps in shots.noise.items()})
        for i, w in enumerate(shots.w)
    ]
    made, taps = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)
    if image_tolerance is not None:
        _check_images(np.asarray(made), shots, image_tolerance)
    return taps


def check_shapes(generator: Generator, shots: Shots) -> None:
    """Raises UserError for latents or images that do not have this generator's shapes."""
    layers = shots.w.shape[1:]
    expected = (generator.w_dim,), (generator.num_layers, generator.w_dim)
    if layers not in expected:
        raise UserError(
            f"shots: latents w of shape {layers}; the generator expects {expected[0]} or "
            f"{expected[1]}"
        )
    height, width = shots.images.shape[1:3]
    if height != width or generator.resolution % height:
        raise UserError(
            f"shots: images of {width}x{height} pixels (width x height); expected squares whose "
            f"side length divides the generator's {generator.resolution}"
        )


def _check_images(made: np.ndarray, shots: Shots, tolerance: float) -> None:
    """Raises UserError for a shot that is not the image its latent makes."""
    for name, image, drawn in zip(shots.names, made, shots.images, strict=True):
        difference = np.abs(image.astype(np.float32) - drawn).mean()
        if difference > tolerance:
            raise UserError(
                f"shot {name!r}: its latent makes another image (mean difference "
                f"{difference:.1f} of 255, image_tolerance is {tolerance:g}); check the latents "
                "and the generator"
            )
