"""Photos as latent optimisation wants them: square, and framed as the generator's pictures are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repgan_jax import align
from repgan_jax.errors import UserError
from repgan_jax.io import images, landmarks, listing, masks
from repgan_jax.palette import IGNORE

Squares = Mapping[str, align.Square]  # by file name


@dataclass(frozen=True, eq=False)
class Framed:
    """A photo's square.

    Attributes:
        photo: uint8 [S, S, 3].
        square: where in the file's picture it lies.
        shape: height and width of that picture.
    """

    photo: np.ndarray
    square: align.Square
    shape: tuple[int, int]

    def cut(self, mask: np.ndarray, size: int, num_classes: int) -> np.ndarray:
        """Returns int32 ids [size, size]: the square of `mask` [H, W]; 255 outside of the photo."""
        cell = max(round(self.square.side / size), 1)  # pixels a side that vote for an id
        ids = align.extract_ids(mask, self.square, size * cell, outside=IGNORE)
        return masks.resize_mask(ids, size, num_classes)

    def restore(self, mask: np.ndarray) -> np.ndarray:
        """Returns int32 ids `shape`: `mask` [M, M] of the square; 255 in the rest of the photo."""
        return align.restore(mask, self.square, self.shape, outside=IGNORE)


def read_photos(path: str | Path, size: int, faces: str | Path = "") -> dict[str, Framed]:
    """Returns the photo, or the photos of the folder, at `path` by file stem.

    Args:
        path: a photo or a folder of photos.
        size: see `read_photo`.
        faces: see `read_squares`.

    Raises:
        UserError: what `read_photo` refuses; two photos of one stem.
    """
    photos, squares = {}, read_squares(faces)
    for file in listing.find_photos(path).files.values():
        if file.stem in photos:
            raise UserError(f"{file}: another photo is named {file.stem!r} too; rename one")
        photos[file.stem] = read_photo(file, size, squares)
    return photos


def read_squares(faces: str | Path) -> Squares | None:
    """Returns the squares in the file of landmarks or boxes `faces`, None where that is ""."""
    return landmarks.read_squares(faces) if faces else None


def read_photo(file: Path, size: int, squares: Squares | None = None) -> Framed:
    """Returns the photo `file`; says what it changes beside the size.

    Args:
        file: of the photo.
        size: S, pixels a side of the result.
        squares: by which photos are framed; without, the centre square is taken.

    Raises:
        UserError: a photo that cannot be read, is too small, or is not in `squares`.
    """
    photo, notes = images.read_photo_and_notes(file)
    height, width, _ = photo.shape
    side = min(height, width)
    if side < size:
        raise UserError(
            f"{file}: {width}x{height} pixels (width x height), expected at least {size} a "
            "side; use a larger photo or remove it"
        )
    for note in notes:
        _say(file, note)
    if squares is not None:
        return _align(file, photo, squares, size)
    if height != width:
        _say(file, f"{width}x{height} pixels, its centre square is taken")
    top, left = (height - side) // 2, (width - side) // 2
    centre = photo[top : top + side, left : left + side]
    square = align.Square((left + side / 2, top + side / 2), (side / 2, 0.0))
    return Framed(images.resize_area(centre, size), square, (height, width))


def _align(file: Path, photo: np.ndarray, squares: Squares, size: int) -> Framed:
    """Returns the face in `photo` as FFHQ frames it."""
    if file.name not in squares:
        raise UserError(
            f"{file}: config.invert.landmarks has nothing on {file.name}; "
            "add its landmarks or box, or remove the photo"
        )
    square = squares[file.name]
    try:
        return Framed(align.extract(photo, square, size), square, photo.shape[:2])
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _say(file: Path, text: str) -> None:
    print(f"photo {file.name}: {text}", flush=True)
