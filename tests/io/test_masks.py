"""Masks mean the same in every format, and bad shots are refused by name."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repgan_jax import metrics
from repgan_jax.errors import UserError
from repgan_jax.io import images, masks
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


def test_formats_agree(tmp_path):
    mask = MASK.astype(int)
    mask[0, 0] = 255
    images.write_png(tmp_path / "grey.png", mask.astype(np.uint8))
    images.write_palette_png(tmp_path / "palette.png", mask, PALETTE)
    for name in ("grey.png", "palette.png"):
        got = masks.read_mask(tmp_path / name, PALETTE, (3, 4))
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, mask, err_msg=name)


def test_colours_win_over_indices(tmp_path):
    """Programs that save few colours number them as they like."""
    colours = Image.fromarray(PALETTE.colours[MASK])
    colours.save(tmp_path / "rgb.png")
    colours.convert("RGBA").save(tmp_path / "rgba.png")
    shuffled = Image.fromarray(2 - MASK)
    shuffled.putpalette(PALETTE.colours[::-1].tobytes())
    shuffled.save(tmp_path / "shuffled.png")
    for name in ("rgb.png", "rgba.png", "shuffled.png"):
        np.testing.assert_array_equal(masks.read_mask(tmp_path / name, PALETTE), MASK, name)


def test_indices_count_under_a_foreign_palette(tmp_path):
    image = Image.fromarray(MASK)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "voc.png")
    np.testing.assert_array_equal(masks.read_mask(tmp_path / "voc.png", PALETTE), MASK)


def test_one_bit_masks_are_ids(tmp_path):
    Image.fromarray(MASK == 1).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(masks.read_mask(tmp_path / "bits.png", PALETTE), MASK == 1)


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
    np.testing.assert_array_equal(masks.read_mask(path, PALETTE), expected)


def test_drawn_polygons_are_the_masks_of_the_real_shots():
    """The polygons are simplified outlines of the masks: 0.17 % of the pixels differ, on edges."""
    palette = masks.read_classes(FACE / "classes.txt")
    counts = np.zeros((10, 10), int)
    for path in sorted((FACE / "labelme").glob("*.json")):
        mask = masks.read_mask(FACE / "masks" / f"{path.stem}.png", palette, (512, 512))
        drawn = masks.read_mask(path, palette, (512, 512))
        assert (mask != drawn).mean() < 0.0025
        counts += metrics.confusion(mask, drawn, 10)
    assert 1 - np.trace(counts) / counts.sum() < 0.002
    assert metrics.iou(counts).min() > 0.975  # brows, the thinnest


def test_bad_masks_are_refused(tmp_path):
    path = tmp_path / "mask.png"
    images.write_png(path, MASK)
    with _refused("mask.png: mask of 4x3 pixels .width x height. for a picture of 5x3"):
        masks.read_mask(path, PALETTE, (3, 5))
    images.write_png(path, np.where(MASK == 2, 7, MASK))
    with _refused("unknown id 7 in 4 pixels; the classes are 0 background, 1 nose, 2 eyes"):
        masks.read_mask(path, PALETTE)
    colours = PALETTE.colours[MASK]
    colours[0, 1:3] = (232, 116, 60)
    images.write_png(path, colours)
    with _refused("2 pixels of #e8743c, no class's colour; expected #000000 background, #e8743b"):
        masks.read_mask(path, PALETTE)
    Image.fromarray(MASK).convert("LA").save(path)
    with _refused("mask of mode LA; expected a grey, palette or RGB PNG"):
        masks.read_mask(path, PALETTE)
    path.write_bytes(b"nothing")
    with _refused("mask.png: not a picture"):
        masks.read_mask(path, PALETTE)


def test_bad_labelme_files_are_refused(tmp_path):
    path = tmp_path / "a.json"
    square = [[0, 0], [2, 0], [2, 2]]
    with _refused("a.json: unknown label 'hat'; expected background, nose, eyes"):
        masks.read_mask(_labelme(path, ("hat", "polygon", square)), PALETTE)
    with _refused("a.json: 'nose' is a circle of 2 points; draw polygons instead"):
        masks.read_mask(_labelme(path, ("nose", "circle", square[:2])), PALETTE)
    for text in ("", "[]", '{"shapes": []}', '{"imageWidth": -1, "imageHeight": 2, "shapes": []}'):
        path.write_text(text)
        with _refused("a.json: not a labelme file"):
            masks.read_mask(path, PALETTE)
    with _refused("a.json: not a labelme file"):
        masks.read_mask(_labelme(path, ("nose", "polygon", [[0], [1], [2]])), PALETTE)
    for text in ("[" * 100_000, '{"imageWidth": 400000, "imageHeight": 400000, "shapes": []}'):
        path.write_text(text)
        with _refused("a.json: not a labelme file"):
            masks.read_mask(path, PALETTE)
    with _refused("a.json: not a labelme file"):
        masks.read_mask(_labelme(path, ("nose", "polygon", [*square, [10**400, 0]])), PALETTE)
    with _refused("a.json: 'nose' is a polygon of 2 points; draw polygons instead"):
        masks.read_mask(_labelme(path, ("nose", "polygon", square[:2])), PALETTE)
    for points in ([*square, [1, np.nan]], [*square, [1e9, 0]]):
        with _refused("a.json: 'nose' cannot be drawn"):
            masks.read_mask(_labelme(path, ("nose", "polygon", points)), PALETTE)
    with _refused("a.json: unknown label "):
        masks.read_mask(_labelme(path, (["nose"], "polygon", square)), PALETTE)


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
        "no mask for shot 'cleo'; expected masks/cleo.png, labelme/cleo.json or annotations.json"
    ):
        masks.read_shots(shots, PALETTE)
    images.write_png(shots / "masks/cleo.png", MASK[:2])
    with _refused("cleo.png: mask of 4x2 pixels .width x height. for a picture of 4x3"):
        masks.read_shots(shots, PALETTE)
    images.write_png(shots / "images/cleo.png", np.zeros((2, 4, 3), np.uint8))
    with _refused("cleo.png: 4x2 pixels, but ann.png has 4x3; all shots must have one size"):
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
