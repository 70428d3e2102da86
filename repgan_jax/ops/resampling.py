"""Pictures and activations at other sizes: interpolation, means, rearrangement.

Everything is NHWC.
"""

import functools
import operator
from collections.abc import Sequence
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


def resize_and_sum(xs: Sequence[jax.Array], size: int, *, method: str = "bilinear") -> jax.Array:
    """Returns [N, size, size, C]: the sum of what `resize` makes of each of `xs`, [N, h, w, C].

    Sooner than one by one: see `_enlarge_and_sum`.
    """
    sums: dict[tuple[int, ...], jax.Array] = {}
    for x in xs:
        shape = x.shape[1:3]
        sums[shape] = sums[shape] + x if shape in sums else x
    doubled = {}  # by how many pixels each of theirs becomes a side
    for height, width in sorted(sums):
        factor = size // height
        exact = height == width and factor * height == size and factor & (factor - 1) == 0
        if method == "bilinear" and exact and factor > 1:
            doubled[factor] = sums.pop((height, width))
    resized = [resize(x, size, method=method) for x in sums.values()]
    if doubled:
        resized.append(_enlarge_and_sum(tuple(doubled), tuple(doubled.values())))
    return functools.reduce(operator.add, resized)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def enlarge(x: jax.Array, factor: int) -> jax.Array:
    """Returns [N, factor H, factor W, C]: `x` [N, H, W, C] interpolated between pixels' centres.

    Bilinear as `jax.image.resize`, which multiplies with a matrix, most of whose entries are zero.
    For the gradient that is the faster way: JAX's own of what is done here is many slow sums.
    """
    odd = factor % 2
    shares = ((jnp.arange(factor) + 0.5 * (1 - odd)) / factor).astype(x.dtype)
    for axis in (2, 1):
        length = factor * x.shape[axis]
        shape = (*x.shape[:axis], -1, *x.shape[axis + 1 :])
        x = jnp.expand_dims(_continue(x, axis), axis + 1)
        x = _interpolate(x, shares.reshape(-1, *[1] * (x.ndim - 2 - axis)), axis).reshape(shape)
        start = (factor + odd) // 2
        x = jax.lax.slice_in_dim(x, start, start + length, axis=axis)
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


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _enlarge_and_sum(factors: Sequence[int], xs: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum of `enlarge(x, factor)`: powers of two, each once, the largest first.

    An enlarged picture is linear between its pixels' centres, which are odd multiples of factor / 2
    away from the border. So the sum of all whose factor is at least f is linear between multiples
    of f / 2, its knots, and nothing else of it is needed to go on: exact, with less than two
    pictures of full size to interpolate, however many there are.
    """
    pictures = dict(zip(factors, xs, strict=True))
    knots, spacing = None, factors[0]
    while spacing > 2:
        knots = _between(knots, pictures.get(spacing), (0.0, 0.5))
        spacing //= 2
    return _between(knots, pictures.get(2), (0.25, 0.75))


def _enlarge_and_sum_forward(factors, xs):
    return _enlarge_and_sum(factors, xs), None


def _enlarge_and_sum_backward(factors, _, gradient):
    return (tuple(_enlarge_backward(factor, None, gradient)[0] for factor in factors),)


_enlarge_and_sum.defvjp(_enlarge_and_sum_forward, _enlarge_and_sum_backward)


def _between(
    knots: jax.Array | None, x: jax.Array | None, shares: tuple[float, float]
) -> jax.Array:
    """Returns [N, 2h, 2w, C]: the sum of two pictures at `shares` of the way from knot to knot.

    With a share of 0 the last knots are there too: [N, 2h + 1, 2w + 1, C].

    Args:
        knots: [N, h + 1, w + 1, C], a picture by its values at the knots, or None.
        x: [N, h, w, C], pixels whose centres are halfway between, or None.
        shares: the first below a half, the second not.
    """
    given = [(knots, _from_knots), (x, _from_centres)]
    rows = []
    for picture, rule in given:
        if picture is not None:
            columns = _interleave(*rule(picture, shares, 2), 2)
            rows.append(rule(columns, shares, 1))
    first, second = (functools.reduce(operator.add, parts) for parts in zip(*rows, strict=True))
    return _interleave(first, second, 1)


def _from_knots(
    knots: jax.Array, shares: tuple[float, float], axis: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the values along `axis` at the first of `shares`, and at the second."""
    low, high = shares
    return _interpolate(knots, low, axis) if low else knots, _interpolate(knots, high, axis)


def _from_centres(
    x: jax.Array, shares: tuple[float, float], axis: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the same of `x`, pixels around centres."""
    low, high = shares
    x = _continue(x, axis)
    first, second = (_interpolate(x, share, axis) for share in (low + 0.5, high - 0.5))
    return _but_last(first, axis) if low else first, _but_first(second, axis)


def _interleave(first: jax.Array, second: jax.Array, axis: int) -> jax.Array:
    """Returns entries of both along `axis` in turn; `first` may have one more."""
    count = second.shape[axis]
    pairs = [jax.lax.slice_in_dim(first, 0, count, axis=axis), second]
    # XLA computes again for each reader what does not end in a concatenation
    x = jnp.stack(pairs, axis + 1).reshape(*first.shape[:axis], -1, *first.shape[axis + 1 :])
    if first.shape[axis] == count:
        return x
    last = jax.lax.slice_in_dim(first, count, count + 1, axis=axis)
    return jnp.concatenate([x, last], axis)


def _continue(x: jax.Array, axis: int) -> jax.Array:
    """Returns `x`, whose first and last entries along `axis` are there twice."""
    return jnp.pad(x, [(int(i == axis),) * 2 for i in range(x.ndim)], mode="edge")


def _but_first(x: jax.Array, axis: int) -> jax.Array:
    return jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis)


def _but_last(x: jax.Array, axis: int) -> jax.Array:
    return jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)


def _interpolate(x: jax.Array, share: float | jax.Array, axis: int) -> jax.Array:
    """Returns the values at `share` of the way from each entry along `axis` to the next."""
    near, far = _but_last(x, axis), _but_first(x, axis)
    return near + (far - near) * share


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
