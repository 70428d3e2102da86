"""One step of latent optimisation in plain PyTorch, as rosinality/stylegan2-pytorch makes it.

    python benchmarks/pytorch/projector.py BATCH

`benchmarks/projection_step.py` starts it and says what is printed. The scheme is that of
`projector.py` there, on a processor: StyleGAN2 of 256 px with a kernel of its own for each sample,
resampling by a convolution of each channel after zeros are put in between, LPIPS of picture and
photo anew in each step, noise maps that are regularised and normalised, Adam. Weights are random:
time and memory do not depend on them. The mapping network plays no part in a step.
"""

import json
import math
import resource
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE, WIDTH, STEPS = 256, 512, 1000
CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128}
VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class Linear(nn.Module):
    """Dense layer under the equalised learning rate."""

    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(features, WIDTH))
        self.bias = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Returns [N, features] for `x` [N, D]."""
        return F.linear(x, self.weight / math.sqrt(WIDTH), self.bias)


class Resample(nn.Module):
    """The low-pass filter, after zeros between the pixels where `up` is 2; gain 4."""

    def __init__(self, up: int, padding: tuple[int, int]):
        super().__init__()
        self.up, self.padding = up, padding
        line = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(line, line)[None, None] / 16)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `x` [N, C, H, W] padded and filtered, `up` times the size."""
        batch, channels, height, width = x.shape
        x = x.reshape(batch * channels, 1, height, 1, width, 1)
        x = F.pad(x, (0, self.up - 1, 0, 0, 0, self.up - 1))
        x = x.reshape(batch * channels, 1, height * self.up, width * self.up)
        x = F.conv2d(F.pad(x, self.padding * 2), self.kernel)
        return x.reshape(batch, channels, *x.shape[2:])


class ModulatedConv(nn.Module):
    """A convolution whose kernel is modulated, and demodulated, for each sample: one a group."""

    def __init__(self, inputs: int, outputs: int, size: int, demodulate: bool, up: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, size, size))
        self.style = Linear(inputs)
        self.blur = Resample(1, (1, 1)) if up else None
        self.size, self.demodulate = size, demodulate

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Returns [N, F, H, W], or twice the size, of `x` [N, C, H, W] and `w` [N, D]."""
        batch, inputs, height, width = x.shape
        weight = self.weight / math.sqrt(inputs * self.size**2)
        weight = weight * self.style(w).reshape(batch, 1, inputs, 1, 1)
        if self.demodulate:
            weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        x = x.reshape(1, batch * inputs, height, width)
        if self.blur is None:
            weight = weight.flatten(0, 1)
            x = F.conv2d(x, weight, padding=self.size // 2, groups=batch)
            return x.reshape(batch, -1, height, width)
        weight = weight.transpose(1, 2).flatten(0, 1)
        x = F.conv_transpose2d(x, weight, stride=2, groups=batch)
        return self.blur(x.reshape(batch, -1, *x.shape[2:]))


class StyledConv(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, up: bool):
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, 3, demodulate=True, up=up)
        self.noise_strength = nn.Parameter(torch.full((1,), 0.1))
        self.bias = nn.Parameter(torch.zeros(1, outputs, 1, 1))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        """Returns [N, F, H, W] with `noise` [N, 1, H, W] of its size."""
        x = self.conv(x, w) + self.noise_strength * noise
        return F.leaky_relu(x + self.bias, 0.2) * math.sqrt(2)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to a picture, without demodulation."""

    def __init__(self, inputs: int):
        super().__init__()
        self.conv = ModulatedConv(inputs, 3, 1, demodulate=False, up=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Returns [N, 3, H, W] of `x` [N, C, H, W] and `w` [N, D]."""
        return self.conv(x, w) + self.bias


class Synthesis(nn.Module):
    """One latent and the noise maps to a picture."""

    def __init__(self):
        super().__init__()
        self.constant = nn.Parameter(torch.randn(1, CHANNELS[4], 4, 4))
        self.convs = nn.ModuleList([StyledConv(CHANNELS[4], CHANNELS[4], up=False)])
        self.rgbs = nn.ModuleList([ToRGB(CHANNELS[4])])
        self.upsample = Resample(2, (2, 1))
        for size in list(CHANNELS)[1:]:
            self.convs.append(StyledConv(CHANNELS[size // 2], CHANNELS[size], up=True))
            self.convs.append(StyledConv(CHANNELS[size], CHANNELS[size], up=False))
            self.rgbs.append(ToRGB(CHANNELS[size]))

    def forward(self, w: Tensor, noises: list[Tensor]) -> Tensor:
        """Returns pictures [N, 3, 256, 256] of `w` [N, D]."""
        x, image = self.constant.expand(len(w), -1, -1, -1), None
        for i, (conv, noise) in enumerate(zip(self.convs, noises, strict=True)):
            x = conv(x, w, noise)
            if i % 2 == 0:  # the last convolution of its size
                rgb = self.rgbs[i // 2](x, w)
                image = rgb if image is None else self.upsample(image) + rgb
        return image


class LPIPS(nn.Module):
    """The perceptual distance, with VGG16; fixed."""

    def __init__(self):
        super().__init__()
        self.stages, self.heads, inputs = nn.ModuleList(), nn.ModuleList(), 3
        for index, widths in enumerate(VGG):
            layers = [nn.MaxPool2d(2)] if index else []
            for width in widths:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            self.stages.append(nn.Sequential(*layers))
            self.heads.append(nn.Conv2d(inputs, 1, 1, bias=False))
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        self.requires_grad_(False)

    def features(self, x: Tensor) -> list[Tensor]:
        """Returns maps [N, C, h, w] of `x` [N, 3, H, W], each pixel of unit length."""
        x, found = (x - self.mean) / self.std, []
        for stage in self.stages:
            x = stage(x)
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Returns distances [N, 1] of pictures [N, 3, H, W]."""
        pairs = zip(self.heads, self.features(a), self.features(b), strict=True)
        return sum(head((x - y).square()).mean((1, 2, 3)) for head, x, y in pairs)


def noise_regularisation(noises: list[Tensor]) -> Tensor:
    """Returns how much neighbours agree, at every scale down to 8 px."""
    total = torch.zeros(())
    for noise in noises:
        while True:
            for axis in (2, 3):
                total = total + (noise * noise.roll(1, axis)).mean().square()
            if noise.shape[2] <= 8:
                break
            noise = F.avg_pool2d(noise, 2)
    return total


def learning_rate(t: float) -> float:
    """Returns the rate at `t` from 0 to 1: a ramp up, and one down as a cosine."""
    return 0.1 * (0.5 - 0.5 * math.cos(math.pi * min(1, (1 - t) / 0.25))) * min(1, t / 0.05)


def main(batch: int) -> None:
    """Takes steps until nobody listens any more, and prints a line after each."""
    torch.manual_seed(0)
    synthesis, perceptual = Synthesis(), LPIPS()
    photos = torch.rand(batch, 3, SIZE, SIZE) * 2 - 1
    w = torch.zeros(batch, WIDTH, requires_grad=True)
    sizes = [4] + [size for size in list(CHANNELS)[1:] for _ in range(2)]
    noises = [torch.randn(batch, 1, size, size, requires_grad=True) for size in sizes]
    optimizer = torch.optim.Adam([w, *noises], lr=0.1)
    for step in range(STEPS):
        t = step / STEPS
        optimizer.param_groups[0]["lr"] = learning_rate(t)
        strength = 0.05 * max(0, 1 - t / 0.75) ** 2
        pictures = synthesis(w + strength * torch.randn_like(w), noises)
        loss = perceptual(pictures, photos).sum() + 1e5 * noise_regularisation(noises)
        loss = loss + 0.0 * F.mse_loss(pictures, photos)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for noise in noises:
                noise.sub_(noise.mean()).div_(noise.std())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        line = (step + 1, time.process_time(), time.perf_counter(), peak)
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
