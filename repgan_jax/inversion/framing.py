"""Photos as latent optimisation wants them: square, and framed as the generator's pictures are."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from repgan_jax.data import masks
from repgan_jax.errors import UserError
from repgan_jax.inversion import alignment, landmarks
from repgan_jax.io import images, listing
from repgan_jax.palette import IGNORE

Squares = Mapping[str, alignment.Square]  # by file name or relative path
Say = Callable[[str, str], None]  # takes a photo's name and what was done to it


@dataclass(frozen=True, eq=False)
class Framed:
    """A photo's square.

    Attributes:
        photo: uint8 [S, S, 3].
        square: where in the file's picture it lies.
        shape: height and width of that picture.
    """

    photo: np.ndarray
    square: alignment.Square
    shape: tuple[int, int]

    def cut(self, mask: np.ndarray, size: int, num_classes: int) -> np.ndarray:
        """Returns int32 ids [size, size]: the square of `mask` [H, W]; 255 outside of the photo."""
        cell = max(round(self.square.side / size), 1)  # pixels a side that vote for an id
        ids = alignment.extract_ids(mask, self.square, size * cell, outside=IGNORE)
        return masks.resize_mask(ids, size, num_classes)

    def restore(self, mask: np.ndarray) -> np.ndarray:
        """Returns int32 ids `shape`: `mask` [M, M] of the square; 255 in the rest of the photo."""
        return alignment.restore(mask, self.square, self.shape, outside=IGNORE)


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
                f"landmarks: {name!r} is the name of {count[name]} photos; "
                f"give their paths instead, for example {photo!r}"
            )
        if square := squares.get(photo, squares.get(name)):
            found[photo] = square
    return found


def say(name: str, text: str) -> None:
    """Prints what was done to the photo `name`."""
    print(f"photo {name}: {text}", flush=True)


def read_photo(
    file: Path, size: int, squares: Squares | None = None, *, name: str = "", say: Say = say
) -> Framed:
    """Returns the photo `file`; says what it changes beside the size.

    Args:
        file: of the photo.
        size: S, side length of the result in pixels.
        squares: by which photos are framed; without, the centre square is taken.
        name: of the photo in `squares` and in what is said; "" = the file name.
        say: told what is changed.

    Raises:
        UserError: a photo that cannot be read, is too small, or is not in `squares`.
    """
    name = name or file.name
    photo, notes = images.read_photo_and_notes(file)
    return frame(photo, notes, size, squares, name=name, source=str(file), say=say)


def frame(
    photo: np.ndarray,
    notes: Iterable[str],
    size: int,
    squares: Squares | None,
    *,
    name: str,
    source: str,
    say: Say,
) -> Framed:
    """Returns the square of `photo` uint8 [H, W, 3], as `read_photo` does.

    Args:
        photo: as it was read.
        notes: what reading it changed.
        size: S, side length of the result in pixels.
        squares: by which photos are framed; None = the centre square.
        name: of the photo in `squares` and in what is said.
        source: of the photo, for errors.
        say: told what is changed.

    Raises:
        UserError: a photo that is too small, or not in `squares`.
    """
    height, width, _ = photo.shape
    side = min(height, width)
    if side < size:
        raise UserError(
            f"{source}: {width}x{height} pixels (width x height), expected at least {size} a "
            "side; use a larger photo or remove it"
        )
    for note in notes:
        say(name, note)
    if squares is not None:
        return _align(photo, size, squares, name, source)
    if height != width:
        say(name, f"{width}x{height} pixels, its centre square is taken")
    top, left = (height - side) // 2, (width - side) // 2
    centre = photo[top : top + side, left : left + side]
    square = alignment.Square((left + side / 2, top + side / 2), (side / 2, 0.0))
    return Framed(images.resize_area(centre, size), square, (height, width))


def _align(photo: np.ndarray, size: int, squares: Squares, name: str, source: str) -> Framed:
    """Returns the face in `photo` as FFHQ frames it."""
    if name not in squares:
        raise UserError(
            f"landmarks: nothing on {name}; add its landmarks or box, or remove the photo "
            f"({source})"
        )
    square = squares[name]
    try:
        return Framed(alignment.extract(photo, square, size), square, photo.shape[:2])
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
