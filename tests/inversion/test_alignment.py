"""Faces come to where FFHQ has them, and what was found there goes back to its place."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repgan_jax.data import mask_files, masks
from repgan_jax.errors import UserError
from repgan_jax.inversion import alignment
from repgan_jax.inversion.alignment import Square
from repgan_jax.io import images

FACE = Path(__file__).parents[2] / "examples" / "face"
# Eyes a unit apart, mouth a unit below: half a side is 2 units, the centre 0.1 below the eyes.
POINTS = np.array([(-0.5, 0), (0.5, 0), (0.02, 0.6), (-0.4, 1), (0.4, 1)])
FRAMED = 0.5 + (POINTS - (0, 0.1)) / 4  # in the aligned picture, as parts of its side


def _refused(message: str):
    """Expects a UserError whose one line contains `message`."""
    return pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z")


def _face(centre, unit: float, degrees: float) -> np.ndarray:
    """Returns POINTS [5, 2] drawn `unit` pixels large and turned clockwise around `centre`."""
    angle = np.deg2rad(degrees)
    turn = [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
    return np.asarray(centre) + unit * POINTS @ turn


def _waves(height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width, 3], smooth, without symmetries."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + y / 9), np.cos(x / 8 - y / 6 + 1), np.sin(np.hypot(x - 20, y + 9) / 7)]
    return np.round(127.5 + 110 * np.stack(waves, -1)).astype(np.uint8)


def _slow_extract(photo: np.ndarray, square: Square, size: int, samples: int) -> np.ndarray:
    """Returns float64 [size, size, 3]: means of bilinear samples, each looked up by itself."""
    total = np.zeros((size, size, 3))
    right, down = np.array(square.right), np.array(square.down)
    places = (np.arange(size * samples) + 0.5) * 2 / (size * samples) - 1
    for i, v in enumerate(places):
        for j, u in enumerate(places):
            x, y = np.array(square.centre) + u * right + v * down - 0.5
            left, top = int(np.floor(x)), int(np.floor(y))
            rows = photo[top : top + 2, left : left + 2].astype(float)
            row = rows[0] * (1 - y + top) + rows[1] * (y - top)
            total[i // samples, j // samples] += row[0] * (1 - x + left) + row[1] * (x - left)
    return total / samples**2


@pytest.mark.parametrize("unit", [7, 23, 70])
@pytest.mark.parametrize("degrees", [0, 30, -75, 180])
def test_landmarks_arrive_where_ffhq_has_them(unit, degrees):
    points = _face((201, 187), unit, degrees)
    y, x = np.mgrid[:370, :410]
    size = 128
    square = alignment.square_from_landmarks(points)
    assert square.side == pytest.approx(4 * unit)
    for (px, py), framed in zip(points, FRAMED, strict=True):
        spot = 250 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (unit / 6) ** 2)
        photo = np.repeat(np.round(spot)[..., None], 3, -1).astype(np.uint8)
        weight = alignment.extract(photo, square, size)[..., 0].astype(float)
        places = np.arange(size) + 0.5
        found = np.array([weight.sum(0) @ places, weight.sum(1) @ places]) / weight.sum()
        # Blurred borders may add a faint haze, nothing else: a quarter of a pixel.
        np.testing.assert_allclose(found, framed * size, atol=0.25)


def test_long_faces_are_measured_from_eyes_to_mouth():
    points = POINTS * (100, 150)  # 100 between the eyes, 150 down to the mouth
    square = alignment.square_from_landmarks(points)
    assert square.side == pytest.approx(2 * 1.8 * 150)
    np.testing.assert_allclose(square.centre, (0.5, 15.5))


@pytest.mark.parametrize("name", [path.name for path in sorted((FACE / "images").glob("*.png"))])
def test_generated_faces_are_framed_already(name):
    """Landmarks read off the hand-drawn parts give the whole picture back: FFHQ's own frame."""
    palette = masks.read_classes(FACE / "classes.txt")
    mask = mask_files.choose_reader([], palette, "ids").read(FACE / "masks" / name).ids
    eyes, mouth = (np.argwhere(mask == palette.index(part))[:, ::-1] for part in ("eyes", "mouth"))
    is_left = eyes[:, 0] < (eyes[:, 0].min() + eyes[:, 0].max()) / 2
    corners = mouth[mouth[:, 0].argmin()], mouth[mouth[:, 0].argmax()]
    points = [eyes[is_left].mean(0), eyes[~is_left].mean(0), (256, 256), *corners]
    square = alignment.square_from_landmarks(points)
    # Parts are drawn by hand and the mouth is not always level: a twentieth of the side.
    np.testing.assert_allclose(square.centre, (256, 256), atol=0.05 * 512)
    assert square.side == pytest.approx(512, rel=0.05)
    assert abs(np.rad2deg(np.arctan2(square.right[1], square.right[0]))) < 2


def test_five_points_are_those_of_the_68():
    rng = np.random.default_rng(0)
    all_points = rng.normal(0, 500, (68, 2))  # the others must not matter
    five = _face((300, 200), 60, 12)
    for part, place in ((slice(36, 42), five[0]), (slice(42, 48), five[1])):
        ring = rng.normal(0, 5, (6, 2))
        all_points[part] = place + ring - ring.mean(0)
    all_points[48], all_points[54] = five[3:]
    got, expected = map(alignment.square_from_landmarks, (all_points, five))
    np.testing.assert_allclose(got.centre, expected.centre)
    np.testing.assert_allclose(got.right, expected.right)


@pytest.mark.parametrize("ratio", [0.6, 1.0, 1.7, 3.4, 4.6])
def test_extract_takes_means_over_areas(ratio):
    size = 24
    photo = _waves(180, 200)
    angle = np.deg2rad(-25)
    half = ratio * size / 2
    square = Square((98.3, 91.6), (half * np.cos(angle), half * np.sin(angle)))
    expected = _slow_extract(photo, square, size, samples=6)
    error = alignment.extract(photo, square, size) - expected
    # Waves of 30 pixels: bilinear or bicubic, means of blocks or of points, differ by 1 %.
    assert np.abs(error).mean() < 1.5
    assert np.abs(error).max() < 8
    assert np.abs(expected - expected.mean((0, 1))).mean() > 30  # there is something to get wrong


def test_the_whole_photo_is_itself():
    photo = images.read_photo(FACE / "images" / "seed007.png")
    square = alignment.square_from_box((0, 0, 512, 512))
    np.testing.assert_array_equal(alignment.extract(photo, square, 512), photo)
    halved = photo.reshape(256, 2, 256, 2, 3).mean((1, 3))
    # Bicubic samples are rounded down to whole numbers before the mean, and that to the nearest.
    assert np.abs(alignment.extract(photo, square, 256) - halved).max() <= 1.5


@pytest.mark.parametrize("degrees", [90, 37])
def test_a_turned_photo_gives_the_same_picture(degrees):
    photo = images.read_photo(FACE / "images" / "seed007.png")
    points = _face((256, 240), 70, 5)  # half of the photo, so that turned corners stay outside
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turned_points = (points - 255.5) @ turn + 255.5
    turned = np.array(Image.fromarray(photo).rotate(-degrees, Image.Resampling.BICUBIC))
    expected, got = (
        alignment.extract(picture, alignment.square_from_landmarks(places), 140).astype(int)
        for picture, places in ((photo, points), (turned, turned_points))
    )
    error = np.abs(got - expected)
    assert error.mean() < 1  # hair interpolated once more; a pixel's shift gives 6
    assert np.abs(np.roll(expected, 1, 0) - expected).mean() > 4


def _places(square: Square, size: int) -> np.ndarray:
    """Returns the places [size, size, 2] in the photo of an extracted picture's pixels."""
    steps = (np.arange(size) + 0.5) * 2 / size - 1
    v, u = np.meshgrid(steps, steps, indexing="ij")
    return square.centre + u[..., None] * square.right + v[..., None] * square.down


def test_beyond_the_photo_nothing_is_black():
    photo = np.full((200, 240, 3), 90, np.uint8)
    for square in (Square((10, 190), (200, 60)), Square((0, 0), (3000, -2000))):
        picture = alignment.extract(photo, square, 64)
        np.testing.assert_array_equal(picture, np.full((64, 64, 3), 90))


@pytest.mark.parametrize("degrees", [0, 15])
def test_the_photo_goes_on_without_a_seam(degrees):
    size = 256
    whole = images.read_photo(FACE / "images" / "seed007.png")
    photo = whole[60:, 80:]
    square = alignment.square_from_landmarks(_face((150, 160), 90, degrees))
    picture = alignment.extract(photo, square, size).astype(int)
    in_whole = Square((square.centre[0] + 80, square.centre[1] + 60), square.right)
    original = alignment.extract(whole, in_whole, size).astype(int)
    depth = _places(square, size).min(-1)  # below the upper and right of the left edge
    # Blur begins a tenth of the side before the edge; what is further inside stays as it is.
    inside = depth > 0.1 * square.side + 2
    assert inside.mean() > 0.4
    np.testing.assert_array_equal(picture[inside], original[inside])
    assert np.abs(picture - original)[depth < 0].mean() > 10
    for axis in (0, 1):
        steps = np.abs(np.diff(picture, axis=axis))[np.diff(depth < 0, axis=axis)]
        assert len(steps) > 50
        # Blurred over 7 pixels, levels change slowly; at a cut or black edge by a hundred.
        assert steps.max() < 12


def test_the_mirrored_photo_fades_to_its_median():
    photo = np.full((100, 100, 3), 40, np.uint8)
    photo[:, 20:40] = 240  # mirrored to -40 ... -20
    line = alignment.extract(photo, alignment.square_from_box((-50, -50, 150, 150)), 200)[100, :, 0]
    assert line[50 + 30] == 240
    # The square ends 50 pixels out; the fade another tenth of its side further, in the median.
    assert line[50 - 30] == pytest.approx(40 + 200 * (1 - 30 / 70), abs=5)
    assert line[0] == line[50] == 40


def test_small_photos_and_far_squares_are_bounded():
    photo = _waves(3, 2)
    picture = alignment.extract(photo, Square((1, 1), (9e5, 9e5)), 32)
    assert picture.shape == (32, 32, 3)
    assert (
        alignment.extract(photo[:1, :1], Square((0.5, 0.5), (7, 0)), 8).min() == photo[0, 0].min()
    )


@pytest.mark.parametrize(("size", "unit"), [(128, 10), (64, 23)])
def test_restore_brings_masks_back(size, unit):
    """A disc and a bar drawn in the aligned picture lie on the photo where the square says."""
    height, width = 115, 155
    square = alignment.square_from_landmarks(_face((80, 55), unit, 33))
    v, u = np.mgrid[:size, :size] / size
    mask = np.where(np.hypot(u - 0.3, v - 0.6) < 0.2, 3, np.where(u > 0.8, 7, 0))
    got = alignment.restore(mask, square, (height, width), outside=255)
    assert got.shape == (height, width)
    assert got.dtype == np.int32
    for y in range(height):
        for x in range(width):
            step = np.array([x + 0.5, y + 0.5]) - square.centre
            place = [step @ axis * 2 / square.side**2 + 0.5 for axis in (square.right, square.down)]
            column, row = np.array(place) * size
            if max(abs(column % 1 - 0.5), abs(row % 1 - 0.5)) > 0.48:
                continue  # too near to two pixels to say which is the nearest
            covered = 0 <= column < size and 0 <= row < size
            assert got[y, x] == (mask[int(row), int(column)] if covered else 255), (y, x)


def test_extracting_and_restoring_are_inverse():
    height, width = 260, 300
    y, x = np.mgrid[:height, :width]
    part = (np.hypot(x - 130, y - 120) < 50) | (x > 160) & (y > 130)
    photo = np.repeat(part[..., None], 3, -1).astype(np.uint8) * 200
    square = alignment.square_from_landmarks(_face((140, 130), 40, -20))
    mask = alignment.extract(photo, square, 320)[..., 0] > 100
    got = alignment.restore(mask, square, (height, width), outside=0)
    inside = alignment.restore(np.ones_like(mask), square, (height, width), outside=0) == 1
    assert inside.mean() == pytest.approx(square.side**2 / (height * width), rel=0.01)
    assert not got[~inside].any()
    wrong = (inside & (got != part)).sum()
    outline = (np.diff(part, axis=0)[:, 1:] | np.diff(part, axis=1)[1:])[inside[1:, 1:]].sum()
    assert wrong < 0.1 * outline  # none but a few on the outline itself


def test_boxes_become_upright_squares_that_hold_them():
    square = alignment.square_from_box((10, 20, 110, 60))
    assert square == Square((60, 40), (50, 0))
    np.testing.assert_array_equal(square.corners, [(10, -10), (110, -10), (110, 90), (10, 90)])


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (POINTS[:4] * 50, r"shape \[4, 2\]; expected \[5, 2\] or \[68, 2\]"),
        (np.zeros((5, 3)), r"shape \[5, 3\]"),
        ([], r"shape \[0\]"),
        ([[1, 2], [3]], "some are missing"),
        ([[1, None]] * 5, "not finite"),
        (np.full((5, 2), np.nan), "not finite"),
        (POINTS * 1e9, "beyond 1e[+]06"),
        (POINTS / 100 + 0.5, "in pixels, not in fractions"),
        (np.full((5, 2), 40), "in pixels, not in fractions"),
        (POINTS[[1, 0, 2, 4, 3]] * 50, "left and right are exchanged"),
        (POINTS * (50, -50), "the mouth lies above the eyes"),
    ],
)
def test_points_that_are_no_face_are_refused(points, message):
    with _refused(message):
        alignment.square_from_landmarks(points)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 20, 5, 60), "box of -5x40 pixels; expected left, top, right, bottom"),
        ((0.1, 0.1, 0.9, 0.9), "box of 0.8x0.8 pixels"),
        ((1, 2, 3), r"shape \[3\]"),
        ((0, 0, np.inf, 9), "not finite"),
    ],
)
def test_boxes_without_a_pixel_are_refused(box, message):
    with _refused(message):
        alignment.square_from_box(box)


def test_a_face_outside_of_the_photo_is_refused():
    with _refused(r"centre \(900, 30\) lies outside of the photo of 200x100"):
        alignment.extract(np.zeros((100, 200, 3), np.uint8), Square((900, 30), (20, 0)), 16)
