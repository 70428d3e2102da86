"""Array operations of the generators and heads: filters, resampling, normalisation.

Everything is NHWC. Small filters are written as shifted multiply-adds: on CPU a library
depthwise convolution costs ten times as much, and on GPU and TPU XLA fuses the sum into one pass.
"""

from functools import partial

import jax
import jax.numpy as jnp


def leaky_relu(x: jax.Array, *, slope: float = 0.2) -> jax.Array:
    """Returns `x` [...] where positive, `slope` times `x` elsewhere."""
    return jnp.where(x >= 0, x, slope * x)


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
    return sum(
        padded[:, i : i + height, j : j + width] * kernel[:, i, j, None, None]
        for i in range(3)
        for j in range(3)
    )


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def conv(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0, dilation: int = 1
) -> jax.Array:
    """Returns [N, H', W', F]: `x` [N, H, W, C] correlated with `kernel` [S, S, C, F].

    Its gradient to `x` is a convolution with the kernel turned and transposed beforehand. JAX
    leaves that to XLA, which on CPU does it slowly inside of loops: in four times the time.

    Args:
        x: [N, H, W, C].
        kernel: [S, S, C, F].
        stride: pixels from one place of the kernel to the next.
        padding: zeros on every side.
        dilation: 2 to put a zero between neighbours of `x` first, 1 for none.
    """
    return _correlate(x, kernel, stride, [(padding, padding)] * 2, dilation)


def _conv_forward(x, kernel, *options):
    return conv(x, kernel, *options), (x, kernel)


def _conv_backward(stride, padding, dilation, saved, gradient):
    x, kernel = saved
    size, borders = len(kernel), []
    for axis in (1, 2):
        length = dilation * (x.shape[axis] - 1) + 1
        reach = stride * (gradient.shape[axis] - 1) + 1
        before = size - 1 - padding
        borders.append((before, length - reach - before + size - 1))
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    to_x = _correlate(gradient, turned, dilation, borders, stride)
    borders = [(padding, padding)] * 2
    _, pull = jax.vjp(lambda kernel: _correlate(x, kernel, stride, borders, dilation), kernel)
    return to_x, *pull(gradient)  # the latter costs nothing where no one wants it


conv.defvjp(_conv_forward, _conv_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def dilated_conv(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Returns [N, H, W, F]: `x` [N, H, W, C] correlated with `kernel` [3, 3, C, F].

    Its gradient to the kernel is nine matrix products, one a tap. What XLA on CPU makes of JAX's
    inside of loops takes thirty times as long.

    Args:
        x: [N, H, W, C]; zeros are put around it.
        kernel: [3, 3, C, F].
        dilation: pixels of `x` from one tap of the kernel to the next.
    """
    return _correlate(x, kernel, 1, [(dilation, dilation)] * 2, 1, dilation)


def _dilated_forward(x, kernel, dilation):
    return dilated_conv(x, kernel, dilation), (x, kernel)


def _dilated_backward(dilation, saved, gradient):
    x, kernel = saved
    height, width = x.shape[1:3]
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    padded = jnp.pad(x, [(0, 0), (dilation, dilation), (dilation, dilation), (0, 0)])
    to_kernel = [
        jnp.einsum("nhwc,nhwf->cf", padded[:, top : top + height, left : left + width], gradient)
        for top in range(0, 3 * dilation, dilation)
        for left in range(0, 3 * dilation, dilation)
    ]
    return dilated_conv(gradient, turned, dilation), jnp.stack(to_kernel).reshape(kernel.shape)


dilated_conv.defvjp(_dilated_forward, _dilated_backward)


def _correlate(x, kernel, stride, borders, dilation, kernel_dilation=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride,) * 2,
        padding=borders,
        lhs_dilation=(dilation,) * 2,
        rhs_dilation=(kernel_dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


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
    shape = (x.shape[0], size, size, x.shape[-1])
    return jax.image.resize(x, shape, method)


def area_reduce(x: jax.Array, factor: int) -> jax.Array:
    """Returns [N, H / factor, W / factor, C]: means over square cells of `x` [N, H, W, C]."""
    if factor == 1:
        return x
    batch, height, width, channels = x.shape
    cells = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
    return cells.mean((2, 4))


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


def modulated_conv(
    x: jax.Array,
    kernel: jax.Array,
    style: jax.Array,
    *,
    demodulate: bool = True,
    up: bool = False,
) -> jax.Array:
    """Returns [N, H, W, F], or [N, 2H, 2W, F] if `up`: `x` convolved with a kernel a sample.

    Sample n's kernel is `kernel * style[n]`, scaled to unit norm for each output channel if
    `demodulate` (StyleGAN2, equations 1 and 3). One shared kernel between two scalings of the
    activations computes the same, several times faster than a kernel a sample.

    Args:
        x: [N, H, W, C]; its dtype is that of the convolution.
        kernel: [S, S, C, F], S odd; 3 if `up`. Correlated, as everywhere in JAX.
        style: [N, C].
        demodulate: whether to divide by the norm.
        up: whether to double the size: zeros in between, convolution, low-pass filter.
    """
    scaled = x * style.astype(x.dtype)[:, None, None]
    kernel = kernel.astype(x.dtype)
    # up: three zeros outside are what the filter takes away again
    y = conv(scaled, kernel, 1, 3, 2) if up else conv(scaled, kernel, 1, len(kernel) // 2)
    if demodulate:
        power = jnp.square(style) @ jnp.square(kernel).sum((0, 1))
        y = y * jax.lax.rsqrt(power + 1e-8).astype(x.dtype)[:, None, None]
    return smooth(y) if up else y


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
