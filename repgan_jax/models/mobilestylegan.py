"""MobileStyleGAN: a light generator distilled from StyleGAN2 (Belousov 2021, arXiv 2104.04767).

Each block doubles the size by an inverse wavelet transform and refines it by two modulated
depthwise-separable convolutions. Demodulation is folded into the weights (section 3.4 there), so
modulation is a scaling of the activations alone. The last block ends in wavelet coefficients of
the picture.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from repgan_jax.models.stylegan2 import build_mapping, noise_map
from repgan_jax.ops import convolutions, resampling


def build(architecture: dict, dtype: jnp.dtype = jnp.float32) -> tuple[nn.Module, nn.Module]:
    """Returns the mapping and the synthesis module that `architecture` (see converters) names."""
    mapping = build_mapping(architecture)
    widths = tuple(sorted((int(size), width) for size, width in architecture["widths"].items()))
    return mapping, Synthesis(widths, dtype)


class Style(nn.Module):
    """Affine map from a latent to one factor per channel."""

    channels: int

    @nn.compact
    def __call__(self, w: jax.Array) -> jax.Array:
        """Returns [N, channels], the factors for latent `w` [N, D]."""
        kernel = self.param("kernel", nn.initializers.normal(1.0), (w.shape[-1], self.channels))
        return w @ kernel + self.param("bias", nn.initializers.ones, (self.channels,))


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU: a depthwise 3x3 and a 1x1, or a full 3x3."""

    features: int
    separable: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array, noise: str | jax.Array) -> jax.Array:
        """Returns [N, H, W, features] from `x` [N, H, W, C] and latent `w` [N, D]."""
        channels, size = x.shape[-1], x.shape[1]
        style = Style(channels, name="style")(w) / math.sqrt(9 * channels)  # 1 / sqrt(fan-in)
        style = style.astype(self.dtype)[:, None, None, :]
        normal = nn.initializers.normal(1.0)
        if self.separable:
            depthwise = self.param("depthwise", normal, (3, 3, channels)).astype(self.dtype)
            # the style rides on the filter for free
            x = convolutions.depthwise3x3(x, depthwise * style)
            kernel = self.param("kernel", normal, (1, 1, channels, self.features))
            x = x @ kernel[0, 0].astype(self.dtype)
        else:
            kernel = self.param("kernel", normal, (3, 3, channels, self.features))
            x = convolutions.conv(x * style, kernel.astype(self.dtype), 1, 1)
        stored = self.variable("noise", "map", jnp.zeros, (size, size)).value
        strength = self.param("noise_strength", nn.initializers.zeros, ())
        added = noise_map(self, noise, stored, strength, x.shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolutions.leaky_relu(x + added.astype(self.dtype) + bias.astype(self.dtype))


class Synthesis(nn.Module):
    """Latents to a picture and its activations.

    Attributes:
        widths: (size, channels) of every level, 4 first; the picture is twice the last size.
        dtype: of convolutions and taps; styles and the picture stay float32.
    """

    widths: tuple[tuple[int, int], ...]
    dtype: jnp.dtype = jnp.float32

    @property
    def resolution(self) -> int:
        """R, pixels a side: the wavelet doubles the last level."""
        return 2 * self.widths[-1][0]

    @property
    def num_layers(self) -> int:
        """L: the first convolution, three a block (wavelet, two convolutions), the picture."""
        return 3 * len(self.widths) - 1

    @property
    def tap_names(self) -> tuple[str, ...]:
        """Names of the taps, coarse to fine."""
        levels = ((i + 1) // 2 for i in range(2 * len(self.widths) - 1))
        return tuple(f"conv_{i:02d}_{self.widths[level][0]}" for i, level in enumerate(levels))

    @nn.compact
    def __call__(
        self, w: jax.Array, noise: str | jax.Array = "stored"
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the picture [N, R, R, 3] and the activations by name, coarse to fine.

        Args:
            w: [N, L, D].
            noise: see `stylegan2.noise_map`.
        """
        (size, channels), *levels = self.widths
        constant = self.param("constant", nn.initializers.normal(1.0), (size, size, channels))
        x = jnp.broadcast_to(constant.astype(self.dtype), (len(w), *constant.shape))
        conv = StyledConv(channels, separable=False, dtype=self.dtype, name="conv_00")
        x = conv(x, w[:, 0], noise)
        taps, layer = {f"conv_00_{size}": x}, 1
        for block, (size, channels) in enumerate(levels):
            style = Style(x.shape[-1], name=f"up_{block:02d}")(w[:, layer]).astype(self.dtype)
            x = resampling.inverse_haar(x * style[:, None, None, :])
            for index in (2 * block + 1, 2 * block + 2):
                layer += 1
                name = f"conv_{index:02d}"
                conv = StyledConv(channels, dtype=self.dtype, name=name)
                x = conv(x, w[:, layer], noise)
                taps[f"{name}_{size}"] = x
            layer += 1
        style = Style(x.shape[-1], name="style_rgb")(w[:, layer]) / math.sqrt(x.shape[-1])
        kernel = self.param("kernel_rgb", nn.initializers.normal(1.0), (x.shape[-1], 12))
        x = convolutions.modulated_dense(x, kernel, style)
        x = x.astype(jnp.float32) + self.param("bias_rgb", nn.initializers.zeros, (12,))
        return resampling.inverse_haar(x), taps
