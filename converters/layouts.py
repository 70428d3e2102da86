"""How the axes of a tensor lie in a source, and in ours.

A layout names them, so that one line says what has to happen, and how to undo it: "1 F C -Y -X" to
"Y X C F" drops the first axis, turns the kernel around, and puts channels last.
"""

import dataclasses
from collections.abc import Mapping, Set
from typing import Any

import jax.numpy as jnp
import numpy as np

from repgan_jax.errors import UserError

from .pytorch_files.plain_data import listed, shown


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of a kind of layer.

    Attributes:
        name: in the layer of the source.
        layout: there.
        ours: path in our layer; None for what `ops` has built in.
        our_layout: the axes in our order; "" for a scalar.
        offset: added to the source's values.
        fixed: what a tensor that is not ours must hold; None for anything.
    """

    name: str
    layout: str
    ours: str | None = None
    our_layout: str = ""
    offset: float = 0.0
    fixed: np.ndarray | None = None


def shape(layout: str, sides: Mapping[str, int]) -> tuple[int, ...]:
    """Returns the shape of a tensor with this layout."""
    return tuple(int(axis) if axis.isdigit() else sides[axis[-1]] for axis in layout.split())


def to_ours(x: np.ndarray, row: Row) -> np.ndarray:
    """Returns `x`, in the source's layout, in ours."""
    axes = [axis for axis in row.layout.split() if axis != "1"]
    x = x.reshape([n for n, axis in zip(x.shape, row.layout.split(), strict=True) if axis != "1"])
    x = np.flip(x, tuple(i for i, axis in enumerate(axes) if axis.startswith("-")))
    letters = [axis[-1] for axis in axes]
    x = x.transpose([letters.index(letter) for letter in row.our_layout.split()])
    return np.array(x + np.float32(row.offset) if row.offset else x, np.float32, order="C")


def to_theirs(x: np.ndarray, row: Row) -> np.ndarray:
    """Returns `x`, in our layout, in the source's: the inverse of `to_ours`, bit for bit."""
    axes = [axis for axis in row.layout.split() if axis != "1"]
    letters = row.our_layout.split()
    x = x.transpose([letters.index(axis[-1]) for axis in axes])
    x = np.flip(x, tuple(i for i, axis in enumerate(axes) if axis.startswith("-")))
    sizes = iter(x.shape)
    x = x.reshape([1 if axis == "1" else next(sizes) for axis in row.layout.split()])
    return np.array(x - np.float32(row.offset) if row.offset else x, np.float32, order="C")


def check_names(found: Set[str], expected: Set[str], optional: Set[str], path: str) -> None:
    """Raises UserError, naming the file `path`, unless what is found is what is expected."""
    for what, names in (("missing", expected - found - optional), ("unknown", found - expected)):
        if names:
            raise UserError(f"{path}: {what} tensors, nothing converted: {listed(names)}")


def floats(value: Any, expected: tuple[int, ...], name: str, path: str) -> np.ndarray:
    """Returns `value`, the tensor `name` of the file `path`, as float32.

    Raises:
        UserError: it has another shape than expected, or holds anything but finite numbers.
    """
    found, tensor = getattr(value, "shape", None), f"{path}: tensor {shown(name)}"
    if found != expected:
        raise UserError(f"{tensor} has shape {found}, expected {expected}")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise UserError(f"{tensor} has type {value.dtype}, expected floats")
    value = np.asarray(value, np.float32)
    if not np.isfinite(value).all():
        raise UserError(f"{tensor} has infinite numbers or NaN")
    return value
