"""Masks mean the same in every format, and bad shots are refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repgan_jax import metrics
from repgan_jax.data import labelme, mask_files, masks, shapes
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import parse_classes

FACE = Path(__file__).parents[2] / "examples" / "face"
PALETTE = parse_classes("background #000000\nnose #e8743b\neyes #2a7fff", "test")
MASK = np.array([[0, 1, 1, 2], [2, 2, 0, 1], [0, 0, 2, 1]], np.uint8)  # H != W on purpose


def _refused(message: str):
    """Expects a UserError whose one line contains `message`."""
    return pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z")


def _labelme(path: Path, *shapes: tuple, size: tuple[int, int] = (4, 3)) -> Path:
    """Writes (label, kind, points) as a labelme file of `size`, width and height."""
    keys = ("label", "shape_type", "points")
    document = {"imageWidth": size[0], "imageHeight": size[1]}
    document["shapes"] = [dict(zip(keys, shape, strict=True)) for shape in shapes]
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@pytest.fixture(name="shots")
def _shots(tmp_path) -> Path:
    """Returns a folder of three shots of 4x3 pixels, one drawn as polygons."""
    for name in ("images", "masks", "labelme"):
        (tmp_path / name).mkdir()
    for i, name in enumerate(("ann", "bob", "cleo")):
        images.write_png(tmp_path / "images" / f"{name}.png", np.full((3, 4, 3), i, np.uint8))
        images.write_png(tmp_path / "masks" / f"{name}.png", MASK)
    (tmp_path / "masks" / "cleo.png").unlink()
    _labelme(
        tmp_path / "labelme" / "cleo.json", ("nose", "polygon", [[0, 0], [3, 0], [3, 2], [0, 2]])
    )
    w = np.arange(15.0).reshape(3, 5)
    np.savez(tmp_path / "latents.npz", w=w, name=["bob", "ann", "cleo"])
    return tmp_path


def test_drawn_polygons_are_the_masks_of_the_real_shots():
    """The polygons are simplified outlines of the masks: 0.17 % of the pixels differ, on edges."""
    palette = masks.read_classes(FACE / "classes.txt")
    counts = np.zeros((10, 10), int)
    for path in sorted((FACE / "labelme").glob("*.json")):
        png = FACE / "masks" / f"{path.stem}.png"
        mask = mask_files.choose_reader([png], palette).read(png).ids
        drawn = labelme.read_mask(path, palette)
        assert (mask != drawn).mean() < 0.0025
        counts += metrics.confusion(mask, drawn, 10)
    assert 1 - np.trace(counts) / counts.sum() < 0.002
    assert metrics.iou(counts).min() > 0.975  # brows, the thinnest


def test_shots_may_be_named_by_numbers(shots):
    for folder, suffix in (("images", "png"), ("masks", "png")):
        (shots / folder / f"ann.{suffix}").rename(shots / folder / f"10.{suffix}")
    assert list(masks.find_shots(shots, (10,))) == ["10"]


def test_files_of_shots_are_found_whatever_the_case_of_their_suffix(shots):
    expected = masks.read_shots(shots, PALETTE)
    for path in [*shots.rglob("*.png"), *shots.rglob("*.json")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    found = masks.read_shots(shots, PALETTE)
    assert found.names == expected.names
    np.testing.assert_array_equal(found.masks, expected.masks)


def test_several_files_for_one_shot_are_refused(shots):
    name = masks.read_shots(shots, PALETTE).names[0]
    for folder, what in (("images", f"shot '{name}'"), ("masks", f"the mask of shot '{name}'")):
        path = next((shots / folder).glob(f"{name}.*"))
        second = path.with_suffix(".BMP")
        Image.open(path).save(second)
        with _refused(f"{folder}: 2 files for {what}: {name}.BMP, {name}.png; expected one"):
            masks.read_shots(shots, PALETTE)
        second.unlink()


def test_bad_class_lists_are_refused(tmp_path):
    with _refused("none.txt: no class list .No such file or directory"):
        masks.read_classes(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\xfa")
    with _refused("bytes.txt: no class list .not UTF-8 text"):
        masks.read_classes(tmp_path / "bytes.txt")


def test_reducing_takes_the_majority():
    rng = np.random.default_rng(2)
    mask = rng.choice([0, 1, 2, 255], size=(12, 20))
    got = masks.resize_mask(mask, 4, 3)
    assert got.shape == (4, 4) and got.dtype == np.int32
    for y in range(4):
        for x in range(4):
            cell = mask[3 * y : 3 * y + 3, 5 * x : 5 * x + 5].ravel().tolist()
            assert cell.count(got[y, x]) == max(cell.count(k) for k in (0, 1, 2, 255))


def test_other_sizes_take_the_nearest():
    np.testing.assert_array_equal(
        masks.resize_mask(MASK[:, :3], 6, 3), MASK[:, :3].repeat(2, 0).repeat(2, 1)
    )
    np.testing.assert_array_equal(masks.resize_mask(MASK[:, :3], 3, 3), MASK[:, :3])


def test_real_shots():
    palette = masks.read_classes(FACE / "classes.txt")
    shots = masks.read_shots(FACE, palette)
    assert shots.names[:2] == ("seed000", "seed001") and len(shots.names) == 10
    assert shots.images.shape == (10, 512, 512, 3) and shots.images.dtype == np.uint8
    assert shots.masks.shape == (10, 512, 512) and shots.masks.dtype == np.int32
    assert shots.w.shape == (10, 512) and shots.w.dtype == np.float32
    np.testing.assert_array_equal(np.unique(shots.masks), np.arange(10))
    one = masks.read_shots(FACE, palette, ("seed022", "seed001"))
    assert one.names == ("seed022", "seed001")
    np.testing.assert_array_equal(one.w, shots.w[[7, 1]])
    np.testing.assert_array_equal(one.masks, shots.masks[[7, 1]])


def test_shots_join_by_name(shots):
    got = masks.read_shots(shots, PALETTE)
    assert got.names == ("ann", "bob", "cleo")
    np.testing.assert_array_equal(got.images[:, 0, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(got.w[:, 0], [5, 0, 10])
    np.testing.assert_array_equal(got.masks[0], MASK)
    assert (got.masks[2] == 1).all()  # from its polygons


def test_a_latent_a_layer(shots):
    np.savez(shots / "latents.npz", w=np.zeros((3, 7, 5)), name=["ann", "bob", "cleo"])
    assert masks.read_shots(shots, PALETTE).w.shape == (3, 7, 5)


def test_unfit_shots_are_refused(shots):
    with _refused("images: no shot named 'dora'; there are ann, bob, cleo"):
        masks.read_shots(shots, PALETTE, ("ann", "dora"))
    shutil.copy(shots / "images/ann.png", shots / "images/dora.png")
    with _refused("latents.npz: no latent for .*dora.png; there are latents for bob, ann, cleo"):
        masks.read_shots(shots, PALETTE)
    (shots / "images/dora.png").unlink()
    (shots / "labelme/cleo.json").unlink()
    with _refused(
        "no mask for shot 'cleo'; expected masks/cleo.png, labelme/cleo.json, images/cleo.json or "
    ):
        masks.read_shots(shots, PALETTE)
    images.write_png(shots / "masks/cleo.png", MASK[1:])
    with _refused("cleo.png: mask of 4x2 pixels .width x height. for an image of 4x3"):
        masks.read_shots(shots, PALETTE)
    images.write_png(shots / "images/cleo.png", np.zeros((2, 4, 3), np.uint8))
    with _refused(
        "ann.png: 4x3 pixels, but cleo.png has 4x2; all shots must have one size, or whole"
    ):
        masks.read_shots(shots, PALETTE)
    shutil.rmtree(shots / "images")
    (shots / "images").mkdir()
    with _refused("images: no photos in this folder"):
        masks.read_shots(shots, PALETTE)


def test_unfit_latents_are_refused(shots):
    path = shots / "latents.npz"
    names = ["ann", "bob", "cleo"]
    np.savez(path, z=np.zeros((3, 5)), name=names)
    with _refused(r"latents.npz: holds z, name; expected w \[k, D\]"):
        masks.read_shots(shots, PALETTE)
    np.savez(path, w=np.zeros((3, 5)))
    with _refused("holds w; expected .* name or seed"):
        masks.read_shots(shots, PALETTE)
    np.savez(path, w=np.zeros((2, 5)), name=names)
    with _refused(r"w of shape \[2, 5\] for 3 names"):
        masks.read_shots(shots, PALETTE)
    np.savez(path, w=np.zeros(3), name=names)
    with _refused(r"w of shape \[3\] for 3 names; expected \[k, D\]"):
        masks.read_shots(shots, PALETTE)
    path.unlink()
    with _refused("latents.npz: no latents .no such file"):
        masks.read_shots(shots, PALETTE)


def test_labelme_files_may_lie_beside_the_images(shots):
    """Labelme saves there unless told otherwise; old versions without the image's size."""
    drawn = masks.read_shots(shots, PALETTE).masks[2]
    (shots / "labelme/cleo.json").rename(shots / "images/cleo.json")
    document = json.loads((shots / "images/cleo.json").read_text())
    document |= {"imageHeight": None, "imageWidth": None}
    (shots / "images/cleo.json").write_text(json.dumps(document))
    np.testing.assert_array_equal(masks.read_shots(shots, PALETTE).masks[2], drawn)


def test_notes_say_what_was_read(shots):
    mask = MASK.copy()
    mask[0, 0] = 255
    images.write_png(shots / "masks/bob.png", mask)
    assert masks.read_shots(shots, PALETTE).notes == (
        "masks: 2 masks read as ids: background in 2, nose in 2, eyes in 2; 1 of 24 pixels ignored",
        "labelme: 1 masks read as shapes: nose in 1",
    )


def test_shots_enlarged_for_drawing_are_reduced(shots):
    """64 pixels cannot be drawn on; images are averaged, ids are chosen by their majority."""
    expected = masks.read_shots(shots, PALETTE)

    def enlarged(array, factor):
        return array.repeat(factor, 0).repeat(factor, 1)

    ragged = enlarged(MASK, 5)
    ragged[::5, ::5] = 0  # the corner of each cell
    images.write_png(shots / "masks/ann.png", ragged)
    for name, array in zip(("ann", "bob"), expected.images, strict=False):
        images.write_png(shots / f"images/{name}.png", enlarged(array, 5 if name == "ann" else 3))
    got = masks.read_shots(shots, PALETTE)
    np.testing.assert_array_equal(got.images, expected.images)
    np.testing.assert_array_equal(got.masks, expected.masks)
    assert got.notes[0] == (
        "images: enlarged ones are reduced to 4x3 pixels: ann (5 times), bob (3 times)"
    )
    assert "brought to the size of their images: bob" in got.notes[1]  # drawn on the small image


def test_shots_larger_than_the_generator_s_images_are_reduced(shots):
    for name in ("ann", "bob", "cleo"):
        image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3).repeat(6, 0).repeat(6, 1)
        images.write_png(shots / f"images/{name}.png", image)
        images.write_png(shots / f"masks/{name}.png", np.eye(4, dtype=np.uint8).repeat(6, 0))
    with _refused("ann.png: mask of 4x24 pixels"):
        masks.read_shots(shots, PALETTE, resolution=4)
    for name in ("ann", "bob", "cleo"):
        images.write_png(
            shots / f"masks/{name}.png", np.eye(4, dtype=np.uint8).repeat(6, 0).repeat(6, 1)
        )
    got = masks.read_shots(shots, PALETTE, resolution=4)
    np.testing.assert_array_equal(got.images[1], np.arange(48).reshape(4, 4, 3))
    np.testing.assert_array_equal(got.masks[1], np.eye(4))


@pytest.mark.parametrize("value", [0, 255])
def test_empty_masks_are_refused(shots, value):
    images.write_png(shots / "masks/bob.png", np.full((3, 4), value, np.uint8))
    what = "no class .255 means: ignore." if value else "nothing but 'background'"
    with _refused(f"bob.png: the mask of 'bob' shows {what}; draw its parts, or leave the shot"):
        masks.read_shots(shots, PALETTE)
    assert (masks.read_shots(shots, PALETTE, empty=True).masks[1] == value).all()
    assert masks.read_shots(shots, PALETTE, ("ann", "cleo")).names == ("ann", "cleo")


def test_empty_annotations_are_refused(shots):
    _labelme(shots / "labelme/cleo.json")
    with _refused("cleo.json: the mask of 'cleo' shows nothing but 'background'"):
        masks.read_shots(shots, PALETTE)
    (shots / "labelme/cleo.json").unlink()
    document = {
        "images": [{"id": 7, "file_name": "cleo.png", "width": 4, "height": 3}],
        "categories": [],
        "annotations": [],
    }
    (shots / "annotations.json").write_text(json.dumps(document))
    with _refused("annotations.json: the mask of 'cleo' shows nothing but 'background'"):
        masks.read_shots(shots, PALETTE)


def test_one_of_several_shots_of_black_and_white_is_refused(shots):
    images.write_png(shots / "masks/bob.png", np.where(MASK == 1, 255, 0).astype(np.uint8))
    with _refused("bob.png: its values are 0 and 255 alone: .* or set config.fewshot.reading=ids"):
        masks.read_shots(shots, PALETTE)
    stated = masks.read_shots(shots, PALETTE, reading="ids", empty=True)
    np.testing.assert_array_equal(stated.masks[1], np.where(MASK == 1, 255, 0))


def test_lists_of_labelme_s_are_read_as_labelme_does(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("__ignore__\n_background_\nnose #ff0000\neyes\n")
    palette = masks.read_classes(path)
    assert palette.names == ("_background_", "nose", "eyes")
    assert shapes.find_background(palette) == 0
    for text in ("__ignore__\nnose\neyes", "_background_\nnose\n__ignore__ #ffffff"):
        path.write_text(text)
        with _refused("labels.txt: __ignore__ is the label of ignored pixels .id 255., not a"):
            masks.read_classes(path)


@pytest.mark.parametrize(
    ("names", "background"),
    [
        ("background,nose", 0),
        ("BG,nose", 0),
        ("__background__,void", 0),  # the first of two
        ("nose,un-labelled", 1),
        ("Hintergrund,nose", 0),
        ("nose,eyes", None),
        ("nose,void,background", None),
        ("backpack,nose", None),
    ],
)
def test_names_tell_the_background(names, background):
    palette = parse_classes(names.replace(",", "\n"), "test")
    assert shapes.find_background(palette) == background
    assert shapes.find_background(palette, palette.names[1]) == 1


def test_masks_may_come_in_one_coco_file(shots):
    document = {
        "images": [{"id": 7, "file_name": "photos/cleo.png", "width": 4, "height": 3}],
        "categories": [{"id": 3, "name": "nose"}],
        "annotations": [
            {"image_id": 7, "category_id": 3, "segmentation": [[0, 0, 3, 0, 3, 2, 0, 2]]}
        ],
    }
    (shots / "annotations.json").write_text(json.dumps(document))
    drawn = masks.read_shots(shots, PALETTE).masks[2]
    (shots / "labelme/cleo.json").unlink()  # which came first
    np.testing.assert_array_equal(masks.read_shots(shots, PALETTE).masks[2], drawn)
    document["images"][0]["file_name"] = "dora.png"
    (shots / "annotations.json").write_text(json.dumps(document))
    with _refused("annotations.json: no picture named 'cleo'; there are dora"):
        masks.read_shots(shots, PALETTE)
