"""Reads the constants of an OpenVINO IR network (.xml + .bin) as a graph, without OpenVINO."""

import dataclasses
import xml.etree.ElementTree as ElementTree

import numpy as np

from repgan_jax.errors import UserError

_TYPES: dict[str, np.dtype] = {
    "f32": np.dtype("<f4"),
    "i32": np.dtype("<i4"),
    "i64": np.dtype("<i8"),
}


@dataclasses.dataclass(frozen=True)
class Layer:
    """One operation: its type, its name, and the names of the layers that feed it, by port."""

    kind: str
    name: str
    inputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Network:
    """Layers in the file's (topological) order, and the arrays of the `Const` ones, by name."""

    layers: tuple[Layer, ...]
    constants: dict[str, np.ndarray]


def read_network(xml: bytes, weights: bytes, source: str) -> Network:
    """Returns the network that `xml` describes, its constants cut from `weights`.

    Raises:
        UserError: names `source` and the layer, where the two do not fit together.
    """
    if b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:  # entities can expand without bound
        raise UserError(f"{source}: the XML declares entities; expected a plain OpenVINO IR file")
    try:
        root = ElementTree.fromstring(xml)
        nodes = root.findall("layers/*")
        edges = root.findall("edges/*")
        names = {node.attrib["id"]: node.attrib["name"] for node in nodes}
        inputs: dict[str, dict[int, str]] = {}
        for edge in edges:
            into = inputs.setdefault(edge.attrib["to-layer"], {})
            into[int(edge.attrib["to-port"])] = names[edge.attrib["from-layer"]]
        layers = tuple(
            Layer(
                node.attrib["type"],
                node.attrib["name"],
                tuple(name for _, name in sorted(inputs.get(node.attrib["id"], {}).items())),
            )
            for node in nodes
        )
        constants = {
            node.attrib["name"]: _constant(node, weights, source)
            for node in nodes
            if node.attrib["type"] == "Const"
        }
    except (ElementTree.ParseError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{source}: not an OpenVINO IR network ({error})") from error
    return Network(layers, constants)


def _constant(node: ElementTree.Element, weights: bytes, source: str) -> np.ndarray:
    """Returns the array of a `Const` node, a copy of its bytes in `weights`."""
    (data,) = (child.attrib for child in node.findall("data"))
    dtype = _TYPES[data["element_type"]]
    shape = tuple(int(side) for side in data["shape"].split(",") if side.strip())
    offset, size = int(data["offset"]), int(data["size"])
    if min(shape, default=0) < 0 or size != dtype.itemsize * np.prod(shape, dtype=object):
        raise UserError(f"{source}: {node.attrib['name']}: {size} bytes do not hold shape {shape}")
    if offset < 0 or offset + size > len(weights):
        raise UserError(
            f"{source}: {node.attrib['name']}: bytes {offset} to {offset + size} lie outside the "
            f"weights file of {len(weights)} bytes; is it complete?"
        )
    return np.frombuffer(weights, dtype, size // dtype.itemsize, offset).reshape(shape).copy()
