"""Array operations of the generators and networks: convolutions, modulation, normalisation.

Everything is NHWC. Small filters are written as shifted multiply-adds: on CPU a library
depthwise convolution costs ten times as much, and on GPU and TPU XLA fuses the sum into one pass.
"""

import functools
import operator
from functools import partial

import jax
import jax.numpy as jnp


def leaky_relu(x: jax.Array, *, slope: float = 0.2, gain: float = 1.0) -> jax.Array:
    """Returns `gain` times `x` [...] where positive, `gain * slope` times `x` elsewhere.

    The gain afterwards would cost a pass: XLA on CPU makes it a part of products that follow, for
    which it writes the factor out for every activation.
    """
    return jnp.where(x >= 0, gain * x, gain * slope * x)


def pixel_norm(x: jax.Array, *, epsilon: float = 1e-8) -> jax.Array:
    """Returns `x` [..., C] divided by the root mean square over its channels."""
    return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)


def depthwise3x3(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns [N, H, W, C]: each channel of `x` correlated with its own 3x3 filter, zero padded.

    Args:
        x: [N, H, W, C].
        kernel: [N, 3, 3, C], a filter a sample, or [1, 3, 3, C].
    """
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moved = [
        padded[:, i : i + height, j : j + width] * kernel[:, i, j, None, None]
        for i in range(3)
        for j in range(3)
    ]
    return functools.reduce(operator.add, moved)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> jax.Array:
    """Returns [N, H', W', F]: `x` [N, H, W, C] correlated with `kernel` [S, T, C, F].

    Its gradients, at stride 1, are convolutions in the forms that are fast on CPU. What XLA makes
    there of JAX's own takes up to eight times as long, and up to a hundred times inside of loops.

    Args:
        x: [N, H, W, C].
        kernel: [S, T, C, F].
        stride: pixels from one place of the kernel to the next.
        padding: zeros on every side.
        dilation: pixels of `x` from one tap of the kernel to the next.
    """
    return _correlate(x, kernel, padding, stride=stride, kernel_dilation=dilation)


def _conv_forward(x, kernel, *options):
    return conv(x, kernel, *options), (x, kernel)


def _conv_backward(stride, padding, dilation, saved, gradient):
    x, kernel = saved
    borders = []
    for axis in (1, 2):
        before = dilation * (kernel.shape[axis - 1] - 1) - padding
        reach = stride * (gradient.shape[axis] - 1) + 1
        borders.append((before, x.shape[axis] + padding - reach))
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    to_x = _correlate(gradient, turned, borders, dilation=stride, kernel_dilation=dilation)

    def whole(x, gradient):
        options = {"stride": stride, "kernel_dilation": dilation}
        _, pull = jax.vjp(lambda kernel: _correlate(x, kernel, padding, **options), kernel)
        return pull(gradient)[0]

    # either costs nothing where no one wants it
    if stride > 1:
        return to_x, whole(x, gradient)
    to_kernel = partial(_kernel_gradient, kernel.shape[:2], padding=padding, dilation=dilation)
    return to_x, jax.lax.platform_dependent(x, gradient, cpu=to_kernel, default=whole)


@partial(jax.jit, static_argnums=0, static_argnames=("padding", "dilation"))
def _kernel_gradient(sides, x, gradient, *, padding, dilation):
    """Returns the gradient to a kernel of `sides`, added up over bands of rows of each sample.

    Each is a convolution, too, of `x` with the gradient, channels in the place of samples.
    """
    (batch, height, width, features), (tall, wide, channels) = gradient.shape, x.shape[1:]
    gradient = jnp.pad(gradient, [(0, 0)] * 3 + [(0, max(0, 32 - features))])  # fewer are slower
    # measured: a thousand pixels, or more where both bands still fit into a MiB of cache
    pixels = max(1024, 2**18 // (channels + gradient.shape[-1]))
    rows = max(r for r in range(1, height + 1) if height % r == 0 and r * width <= pixels or r == 1)
    needed = rows + dilation * (sides[0] - 1)
    taken = min(needed, tall)

    def add(i, total):
        sample, row = i // (height // rows), i % (height // rows) * rows
        start = jnp.clip(row - padding, 0, tall - taken)
        seen = jax.lax.dynamic_slice(x, (sample, start, 0, 0), (1, taken, wide, channels))[0]
        seen = jnp.pad(seen, ((padding, padding), (0, 0), (0, 0)))
        seen = jax.lax.dynamic_slice_in_dim(seen, row - start, needed)
        band = jax.lax.dynamic_slice(gradient, (sample, row, 0, 0), (1, rows, *gradient.shape[2:]))
        borders = [(0, 0), (padding, padding)]
        part = _correlate(
            seen.transpose(2, 0, 1)[..., None], band[0, :, :, None], borders, stride=dilation
        )
        return total + part.astype(total.dtype)

    dtype = jnp.promote_types(x.dtype, jnp.float32)  # of a sum of hundreds
    total = jnp.zeros((channels, *sides, gradient.shape[-1]), dtype)
    total = jax.lax.fori_loop(0, batch * height // rows, add, total)
    return total[..., :features].transpose(1, 2, 0, 3).astype(x.dtype)


conv.defvjp(_conv_forward, _conv_backward)


def _correlate(x, kernel, padding, *, stride=1, dilation=1, kernel_dilation=1):
    borders = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,) * 2,
        padding=borders,
        lhs_dilation=(dilation,) * 2,
        rhs_dilation=(kernel_dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def smooth(x: jax.Array) -> jax.Array:
    """Returns [N, H - 3, W - 3, C]: `x` [N, H, W, C] under StyleGAN2's low-pass filter (gain 4).

    The filter is the outer product of (1, 3, 3, 1) / 4 with itself: the gain makes up for the
    zeros that up-sampling by two inserts.
    """
    for axis in (1, 2):
        length = x.shape[axis] - 3
        near, *inner, far = (jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(4))
        x = 0.25 * (near + far) + 0.75 * sum(inner)
    return x


def upsample(x: jax.Array) -> jax.Array:
    """Returns [N, 2H, 2W, C]: `x` [N, H, W, C] with zeros in between, smoothed; zero outside."""
    return smooth(jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *[(2, 2, 1)] * 2, (0, 0, 0))))


def conv_up(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns [N, 2H, 2W, F]: `x` with zeros in between, correlated with `kernel`, smoothed.

    No zero is multiplied: along each axis, the even places of the convolution see the middle of
    the kernel alone, and the odd ones its two ends. They are smoothed before they are put together.

    Args:
        x: [N, H, W, C].
        kernel: [3, 3, C, F].
    """
    middle, ends = slice(1, 2), slice(0, 3, 2)
    columns = [
        _smooth_halves(
            _conv_padded(x, kernel[middle, at]), _conv_padded(x, kernel[ends, at]), axis=1
        )
        for at in (middle, ends)
    ]
    rows = zip(*columns, strict=True)  # upper of a pair, lower
    pairs = [jnp.stack(_smooth_halves(*halves, axis=2), 3) for halves in rows]
    batch, height, width, _ = x.shape
    return jnp.stack(pairs, 2).reshape(batch, 2 * height, 2 * width, -1)


def _conv_padded(x, kernel):
    if kernel.shape[:2] == (1, 1):
        return jnp.pad(x @ kernel[0, 0], ((0, 0), (1, 1), (1, 1), (0, 0)))
    return conv(x, kernel, 1, 1)


def _smooth_halves(even, odd, *, axis):
    """Returns what `smooth` makes of `even` and `odd` places in turn: its even places, its odd."""
    length = odd.shape[axis] - 1
    even = [jax.lax.slice_in_dim(even, i, i + length, axis=axis) for i in range(3)]
    odd = [jax.lax.slice_in_dim(odd, i, i + length, axis=axis) for i in range(2)]
    return (
        0.25 * (even[0] + odd[1]) + 0.75 * (odd[0] + even[1]),
        0.25 * (odd[0] + even[2]) + 0.75 * (even[1] + odd[1]),
    )


def modulated_conv(
    x: jax.Array, kernel: jax.Array, style: jax.Array, *, up: bool = False
) -> jax.Array:
    """Returns [N, H, W, F], or [N, 2H, 2W, F] if `up`: `x` convolved with a kernel a sample.

    Sample n's kernel is `kernel * style[n]`, scaled to unit norm for each output channel
    (StyleGAN2, equations 1 and 3). One shared kernel between two scalings of the activations
    computes the same, several times faster than a kernel a sample.

    Args:
        x: [N, H, W, C]; its dtype is that of the convolution.
        kernel: [S, S, C, F], S odd; 3 if `up`. Correlated, as everywhere in JAX.
        style: [N, C].
        up: whether to double the size, see `conv_up`.
    """
    scaled = x * style.astype(x.dtype)[:, None, None]
    kernel = kernel.astype(x.dtype)
    y = conv_up(scaled, kernel) if up else conv(scaled, kernel, 1, len(kernel) // 2)
    # added up place by place: XLA on CPU takes fifty times as long for the sum over two axes
    power = jnp.square(style) @ sum(jnp.square(kernel.reshape(-1, *kernel.shape[2:])))
    return y * jax.lax.rsqrt(power + 1e-8).astype(x.dtype)[:, None, None]


def modulated_dense(x: jax.Array, kernel: jax.Array, style: jax.Array) -> jax.Array:
    """Returns [N, H, W, F]: each pixel of `x` times sample n's matrix, `kernel * style[n]`.

    A matrix product, with the matrix modulated: to few channels, XLA on CPU takes ten times as long
    for the 1x1 convolution of modulated activations.

    Args:
        x: [N, H, W, C]; its dtype is that of the product.
        kernel: [C, F].
        style: [N, C].
    """
    return jnp.einsum("nhwc,ncf->nhwf", x, (style[..., None] * kernel).astype(x.dtype))
