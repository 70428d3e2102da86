"""Heads on the stack of all activations, resized to the label's size (paper, section 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# widths but the last, dilations
CNN_L = ((64, 64, 64, 64, 64, 64, 32), (2, 4, 8, 1, 2, 4, 8, 1))


def stack(taps: Sequence[Tensor], size: int) -> Tensor:
    """Returns [N, C, size, size] of all `taps` from 8x8 up."""
    wanted = [tap for tap in taps if tap.shape[-1] >= 8]
    resized = [
        F.interpolate(tap, (size, size), mode="bilinear", align_corners=False) for tap in wanted
    ]
    return torch.cat(resized, 1)


# all of them 3x3, as the best-known notebook has its CNN-M
FIRST_3X3 = ((128, 64, 64, 64, 64, 32), (1, 2, 4, 1, 2, 4, 1))


def build(name: str, channels: int, num_classes: int) -> nn.Sequential:
    """Returns the head "mlp0", "cnn_l" or "3x3": stacks [N, C, S, S] to logits [N, K, S, S]."""
    if name == "mlp0":
        return nn.Sequential(nn.Conv2d(channels, num_classes, 1))
    widths, dilations = CNN_L if name == "cnn_l" else FIRST_3X3
    layers, inputs = [], channels
    if name == "cnn_l":
        layers, inputs = [nn.Conv2d(channels, 128, 1), nn.LeakyReLU(0.01, inplace=True)], 128
    for outputs, dilation in zip((*widths, num_classes), dilations, strict=True):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation),
            nn.LeakyReLU(0.01, inplace=True),
        ]
        inputs = outputs
    return nn.Sequential(*layers[:-1])
