"""A generator's activations as features of pixels, for a head of one's own."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.ops import resampling
from repgan_jax.ops import taps as taps_lib


def features(
    generator: Generator,
    w: jax.Array,
    *,
    size: int,
    taps: Sequence[str] = (),
    noise: str | jax.Array = "stored",
    resize: str = "bilinear",
) -> jax.Array:
    """Returns [N, size, size, C]: the activations of the images that `w` makes, resized, stacked.

    C is the sum of the taps' channels, and may be thousands. If the first layer of the head is
    linear, `project_features` gives its result without this array.

    Args:
        generator: of the images.
        w: [N, D], or [N, L, D] with one latent per layer.
        size: side length in pixels of the result.
        taps: names of activations, stacked from coarse to fine; () = all from 8x8 up.
        noise: see `Generator.synthesis`.
        resize: "bilinear" or "nearest". Finer activations are averaged, as the heads of a
            `Labeller` read them.

    Raises:
        UserError: a tap that the generator does not have, a size below 1, another `resize`.
    """
    names = _check(generator, size, taps, resize)
    if isinstance(noise, str):
        return _stack(generator, w, noise, names, size, resize)
    return _stack_with_keys(generator, w, noise, names, size, resize)


def project_features(
    generator: Generator,
    w: jax.Array,
    kernel: jax.Array,
    *,
    size: int,
    taps: Sequence[str] = (),
    noise: str | jax.Array = "stored",
    resize: str = "bilinear",
) -> jax.Array:
    """Returns [N, size, size, F]: `features` times `kernel` [C, F], without stacking them.

    Each activation is multiplied by its rows of the kernel at its own size; only the F channels of
    the products are resized and added. A gradient reaches the kernel in the same way.

    Args:
        generator: of the images.
        w: [N, D], or [N, L, D] with one latent per layer.
        kernel: [C, F], rows in the order of the channels of `features`.
        size: side length in pixels of the result.
        taps: names of activations; () = all from 8x8 up.
        noise: see `Generator.synthesis`.
        resize: "bilinear" or "nearest".

    Raises:
        UserError: see `features`; a kernel of another number of rows.
    """
    names = _check(generator, size, taps, resize)
    if isinstance(noise, str):
        return _project(generator, w, noise, kernel, names, size, resize)
    return _project_with_keys(generator, w, noise, kernel, names, size, resize)


def _check(generator: Generator, size: int, taps: Sequence[str], resize: str) -> tuple[str, ...]:
    """Returns the names of the activations to read; raises UserError for what does not fit."""
    if size < 1:
        raise UserError(f"size: {size}, expected at least 1")
    if resize not in ("bilinear", "nearest"):
        raise UserError(f"resize: {resize!r}, expected one of bilinear, nearest")
    return taps_lib.select(generator.tap_names, taps)


def _chosen(
    generator: Generator, w: jax.Array, noise: Any, names: Sequence[str], size: int
) -> dict[str, jax.Array]:
    return taps_lib.choose(generator.synthesis(w, noise=noise)[1], names, size)


def _stack_taps(
    generator: Generator,
    w: jax.Array,
    noise: Any,
    names: tuple[str, ...],
    size: int,
    resize: str,
) -> jax.Array:
    taps = _chosen(generator, w, noise, names, size)
    return jnp.concatenate([resampling.resize(taps[n], size, method=resize) for n in names], -1)


def _project_taps(
    generator: Generator,
    w: jax.Array,
    noise: Any,
    kernel: jax.Array,
    names: tuple[str, ...],
    size: int,
    resize: str,
) -> jax.Array:
    taps = _chosen(generator, w, noise, names, size)
    widths = [taps[name].shape[-1] for name in names]
    if kernel.ndim != 2 or len(kernel) != sum(widths):
        listed = ", ".join(f"{name} {n}" for name, n in zip(names, widths, strict=True))
        raise UserError(
            f"kernel: {list(kernel.shape)}, expected [{sum(widths)}, F], one row per channel of "
            f"the taps: {listed}"
        )
    kernels, start = {}, 0
    for name, width in zip(names, widths, strict=True):
        kernels[name] = kernel[start : start + width]
        start += width
    return taps_lib.project_and_sum(taps, kernels, size, method=resize)


_stack = jax.jit(_stack_taps, static_argnums=(2, 3, 4, 5), inline=True)
_stack_with_keys = jax.jit(_stack_taps, static_argnums=(3, 4, 5), inline=True)
_project = jax.jit(_project_taps, static_argnums=(2, 4, 5, 6), inline=True)
_project_with_keys = jax.jit(_project_taps, static_argnums=(4, 5, 6), inline=True)
