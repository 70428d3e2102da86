"""Masks from COCO's JSON, as annotation tools export it.

The file may come from anyone: sizes are checked before memory is asked for, and no path in it is
opened. pycocotools is not used, for damaged runs or points make it end the process.
"""

import collections
import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from repgan_jax.data import shapes
from repgan_jax.errors import UserError
from repgan_jax.palette import IGNORE, Palette

_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before names of files


def read_masks(
    path: str | Path, palette: Palette, *, background: str = ""
) -> dict[str, Callable[[], np.ndarray]]:
    """Returns functions that draw int32 ids [H, W], 255 = ignore, by the stem of the picture.

    Annotations are drawn in the file's order, the later over the earlier: polygons with their
    outlines, as labelme's are, and run-length masks, compressed or not. Boxes and `iscrowd` mean
    nothing. The category `__ignore__` gives 255. A picture that Label Studio named
    anew (`0123abcd-NAME.png`) is also found as NAME.

    Args:
        path: the JSON file.
        palette: the classes; categories are matched by name.
        background: name of the class of pixels that no annotation covers; see
            `shapes.find_background`.

    Raises:
        UserError: not a COCO file, two pictures of one name, an annotation of an image or category
            that the file does not list, or an unknown category in use; from the functions, a
            segmentation that cannot be drawn, or undrawn pixels where there is no background.
    """
    pictures = _read_pictures(Path(path))
    ids = {name: k for k, name in enumerate(palette.names)} | {shapes.IGNORED: IGNORE}
    masks: dict[str, Callable[[], np.ndarray]] = {}
    known = shapes.find_background(palette, background)
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
        draw = functools.partial(_draw, path, picture, ids)
        masks[picture.stem] = functools.partial(_fill, draw, palette, known, path)
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
                shapes.expect_size(image["file_name"], image["height"], image["width"]),
                [],
            )
            for image in document["images"]
        }
        for annotation in document["annotations"]:
            _add(path, annotation, names, pictures)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"{path}: not a COCO file ({type(error).__name__}: {error}); expected images, "
            "categories, and annotations with a segmentation: export it again"
        ) from error
    return list(pictures.values())


def _add(
    path: Path,
    annotation: Mapping[str, Any],
    names: Mapping[Any, str],
    pictures: Mapping[Any, _Picture],
) -> None:
    """Adds an annotation to its picture."""
    image, category = annotation["image_id"], annotation["category_id"]
    for kind, wanted, known in (("image", image, pictures), ("category", category, names)):
        if wanted not in known:
            raise UserError(
                f"{path}: an annotation (id {annotation.get('id')}) has the {kind}_id {wanted!r}, "
                f"which the file does not list; remove that annotation, or export the file again"
            )
    pictures[image].shapes.append((names[category], annotation["segmentation"]))


def _fill(
    draw: Callable[[], np.ndarray], palette: Palette, background: int | None, path: str | Path
) -> np.ndarray:
    return shapes.fill_undrawn(draw(), palette, background, path)


def _draw(path: str | Path, picture: _Picture, ids: Mapping[str, int]) -> np.ndarray:
    """Returns int32 ids [H, W], `shapes.UNDRAWN` where nothing is drawn."""
    mask = np.full(picture.size, shapes.UNDRAWN, np.int32)
    for name, shape in picture.shapes:
        draw = _draw_runs if isinstance(shape, Mapping) else shapes.draw_polygons
        try:
            mask[draw(shape, picture.size)] = ids[name]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise UserError(
                f"{path}: {name!r} in {picture.stem!r} cannot be drawn ({error}); expected "
                "polygons, or run lengths with counts and size: draw it again"
            ) from error
    return mask


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
    runs, value, shift = list[int](), 0, 0
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
