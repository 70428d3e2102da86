"""What StyleGAN2's code bases call their tensors, and how each lies in ours.

Letters of the layouts: F and C channels out and in, D and Z widths of w and z, K classes, Y and X
sides of a kernel, R and S sides of a noise map.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .layouts import Row

FIR = np.outer((1, 3, 3, 1), (1, 3, 3, 1)) / 64  # the low-pass filter of `ops.smooth`, sum 1


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of a generator, in a source that calls it `theirs`.

    Attributes:
        kind: which rows it has; a format without rows of a kind has no such layer.
        ours: its path in our variables.
        index: its number among the layers of its kind (convolutions: among all convolutions).
        size: pixels a side of its output.
        sides: length of each axis, by letter.
    """

    kind: str
    ours: str
    index: int
    size: int
    sides: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Format:
    """The naming of a code base.

    Attributes:
        name: for the summary.
        rows: the tensors of each kind of layer.
        layer_name: what it calls a layer.
        separator: between layer and tensor.
        mean: its name of the mean latent.
        signature: a tensor that every generator has, and no other format.
        unused: tensors without a use in StyleGAN2.
    """

    name: str
    rows: Mapping[str, tuple[Row, ...]]
    layer_name: Callable[[Layer], str]
    separator: str
    mean: str
    signature: str
    unused: frozenset[str] = frozenset()

    def tensor_name(self, layer: Layer, row: Row) -> str:
        """Returns what the source calls the tensor `row` of `layer`."""
        parts = (self.layer_name(layer), row.name)
        return self.separator.join(part for part in parts if part)


def layers(architecture: Mapping[str, Any]) -> Iterator[Layer]:
    """Yields every layer that a generator of `architecture` has."""
    w_dim, num_classes = architecture["w_dim"], architecture.get("num_classes", 0)
    if num_classes:
        sides = {"D": w_dim, "K": num_classes}
        yield Layer("embed", "mapping/params/embed", 0, 0, sides)
    width_in = architecture["z_dim"] + (w_dim if num_classes else 0)
    for i in range(architecture["mapping_layers"]):
        sides = {"D": w_dim, "Z": w_dim if i else width_in}
        yield Layer("dense", f"mapping/params/dense_{i}", i, 0, sides)
    params = "synthesis/params"
    widths = list(architecture["widths"].values())
    yield Layer("constant", params, 0, 4, {"F": widths[0], "Y": 4, "X": 4})
    for i in range(2 * len(widths) - 1):  # convolutions; the odd ones double the size
        level, up = (i + 1) // 2, i % 2 == 1
        size, width = 4 << level, widths[level]
        before = widths[level - 1] if up else width
        sides = {"F": width, "C": before, "D": w_dim, "Y": 3, "X": 3}
        yield Layer("conv_up" if up else "conv", f"{params}/conv_{i:02d}", i, size, sides)
        sides = {"R": size, "S": size}
        yield Layer("noise", f"synthesis/noise/conv_{i:02d}", i, size, sides)
        if not up:
            sides = {"F": 3, "C": width, "D": w_dim, "Y": 1, "X": 1}
            yield Layer("rgb_up" if level else "rgb", f"{params}/rgb_{level:02d}", i, size, sides)
            yield Layer("block", "", level, size, {})


def infer(tensors: Mapping[str, np.ndarray], fmt: Format) -> dict[str, Any]:
    """Returns the architecture that names and shapes state; wrong where tensors are missing.

    Raises:
        ValueError: naming a tensor without which the architecture is unknown.
    """

    def sides(kind: str, index: int, ours: str) -> dict[str, int]:
        layer = Layer(kind, "", index, 4 << (index + 1) // 2, {})
        row = next(row for row in fmt.rows[kind] if row.ours == ours)
        name, axes = fmt.tensor_name(layer, row), row.layout.split()
        found = getattr(tensors.get(name), "shape", None)
        if found is None or len(found) != len(axes) or 0 in found:
            raise ValueError(f"tensor {name} has shape {found}, expected {len(axes)} dimensions")
        return {axis[-1]: n for axis, n in zip(axes, found, strict=True)}

    def present(kind: str, index: int) -> bool:
        layer = Layer(kind, "", index, 4 << (index + 1) // 2, {})
        return any(fmt.tensor_name(layer, row) in tensors for row in fmt.rows.get(kind, ()))

    def last(kind: str, indices: range) -> int:
        return max((index for index in indices if present(kind, index)), default=-1)

    # the last layer counts, so that a gap is found missing, and what follows it not unknown
    num_convs = 1 + max(last("conv", range(0, 41, 2)), last("conv_up", range(1, 41, 2)))
    w_dim, width_in = (sides("dense", 0, "kernel")[axis] for axis in "DZ")
    classes = sides("embed", 0, "kernel")["K"] if present("embed", 0) else 0
    widths = {"4": sides("constant", 0, "constant")["F"]}
    for up in range(1, num_convs, 2):
        widths[str(4 << (up + 1) // 2)] = sides("conv_up", up, "kernel")["F"]
    return {
        "name": "stylegan2",
        "resolution": 2 << len(widths),
        "z_dim": width_in - (w_dim if classes else 0),
        "w_dim": w_dim,
        "mapping_layers": 1 + last("dense", range(100)),
        "widths": widths,
        **({"num_classes": classes} if classes else {}),
    }


def _turned(rows: tuple[Row, ...]) -> tuple[Row, ...]:
    """Returns `rows` with kernels turned around: transposed convolutions use them so."""
    return tuple(
        dataclasses.replace(row, layout=row.layout.replace("Y X", "-Y -X")) for row in rows
    )


_CONSTANT = "constant", "Y X F"
_KERNEL = "kernel", "Y X C F"
_STYLE_KERNEL, _STYLE_BIAS = ("style/kernel", "D C"), ("style/bias", "C")
_BIAS, _STRENGTH, _MAP = ("bias", "F"), ("noise_strength", ""), ("map", "R S")
_DENSE = (Row("weight", "D Z", "kernel", "Z D"), Row("bias", "D", "bias", "D"))
_EMBED = (Row("weight", "D K", "kernel", "K D"), Row("bias", "D", "bias", "D"))


def _rosinality_name(layer: Layer) -> str:
    i = layer.index
    return {
        "dense": f"style.{i + 1}",
        "constant": "input",
        "noise": f"noises.noise_{i}",
        "conv": f"convs.{i - 1}" if i else "conv1",
        "conv_up": f"convs.{i - 1}",
        "rgb": "to_rgb1",
        "rgb_up": f"to_rgbs.{i // 2 - 1}",
    }.get(layer.kind, layer.kind)


_MODULATED = (
    Row("conv.weight", "1 F C Y X", *_KERNEL),
    Row("conv.modulation.weight", "C D", *_STYLE_KERNEL),
    Row("conv.modulation.bias", "C", *_STYLE_BIAS),
)
_CONV = (
    *_MODULATED,
    Row("noise.weight", "1", *_STRENGTH),
    Row("activate.bias", "F", *_BIAS),
)
_RGB = (Row("bias", "1 F 1 1", *_BIAS), *_MODULATED)
ROSINALITY = Format(
    name="rosinality/stylegan2-pytorch",
    rows={
        "dense": _DENSE,
        "constant": (Row("input", "1 F Y X", *_CONSTANT),),
        "noise": (Row("", "1 1 R S", *_MAP),),
        "conv": _CONV,
        "conv_up": (*_turned(_CONV), Row("conv.blur.kernel", "4 4", fixed=4 * FIR)),
        "rgb": _RGB,
        "rgb_up": (*_RGB, Row("upsample.kernel", "4 4", fixed=4 * FIR)),
    },
    layer_name=_rosinality_name,
    separator=".",
    mean="latent_avg",
    signature="input.input",
)


def _nvidia_name(layer: Layer) -> str:
    block = f"synthesis.b{layer.size}"
    conv = f"{block}.conv{1 - layer.index % 2}"
    return {
        "embed": "mapping.embed",
        "dense": f"mapping.fc{layer.index}",
        "noise": conv,
        "conv": conv,
        "conv_up": conv,
        "rgb": f"{block}.torgb",
        "rgb_up": f"{block}.torgb",
    }.get(layer.kind, block)


_AFFINE = (
    Row("weight", "F C Y X", *_KERNEL),
    Row("affine.weight", "C D", *_STYLE_KERNEL),
    Row("affine.bias", "C", *_STYLE_BIAS),
    Row("bias", "F", *_BIAS),
)
_FILTER = Row("resample_filter", "4 4", fixed=FIR)
_LAYER = (*_AFFINE, Row("noise_strength", "", *_STRENGTH), _FILTER)
NVIDIA = Format(
    name="NVlabs/stylegan2-ada-pytorch",
    rows={
        "embed": _EMBED,
        "dense": _DENSE,
        "constant": (Row("const", "F Y X", *_CONSTANT),),
        "block": (_FILTER,),
        "noise": (Row("noise_const", "R S", *_MAP),),
        "conv": _LAYER,
        "conv_up": _turned(_LAYER),
        "rgb": _AFFINE,
        "rgb_up": _AFFINE,
    },
    layer_name=_nvidia_name,
    separator=".",
    mean="mapping.w_avg",
    signature="synthesis.b4.const",
)


def _tensorflow_name(layer: Layer) -> str:
    block = f"synthesis/{layer.size}x{layer.size}"
    return {
        "embed": "mapping/LabelEmbed",
        "dense": f"mapping/Dense{layer.index}",
        "constant": f"{block}/Const",
        "noise": f"synthesis/noise{layer.index}",
        "conv": f"{block}/Conv1" if layer.index else f"{block}/Conv",
        "conv_up": f"{block}/Conv0_up",
        "rgb": f"{block}/ToRGB",
        "rgb_up": f"{block}/ToRGB",
    }.get(layer.kind, block)


_TENSORFLOW = (
    Row("weight", "Y X C F", *_KERNEL),  # turned around at run time, where it has to be
    Row("mod_weight", "D C", *_STYLE_KERNEL),
    Row("mod_bias", "C", *_STYLE_BIAS, offset=1.0),
    Row("bias", "F", *_BIAS),
)
_TENSORFLOW_CONV = (*_TENSORFLOW, Row("noise_strength", "", *_STRENGTH))
TENSORFLOW = Format(
    name="NVIDIA's TensorFlow StyleGAN2",
    rows={
        "embed": (Row("weight", "K D", "kernel", "K D"), Row("bias", "D", "bias", "D")),
        "dense": (Row("weight", "Z D", "kernel", "Z D"), Row("bias", "D", "bias", "D")),
        "constant": (Row("const", "1 F Y X", *_CONSTANT),),
        "noise": (Row("", "1 1 R S", *_MAP),),
        "conv": _TENSORFLOW_CONV,
        "conv_up": _TENSORFLOW_CONV,
        "rgb": _TENSORFLOW,
        "rgb_up": _TENSORFLOW,
    },
    layer_name=_tensorflow_name,
    separator="/",
    mean="dlatent_avg",
    signature="synthesis/4x4/Const/const",
    unused=frozenset({"lod"}),  # the level of progressive growing, which came before
)

FORMATS = (ROSINALITY, NVIDIA, TENSORFLOW)
