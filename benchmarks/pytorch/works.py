"""The works of `benchmarks.performance` in plain PyTorch, one a process.

python -m benchmarks.pytorch.works NAME SIZE BATCH
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from benchmarks.measure import measure, show
from benchmarks.pytorch import stacked
from benchmarks.pytorch.stylegan2 import Synthesis
from benchmarks.pytorch.unet import UNet

CHANNELS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
CLASSES, UNET_WIDTHS = 10, (64, 128, 256, 512, 512)


def synthesis(size: int, batch: int) -> Callable[[], Any]:
    """Returns a call that draws `batch` pictures of `size` pixels."""
    network, w = _generator(size), torch.randn(batch, 512)
    return lambda: network(w)[0]


def labelled(head: str) -> Callable[[int, int], Callable[[], Any]]:
    """Returns pictures with labels by the stack of all activations."""

    def work(size: int, batch: int) -> Callable[[], Any]:
        network, w = _generator(size), torch.randn(batch, 512)
        classify = stacked.build(head, _num_channels(size), CLASSES)

        def call():
            picture, taps = network(w)
            return picture, classify(stacked.stack(taps, size)).argmax(1)

        return call

    return work


def fewshot(head: str) -> Callable[[int, int], Callable[[], Any]]:
    """Returns steps of training a head on one shot, whose stack is made beforehand."""

    def work(size: int, batch: int) -> Callable[[], Any]:
        features = torch.randn(batch, _num_channels(size), size, size)
        network = stacked.build(head, features.shape[1], CLASSES)
        return _train(network, features)

    return work


def unet_step(size: int, batch: int) -> Callable[[], Any]:
    """Returns steps of training the U-Net."""
    return _train(UNet(CLASSES, UNET_WIDTHS), torch.rand(batch, 3, size, size) * 2 - 1)


def unet(size: int, batch: int) -> Callable[[], Any]:
    """Returns predictions of the U-Net."""
    network, x = UNet(CLASSES, UNET_WIDTHS).eval(), torch.rand(batch, 3, size, size) * 2 - 1
    return lambda: network(x)


def _generator(size: int) -> Synthesis:
    return Synthesis({own: width for own, width in CHANNELS.items() if own <= size}).eval()


def _num_channels(size: int) -> int:
    return sum(2 * width for own, width in CHANNELS.items() if 8 <= own <= size)


def _train(network: torch.nn.Module, x: torch.Tensor) -> Callable[[], Any]:
    labels = torch.randint(0, CLASSES, (len(x), *x.shape[2:]))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)

    def step():
        loss = F.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


WORKS = {
    "synthesis": synthesis,
    "labelled_mlp0": labelled("mlp0"),
    "labelled_cnn_l": labelled("cnn_l"),
    "fewshot_mlp0": fewshot("mlp0"),
    "fewshot_cnn_l": fewshot("cnn_l"),
    "fewshot_3x3": fewshot("3x3"),
    "unet_step": unet_step,
    "unet": unet,
}
TRAINING = ("fewshot_mlp0", "fewshot_cnn_l", "fewshot_3x3", "unet_step")


def main(name: str, size: int, batch: int) -> None:
    """Measures one work."""
    torch.manual_seed(0)
    with torch.inference_mode(name not in TRAINING):
        call = WORKS[name](size, batch)
        units = 1 if name in TRAINING else batch
        show(who="PyTorch", work=name, size=size, batch=batch, **measure(call, units))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
