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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: int = 0) -> jax.Array:
    """Returns [N, H', W', F]: `x` [N, H, W, C] correlated with `kernel` [S, T, C, F].

    Its gradient to `x` is a convolution with the kernel turned and transposed beforehand. JAX
    leaves that to XLA, which on CPU does it slowly inside of loops: in four times the time.

    Args:
        x: [N, H, W, C].
        kernel: [S, T, C, F].
        stride: pixels from one place of the kernel to the next.
        padding: zeros on every side.
    """
    return _correlate(x, kernel, [(padding, padding)] * 2, stride=stride)


def _conv_forward(x, kernel, *options):
    return conv(x, kernel, *options), (x, kernel)


def _conv_backward(stride, padding, saved, gradient):
    x, kernel = saved
    borders = []
    for axis in (1, 2):
        before = kernel.shape[axis - 1] - 1 - padding
        reach = stride * (gradient.shape[axis] - 1) + 1
        borders.append((before, x.shape[axis] + padding - reach))
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    to_x = _correlate(gradient, turned, borders, dilation=stride)
    _, pull = jax.vjp(lambda k: _correlate(x, k, [(padding, padding)] * 2, stride=stride), kernel)
    return to_x, *pull(gradient)  # the latter costs nothing where no one wants it


conv.defvjp(_conv_forward, _conv_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def dilated_conv(x: jax.Array, kernel: jax.Array, dilation: int) -> jax.Array:
    """Returns [N, H, W, F]: `x` [N, H, W, C] correlated with `kernel` [3, 3, C, F].

    Its gradient to the kernel is a convolution, too, of `x` with the gradient, channels in the
    place of samples. Inside of loops, what XLA on CPU makes of JAX's takes a hundred times as long.

    Args:
        x: [N, H, W, C]; zeros are put around it.
        kernel: [3, 3, C, F].
        dilation: pixels of `x` from one tap of the kernel to the next.
    """
    return _correlate(x, kernel, [(dilation, dilation)] * 2, kernel_dilation=dilation)


def _dilated_forward(x, kernel, dilation):
    return dilated_conv(x, kernel, dilation), (x, kernel)


def _dilated_backward(dilation, saved, gradient):
    x, kernel = saved
    turned = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    features = kernel.shape[-1]
    # under 32 features, the convolution is a slow one
    wide = jnp.pad(gradient, [(0, 0)] * 3 + [(0, max(0, 32 - features))])
    borders = [(dilation, dilation)] * 2
    to_kernel = _correlate(
        x.transpose(3, 1, 2, 0), wide.transpose(1, 2, 0, 3), borders, stride=dilation
    )
    to_kernel = to_kernel[:, :3, :3, :features].transpose(1, 2, 0, 3)
    return dilated_conv(gradient, turned, dilation), to_kernel


dilated_conv.defvjp(_dilated_forward, _dilated_backward)


def _correlate(x, kernel, borders, *, stride=1, dilation=1, kernel_dilation=1):
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
