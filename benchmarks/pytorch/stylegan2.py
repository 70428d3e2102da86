"""StyleGAN2's synthesis in plain PyTorch, in the fastest form that public code has on a processor.

As in NVIDIA's: kernels are modulated and demodulated once a picture, samples are groups of one
convolution, the low-pass filter is separable. `repgan_jax.models.stylegan2` computes the same.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Style(nn.Module):
    """Latents to factors of channels, under the equalised learning rate."""

    def __init__(self, w_dim: int, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, w_dim))
        self.bias = nn.Parameter(torch.ones(channels))

    def forward(self, w: Tensor) -> Tensor:
        """Returns [N, C] for `w` [N, D]."""
        return F.linear(w, self.weight / math.sqrt(w.shape[1]), self.bias)


def smooth(x: Tensor) -> Tensor:
    """Returns [N, C, H - 3, W - 3]: `x` under the low-pass filter, gain 4."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    channels = x.shape[1]
    x = F.conv2d(x, line.reshape(1, 1, 4, 1).expand(channels, 1, 4, 1), groups=channels)
    return F.conv2d(x, line.reshape(1, 1, 1, 4).expand(channels, 1, 1, 4), groups=channels)


def upsample(x: Tensor) -> Tensor:
    """Returns [N, C, 2H, 2W]: `x` with zeros in between, smoothed."""
    batch, channels, height, width = x.shape
    spread = x.new_zeros(batch, channels, 2 * height, 2 * width)
    spread[:, :, ::2, ::2] = x
    return smooth(F.pad(spread, (2, 1, 2, 1)))


class ModulatedConv(nn.Module):
    """A convolution with a kernel of its own for each sample: one a group."""

    def __init__(self, w_dim: int, inputs: int, outputs: int, size: int, *, up: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.style, self.up = Style(w_dim, inputs), up

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Returns [N, F, H, W], or twice the size; 1x1 kernels are not demodulated."""
        batch, inputs, height, width = x.shape
        size = self.weight.shape[-1]
        weight = self.weight / math.sqrt(inputs * size**2)
        weight = weight * self.style(w).reshape(batch, 1, inputs, 1, 1)
        if size > 1:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        x = x.reshape(1, batch * inputs, height, width)
        if not self.up:
            x = F.conv2d(x, weight.flatten(0, 1), padding=size // 2, groups=batch)
            return x.reshape(batch, -1, height, width)
        x = F.conv_transpose2d(x, weight.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
        return smooth(F.pad(x.reshape(batch, -1, *x.shape[2:]), (1, 1, 1, 1)))


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    def __init__(self, w_dim: int, inputs: int, outputs: int, size: int, *, up: bool):
        super().__init__()
        self.conv = ModulatedConv(w_dim, inputs, outputs, 3, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("noise", torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Returns [N, F, H, W]."""
        x = self.conv(x, w).add_(self.noise_strength * self.noise)
        x = x.add_(self.bias[:, None, None])
        return F.leaky_relu_(x, 0.2).mul_(math.sqrt(2))


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to a picture."""

    def __init__(self, w_dim: int, inputs: int):
        super().__init__()
        self.conv = ModulatedConv(w_dim, inputs, 3, 1)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Returns [N, 3, H, W]."""
        return self.conv(x, w) + self.bias[:, None, None]


class Synthesis(nn.Module):
    """Latents to pictures; `widths` are the channels at each size."""

    def __init__(self, widths: Mapping[int, int], w_dim: int = 512):
        super().__init__()
        self.constant = nn.Parameter(torch.randn(widths[4], 4, 4))
        self.convs = nn.ModuleList([StyledConv(w_dim, widths[4], widths[4], 4, up=False)])
        for size in sorted(widths)[1:]:
            width, before = widths[size], widths[size // 2]
            self.convs.append(StyledConv(w_dim, before, width, size, up=True))
            self.convs.append(StyledConv(w_dim, width, width, size, up=False))
        self.rgbs = nn.ModuleList(ToRGB(w_dim, widths[size]) for size in sorted(widths))

    def forward(self, w: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns pictures [N, 3, R, R] of `w` [N, D], and all activations, coarse to fine."""
        x, image, taps = self.constant.expand(len(w), -1, -1, -1), None, []
        for index, conv in enumerate(self.convs):
            x = conv(x, w)
            taps.append(x)
            if index % 2 == 0:  # the last convolution of its size
                rgb = self.rgbs[index // 2](x, w)
                image = rgb if image is None else upsample(image) + rgb
        return image, taps
