"""Pictures and activations at other sizes: interpolation, means, rearrangement.

Everything is NHWC.
"""

from functools import partial

import jax
import jax.numpy as jnp


def resize(x: jax.Array, size: int, *, method: str = "bilinear") -> jax.Array:
    """Returns [N, size, size, C]: `x` [N, h, w, C] resampled; linear in `x`, channel by channel.

    Reducing averages the covered area ("bilinear" with antialiasing); "nearest" repeats or picks.

    Raises:
        ValueError: for an unknown `method`.
    """
    if x.shape[1:3] == (size, size):
        return x
    if method not in ("bilinear", "nearest"):
        raise ValueError(f"resize method {method!r}: expected 'bilinear' or 'nearest'")
    height, width = x.shape[1:3]
    if height == width and height % size == 0:
        return area_reduce(x, height // size)
    if height == width and size % height == 0 and method == "bilinear":
        return enlarge(x, size // height)
    shape = (x.shape[0], size, size, x.shape[-1])
    return jax.image.resize(x, shape, method)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def enlarge(x: jax.Array, factor: int) -> jax.Array:
    """Returns [N, factor H, factor W, C]: `x` [N, H, W, C] interpolated between pixels' centres.

    Bilinear as `jax.image.resize`, which multiplies with a matrix, most of whose entries are zero.
    For the gradient that is the faster way: JAX's own of what is done here is many slow sums.
    """
    odd = factor % 2
    share = ((jnp.arange(factor) + 0.5 * (1 - odd)) / factor).astype(x.dtype)
    for axis in (2, 1):
        length = x.shape[axis]
        padded = jnp.pad(x, [(int(i == axis),) * 2 for i in range(x.ndim)], mode="edge")
        near, far = (
            jnp.expand_dims(jax.lax.slice_in_dim(padded, i, i + length + 1, axis=axis), axis + 1)
            for i in (0, 1)
        )
        between = near + (far - near) * share.reshape(-1, *[1] * (x.ndim - 1 - axis))
        whole = between.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
        start = (factor + odd) // 2
        x = jax.lax.slice_in_dim(whole, start, start + factor * length, axis=axis)
    return x


def _enlarge_forward(x, factor):
    return enlarge(x, factor), None


def _enlarge_backward(factor, _, gradient):
    batch, height, width, channels = gradient.shape
    small = jax.ShapeDtypeStruct(
        (batch, height // factor, width // factor, channels), gradient.dtype
    )
    resize = partial(jax.image.resize, shape=gradient.shape, method="bilinear")
    return jax.linear_transpose(resize, small)(gradient)


enlarge.defvjp(_enlarge_forward, _enlarge_backward)


def area_reduce(x: jax.Array, factor: int) -> jax.Array:
    """Returns [N, H / factor, W / factor, C]: means over square cells of `x` [N, H, W, C]."""
    if factor == 1:
        return x
    batch, height, width, channels = x.shape
    cells = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
    return cells.mean((2, 4))


def space_to_depth(x: jax.Array, factor: int) -> jax.Array:
    """Returns [N, H / factor, W / factor, factor^2 C]: square cells of `x` as channels."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // factor, width // factor, factor**2 * channels)


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
    """Returns [N, factor H, factor W, C]: the inverse of `space_to_depth`."""
    batch, height, width, channels = x.shape
    channels //= factor**2
    x = x.reshape(batch, height, width, factor, factor, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, factor * height, factor * width, channels)


def inverse_haar(x: jax.Array) -> jax.Array:
    """Returns [N, 2H, 2W, C]: one level of the inverse Haar wavelet transform.

    Args:
        x: [N, H, W, 4C]: C channels of averages, then the three details (vertical, horizontal,
            diagonal) of channel 0, of channel 1, and so on.
    """
    batch, height, width, channels = x.shape
    count = channels // 4
    mean = x[..., :count]
    vertical, horizontal, diagonal = jnp.moveaxis(
        x[..., count:].reshape(batch, height, width, count, 3), -1, 0
    )
    rows = [
        jnp.stack([low + high, low - high], axis=3)  # the two columns of each cell
        for low, high in (
            (mean + vertical, horizontal + diagonal),
            (mean - vertical, horizontal - diagonal),
        )
    ]
    cells = 0.5 * jnp.stack(rows, axis=2)  # [N, H, 2, W, 2, C]
    return cells.reshape(batch, 2 * height, 2 * width, count)
