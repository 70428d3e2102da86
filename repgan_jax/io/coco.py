"""Masks from COCO's JSON, as annotation tools export it.

The file may come from anyone: sizes are checked before memory is asked for, and no path in it is
opened. pycocotools is not used, for damaged runs or points make it end the process.
"""

import collections
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from repgan_jax.errors import UserError
from repgan_jax.palette import IGNORE, Palette

_IGNORED = "__ignore__"  # the category of pixels that count nowhere, as in labelme's files
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before names of files
_MAX_PIXELS = 1 << 27  # 16384 x 8192


def read_masks(path: str | Path, palette: Palette) -> dict[str, Callable[[], np.ndarray]]:
    """Returns functions that draw int32 ids [H, W], 255 = ignore, by the stem of the picture.

    Annotations are drawn in the file's order, the later over the earlier, on background: polygons
    with their outlines, as labelme's are, and run-length masks, compressed or not. Boxes and
    `iscrowd` mean nothing. The category `__ignore__` gives 255. A picture that Label Studio named
    anew (`0123abcd-NAME.png`) is also found as NAME.

    Args:
        path: the JSON file.
        palette: the classes; categories are matched by name.

    Raises:
        UserError: not a COCO file, two pictures of one name, or an unknown category in use; from
            the functions, a segmentation that cannot be drawn.
    """
    pictures = _read_pictures(Path(path))
    ids = {name: k for k, name in enumerate(palette.names)} | {_IGNORED: IGNORE}
    masks = {}
    for picture in pictures:
        for name, _ in picture.shapes:
            if name not in ids:
                raise UserError(
                    f"{path}: unknown category {name!r}; expected {', '.join(palette.names)}"
                )
        if picture.stem in masks:
            raise UserError(
                f"{path}: two pictures are named {picture.stem!r}; rename one, or remove one"
            )
        masks[picture.stem] = functools.partial(_draw, path, picture, ids)
    plain = {stem: _UPLOADED.sub("", stem) for stem in masks}
    count = collections.Counter(plain.values())
    return {plain[s]: draw for s, draw in masks.items() if count[plain[s]] == 1} | masks


@dataclass(frozen=True)
class _Picture:
    stem: str
    size: tuple[int, int]  # height, width
    shapes: list[tuple[str, Any]]  # category, segmentation


def _read_pictures(path: Path) -> list[_Picture]:
    """Returns the pictures in the file; their segmentations are as yet unchecked."""
    try:
        document = json.loads(path.read_bytes())
        names = {category["id"]: str(category["name"]) for category in document["categories"]}
        pictures = {
            image["id"]: _Picture(
                PureWindowsPath(image["file_name"]).stem,
                expect_size(image["file_name"], image["height"], image["width"]),
                [],
            )
            for image in document["images"]
        }
        for annotation in document["annotations"]:
            shape = names[annotation["category_id"]], annotation["segmentation"]
            pictures[annotation["image_id"]].shapes.append(shape)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: not a COCO file ({type(error).__name__}: {error}); expected images, "
            "categories, and annotations with a segmentation: export it again"
        ) from error
    return list(pictures.values())


def expect_size(name: str, height: Any, width: Any) -> tuple[int, int]:
    """Returns (height, width); raises ValueError unless picture `name` can be as large."""
    if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
        raise ValueError(f"{name} has the size {width}x{height}")
    if height * width > _MAX_PIXELS:
        raise ValueError(f"{name} has more than {_MAX_PIXELS} pixels")
    return height, width


def _draw(path: str | Path, picture: _Picture, ids: Mapping[str, int]) -> np.ndarray:
    """Returns int32 ids [H, W]."""
    mask = np.zeros(picture.size, np.int32)
    for name, shape in picture.shapes:
        draw = _draw_runs if isinstance(shape, Mapping) else draw_polygons
        try:
            mask[draw(shape, picture.size)] = ids[name]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise UserError(
                f"{path}: {name!r} in {picture.stem!r} cannot be drawn ({error}); expected "
                "polygons, or run lengths with counts and size: draw it again"
            ) from error
    return mask


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
        numbers = np.asarray(polygon, np.float64)
        if numbers.ndim != 1 or numbers.size < 6 or numbers.size % 2:
            raise ValueError(f"{numbers.size} numbers make no polygon")
        if not (np.abs(numbers) <= 2 * max(size)).all():  # not a number, among others
            raise ValueError("it has points far outside of the picture")
        points = numbers.tolist()
        draw.polygon(points, fill=1)
        draw.line([*points, *points[:2]], fill=1)
    return np.asarray(canvas)


def _draw_runs(shape: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Returns bool [H, W] of run lengths down the columns: pixels outside, inside, outside, ..."""
    if shape["size"] != list(size):
        raise ValueError(f"size {shape['size']}; its picture has {list(size)}")
    counts = shape["counts"]
    runs = np.asarray(_decompress(counts) if isinstance(counts, str) else counts)
    pixels = size[0] * size[1]
    if runs.ndim != 1 or runs.dtype.kind != "i" or runs.min() < 0 or runs.max() > pixels:
        raise ValueError("damaged counts")
    if runs.sum() != pixels:
        raise ValueError(f"counts of {runs.sum()} pixels; its picture has {pixels}")
    inside = np.arange(runs.size) % 2 == 1
    return np.repeat(inside, runs).reshape(size[::-1]).T


def _decompress(text: str) -> list[int]:
    """Returns the run lengths in a string: six bits a character, from chr(48) on.

    Five are digits, the lowest first, and the sixth says that more follow; the last digit's
    highest bit is the sign. From the fourth number on, what the last but one had is left out.
    """
    runs, value, shift = [], 0, 0
    for character in text.encode("ascii"):
        digit = character - 48
        if not 0 <= digit < 64 or shift > 30:
            raise ValueError("damaged counts")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("counts that end too early")
    return runs
