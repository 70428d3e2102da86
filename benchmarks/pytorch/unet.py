"""The stand-alone network in plain PyTorch: the shape of `repgan_jax.models.unet.UNet`."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Sequential):
    """Two 3x3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, inputs: int, features: int):
        layers = []
        for channels in (inputs, features):
            layers += [
                nn.Conv2d(channels, features, 3, padding=1, bias=False),
                nn.BatchNorm2d(features, momentum=0.05),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class UNet(nn.Module):
    """Pictures [N, 3, H, W] to logits [N, K, H, W]; `widths` are those of the levels."""

    def __init__(self, num_classes: int, widths: Sequence[int]):
        super().__init__()
        *fine, coarse = widths
        self.down = nn.ModuleList(
            Block(inputs, features) for inputs, features in zip((3, *fine), widths, strict=True)
        )
        self.narrow, self.up = nn.ModuleList(), nn.ModuleList()
        for features, below in zip(reversed(fine), (coarse, *reversed(fine)), strict=False):
            self.narrow.append(nn.Conv2d(below, features, 1))
            self.up.append(Block(2 * features, features))
        self.logits = nn.Conv2d(fine[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the logits."""
        skips = []
        for index, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for narrow, block, skip in zip(self.narrow, self.up, reversed(skips[:-1]), strict=True):
            x = F.interpolate(narrow(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([x, skip], 1))
        return self.logits(x)
