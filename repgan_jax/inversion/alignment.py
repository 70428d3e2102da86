"""Photos framed as the faces of FFHQ are, which a generator of faces was trained on.

Places are (x, y) in pixels from the upper left corner of the photo, so that the centre of its
first pixel is (0.5, 0.5); landmarks count from that centre instead, as their detectors do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageStat

from repgan_jax.errors import UserError

# Points whose means are the left eye, the right eye and the two corners of the mouth.
_PARTS = {
    5: (slice(0, 1), slice(1, 2), slice(3, 4), slice(4, 5)),
    68: (slice(36, 42), slice(42, 48), slice(48, 49), slice(54, 55)),
}
_LARGEST = 1e6  # pixels: more than any photo has


@dataclass(frozen=True)
class Square:
    """A square in a photo, turned as the face in it is.

    Attributes:
        centre: place of its centre.
        right: step from there to the middle of what becomes the right side.
    """

    centre: tuple[float, float]
    right: tuple[float, float]

    @property
    def down(self) -> tuple[float, float]:
        """Step from the centre to the middle of what becomes the lower side."""
        return -self.right[1], self.right[0]

    @property
    def side(self) -> float:
        """Length of a side."""
        return 2 * math.hypot(*self.right)

    @property
    def corners(self) -> np.ndarray:
        """Places [4, 2] of the upper left, upper right, lower right and lower left corner."""
        signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        return self.centre + signs @ np.array([self.right, self.down])


def square_from_landmarks(points: Sequence[Sequence[float]] | np.ndarray) -> Square:
    """Returns the square that FFHQ takes around a face with landmarks `points` [5 or 68, 2].

    The rule is that of Karras et al., "Progressive Growing of GANs" (2018), appendix C, with the
    factors of FFHQ (https://github.com/NVlabs/ffhq-dataset): with e from eye to eye and m from
    the eyes' middle to the mouth's, the centre is a tenth of m below the eyes, the right side
    lies along e plus m turned by a quarter, and half a side is the larger of 2 |e| and 1.8 |m|.

    Args:
        points: left eye, right eye, nose, left and right corner of the mouth, left as one sees it
            on an upright face; or the 68 points of iBUG 300-W.

    Raises:
        UserError: another number of points, no places in pixels, or eyes and mouth that cannot
            be those of a face.
    """
    points = _pixels(points)
    if points.ndim != 2 or len(points) not in _PARTS or points.shape[1] != 2:
        raise UserError(f"points of shape {list(points.shape)}; expected [5, 2] or [68, 2]")
    left_eye, right_eye, left_mouth, right_mouth = (
        points[part].mean(0) for part in _PARTS[len(points)]
    )
    eyes = (left_eye + right_eye) / 2
    eye_to_eye = right_eye - left_eye
    eye_to_mouth = (left_mouth + right_mouth) / 2 - eyes
    lengths = math.hypot(*eye_to_eye), math.hypot(*eye_to_mouth)
    if min(lengths) < 1:
        raise UserError(
            f"{lengths[0]:.2g} pixels between the eyes, {lengths[1]:.2g} from eyes to mouth; "
            "expected one at least: give places in pixels, not in fractions of the photo"
        )
    if eye_to_eye[0] * eye_to_mouth[1] <= eye_to_eye[1] * eye_to_mouth[0]:
        raise UserError(
            "the mouth lies above the eyes, or left and right are exchanged; expected left eye, "
            "right eye, nose, left and right corner of the mouth, left as one sees it"
        )
    direction = eye_to_eye + eye_to_mouth[::-1] * (1, -1)
    right = direction / math.hypot(*direction) * max(2.0 * lengths[0], 1.8 * lengths[1])
    centre = eyes + 0.1 * eye_to_mouth + 0.5
    return Square(tuple(centre.tolist()), tuple(right.tolist()))


def square_from_box(box: Sequence[float] | np.ndarray) -> Square:
    """Returns the upright square with the centre and the longer side of `box` [4].

    Args:
        box: its left, top, right and bottom edge.

    Raises:
        UserError: not four numbers of pixels, or a box without a pixel.
    """
    box = _pixels(box)
    if box.shape != (4,):
        raise UserError(f"a box of shape {list(box.shape)}; expected left, top, right, bottom")
    left, top, right, bottom = box.tolist()
    if right - left < 1 or bottom - top < 1:
        raise UserError(
            f"a box of {right - left:g}x{bottom - top:g} pixels; "
            "expected left, top, right, bottom with right > left and bottom > top"
        )
    side = max(right - left, bottom - top)
    return Square(((left + right) / 2, (top + bottom) / 2), (side / 2, 0.0))


def extract(photo: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Returns uint8 [size, size, 3]: `square` of `photo` uint8 [H, W, 3], upright.

    A new pixel is the mean over the area it covers. Where the square leaves the photo, the photo
    goes on as in a mirror, more and more blurred and then grey, as in FFHQ.

    Raises:
        UserError: the square's centre lies outside of the photo.
    """
    height, width, _ = photo.shape
    x, y = square.centre
    if not (0 <= x <= width and 0 <= y <= height):
        raise UserError(
            f"the face's centre ({x:.0f}, {y:.0f}) lies outside of the photo of {width}x{height} "
            "pixels (width x height); give places in pixels of this photo, turned upright"
        )
    # From large photos whole blocks first: the blur of a block is small at half a new pixel.
    shrink = max(int(square.side / size / 2), 1)
    reduced = np.asarray(Image.fromarray(photo).reduce(shrink))
    square = _moved(square, scale=1 / shrink)
    region, start = _surroundings(reduced, square)
    square = _moved(square, shift=(-start).tolist())
    samples = max(math.ceil(square.side / size - 1e-6), 1)  # a side, for each new pixel
    fine = size * samples
    steps = np.array([square.right, square.down]).T * 2 / fine
    matrix = np.column_stack([steps, square.corners[0]])
    picture = region.transform(
        (fine, fine), Image.Transform.AFFINE, matrix.ravel().tolist(), Image.Resampling.BICUBIC
    )
    return np.array(picture.reduce(samples))


def extract_ids(mask: np.ndarray, square: Square, size: int, *, outside: int) -> np.ndarray:
    """Returns int32 ids [size, size]: `square` of `mask` [H, W], each the nearest of its pixels.

    Args:
        mask: ids 0 to 255.
        square: where to look.
        size: pixels a side of the result.
        outside: the id where the square leaves the mask.
    """
    steps = np.array([square.right, square.down]).T * 2 / size
    matrix = np.column_stack([steps, square.corners[0]])
    return _transform_ids(mask, matrix, (size, size), outside)


def restore(
    mask: np.ndarray, square: Square, shape: tuple[int, int], *, outside: int
) -> np.ndarray:
    """Returns int32 ids [H, W]: `mask` [S, S] of an extracted picture, laid over its photo.

    Args:
        mask: ids 0 to 255.
        square: what was extracted.
        shape: height and width of the photo.
        outside: the id of pixels that the square does not cover.
    """
    size = len(mask)
    steps = np.array([square.right, square.down]) * 2 * size / square.side**2
    matrix = np.column_stack([steps, size / 2 - steps @ square.centre])
    return _transform_ids(mask, matrix, shape, outside)


def _transform_ids(
    mask: np.ndarray, matrix: np.ndarray, shape: tuple[int, int], outside: int
) -> np.ndarray:
    """Returns int32 ids `shape`: of `mask` [H, W] at the places that `matrix` [2, 3] gives."""
    picture = Image.fromarray(np.asarray(mask, np.uint8)).transform(
        shape[::-1],
        Image.Transform.AFFINE,
        matrix.ravel().tolist(),
        Image.Resampling.NEAREST,
        fillcolor=outside,
    )
    return np.asarray(picture, np.int32)


def _pixels(numbers: Sequence | np.ndarray) -> np.ndarray:
    """Returns `numbers` as float64, or raises UserError if they are no places in a photo."""
    try:
        array = np.array(numbers, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError("not all are numbers, or some are missing; expected pixels") from error
    if not (np.abs(array) <= _LARGEST).all():  # NaN neither
        raise UserError(f"a number is not finite or beyond {_LARGEST:.0g}; expected pixels")
    return array


def _moved(square: Square, *, scale: float = 1.0, shift: Sequence[float] = (0.0, 0.0)) -> Square:
    """Returns `square` in a photo scaled by `scale`, then shifted by `shift`."""
    (x, y), (right, down) = square.centre, square.right
    centre = (x * scale + shift[0], y * scale + shift[1])
    return Square(centre, (right * scale, down * scale))


def _surroundings(photo: np.ndarray, square: Square) -> tuple[Image.Image, np.ndarray]:
    """Returns what lies in and around `square`, continued beyond `photo`, and its corner [x, y]."""
    limits = np.array(photo.shape[1::-1])
    low, high = (np.round(f(square.corners, axis=0)).astype(int) for f in (np.min, np.max))
    border = max(round(0.1 * square.side), 3)
    start, stop = low - border, high + border
    columns, rows = map(_mirrored, start, stop, limits)
    region = Image.fromarray(photo[np.ix_(rows, columns)])
    if (low < 0).any() or (high > limits).any():
        reach = 0.3 * square.side
        depth_x, depth_y = (
            _depth(*ends, reach=reach) for ends in zip(start, stop, limits, strict=True)
        )
        region = _fade(region, np.maximum(depth_x, depth_y[:, None]), blur=0.02 * square.side)
    return region, start


def _mirrored(start: int, stop: int, length: int) -> np.ndarray:
    """Returns indices [stop - start] of 0 to `length` that go back and forth outside of them."""
    period = max(2 * (length - 1), 1)
    places = np.arange(start, stop) % period
    return np.minimum(places, period - places)


def _depth(start: int, stop: int, length: int, *, reach: float) -> np.ndarray:
    """Returns [stop - start]: 0 at the photo's edges, up to 1 outside, negative inside."""
    places = np.arange(start, stop)
    before, after = max(-start, reach), max(stop - length, reach)
    return np.maximum(-places / before, (places - (length - 1)) / after)


def _fade(region: Image.Image, depth: np.ndarray, *, blur: float) -> Image.Image:
    """Returns `region` blurred where `depth` [H, W] nears 0 and grey (its median) towards 1."""
    blurred = region.filter(ImageFilter.GaussianBlur(blur))
    region = Image.composite(blurred, region, _weights(3 * depth + 1))
    median = Image.new("RGB", region.size, tuple(ImageStat.Stat(region).median))
    return Image.composite(median, region, _weights(depth))


def _weights(share: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(share.clip(0, 1) * 255).astype(np.uint8))
