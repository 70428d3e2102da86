"""Shapes drawn in labelme become masks."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from repgan_jax.data import labelme
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import parse_classes

PALETTE = parse_classes("background\nnose\neyes", "test")
SQUARE = [[1, 1], [4, 1], [4, 3], [1, 3]]


def _refused(message: str):
    """Expects a UserError whose one line contains `message`."""
    return pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z")


def _labelme(path: Path, *shapes: tuple, size: tuple[int, int] = (7, 6)) -> Path:
    """Writes (label, kind, points) as a labelme file of `size`, width and height."""
    keys = ("label", "shape_type", "points")
    document = {"imageWidth": size[0], "imageHeight": size[1]}
    document["shapes"] = [dict(zip(keys, shape, strict=True)) for shape in shapes]
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_later_polygons_cover_earlier_ones(tmp_path):
    path = _labelme(
        tmp_path / "a.json",
        ("eyes", "polygon", [[0, 0], [4, 0], [4, 5], [0, 5]]),
        ("nose", "polygon", [[1, 1], [2, 1], [2, 2], [1, 2]]),
        ("__ignore__", "polygon", [[0, 0], [0, 0], [1, 0]]),
        size=(7, 6),
    )
    expected = np.zeros((6, 7), int)
    expected[:, :5] = 2
    expected[1:3, 1:3] = 1
    expected[0, :2] = 255
    np.testing.assert_array_equal(labelme.read_mask(path, PALETTE), expected)


def test_bad_labelme_files_are_refused(tmp_path):
    path = tmp_path / "a.json"
    square = [[0, 0], [2, 0], [2, 2]]
    with _refused("a.json: unknown label 'hat'; expected background, nose, eyes"):
        labelme.read_mask(_labelme(path, ("hat", "polygon", square)), PALETTE)
    for kind, points in (("circle", square), ("line", square[:2]), ("linestrip", square)):
        count = len(points)
        with _refused(f"a.json: 'nose' is a {kind} of {count} points, which covers no area; draw"):
            labelme.read_mask(_labelme(path, ("nose", kind, points)), PALETTE)
    for text in ("", "[]", '{"shapes": []}', '{"imageWidth": -1, "imageHeight": 2, "shapes": []}'):
        path.write_text(text)
        with _refused("a.json: not a labelme file"):
            labelme.read_mask(path, PALETTE)
    with _refused("a.json: not a labelme file"):
        labelme.read_mask(_labelme(path, ("nose", "polygon", [[0], [1], [2]])), PALETTE)
    for text in ("[" * 100_000, '{"imageWidth": 400000, "imageHeight": 400000, "shapes": []}'):
        path.write_text(text)
        with _refused("a.json: not a labelme file"):
            labelme.read_mask(path, PALETTE)
    with _refused("a.json: not a labelme file"):
        labelme.read_mask(_labelme(path, ("nose", "polygon", [*square, [10**400, 0]])), PALETTE)
    with _refused("a.json: 'nose' is a polygon of 2 points, which covers no area; draw"):
        labelme.read_mask(_labelme(path, ("nose", "polygon", square[:2])), PALETTE)
    for points in ([*square, [1, np.nan]], [*square, [1e9, 0]]):
        with _refused("a.json: 'nose' cannot be drawn"):
            labelme.read_mask(_labelme(path, ("nose", "polygon", points)), PALETTE)
    with _refused("a.json: unknown label "):
        labelme.read_mask(_labelme(path, (["nose"], "polygon", square)), PALETTE)


def test_rectangles_are_polygons_of_four_points(tmp_path):
    path = tmp_path / "a.json"
    polygon = labelme.read_mask(_labelme(path, ("nose", "polygon", SQUARE)), PALETTE)
    assert polygon[1:4, 1:5].all() and polygon.sum() == 12
    for points in (SQUARE, SQUARE[::2], SQUARE[1::2], SQUARE[2::-2]):
        got = labelme.read_mask(_labelme(path, ("nose", "rectangle", points)), PALETTE)
        np.testing.assert_array_equal(got, polygon)


def test_circles_have_a_centre_and_a_point_on_them(tmp_path):
    path = _labelme(tmp_path / "a.json", ("eyes", "circle", [[20, 30], [26, 38]]), size=(50, 60))
    y, x = np.mgrid[:60, :50]
    distance = np.hypot(x - 20, y - 30)
    got = labelme.read_mask(path, PALETTE)
    assert (got[distance < 9.5] == 2).all() and (got[distance > 10.8] == 0).all()


@pytest.mark.parametrize(("left", "top"), [(2, 1), (5, 4), (-1, -2)])
def test_masks_of_models_lie_between_their_corners(tmp_path, left, top):
    bits = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0], [0, 0, 1]], np.uint8)
    path = tmp_path / "a.json"

    def write(corners, data):
        shape = {"label": "eyes", "shape_type": "mask", "points": corners, "mask": data}
        path.write_text(json.dumps({"imageWidth": 7, "imageHeight": 6, "shapes": [shape]}))
        return path

    corners = [[left, top], [left + 2, top + 3]]
    data = base64.b64encode(images.encode_png(bits)).decode()
    expected = np.zeros((12, 13), int)
    expected[top + 3 : top + 7, left + 3 : left + 6] = 2 * bits
    found = labelme.read_mask(write(corners, data), PALETTE)
    np.testing.assert_array_equal(found, expected[3:9, 3:10])
    for wrong in ([[0, 0], [3, 3]], [[2, 3], [0, 0]]):
        with _refused(r"a.json: 'eyes' cannot be drawn \(its picture of \(3, 4\) pixels does not"):
            labelme.read_mask(write(wrong, data), PALETTE)
    for damaged in ("", "AAAA", "A", data[: len(data) // 8 * 4]):
        with _refused("a.json: 'eyes' cannot be drawn"):
            labelme.read_mask(write(corners, damaged), PALETTE)


def test_files_of_old_versions_are_read(tmp_path):
    path = _labelme(tmp_path / "a.json", ("nose", "polygon", SQUARE))
    expected = labelme.read_mask(path, PALETTE)
    document = json.loads(path.read_text())
    del document["shapes"][0]["shape_type"]
    path.write_text(json.dumps(document), encoding="utf-8-sig")  # with a byte order mark
    np.testing.assert_array_equal(labelme.read_mask(path, PALETTE), expected)
    for changes in ({"imageWidth": None, "imageHeight": None}, {}):
        if not changes:
            del document["imageWidth"], document["imageHeight"]
        path.write_text(json.dumps(document | changes))
        np.testing.assert_array_equal(labelme.read_mask(path, PALETTE, (6, 7)), expected)
        with _refused("a.json: not a labelme file .*the size NonexNone"):
            labelme.read_mask(path, PALETTE)


def test_undrawn_pixels_are_the_declared_background(tmp_path):
    path = _labelme(tmp_path / "a.json", ("nose", "polygon", SQUARE))
    palette = parse_classes("nose\nhat", "test")
    with _refused("a.json: no shape covers 30 of 42 pixels, and none of the classes is known to"):
        labelme.read_mask(path, palette)
    got = labelme.read_mask(path, palette, background="hat")
    assert (got[1:4, 1:5] == 0).all() and got.sum() == 30
    everything = _labelme(path, ("hat", "rectangle", [[0, 0], [6, 5]]))
    assert (labelme.read_mask(everything, palette) == 1).all()  # needs no background


def test_unreadable_files_are_not_called_something_else(tmp_path):
    with _refused("none.json: cannot be read .No such file or directory"):
        labelme.read_mask(tmp_path / "none.json", PALETTE)
