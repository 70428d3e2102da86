"""Heads on the stack of all activations, resized to the label's size (paper, section 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CNN_L = ((64, 64, 64, 64, 64, 64, 32), (2, 4, 8, 1, 2, 4, 8, 1))  # widths, dilations


def stack(taps: Sequence[Tensor], size: int) -> Tensor:
    """Returns [N, C, size, size] of all `taps` from 8x8 up."""
    wanted = [tap for tap in taps if tap.shape[-1] >= 8]
    resized = [
        F.interpolate(tap, (size, size), mode="bilinear", align_corners=False) for tap in wanted
    ]
    return torch.cat(resized, 1)


def build(name: str, channels: int, num_classes: int) -> nn.Sequential:
    """Returns the head "mlp0" or "cnn_l": stacks [N, C, S, S] to logits [N, K, S, S]."""
    if name == "mlp0":
        return nn.Sequential(nn.Conv2d(channels, num_classes, 1))
    widths, dilations = CNN_L
    layers, inputs = [nn.Conv2d(channels, 128, 1)], 128
    for outputs, dilation in zip((*widths, num_classes), dilations, strict=True):
        layers += [
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation),
        ]
        inputs = outputs
    return nn.Sequential(*layers)
