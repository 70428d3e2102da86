"""LPIPS, a distance between pictures that agrees with people's (Zhang et al. 2018), version 0.1.

A network that was trained to name what photos show sees both pictures. What is compared are its
activations: each pixel's scaled to unit length, each channel weighted as judgements of people say.
"""

import functools
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from repgan_jax.ops import convolutions

_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of photos in [-1, 1]
_EPSILON = 1e-20  # of a squared length: gradients stay finite where all channels are zero


class Stage(NamedTuple):
    """The convolutions up to an activation that is compared.

    Attributes:
        widths: channels of each convolution.
        kernel: pixels a side of each kernel.
        stride: of each convolution.
        padding: zeros on every side before each convolution.
        pool: pixels a side of the max-pooling (stride 2) before the first; 0 for none.
    """

    widths: Sequence[int]
    kernel: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0


STAGES = {
    "vgg": (  # VGG16 (Simonyan & Zisserman 2015)
        Stage((64, 64)),
        Stage((128, 128), pool=2),
        Stage((256, 256, 256), pool=2),
        Stage((512, 512, 512), pool=2),
        Stage((512, 512, 512), pool=2),
    ),
    "alex": (  # AlexNet, on one device (Krizhevsky 2014)
        Stage((64,), kernel=11, stride=4, padding=2),
        Stage((192,), kernel=5, padding=2, pool=3),
        Stage((384,), pool=3),
        Stage((256,)),
        Stage((256,)),
    ),
}


class Conv(nn.Module):
    """Convolution with a bias, of the kernel, stride and padding that `stage` states."""

    features: int
    stage: Stage

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [N, h, w, features] of `x` [N, H, W, C]."""
        shape = (self.stage.kernel,) * 2 + (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        return convolutions.conv(x, kernel, self.stage.stride, self.stage.padding) + bias


class LPIPS(nn.Module):
    """Pictures to maps whose squared Euclidean distance is LPIPS; see `distance`.

    Attributes:
        net: "alex" is some twenty times as fast; "vgg" is what optimisation usually minimises.
    """

    net: str

    @nn.compact
    def __call__(self, pictures: jax.Array) -> list[jax.Array]:
        """Returns maps [N, h, w, C], fine to coarse.

        Args:
            pictures: [N, H, W, 3] in [-1, 1], H and W at least 32.
        """
        x, convs, maps = (pictures - jnp.array(_MEAN)) / jnp.array(_STD), 0, []
        for index, stage in enumerate(STAGES[self.net]):
            x = _max_pool(x, stage.pool) if stage.pool else x
            for width in stage.widths:
                conv = Conv(width, stage, name=f"conv_{convs}")
                x, convs = nn.relu(conv(x)), convs + 1
            head = self.param(f"head_{index}", nn.initializers.ones, x.shape[-1:])
            unit = x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + _EPSILON)
            maps.append(unit * jnp.sqrt(head / (x.shape[1] * x.shape[2])))
        return maps


def distance(a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    """Returns LPIPS [N], 0 for equal pictures, from the maps of `LPIPS` of two batches."""
    parts = [jnp.square(x - y).sum((1, 2, 3)) for x, y in zip(a, b, strict=True)]
    return functools.reduce(operator.add, parts)


def abstract_variables(net: str) -> dict[str, Any]:
    """Returns the variables of `LPIPS(net)` without their numbers: shapes and types."""
    pictures = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    return jax.eval_shape(LPIPS(net).init, jax.random.key(0), pictures)


def _max_pool(x: jax.Array, size: int) -> jax.Array:
    """Returns [N, h, w, C]: maxima of `x` [N, H, W, C] over squares of `size`, stride 2.

    Maxima of slices, one axis after the other: their gradient costs less than a window's.
    """
    for axis in (1, 2):
        end = (x.shape[axis] - size) // 2 * 2 + 1
        first, *rest = (jax.lax.slice_in_dim(x, i, i + end, 2, axis) for i in range(size))
        x = first
        for other in rest:
            x = jnp.maximum(x, other)
    return x
