"""The stand-alone segmentation network: a U-Net (paper, section 3.5; Ronneberger et al. 2015)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repgan_jax.ops import convolutions, resampling


class Conv(nn.Module):
    """3x3 convolution, zero padded, without bias, or 1x1 convolution with bias."""

    features: int
    side: int = 3

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [N, H, W, features] for `x` [N, H, W, C]."""
        shape = (self.side, self.side, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        if self.side == 3:
            return convolutions.conv(x, kernel, padding=1)
        return x @ kernel[0, 0] + self.param("bias", nn.initializers.zeros, (self.features,))


class Block(nn.Module):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, axis_name: str | None) -> jax.Array:
        """Returns [N, H, W, features] for `x` [N, H, W, C]; see `UNet`."""
        for _ in range(2):
            x = Conv(self.features)(x)
            # batch statistics learn several times faster here than group statistics
            norm = nn.BatchNorm(use_running_average=not train, momentum=0.95, axis_name=axis_name)
            x = nn.relu(norm(x))
        return x


class UNet(nn.Module):
    """Pictures to logits of the same size.

    Attributes:
        num_classes: K.
        widths: channels at each level, from the finest; a level halves the size of the one before.
        patch: pixels a side that the first level sees as one: 1 for a classical U-Net; 2 moves the
            costly finest level to half the size, at a quarter of the work.
    """

    num_classes: int
    widths: Sequence[int]
    patch: int = 1

    @property
    def stride(self) -> int:
        """Both sides of the input must be multiples of this."""
        return self.patch * 2 ** (len(self.widths) - 1)

    @nn.compact
    def __call__(
        self, pictures: jax.Array, *, train: bool = False, axis_name: str | None = None
    ) -> jax.Array:
        """Returns logits [N, H, W, K] for `pictures` [N, H, W, 3] in [-1, 1].

        Args:
            pictures: [N, H, W, 3], sides multiples of `stride`.
            train: normalise by the batch, and update "batch_stats", instead of by the latter.
            axis_name: of the devices over which the batch is spread, in training.
        """
        options: Any = {"train": train, "axis_name": axis_name}
        x, skips = resampling.space_to_depth(pictures, self.patch), []
        *fine, coarse = self.widths
        for features in fine:
            x = Block(features)(x, **options)
            skips.append(x)
            x = _halve(x)
        x = Block(coarse)(x, **options)
        for features, skip in zip(reversed(fine), reversed(skips), strict=True):
            x = resampling.enlarge(Conv(features, 1)(x), 2)
            x = Block(features)(jnp.concatenate([x, skip], -1), **options)
        logits = Conv(self.num_classes * self.patch**2, 1)(x)
        return resampling.depth_to_space(logits, self.patch)


def _halve(x):
    """Returns [N, H / 2, W / 2, C]: maxima over cells of four of `x` [N, H, W, C].

    `flax.linen.max_pool` keeps the place of each maximum for its gradient, which takes longer. The
    gradient of `jax.numpy.max` asks which values equal the maximum: none does, and the gradient is
    NaN, where XLA computes `x` twice and rounds it differently.
    """
    batch, height, width, channels = x.shape
    cells = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    rows = _larger(cells[:, :, 0], cells[:, :, 1])
    return _larger(rows[:, :, :, 0], rows[:, :, :, 1])


def _larger(a, b):
    return jnp.where(a >= b, a, b)
