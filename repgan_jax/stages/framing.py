"""Photos as stage `invert` wants them: square, and framed as the generator's pictures are."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from repgan_jax import align
from repgan_jax.errors import UserError
from repgan_jax.io import images, landmarks


def read_photos(path: str | Path, size: int, faces: str | Path = "") -> dict[str, np.ndarray]:
    """Returns uint8 [size, size, 3] by file stem: photos, reduced; says what else it changes.

    Args:
        path: a photo or a folder of photos.
        size: pixels a side.
        faces: file with landmarks or boxes, by which photos are framed (see `landmarks`); without,
            a photo's centre square is taken.

    Raises:
        UserError: a photo that cannot be read, is too small, shares its stem with another, or is
            not in `faces`.
    """
    photos, squares = {}, landmarks.read_squares(faces) if faces else None
    for file in images.find_photos(path):
        mode, photo = images.open_picture(file).mode, images.read_photo(file)
        height, width, _ = photo.shape
        side = min(height, width)
        if side < size:
            raise UserError(
                f"{file}: {width}x{height} pixels (width x height), expected at least {size} a "
                "side; use a larger photo or remove it"
            )
        if file.stem in photos:
            raise UserError(f"{file}: another photo is named {file.stem!r} too; rename one")
        if mode != "RGB":
            print(f"invert: {file.name}: its mode is {mode}, it is taken as RGB", flush=True)
        if squares is not None:
            photos[file.stem] = _align(file, photo, squares, size, faces)
            continue
        if height != width:
            print(
                f"invert: {file.name}: {width}x{height} pixels, its centre square is taken",
                flush=True,
            )
        top, left = (height - side) // 2, (width - side) // 2
        square = photo[top : top + side, left : left + side]
        photos[file.stem] = images.resize_area(square, size)
    return photos


def _align(
    file: Path,
    photo: np.ndarray,
    squares: Mapping[str, align.Square],
    size: int,
    faces: str | Path,
) -> np.ndarray:
    """Returns the face in `photo` as FFHQ frames it, uint8 [size, size, 3]."""
    if file.name not in squares:
        raise UserError(f"{faces}: nothing on {file.name}; add its landmarks or box, or remove it")
    try:
        return align.extract(photo, squares[file.name], size)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
