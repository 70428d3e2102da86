"""Masks from labelme's JSON, one file per image."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repgan_jax.data import shapes
from repgan_jax.errors import UserError
from repgan_jax.palette import IGNORE, Palette

_DRAW = {  # by shape type and number of points
    ("rectangle", 2): shapes.draw_rectangle,
    ("circle", 2): shapes.draw_circle,
    ("rectangle", 4): lambda points, size: shapes.draw_polygons([points], size),  # by its corners
}


def read_mask(
    path: str | Path,
    palette: Palette,
    size: tuple[int, int] | None = None,
    *,
    background: str = "",
) -> np.ndarray:
    """Returns int32 ids [H, W], 255 = ignore, drawn from the shapes of a labelme file.

    Later shapes cover earlier ones. Polygons are drawn with their outlines, as rectangles and
    circles are; masks are those that labelme's models draw. Old versions wrote files without
    `shape_type`, which are polygons, and without a size.

    Args:
        path: the JSON file.
        palette: the classes; labels are matched by name, `__ignore__` is 255.
        size: height and width of the image, for files that state none.
        background: name of the class of pixels that no shape covers; see
            `shapes.find_background`.

    Raises:
        UserError: not a labelme file, an unknown label, another kind of shape, one that cannot be
            drawn, or undrawn pixels where there is no background.
    """
    size, drawn = _read_shapes(Path(path), size)
    mask = np.full(size, shapes.UNDRAWN, np.int32)
    ids = {name: k for k, name in enumerate(palette.names)} | {shapes.IGNORED: IGNORE}
    for shape in drawn:
        if (label := shape.label) not in ids:
            raise UserError(f"{path}: unknown label {label!r}; expected {', '.join(palette.names)}")
        mask[_draw(path, shape, size)] = ids[label]
    known = shapes.find_background(palette, background)
    return shapes.fill_undrawn(mask, palette, known, path)


@dataclass(frozen=True)
class _Shape:
    label: str
    kind: str
    points: list[float]  # x, y, x, y, ...
    bits: str  # of a mask: a picture in base64


def _read_shapes(path: Path, size: tuple[int, int] | None) -> tuple[tuple[int, int], list[_Shape]]:
    """Returns the size (height, width) and the shapes, as yet unchecked."""
    try:
        document = json.loads(path.read_bytes())  # UTF-8, with or without a byte order mark
        stated = document.get("imageHeight"), document.get("imageWidth")
        if stated != (None, None) or not size:
            size = shapes.expect_size("it", *stated)
        return size, [_shape(shape) for shape in document["shapes"]]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (
        *(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError),
    ) as error:
        raise UserError(
            f"{path}: not a labelme file ({type(error).__name__}: {error}); "
            "expected imageWidth, imageHeight and shapes: save it again with labelme"
        ) from error


def _shape(shape: Any) -> _Shape:
    points = [float(number) for x, y in shape["points"] for number in (x, y)]
    kind = str(shape.get("shape_type") or "polygon")
    return _Shape(str(shape["label"]), kind, points, str(shape.get("mask") or ""))


def _draw(path: str | Path, shape: _Shape, size: tuple[int, int]) -> np.ndarray:
    """Returns bool [H, W] of one shape."""
    kind, points, count = shape.kind, shape.points, len(shape.points) // 2
    try:
        if (kind, count) in _DRAW:
            return _DRAW[kind, count](points, size)
        if kind == "polygon" and count >= 3:
            return shapes.draw_polygons([points], size)
        if kind == "mask" and count == 2:
            return shapes.draw_bits(shape.bits, points, size)
    except ValueError as error:
        raise UserError(
            f"{path}: {shape.label!r} cannot be drawn ({error}); draw it again"
        ) from error
    raise UserError(
        f"{path}: {shape.label!r} is a {kind} of {count} points, which covers no area; "
        "draw a polygon, a rectangle or a circle instead"
    )
