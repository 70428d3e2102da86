"""Photos as latent optimisation wants them: square, and framed as the generator's pictures are."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from repgan_jax.data import masks
from repgan_jax.errors import UserError
from repgan_jax.inversion import alignment as align
from repgan_jax.inversion import landmarks
from repgan_jax.io import images, listing
from repgan_jax.palette import IGNORE

Squares = Mapping[str, align.Square]  # by file name or relative path


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


def read_photos(photos: listing.Photos, size: int, faces: str | Path = "") -> dict[str, Framed]:
    """Returns the photos by the names of their results, see `listing.result_names`.

    Args:
        photos: what was found.
        size: see `read_photo`.
        faces: see `read_squares`.

    Raises:
        UserError: what `read_photo` or `assign` refuses.
    """
    squares = assign(read_squares(faces), photos.files)
    names = listing.result_names(photos.files)
    return {
        names[relative]: read_photo(file, size, squares, name=relative)
        for relative, file in photos.files.items()
    }


def read_squares(faces: str | Path) -> Squares | None:
    """Returns the squares in the file of landmarks or boxes `faces`, None where that is ""."""
    return landmarks.read_squares(faces) if faces else None


def assign(squares: Squares | None, photos: Collection[str]) -> Squares | None:
    """Returns the squares by the photos' relative paths: of this path, or else of the file name.

    Raises:
        UserError: a file name that several photos have.
    """
    if squares is None:
        return None
    count = Counter(PurePath(photo).name for photo in photos)
    found = {}
    for photo in photos:
        name = PurePath(photo).name
        if photo not in squares and name in squares and count[name] > 1:
            raise UserError(
                f"config.invert.landmarks: {name!r} is the name of {count[name]} photos; "
                f"give their paths instead, for example {photo!r}"
            )
        if square := squares.get(photo, squares.get(name)):
            found[photo] = square
    return found


def read_photo(file: Path, size: int, squares: Squares | None = None, *, name: str = "") -> Framed:
    """Returns the photo `file`; says what it changes beside the size.

    Args:
        file: of the photo.
        size: S, pixels a side of the result.
        squares: by which photos are framed; without, the centre square is taken.
        name: of the photo in `squares` and in what is said; "" = the file name.

    Raises:
        UserError: a photo that cannot be read, is too small, or is not in `squares`.
    """
    name = name or file.name
    photo, notes = images.read_photo_and_notes(file)
    height, width, _ = photo.shape
    side = min(height, width)
    if side < size:
        raise UserError(
            f"{file}: {width}x{height} pixels (width x height), expected at least {size} a "
            "side; use a larger photo or remove it"
        )
    for note in notes:
        _say(name, note)
    if squares is not None:
        return _align(file, name, photo, squares, size)
    if height != width:
        _say(name, f"{width}x{height} pixels, its centre square is taken")
    top, left = (height - side) // 2, (width - side) // 2
    centre = photo[top : top + side, left : left + side]
    square = align.Square((left + side / 2, top + side / 2), (side / 2, 0.0))
    return Framed(images.resize_area(centre, size), square, (height, width))


def _align(file: Path, name: str, photo: np.ndarray, squares: Squares, size: int) -> Framed:
    """Returns the face in `photo` as FFHQ frames it."""
    if name not in squares:
        raise UserError(
            f"{file}: config.invert.landmarks has nothing on {name}; "
            "add its landmarks or box, or remove the photo"
        )
    square = squares[name]
    try:
        return Framed(align.extract(photo, square, size), square, photo.shape[:2])
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _say(name: str, text: str) -> None:
    print(f"photo {name}: {text}", flush=True)
