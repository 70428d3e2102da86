"""The face generator's converter: on the real weights, and on a small network of the same form."""

import math
import re
from pathlib import Path
from xml.etree import ElementTree

import jax
import numpy as np
import pytest

from repgan_jax import generator as generator_lib
from repgan_jax.converters import mobilestylegan
from repgan_jax.converters.command import run
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint
from repgan_jax.ops import resampling

GOLDEN = Path(__file__).parents[1] / "golden" / "random_face.npz"
CROP = (400, 420)  # row and column of the golden crop's corner, found by matching it


def test_parity_with_the_original(face_generator):
    golden = np.load(GOLDEN)
    np.testing.assert_allclose(face_generator.mapping(golden["z"]), golden["w"], atol=1e-5)
    draw = jax.jit(lambda generator, w: generator.synthesis(w)[0])
    row, column = CROP
    for i, w in enumerate(golden["w"]):
        picture = draw(face_generator, w[None])
        assert picture.shape == (1, 1024, 1024, 3)
        cells = resampling.area_reduce(picture, 8)[0].transpose(2, 0, 1)
        crop = picture[0, row : row + 128, column : column + 128].transpose(2, 0, 1)
        # pictures span 2; float32 over 16 convolutions of up to 4,608 products
        np.testing.assert_allclose(cells, golden["image_area8"][i], atol=5e-4)
        np.testing.assert_allclose(crop, golden["image_crop"][i], atol=5e-4)


def test_architecture_of_the_original(face_generator):
    assert face_generator.resolution == 1024
    assert face_generator.num_layers == 23
    assert face_generator.tap_names[0] == "conv_00_4"
    assert face_generator.tap_names[-1] == "conv_14_512"


class Network:
    """An OpenVINO network under construction."""

    def __init__(self):
        self.root = ElementTree.Element("net")
        self.layers = ElementTree.SubElement(self.root, "layers")
        self.edges = ElementTree.SubElement(self.root, "edges")
        self.weights = b""
        self.arrays = {}

    def op(self, kind, name, *inputs):
        ElementTree.SubElement(self.layers, "layer", id=name, name=name, type=kind)
        for port, source in enumerate(inputs):
            fields = {"from-layer": source, "to-layer": name, "to-port": str(port)}
            ElementTree.SubElement(self.edges, "edge", fields)
        return name

    def const(self, name, array):
        array = np.asarray(array, "<f4")
        self.op("Const", name)
        shape = ", ".join(map(str, array.shape))
        place = {"offset": str(len(self.weights)), "size": str(array.nbytes)}
        ElementTree.SubElement(self.layers[-1], "data", element_type="f32", shape=shape, **place)
        self.weights += array.tobytes()
        self.arrays[name] = array
        return name

    def without(self, name):
        """Takes the constant `name` away; returns the names of the layers that read it."""
        self.layers.remove(next(layer for layer in self.layers if layer.get("name") == name))
        edges = [edge for edge in self.edges if edge.get("from-layer") == name]
        for edge in edges:
            self.edges.remove(edge)
        return [edge.get("to-layer") for edge in edges]

    def xml(self):
        return ElementTree.tostring(self.root)


def mapping_network(rng):
    network = Network()
    x = network.op("Parameter", "z")
    two, small = network.const("two", [[2]]), network.const("small", [[1e-8]])
    x = network.op("Add", "normalised", network.op("Power", "square", x, two), small)
    for i, z_dim in enumerate((12, 10)):
        kernel = network.const(f"kernel{i}", rng.normal(size=(10, z_dim)))
        bias = network.op("Reshape", f"reshape{i}", network.const(f"bias{i}", rng.normal(size=10)))
        x = network.op("Add", f"add{i}", network.op("MatMul", f"matmul{i}", x, kernel), bias)
        x = network.op("PReLU", f"relu{i}", x, network.const(f"slope{i}", [0.2]))
        x = network.op("Multiply", f"gain{i}", x, network.const(f"root{i}", [[math.sqrt(2)]]))
    return network


def add_style(network, rng, prefix, channels, scale=None):
    weight = network.const(f"{prefix}.modulation.weight", rng.normal(size=(channels, 10)))
    bias = network.const(f"{prefix}.modulation.bias", rng.normal(size=(1, channels)))
    x = network.op("Add", f"{prefix}/add", network.op("MatMul", f"{prefix}/w", weight), bias)
    x = network.op("Reshape", f"{prefix}/reshape", x)
    if scale is not None:
        factor = network.const(f"{prefix}/scale", np.full((1, 1, 1, 1), scale))
        x = network.op("Multiply", f"{prefix}/style", x, factor)
    return x


def add_conv(network, rng, prefix, before, shape, size):
    """Adds convolution, noise, bias and leaky ReLU; `shape` of the kernel is [F, C, h, w]."""
    x = network.op(
        "Convolution",
        f"{prefix}/conv",
        before,
        network.const(f"{prefix}/kernel", rng.normal(size=shape)),
    )
    x = network.op(
        "Add",
        f"{prefix}/noisy",
        x,
        network.const(f"{prefix}/noise", 0.3 * rng.normal(size=(1, 1, size, size))),
    )
    bias = network.const(f"{prefix}.bias", rng.normal(size=(1, shape[0], 1, 1)))
    x = network.op("Add", f"{prefix}/biased", x, bias)
    return network.op("PReLU", f"{prefix}/relu", x, network.const(f"{prefix}/slope", [0.2]))


def synthesis_network(rng, widths=(8, 12, 4)):
    """A network for (4, 8, 16) pixels, and a picture of 32."""
    network, channels = Network(), widths[0]
    x = network.const("m.input.input", rng.normal(size=(1, channels, 4, 4)))
    style = add_style(network, rng, "m.conv1.conv", channels, 1 / math.sqrt(9 * channels))
    x = network.op("Multiply", "modulated", x, style)
    x = add_conv(network, rng, "m.conv1", x, (channels, channels, 3, 3), 4)
    for block, features in enumerate(widths[1:]):
        prefix = f"m.layers.{block}"
        style = add_style(network, rng, f"{prefix}.up", channels)
        haar = network.const(f"{prefix}/haar", math.sqrt(0.5) * np.array([1, -1]))
        x = network.op("Multiply", f"{prefix}/modulated", x, style)
        x = network.op("GroupConvolutionBackpropData", f"{prefix}/wavelet", x, haar)
        channels //= 4
        for name in (f"{prefix}.conv1", f"{prefix}.conv2"):
            style = add_style(network, rng, f"{name}.conv", channels, 1 / math.sqrt(9 * channels))
            x = network.op("Multiply", f"{name}/modulated", x, style)
            weight = network.const(
                f"{name}.conv.weight_dw", rng.normal(size=(channels, 1, 1, 3, 3))
            )
            x = network.op("GroupConvolution", f"{name}/depthwise", x, weight)
            x = add_conv(network, rng, name, x, (features, channels, 1, 1), 8 << block)
            channels = features
    prefix = f"m.layers.{len(widths) - 2}.to_img"
    add_style(network, rng, f"{prefix}.conv", channels, 1 / math.sqrt(channels))
    network.const(f"{prefix}.conv.weight", rng.normal(size=(1, 12, channels, 1, 1)))
    network.const(f"{prefix}.bias", rng.normal(size=(1, 12, 1, 1)))
    return network


@pytest.fixture
def networks(monkeypatch):
    """Two small networks of the form of the original's."""
    monkeypatch.setattr(mobilestylegan, "SIZES", (4, 8, 16))
    rng = np.random.default_rng(0)
    return {"Mapping": mapping_network(rng), "Synthesis": synthesis_network(rng)}


def convert(networks):
    files = {f"{name}Network.xml": network.xml() for name, network in networks.items()}
    files |= {f"{name}Network.bin": network.weights for name, network in networks.items()}
    return mobilestylegan.convert(files)


def test_every_tensor_finds_its_place(networks, tmp_path):
    architecture, variables = convert(networks)
    assert architecture["widths"] == {"4": 8, "8": 12, "16": 4}
    arrays = networks["Mapping"].arrays | networks["Synthesis"].arrays
    params, noise = (variables["synthesis"][name] for name in ("params", "noise"))
    for found, expected in (
        (params["constant"], arrays["m.input.input"][0].transpose(1, 2, 0)),
        (params["conv_00"]["kernel"], arrays["m.conv1/kernel"].transpose(2, 3, 1, 0)),
        (params["up_01"]["kernel"], arrays["m.layers.1.up.modulation.weight"].T),
        (params["conv_04"]["style"]["bias"], arrays["m.layers.1.conv2.conv.modulation.bias"][0]),
        (
            params["conv_03"]["depthwise"],
            arrays["m.layers.1.conv1.conv.weight_dw"][:, 0, 0].transpose(1, 2, 0),
        ),
        (
            params["conv_02"]["kernel"],
            arrays["m.layers.0.conv2/kernel"].transpose(2, 3, 1, 0),
        ),
        (params["kernel_rgb"], arrays["m.layers.1.to_img.conv.weight"][0, :, :, 0, 0].T),
    ):
        np.testing.assert_array_equal(found, expected)
    dense = variables["mapping"]["params"]  # ours without the factors of the equalised rate
    rate = 0.01
    kernel = rate / math.sqrt(12) * dense["dense_0"]["kernel"]
    np.testing.assert_allclose(kernel, arrays["kernel0"].T, rtol=1e-6)
    np.testing.assert_allclose(rate * dense["dense_1"]["bias"], arrays["bias1"], rtol=1e-6)
    product = params["conv_03"]["noise_strength"] * noise["conv_03"]["map"]
    np.testing.assert_allclose(product, arrays["m.layers.1.conv1/noise"][0, 0], rtol=1e-6)
    np.testing.assert_allclose(noise["conv_03"]["map"].std(), 1, rtol=1e-5)

    checkpoint.write_generator(tmp_path / "generator", architecture, variables)
    generator = generator_lib.load_generator(tmp_path / "generator")  # compares every shape
    assert (generator.resolution, generator.num_layers) == (32, 8)


@pytest.mark.parametrize("make", [mapping_network, synthesis_network])
def test_a_missing_tensor_is_refused_by_name(networks, make):
    part = {mapping_network: "Mapping", synthesis_network: "Synthesis"}[make]
    for name, array in networks[part].arrays.items():
        if part == "Mapping" and array.size == 1:
            continue  # exponents, gains, slopes: not weights
        networks[part] = make(np.random.default_rng(0))
        readers = networks[part].without(name)
        with pytest.raises(UserError, match=f"^{part}Network: ") as info:
            convert(networks)
        # by the name of the layer that reads it, where its own is a mere number
        assert any(known in str(info.value) for known in (name, *readers)), (name, info.value)
        assert "\n" not in str(info.value)


@pytest.mark.parametrize("part", ["Mapping", "Synthesis"])
def test_an_unknown_tensor_is_refused(networks, part):
    network = networks[part]
    network.op("Add", "surplus", network.const("m.layers.9.extra", [[1.0, 2.0]]))
    with pytest.raises(
        UserError, match=rf"^{part}Network: .*not converted: \['m.layers.9.extra'\]"
    ):
        convert(networks)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("m.conv1.conv/scale", "m.conv1.conv/scale is .*, expected 0.1178"),
        ("m.layers.1.conv2/slope", "m.layers.1.conv2/slope is .*, expected 0.2"),
        ("m.layers.0/haar", "m.layers.0/wavelet is not a Haar wavelet"),
    ],
)
def test_another_arithmetic_is_refused(networks, name, message):
    network = networks["Synthesis"]
    node = next(layer for layer in network.layers if layer.get("name") == name)
    start = int(node[0].get("offset"))
    array = network.arrays[name]
    changed = (1.5 * array).astype("<f4").tobytes()
    network.weights = network.weights[:start] + changed + network.weights[start + array.nbytes :]
    with pytest.raises(UserError, match=f"SynthesisNetwork: {message}"):
        convert(networks)


def test_truncated_weights_are_refused(networks):
    networks["Synthesis"].weights = networks["Synthesis"].weights[:-4]
    with pytest.raises(UserError, match="to_img.bias: bytes .* lie outside the weights file"):
        convert(networks)


def test_entities_are_refused(networks):
    files = {f"{name}Network.bin": network.weights for name, network in networks.items()}
    files |= {f"{name}Network.xml": network.xml() for name, network in networks.items()}
    files["MappingNetwork.xml"] = b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + files["MappingNetwork.xml"]
    with pytest.raises(UserError, match="MappingNetwork: the XML declares entities"):
        mobilestylegan.convert(files)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"something else", "SHA-256 f41f.*, expected e5d10e2b.*; fetch it again"),
        (None, "No such file or directory; expected the wheel of random-face"),
    ],
)
def test_another_wheel_is_refused_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, content, message
):
    wheel, out = tmp_path / "face.whl", tmp_path / "out"
    if content:
        wheel.write_bytes(content)
    monkeypatch.setattr("sys.argv", ["convert", str(out), "--wheel", str(wheel)])
    with pytest.raises(SystemExit) as info:
        run(mobilestylegan.main)
    assert info.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error), error
    assert not out.exists()
