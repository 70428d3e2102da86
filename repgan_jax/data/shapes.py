"""What mask formats that are drawn shape by shape share: polygons, sizes, undrawn pixels."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from repgan_jax.errors import UserError
from repgan_jax.palette import Palette

IGNORED = "__ignore__"  # label of pixels that are ignored, in labelme's files and in ours
UNDRAWN = -1  # id of pixels that no shape covers, until `fill_undrawn`
_MAX_PIXELS = 1 << 27  # 16384 x 8192

# Names of a background class, as `_plain` writes them.
_BACKGROUNDS = frozenset((
    "background", "bg", "unlabelled", "unlabeled", "void", "none", "nothing", "hintergrund",
    "fond", "arriereplan", "arrièreplan", "fondo", "sfondo", "achtergrond", "fundo", "tło",
    "bakgrund", "bakgrunn", "baggrund", "tausta", "pozadí", "háttér", "arkaplan", "фон", "背景",
    "배경",
))  # fmt: skip


def find_background(palette: Palette, name: str = "") -> int | None:
    """Returns the id of the background, or None where no class is known to be that.

    It is the class called `name`. Without, the first class if its name says so, or the only one
    whose name does.

    Raises:
        UserError: no class is called `name`.
    """
    if name:
        try:
            return palette.index(name)
        except UserError as error:
            raise UserError(f"config.background: {error}") from error
    known = [k for k, other in enumerate(palette.names) if _plain(other) in _BACKGROUNDS]
    return known[0] if known and (known[0] == 0 or len(known) == 1) else None


def fill_undrawn(
    mask: np.ndarray, palette: Palette, background: int | None, path: str | Path
) -> np.ndarray:
    """Returns int32 ids [H, W]: `mask`, with the pixels that no shape covers as `background`.

    Raises:
        UserError: there are such pixels, and no class is known to be the background.
    """
    undrawn = mask == UNDRAWN
    if background is None and undrawn.any():
        raise UserError(
            f"{path}: no shape covers {undrawn.sum()} of {mask.size} pixels, and none of the "
            f"classes is known to be the background ({', '.join(palette.names)}); name one by "
            "config.background, or add a first line 'background' to the class list"
        )
    return np.where(undrawn, background or 0, mask).astype(np.int32)


def expect_size(name: str, height: Any, width: Any) -> tuple[int, int]:
    """Returns (height, width); raises ValueError unless image `name` can be as large."""
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise ValueError(f"{name} has the size {width}x{height}")
    if height * width > _MAX_PIXELS:
        raise ValueError(f"{name} has more than {_MAX_PIXELS} pixels")
    return height, width


def draw_polygons(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """Returns bool [H, W], true in the polygons [x, y, x, y, ...] and on their outlines.

    Raises:
        ValueError: no polygon, or one of too few, too distant or odd numbers.
    """
    canvas = Image.new("1", size[::-1])
    draw = ImageDraw.Draw(canvas)
    if not polygons:
        raise ValueError("it has no polygon; a box is not enough")
    for polygon in polygons:
        points = _expect_points(polygon, size)
        if len(points) < 6:
            raise ValueError(f"{len(points)} numbers make no polygon")
        draw.polygon(points, fill=1)
        draw.line([*points, *points[:2]], fill=1)
    return np.asarray(canvas)


def draw_rectangle(corners: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Returns bool [H, W], true between two opposite `corners` [x, y, x, y], which it includes."""
    left, top, right, bottom = _expect_points(corners, size)
    return draw_polygons([[left, top, right, top, right, bottom, left, bottom]], size)


def draw_circle(points: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Returns bool [H, W], true in the circle given by its centre and a point on it."""
    x, y, *edge = _expect_points(points, size)
    radius = float(np.hypot(edge[0] - x, edge[1] - y))
    canvas = Image.new("1", size[::-1])
    ImageDraw.Draw(canvas).ellipse([x - radius, y - radius, x + radius, y + radius], fill=1)
    return np.asarray(canvas)


def draw_bits(data: str, corners: Sequence[float], size: tuple[int, int]) -> np.ndarray:
    """Returns bool [H, W], true where a small picture between two corners is not 0.

    Args:
        data: the picture, in base64.
        corners: [x, y, x, y] of its first and last pixel; what lies outside of the mask is cut off.
        size: height and width of the mask.

    Raises:
        ValueError: not a picture of that size.
    """
    left, top, right, bottom = map(int, _expect_points(corners, size))
    try:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            if image.size != (right - left + 1, bottom - top + 1):
                raise ValueError(f"its picture of {image.size} pixels does not fit its corners")
            bits = np.asarray(image.convert("L")) > 0
    except (OSError, SyntaxError) as error:  # what Pillow raises on damage
        raise ValueError("its picture cannot be read") from error
    mask = np.zeros(size, bool)
    inside = mask[max(top, 0) : bottom + 1, max(left, 0) : right + 1]
    skipped = max(-top, 0), max(-left, 0)
    inside[:] = bits[skipped[0] :, skipped[1] :][: inside.shape[0], : inside.shape[1]]
    return mask


def _expect_points(numbers: Sequence[float], size: tuple[int, int]) -> list[float]:
    """Returns `numbers` x, y, x, y, ...; raises ValueError where they cannot be in an image."""
    found = np.asarray(numbers, np.float64)
    if found.ndim != 1 or found.size % 2:
        raise ValueError(f"{found.size} numbers are no points")
    if not (np.abs(found) <= 2 * max(size)).all():  # not a number, among others
        raise ValueError("it has points far outside of the image")
    return found.tolist()


def _plain(name: str) -> str:
    """Returns `name` in lower case, letters and digits alone."""
    return "".join(character for character in name.casefold() if character.isalnum())
