"""Converts the checkpoints of MobileStyleGAN's own code, bes-dev/MobileStyleGAN.pytorch.

Such a file, of PyTorch Lightning or a plain state dict, holds the generator as `student.`, the
mapping of its teacher as `mapping_net.`, the mean latent as `style_mean`, and what training needs
beside these. Its demodulation depends on no latent (section 3.4 of the paper, arXiv 2104.04767):
here it is multiplied into the kernels, once.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from repgan_jax.errors import UserError

from .command import mean_latent
from .layouts import Row, check_names, floats, shape, to_ours

_GENERATOR = ("student.", "mapping_net.")
_TRAINING = ("synthesis_net.", "loss.", "inception.")  # teacher, losses, evaluation
_MEAN = "style_mean"
_DEVICE = ("device_info", "student.device_info")  # remembers where to compute
_EPSILON = 1e-8
_LOW, _HIGH = np.sqrt(0.5) * np.array([[[1], [1]], [[1], [-1]]])  # the Haar wavelet

# F and C channels out and in, D width of w, Y and X sides of a kernel, V and U of a 1x1 kernel
_DENSE = (Row("weight", "D Z", "kernel", "Z D"), Row("bias", "D", "bias", "D"))
_CONSTANT = (Row("input", "1 F R S", "constant", "R S F"),)
_UP = (
    Row("modulation.weight", "C D", "kernel", "D C"),
    Row("modulation.bias", "C", "bias", "C"),
)
_STYLED = (
    Row("conv.modulation.weight", "C D", "style/kernel", "D C"),
    Row("conv.modulation.bias", "C", "style/bias", "C"),
    Row("conv.style_inv", "1 1 C 1 1", "style_inv", "C"),
    Row("noise.weight", "1", "noise_strength"),
    Row("bias", "1 F 1 1", "bias", "F"),
)
_FULL = (*_STYLED, Row("conv.weight", "F C Y X", "kernel", "Y X C F"))
_SEPARABLE = (
    *_STYLED,
    Row("conv.weight_dw", "C 1 Y X", "depthwise", "Y X C"),
    Row("conv.weight_permute", "F C V U", "kernel", "V U C F"),
)
_PICTURE = (
    Row("conv.modulation.weight", "C D", "style_rgb/kernel", "D C"),
    Row("conv.modulation.bias", "C", "style_rgb/bias", "C"),
    Row("conv.weight", "F C 1 1", "kernel_rgb", "C F"),
    Row("bias", "1 F 1 1", "bias_rgb", "F"),
)
_COARSE = tuple(dataclasses.replace(row, ours=None) for row in _PICTURE)  # for the losses only
_WAVELET = (
    Row("g0_col", "1 1 2 1", fixed=_LOW),
    Row("g1_col", "1 1 2 1", fixed=_HIGH),
    Row("g0_row", "1 1 1 2", fixed=_LOW.T),
    Row("g1_row", "1 1 1 2", fixed=_HIGH.T),
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What becomes of one tensor.

    Attributes:
        name: in the checkpoint.
        row: its layout there, and its name and layout in our layer.
        ours: path of our layer.
        sides: length of each axis, by letter.
    """

    name: str
    row: Row
    ours: str
    sides: Mapping[str, int]


def rules(architecture: Mapping[str, Any]) -> Iterator[Rule]:
    """Yields the rule for every tensor that a generator of `architecture` has."""
    w_dim = architecture["w_dim"]

    def layer(table: tuple[Row, ...], theirs: str, ours: str = "", **sides: int) -> Iterator[Rule]:
        sides |= {"D": w_dim, "Y": 3, "X": 3, "V": 1, "U": 1}
        yield from (Rule(f"{theirs}.{row.name}", row, ours, sides) for row in table)

    for i in range(architecture["mapping_layers"]):
        yield from layer(
            _DENSE, f"mapping_net.layers.{i + 1}", f"mapping/params/dense_{i}", Z=w_dim
        )
    params, (before, *widths) = "synthesis/params", architecture["widths"].values()
    yield from layer(_CONSTANT, "student.input", params, F=before, R=4, S=4)
    yield from layer(_FULL, "student.conv1", f"{params}/conv_00", C=before, F=before)
    yield from layer(_COARSE, "student.to_img1", C=before, F=12)
    for block, width in enumerate(widths):
        theirs, last = f"student.layers.{block}", block == len(widths) - 1
        yield from layer(_UP, f"{theirs}.up", f"{params}/up_{block:02d}", C=before)
        yield from layer(_WAVELET, f"{theirs}.up.idwt")
        channels = before // 4  # the wavelet spends three quarters of the channels on details
        for half in (1, 2):
            ours = f"{params}/conv_{2 * block + half:02d}"
            yield from layer(_SEPARABLE, f"{theirs}.conv{half}", ours, C=channels, F=width)
            channels = width
        rows = _PICTURE if last else _COARSE
        yield from layer(rows, f"{theirs}.to_img", params, C=width, F=12)
        before = width
    yield from layer(_WAVELET, "student.idwt")


def convert(state: Any, path: str = "checkpoint") -> tuple[dict, dict]:
    """Returns (architecture, variables) of the generator in a checkpoint.

    Noise maps are not stored in such a file; they are drawn, from a fixed seed.

    Args:
        state: what `torch_file.read` returns.
        path: of the checkpoint, for messages.

    Raises:
        UserError: naming the tensors that are missing, unknown, or of another shape.
    """
    state = state.get("state_dict", state) if isinstance(state, Mapping) else {}
    state = {str(k): v for k, v in state.items()} if isinstance(state, Mapping) else {}
    tensors = {name: value for name, value in state.items() if name.startswith(_GENERATOR)}
    architecture = infer(tensors, path)
    table = {rule.name: rule for rule in rules(architecture)}
    optional = {*_DEVICE, _MEAN}
    found = {name for name in state if not name.startswith(_TRAINING)}
    check_names(found, table.keys() | optional, optional, path)
    flat, rng = {}, np.random.default_rng(0)
    for name, rule in table.items():
        tensor = floats(tensors[name], shape(rule.row.layout, rule.sides), name, path)
        if rule.row.ours is not None:
            flat[f"{rule.ours}/{rule.row.ours}"] = to_ours(tensor, rule.row)
        elif rule.row.fixed is not None and not np.allclose(tensor, rule.row.fixed):
            raise UserError(f"{path}: filter {name} is not of the Haar wavelet, the only one known")
    variables = traverse_util.unflatten_dict(flat, sep="/")
    params, noise = variables["synthesis"]["params"], {}
    for index in range(2 * len(architecture["widths"]) - 1):
        name, size = f"conv_{index:02d}", 4 << (index + 1) // 2
        params[name] = fold_demodulation(**params[name])
        noise[name] = {"map": rng.normal(size=(size, size)).astype(np.float32)}
    variables["synthesis"]["noise"] = noise
    if _MEAN in state:  # of W+, the same in every layer
        layers = 3 * len(architecture["widths"]) - 1
        mean = floats(state[_MEAN], (1, layers, architecture["w_dim"]), _MEAN, path)[0, 0]
    else:
        mean = mean_latent(architecture, variables)
    return architecture, {**variables, "mean_latent": mean}


def fold_demodulation(*, style_inv: np.ndarray, kernel: np.ndarray, **rest: Any) -> dict[str, Any]:
    """Returns the parameters of a styled convolution, its `kernel` [h, w, C, F] demodulated.

    Args:
        style_inv: [C], what stands for the style in the norm, whatever the latent.
        kernel: [h, w, C, F]; of a separable convolution, the 1x1 one.
        **rest: the other parameters; `depthwise` [3, 3, C] counts in the norm.
    """
    full = kernel * rest["depthwise"][..., None] if "depthwise" in rest else kernel
    fan_in = full[..., 0].size
    squares = np.square(full * style_inv[:, None], dtype=np.float64)  # thousands to add up
    norm = np.sqrt(squares.sum((0, 1, 2)) / fan_in + _EPSILON)
    return {**rest, "kernel": np.float32(kernel / norm)}


def infer(tensors: Mapping[str, np.ndarray], path: str) -> dict[str, Any]:
    """Returns the architecture that names and shapes state; wrong where tensors are missing.

    Raises:
        UserError: naming a tensor without which the architecture is unknown.
    """

    def side(name: str, axis: int) -> int:
        found = getattr(tensors.get(name), "shape", ())
        if len(found) <= axis:
            raise UserError(
                f"{path}: tensor {name} is missing or has shape {found}; expected a checkpoint of "
                "bes-dev/MobileStyleGAN.pytorch, with student. and mapping_net."
            )
        return found[axis]

    def last(pattern: str) -> int:
        found = (re.match(pattern, name) for name in tensors)
        return max((int(match[1]) for match in found if match), default=0)

    widths = {"4": side("student.conv1.bias", 1)}
    for block in range(last(r"student\.layers\.(\d{1,3})\.") + 1):
        widths[str(8 << block)] = side(f"student.layers.{block}.conv2.bias", 1)
    w_dim = side("mapping_net.layers.1.weight", 0)
    return {
        "name": "mobilestylegan",
        "resolution": 4 << len(widths),
        "z_dim": w_dim,
        "w_dim": w_dim,
        "mapping_layers": last(r"mapping_net\.layers\.(\d{1,3})\."),
        "widths": widths,
    }
