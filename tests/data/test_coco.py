"""COCO's JSON becomes masks, and whatever else is in it becomes one line."""

import json
import random

import numpy as np
import pytest
from pycocotools import mask as reference

from repgan_jax.data import coco, labelme
from repgan_jax.errors import UserError
from repgan_jax.palette import parse_classes

WIDTH, HEIGHT = 30, 20


def _document(*shapes, file_name="a.png", **image):
    """Returns a file of one picture; `shapes` are pairs of category and segmentation."""
    names = ["nose", "left eye", "background", "__ignore__", "hat"]
    return {
        "images": [
            {"id": 5, "file_name": file_name, "width": WIDTH, "height": HEIGHT, **image},
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": 5, "category_id": names.index(name), "segmentation": shape}
            for i, (name, shape) in enumerate(shapes)
        ],
    }


def _box(left, top, right, bottom):
    """Returns a polygon whose outline runs through the pixels of both corners."""
    return [[left, top, right, top, right, bottom, left, bottom]]


def _runs(covered, *, compressed):
    if compressed:
        runs = reference.encode(np.asfortranarray(covered, np.uint8))
        return {"size": runs["size"], "counts": runs["counts"].decode()}
    flat = np.concatenate([[0], covered.T.ravel(), [0]]).astype(int)
    edges = [0, *np.flatnonzero(np.diff(flat)), covered.size]
    return {"size": list(covered.shape), "counts": np.diff(edges).tolist()}


@pytest.fixture
def read(tmp_path, palette):
    """Writes a document, and returns the functions that draw its masks."""

    def write_and_read(document):
        path = tmp_path / "annotations.json"
        text = document if isinstance(document, str) else json.dumps(document)
        path.write_text(text)
        return coco.read_masks(path, palette)

    return write_and_read


def test_later_annotations_cover_earlier_ones(read):
    shapes = (
        ("left eye", _box(2, 3, 9, 8) + _box(20, 3, 25, 8)),  # in two pieces
        ("nose", _box(5, 5, 12, 12)),
        ("__ignore__", _box(0, 0, 1, 1)),
        ("background", _box(11, 11, 12, 12)),
    )
    expected = np.zeros((HEIGHT, WIDTH), np.int32)
    expected[3:9, 2:10] = expected[3:9, 20:26] = 1
    expected[5:13, 5:13] = 3
    expected[:2, :2] = 255
    expected[11:13, 11:13] = 0
    got = read(_document(*shapes))["a"]()
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_runs_are_those_of_pycocotools(read, compressed, share):
    covered = np.random.default_rng(0).random((HEIGHT, WIDTH)) < share
    runs = _runs(covered, compressed=compressed)
    np.testing.assert_array_equal(read(_document(("nose", runs)))["a"]() == 3, covered)


def test_long_runs_are_those_of_pycocotools(read):
    covered = np.zeros((1000, 900), bool)
    covered[300:, 200:205] = covered[:, 800:] = True  # differences that need several digits
    document = _document(("nose", _runs(covered, compressed=True)), width=900, height=1000)
    np.testing.assert_array_equal(read(document)["a"]() == 3, covered)


def test_polygons_are_drawn_as_labelme_s(read, palette, tmp_path):
    points = [[3.2, 2.1], [21.7, 5.5], [14.4, 16.8], [6.5, 12.0]]
    shape = {"label": "nose", "shape_type": "polygon", "points": points}
    document = {"imageWidth": WIDTH, "imageHeight": HEIGHT, "shapes": [shape]}
    (tmp_path / "labelme.json").write_text(json.dumps(document))
    expected = labelme.read_mask(tmp_path / "labelme.json", palette)
    got = read(_document(("nose", [np.ravel(points).tolist()])))["a"]()
    assert (got == 3).any()
    np.testing.assert_array_equal(got, expected)


def test_pictures_are_found_by_their_names(read):
    names = ("images/b.c.jpg", "C:\\x\\d.png", "../0123abcd-e.png", "20240101-f.png", "20240102-f")
    document = _document(file_name="a.png")
    document["images"] += [
        {**document["images"][0], "id": i, "file_name": name} for i, name in enumerate(names, 10)
    ]
    assert set(read(document)) == {
        *("a", "b.c", "d", "0123abcd-e", "e", "20240101-f", "20240102-f")
    }


def test_what_is_not_drawn_is_not_looked_at(read):
    found = read(_document(("nose", "nonsense")))
    with pytest.raises(UserError, match="annotations.json: 'nose' in 'a' cannot be drawn"):
        found["a"]()


BAD_RUNS = (
    [],
    [600.0],
    [-1, 601],
    [2**63, 1],
    [2**62] * 4,
    [[600]],
    [599],
    None,
    "",
    "zz",
    "é",
    "o",
)


@pytest.mark.parametrize(
    "shape",
    [
        *({"size": [HEIGHT, WIDTH], "counts": counts} for counts in BAD_RUNS),
        {"size": [WIDTH, HEIGHT], "counts": [600]},
        {"size": [10**9, 10**9], "counts": [10**18]},
        {"counts": [600]},
        [],
        None,
        5,
        ["text"],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [[0, 0, 1e300, 5, 3, 1e300]],
        [[0, 0, float("nan"), 5, 3, 1]],
        [[0, 0, [1], 5, 3, 1]],
    ],
)
def test_damaged_segmentations_end_in_one_line(read, shape):
    draw = read(_document(("nose", shape)))["a"]
    with pytest.raises(UserError, match="'nose' in 'a' cannot be drawn .*draw it again") as error:
        draw()
    assert "\n" not in str(error.value)


def test_random_runs_are_refused_or_fill_the_picture(read):
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        text = "".join(rng.choices("012QOPo~", k=rng.randint(1, 5)))
        try:
            covered = coco._draw_runs({"size": [1, 2], "counts": text}, (1, 2))
            assert covered.shape == (1, 2)
        except ValueError:
            refused += 1
    assert 0 < refused < 300


def test_unknown_category_is_named_with_the_known_ones(read):
    message = "unknown category 'hat'; expected background, left eye, a/b, nose"
    with pytest.raises(UserError, match=message):
        read(_document(("hat", _box(1, 1, 5, 5))))


def test_pictures_of_one_name_are_refused(read):
    document = _document(file_name="x/a.png")
    document["images"].append({**document["images"][0], "id": 6, "file_name": "y/a.jpg"})
    with pytest.raises(UserError, match="two pictures are named 'a'"):
        read(document)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[" * 100_000,
        "[]",
        "{}",
        {**_document(), "images": 5},
        {**_document(), "annotations": [{"image_id": [], "category_id": 0, "segmentation": []}]},
        {**_document(), "annotations": [{"image_id": 5, "category_id": 0}]},
        _document(file_name=None),
        _document(width=10**6, height=10**6),
        _document(width=0),
        _document(width=-30),
        _document(height="20"),
    ],
)
def test_other_files_end_in_one_line(read, document):
    with pytest.raises(UserError, match="annotations.json: not a COCO file .*export it") as error:
        read(document)
    assert "\n" not in str(error.value)


def test_missing_file_is_named(palette, tmp_path):
    with pytest.raises(UserError, match="none.json: cannot be read .No such file or directory"):
        coco.read_masks(tmp_path / "none.json", palette)


@pytest.mark.parametrize(("image", "category", "wrong"), [(77, 0, "image_id 77"), (5, 9, "y_id 9")])
def test_annotation_of_nothing_listed_is_named(read, image, category, wrong):
    document = _document(("nose", _box(1, 1, 5, 5)))
    document["annotations"][0] |= {"image_id": image, "category_id": category, "id": 12}
    message = rf"annotations.json: an annotation .id 12. has the .*{wrong}, which the file does not"
    with pytest.raises(UserError, match=message):
        read(document)


def test_undrawn_pixels_are_the_declared_background(tmp_path):
    path, palette = tmp_path / "a.json", parse_classes("nose\nhat", "test")
    path.write_text(json.dumps(_document(("nose", _box(0, 0, 9, 9)))))
    with pytest.raises(UserError, match="a.json: no shape covers 500 of 600 pixels, and none of"):
        coco.read_masks(path, palette)["a"]()
    drawn = coco.read_masks(path, palette, background="hat")["a"]()
    assert np.bincount(drawn.ravel()).tolist() == [100, 500]
    named = parse_classes("nose\n_background_", "test")
    np.testing.assert_array_equal(coco.read_masks(path, named)["a"](), drawn)
    with pytest.raises(UserError, match="config.background: no class is named 'sky'; the classes"):
        coco.read_masks(path, palette, background="sky")
