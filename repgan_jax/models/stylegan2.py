"""StyleGAN2's generator (Karras et al. 2020, arXiv 1912.04958), skip architecture.

Weights are stored as training leaves them. The factors of the equalised learning rate (1 /
sqrt(fan-in), and 0.01 in the mapping; Karras et al. 2018, section 4.1) act at run time, on styles
and not on kernels: that costs nothing, and a converted checkpoint can go back bit for bit.

Letters: N batch, L style layers, D latent width, Dz input width, C channels, K classes, R
resolution.
"""

import math
import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from repgan_jax.ops import convolutions

_GAIN = math.sqrt(2)  # after every leaky ReLU: keeps the variance
MAPPING_RATE = 0.01  # learning rate of the mapping, relative to the rest
_normal = nn.initializers.normal(1.0)


def build(architecture: dict, dtype: jnp.dtype = jnp.float32) -> tuple["Mapping", "Synthesis"]:
    """Returns the mapping and the synthesis module that a converter's `architecture` states."""
    widths = architecture["widths"]
    synthesis = Synthesis(
        tuple(widths[size] for size in sorted(widths, key=int)), dtype, architecture.get("clamp")
    )
    return build_mapping(architecture), synthesis


def build_mapping(architecture: dict) -> "Mapping":
    """Returns the mapping module that a converter's `architecture` states."""
    return Mapping(
        architecture["w_dim"],
        architecture["mapping_layers"],
        architecture.get("num_classes", 0),
    )


class Dense(nn.Module):
    """Dense layer under the equalised learning rate.

    Attributes:
        features: width of the output.
        rate: learning rate relative to the rest: factor of weights and bias.
        bias: initial value of the bias.
    """

    features: int
    rate: float = 1.0
    bias: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns [N, features] for `x` [N, C]; always float32."""
        fan_in = x.shape[-1]
        init = nn.initializers.normal(1 / self.rate)
        kernel = self.param("kernel", init, (fan_in, self.features))
        bias = self.param("bias", nn.initializers.constant(self.bias), (self.features,))
        # cheap, and all that follows rests on it
        product = jnp.dot(x, kernel, precision=jax.lax.Precision.HIGHEST)
        return self.rate / math.sqrt(fan_in) * product + self.rate * bias


class Mapping(nn.Module):
    """z, and a class where there are any, to w: pixel norm, then dense layers with leaky ReLU.

    Attributes:
        width: D.
        num_layers: depth.
        num_classes: K; 0 for a generator without classes.
    """

    width: int
    num_layers: int
    num_classes: int = 0

    @nn.compact
    def __call__(self, z: jax.Array, label: jax.Array | None = None) -> jax.Array:
        """Returns w [N, D], untruncated, for standard normal `z` [N, Dz]; always float32.

        Args:
            z: [N, Dz].
            label: [N, K], one-hot; None if K is 0. It is embedded and normalised on its own
                (Karras et al. 2020, arXiv 2006.06676).
        """
        x = convolutions.pixel_norm(z)
        if self.num_classes:
            embedded = Dense(self.width, name="embed")(label)
            x = jnp.concatenate([x, convolutions.pixel_norm(embedded)], -1)
        for i in range(self.num_layers):
            dense = Dense(self.width, rate=MAPPING_RATE, name=f"dense_{i}")
            x = convolutions.leaky_relu(dense(x), gain=_GAIN)
        return x


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    features: int
    up: bool = False
    clamp: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array, noise: str | jax.Array) -> jax.Array:
        """Returns [N, H, W, features], twice the size if `up`, from `x` and `w` [N, D]."""
        channels = x.shape[-1]
        style = Dense(channels, bias=1.0, name="style")(w) / math.sqrt(9 * channels)
        kernel = self.param("kernel", _normal, (3, 3, channels, self.features))
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = convolutions.modulated_conv(x, kernel, style, up=self.up)
        stored = self.variable("noise", "map", jnp.zeros, x.shape[1:3]).value
        x = x + noise_map(self, noise, stored, strength, x.shape).astype(x.dtype)
        return _clamp(convolutions.leaky_relu(x + bias.astype(x.dtype), gain=_GAIN), self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to a picture, without demodulation."""

    clamp: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        """Returns [N, H, W, 3] float32 from `x` [N, H, W, C] and `w` [N, D]."""
        channels = x.shape[-1]
        style = Dense(channels, bias=1.0, name="style")(w) / math.sqrt(channels)
        kernel = self.param("kernel", _normal, (1, 1, channels, 3))
        bias = self.param("bias", nn.initializers.zeros, (3,))
        rgb = convolutions.modulated_dense(x, kernel[0, 0], style).astype(jnp.float32)
        return _clamp(rgb + bias, self.clamp)


class Synthesis(nn.Module):
    """Latents to a picture and its activations.

    Attributes:
        widths: channels at 4, 8, ... R pixels.
        dtype: of convolutions and taps; styles and the picture stay float32.
        clamp: largest magnitude of every layer's output, where the generator was trained with a
            bound (for float16); None for no bound.
    """

    widths: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32
    clamp: float | None = None

    @property
    def resolution(self) -> int:
        """R, pixels a side."""
        return 2 << len(self.widths)

    @property
    def num_layers(self) -> int:
        """L: every convolution reads a latent, and the last picture layer one of its own."""
        return 2 * len(self.widths)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, coarse to fine."""
        sizes = (4 << (i + 1) // 2 for i in range(self.num_layers - 1))
        return tuple(f"conv_{i:02d}_{size}" for i, size in enumerate(sizes))

    @nn.compact
    def __call__(
        self, w: jax.Array, noise: str | jax.Array = "stored"
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the picture [N, R, R, 3] and the activations by name, coarse to fine.

        Args:
            w: [N, L, D].
            noise: see `noise_map`.
        """
        constant = self.param("constant", _normal, (4, 4, self.widths[0])).astype(self.dtype)
        x = jnp.broadcast_to(constant, (len(w), *constant.shape))
        image: Any = None
        taps = {}
        for i, tap in enumerate(self.tap_names):
            level = (i + 1) // 2
            conv = StyledConv(self.widths[level], i % 2 == 1, self.clamp, name=f"conv_{i:02d}")
            taps[tap] = x = conv(x, w[:, i], noise)
            if i % 2 == 0:  # the last convolution of its size: add to the picture
                rgb = ToRGB(self.clamp, name=f"rgb_{level:02d}")(x, w[:, i + 1])
                image = rgb if image is None else convolutions.upsample(image) + rgb
        return image, taps


def noise_map(
    module: nn.Module,
    noise: str | jax.Array,
    stored: jax.Array,
    strength: jax.Array,
    shape: tuple[int, ...],
) -> jax.Array:
    """Returns the noise of layer `module`, to be added to activations of `shape` (N, H, W, C).

    Args:
        module: the layer; its name keeps its random numbers apart from other layers'.
        noise: "stored" for the generator's own map, "none", or random: keys [N], one a sample
            (which makes a sample independent of its batch), or one key, split by position.
        stored: [H, W].
        strength: factor of the noise.
        shape: of the activations.

    Raises:
        ValueError: for another `noise`.
    """
    if isinstance(noise, str):
        if noise not in ("stored", "none"):
            raise ValueError(f"noise {noise!r}: expected 'stored', 'none' or a jax.random.key")
        return strength * stored[..., None] if noise == "stored" else jnp.zeros(())
    if noise.ndim == 0:
        noise = jax.vmap(jax.random.fold_in, (None, 0))(noise, jnp.arange(shape[0]))
    layer = zlib.crc32(module.name.encode())
    keys = jax.vmap(jax.random.fold_in, (0, None))(noise, layer)
    draw = jax.vmap(lambda key: jax.random.normal(key, (*shape[1:3], 1)))
    return strength * draw(keys)


def _clamp(x: jax.Array, bound: float | None) -> jax.Array:
    return x if bound is None else jnp.clip(x, -bound, bound)


def broadcast(w: jax.Array, num_layers: int) -> jax.Array:
    """Returns [N, L, D]: `w` [N, D] repeated for each style layer, or as it is if [N, L, D]."""
    return w if w.ndim == 3 else jnp.repeat(w[:, None], num_layers, axis=1)


def truncate(w: jax.Array, mean: jax.Array, psi: float) -> jax.Array:
    """Returns `w` [N, D] or [N, L, D] moved towards `mean` [D]: all the way if `psi` is 0."""
    return mean + psi * (w - mean)


def mix(w1: jax.Array, w2: jax.Array, layer: int) -> jax.Array:
    """Returns [N, L, D]: `w1` [N, L, D] up to style layer `layer`, `w2` from there on."""
    return jnp.concatenate([w1[:, :layer], w2[:, layer:]], axis=1)
