"""Segmentation heads on the generator's activations (paper, section 3.3).

Every head begins with a 1x1 convolution over all activations, folded: see
`taps.project_and_sum`. What follows works on its sum at the label size.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repgan_jax.errors import UserError
from repgan_jax.ops import convolutions
from repgan_jax.ops import taps as taps_lib

_LARGEST = 2**28  # bytes of a wide layer's features at a time


class FoldedConv(nn.Module):
    """1x1 convolution of the resized, stacked activations, computed before the resizing.

    The collection "stats" holds each channel's root mean square over the shots; dividing by it
    puts thousands of channels of very different strength on one footing for the optimiser.
    """

    features: int
    size: int
    resize: str = "bilinear"

    @nn.compact
    def __call__(self, taps: taps_lib.Taps, then: jax.Array | None = None) -> jax.Array:
        """Returns [N, size, size, features] float32 for `taps` by name, [N, h, w, C].

        With `then` [features, G], the ReLU of that times `then`, [N, size, size, G]: where all
        features would take more memory than `_LARGEST`, some at a time, in training as well.
        """
        fan_in = sum(tap.shape[-1] for tap in taps.values())
        init = nn.initializers.normal(fan_in**-0.5)
        kernels = {}
        for name, tap in taps.items():
            kernel = self.param(f"kernel_{name}", init, (tap.shape[-1], self.features))
            scale = self.variable("stats", name, jnp.ones, tap.shape[-1:]).value
            kernels[name] = (kernel / scale[:, None]).astype(tap.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))

        def project(kernels, bias):
            x = taps_lib.project_and_sum(taps, kernels, self.size, method=self.resize)
            return x.astype(jnp.float32) + bias

        if then is None:
            return project(kernels, bias)
        samples, pixels = len(next(iter(taps.values()))), self.size**2
        fit = max(1, _LARGEST // (4 * samples * pixels))
        width = max(d for d in range(1, min(fit, self.features) + 1) if self.features % d == 0)
        if width == self.features:
            return nn.relu(project(kernels, bias)) @ then

        def split(x):
            return jnp.moveaxis(x.reshape(*x.shape[:-1], -1, width), -2, 0)

        @jax.checkpoint
        def add(total, block):
            kernels, bias, then = block
            return total + nn.relu(project(kernels, bias)) @ then.T, None

        total = jnp.zeros((samples, self.size, self.size, then.shape[-1]))
        blocks = jax.tree.map(split, (kernels, bias, then.T))
        return jax.lax.scan(add, total, blocks)[0]


class Dense(nn.Module):
    """Kernel and bias of a dense layer, for those who multiply in their own way."""

    features: int

    @nn.compact
    def __call__(self, fan_in: int) -> tuple[jax.Array, jax.Array]:
        """Returns the kernel [fan_in, features] and the bias [features]."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (fan_in, self.features))
        return kernel, self.param("bias", nn.initializers.zeros, (self.features,))


class MLPHead(nn.Module):
    """Hidden layers on each pixel by itself; none makes a linear head.

    Attributes:
        num_classes: K.
        hidden: width of each hidden layer.
        size: pixels a side of the labels.
        resize: of the projected activations, "bilinear" or "nearest".
    """

    num_classes: int
    hidden: Sequence[int]
    size: int
    resize: str = "bilinear"

    @nn.compact
    def __call__(self, taps: taps_lib.Taps) -> jax.Array:
        """Returns logits [N, size, size, K]."""
        first, *widths = (*self.hidden, self.num_classes)
        folded = FoldedConv(first, self.size, self.resize)
        if not widths:
            return folded(taps)
        kernel, bias = Dense(widths[0])(first)
        x = folded(taps, kernel) + bias
        for width in widths[1:]:
            kernel, bias = Dense(width)(x.shape[-1])
            x = nn.relu(x) @ kernel + bias
        return x


def _pointwise(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Returns a kernel [3, 3, C, F] that is orthogonal in its centre and zero around it.

    "Delta-orthogonal" (Xiao et al., "Dynamical isometry and a mean field theory of CNNs", 2018),
    with the gain of leaky ReLUs. A stack of random 3x3 kernels blurs what it passes on, back as
    well as forth; a stack of these begins as an MLP, and comes down in less than half of the steps.
    """
    centre = nn.initializers.orthogonal(2**0.5)(key, shape[2:], dtype)
    return jnp.zeros(shape, dtype).at[1, 1].set(centre)


class DilatedConv(nn.Module):
    """3x3 convolution whose taps are `dilation` pixels apart, zero padded."""

    features: int
    dilation: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [N, H, W, features] for `x` [N, H, W, C]."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", _pointwise, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolutions.conv(x, kernel, padding=self.dilation, dilation=self.dilation) + bias


class CNNHead(nn.Module):
    """1x1 convolution to 128 channels, then dilated 3x3 convolutions (CNN-L and shorter kin).

    Attributes:
        num_classes: K.
        widths: channels of each 3x3 convolution but the last, which has K.
        dilations: of each 3x3 convolution.
        size: pixels a side of the labels.
        resize: of the projected activations, "bilinear" or "nearest".
    """

    num_classes: int
    widths: Sequence[int]
    dilations: Sequence[int]
    size: int
    resize: str = "bilinear"

    @nn.compact
    def __call__(self, taps: taps_lib.Taps) -> jax.Array:
        """Returns logits [N, size, size, K]."""
        x = FoldedConv(128, self.size, self.resize)(taps)
        for width, dilation in zip((*self.widths, self.num_classes), self.dilations, strict=True):
            x = convolutions.leaky_relu(x, slope=0.01)
            x = DilatedConv(width, dilation)(x)
        return x


_MLP = {"mlp0": (), "mlp1": (200,), "mlp2": (2000, 200)}
_CNN = {
    "cnn_s": ((64, 64, 32), (2, 1, 2, 1)),
    "cnn_m": ((64, 64, 64, 64, 32), (2, 4, 1, 2, 4, 1)),
    "cnn_l": ((64, 64, 64, 64, 64, 64, 32), (2, 4, 8, 1, 2, 4, 8, 1)),
}
NAMES = (*_MLP, *_CNN)


def name_of(head: nn.Module) -> str:
    """Returns the name, one of `NAMES`, under which `build` returns `head`."""
    sizes = head.num_classes, head.size, head.resize
    return next(name for name in NAMES if build(name, *sizes) == head)


def build(name: str, num_classes: int, size: int, resize: str = "bilinear") -> nn.Module:
    """Returns the head called `name`: one of `NAMES`."""
    if name in _MLP:
        return MLPHead(num_classes, _MLP[name], size, resize)
    if name in _CNN:
        return CNNHead(num_classes, *_CNN[name], size, resize)
    raise UserError(f"head: {name!r} is unknown; expected one of {list(NAMES)}")
