"""The reader of OpenVINO networks, on hand-written ones."""

import numpy as np
import pytest

from repgan_jax.converters.openvino_ir import Layer, read_network
from repgan_jax.errors import UserError

ARRAY = np.array([[1.5, -2, 3], [4, 5, 6]], "<f4")
WEIGHTS = ARRAY.tobytes() + np.array([7, -8], "<i8").tobytes()
XML = """<?xml version="1.0" ?>
<net name="N" version="10">
  <layers>
    <layer id="0" name="x" type="Parameter"><data shape="1, 2" element_type="f32"/></layer>
    <layer id="1" name="w" type="Const">
      <data element_type="f32" shape="2, 3" offset="0" size="24"/>
    </layer>
    <layer id="5" name="axes" type="Const">
      <data element_type="i64" shape="2" offset="24" size="16"/>
    </layer>
    <layer id="7" name="scalar" type="Const">
      <data element_type="i64" shape="" offset="32" size="8"/>
    </layer>
    <layer id="2" name="y" type="MatMul"><data transpose_b="false"/></layer>
  </layers>
  <edges>
    <edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
    <edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
  </edges>
</net>"""


def read(xml=XML, weights=WEIGHTS):
    return read_network(xml.encode(), weights, "SomeNetwork")


def test_layers_inputs_and_constants():
    network = read()
    assert network.layers[0] == Layer("Parameter", "x", ())
    assert network.layers[-1] == Layer("MatMul", "y", ("x", "w"))  # by port, not by order
    assert sorted(network.constants) == ["axes", "scalar", "w"]
    np.testing.assert_array_equal(network.constants["w"], ARRAY)
    np.testing.assert_array_equal(network.constants["axes"], [7, -8])
    assert network.constants["scalar"].shape == () and network.constants["scalar"] == -8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('<net name="N"', '<!DOCTYPE n [<!ENTITY a "b">]><net name="N"', "declares entities"),
        ("</layers>", "", "not an OpenVINO IR network"),
        ("layers>", "lagers>", "not an OpenVINO IR network"),
        ('from-layer="1"', 'from-layer="9"', "not an OpenVINO IR network"),
        ('element_type="i64"', 'element_type="f16"', "f16"),
        ('offset="24" size="16"', 'offset="28" size="16"', "axes: bytes 28 to 44 lie outside"),
        ('offset="24" size="16"', 'offset="-1" size="16"', "axes: bytes -1 to 15 lie outside"),
        ('size="24"', 'size="20"', r"w: 20 bytes do not hold shape \(2, 3\)"),
        ('shape="2, 3"', 'shape="-2, -3"', r"w: 24 bytes do not hold shape \(-2, -3\)"),
        ('shape="2, 3"', 'shape="2, three"', "not an OpenVINO IR network"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(old, new, message):
    assert old in XML
    with pytest.raises(UserError, match=f"^SomeNetwork: .*{message}") as info:
        read(XML.replace(old, new))
    assert "\n" not in str(info.value)


def test_truncated_weights_are_refused_by_name():
    with pytest.raises(UserError, match="axes: bytes 24 to 40 .* file of 39 bytes; is it complete"):
        read(weights=WEIGHTS[:-1])
