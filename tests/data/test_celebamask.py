"""Both layouts of the true masks give the same classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repgan_jax.data import celebamask, masks
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import parse_classes

CLASSES = Path(__file__).parents[2] / "examples" / "face" / "classes.txt"
PALETTE = parse_classes("background\nskin\neyes\nhair", "test")
PARTS = ("skin", "l_eye", "r_eye", "hair")
PART_MAP = {"skin": "skin", "l_eye": "eyes", "r_eye": "eyes", "hair": "hair"}
ID_MAP = {
    "0": "background",
    "1": "skin",
    "4": "eyes",
    "5": "eyes",
    "13": "hair",
    "14": "background",
}


def _refused(message: str):
    """Expects a UserError whose one line contains `message`."""
    return pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z")


def _write_part(path, rows: slice, columns: slice):
    """Writes a part mask of 6x8 pixels as published: white on black, in RGB."""
    part = np.zeros((6, 8, 3), np.uint8)
    part[rows, columns] = 255
    images.write_png(path, part)


@pytest.fixture(name="folder")
def _folder(tmp_path):
    """Returns a folder with two photos, their part masks in subfolders, and fused masks."""
    for stem in ("7", "2001"):
        images.write_png(tmp_path / "photos" / f"{stem}.png", np.zeros((6, 8, 3), np.uint8))
        fused = np.zeros((6, 8), np.uint8)
        fused[1:5, 1:6] = 1
        fused[2, 2], fused[2, 4] = 4, 5
        fused[:2] = 13
        fused[5] = 14
        images.write_png(tmp_path / "fused" / f"{stem}.png", fused)
        parts = tmp_path / "parts" / str(int(stem) // 2000)
        _write_part(parts / f"{stem:0>5}_skin.png", slice(0, 5), slice(1, 6))
        _write_part(parts / f"{stem:0>5}_l_eye.png", slice(2, 3), slice(2, 3))
        _write_part(parts / f"{stem:0>5}_r_eye.png", slice(2, 3), slice(4, 5))
        _write_part(parts / f"{stem:0>5}_hair.png", slice(0, 2), slice(0, 8))
        _write_part(parts / f"{stem:0>5}_hat.png", slice(0, 6), slice(0, 8))  # left out
    return tmp_path


def test_layouts_agree(folder):
    fused = celebamask.find_pairs(folder / "photos", folder / "fused", "fused")
    parts = celebamask.find_pairs(folder / "photos", folder / "parts", "celebamask")
    assert [pair[:2] for pair in fused] == [pair[:2] for pair in parts]
    assert [stem for stem, _, _ in fused] == ["2001", "7"]
    assert fused[0][1] == folder / "photos" / "2001.png"
    for (_, _, one), (_, _, other) in zip(fused, parts, strict=True):
        got = celebamask.read_truth(one, "fused", ID_MAP, (), PALETTE)
        assert got.shape == (6, 8) and got.dtype == np.int32
        assert np.bincount(got.ravel()).tolist() == [17, 13, 2, 16]
        merged = celebamask.read_truth(other, "celebamask", PART_MAP, PARTS, PALETTE)
        assert merged.dtype == np.int32
        np.testing.assert_array_equal(merged, got)


def test_later_parts_cover_earlier_ones(folder):
    key = folder / "parts" / "0" / "00007"
    order = ("hair", *PARTS[:3])
    got = celebamask.read_truth(key, "celebamask", PART_MAP, order, PALETTE)
    assert (got[:2, 1:6] == 1).all() and (got[:2, 6:] == 3).all()


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "I;16", "0 and 1", "red"])
def test_parts_cover_the_same_pixels_however_they_are_stored(folder, mode):
    key = folder / "parts" / "0" / "00007"
    right = celebamask.read_truth(key, "celebamask", PART_MAP, ("skin",), PALETTE)
    part = right == 1
    colours = np.multiply.outer(part, [255, 0, 0]).astype(np.uint8)
    image = {
        "I;16": lambda: Image.fromarray(part * np.uint16(65535)),
        "0 and 1": lambda: Image.fromarray(part.astype(np.uint8)),
        "red": lambda: Image.fromarray(colours),
    }.get(mode, lambda: Image.fromarray(part * np.uint8(255)).convert(mode))()
    image.save(f"{key}_skin.png")
    found = celebamask.read_truth(key, "celebamask", PART_MAP, ("skin",), PALETTE)
    np.testing.assert_array_equal(found, right)
    assert part.sum() == 25


def test_parts_that_are_not_black_and_white_are_refused(folder):
    key = folder / "parts" / "0" / "00007"
    images.write_png(f"{key}_skin.png", np.eye(6, 8, dtype=np.uint8) * 3)
    with _refused("00007_skin.png: no pixel is brighter than 3 of 255"):
        celebamask.read_truth(key, "celebamask", PART_MAP, PARTS, PALETTE)
    clear = np.full((6, 8, 4), 255, np.uint8)
    clear[:2, ..., 3] = 0
    Image.fromarray(clear).save(f"{key}_skin.png")
    with _refused("00007_skin.png: 16 pixels are transparent"):
        celebamask.read_truth(key, "celebamask", PART_MAP, PARTS, PALETTE)


def test_absent_parts_are_no_error(folder):
    (folder / "parts/0/00007_hair.png").unlink()
    key = folder / "parts" / "0" / "00007"
    got = celebamask.read_truth(key, "celebamask", PART_MAP, PARTS, PALETTE)
    assert sorted(np.unique(got)) == [0, 1, 2]


def test_without_a_map_ids_are_ours(tmp_path):
    mask = np.array([[0, 2, 255], [3, 1, 3]], np.uint8)
    images.write_png(tmp_path / "a.png", mask)
    got = celebamask.read_truth(tmp_path / "a.png", "fused", {}, (), PALETTE)
    np.testing.assert_array_equal(got, mask)


def test_masks_of_one_bit(tmp_path):
    Image.fromarray(np.eye(4, dtype=bool)).save(tmp_path / "7.png")
    palette = parse_classes("background\nskin", "test")
    truth = celebamask.read_truth(tmp_path / "7.png", "fused", {}, (), palette)
    np.testing.assert_array_equal(truth, np.eye(4))
    with _refused("a mask of black and white for 4 classes"):  # white may be any of three
        celebamask.read_truth(tmp_path / "7.png", "fused", {}, (), PALETTE)
    ids = {"0": "background", "1": "eyes"}  # states that there are ids
    truth = celebamask.read_truth(tmp_path / "7.png", "fused", ids, (), PALETTE)
    np.testing.assert_array_equal(truth, 2 * np.eye(4))


def test_missing_files_are_named(folder):
    photos = folder / "photos"
    (folder / "fused/7.png").unlink()
    with _refused("fused: no mask for .*7.png; expected 7.png"):
        celebamask.find_pairs(photos, folder / "fused", "fused")
    images.write_png(photos / "8.png", np.zeros((6, 8, 3), np.uint8))
    with _refused("parts: no mask for .*8.png; expected 00008_skin.png"):
        celebamask.find_pairs(photos, folder / "parts", "celebamask")
    with _refused("nowhere: no such folder"):
        celebamask.find_pairs(photos, folder / "nowhere", "fused")
    with _refused(r"\Alayout: 'merged'; expected fused or celebamask"):
        celebamask.find_pairs(photos, folder / "fused", "merged")


def test_pairs_mirror_folders_and_ignore_the_case_of_suffixes(folder):
    photos, fused = folder / "photos", folder / "fused"
    for path in (photos, fused):
        (path / "sub").mkdir()
        (path / "7.png").rename(path / "sub" / "7.PNG")
    pairs = celebamask.find_pairs(photos, fused, "fused")
    assert pairs == [
        ("2001", photos / "2001.png", fused / "2001.png"),
        ("sub/7", photos / "sub/7.PNG", fused / "sub/7.PNG"),
    ]
    parts = celebamask.find_pairs(photos, folder / "parts", "celebamask")
    assert [(name, key.name) for name, _, key in parts] == [("2001", "02001"), ("sub/7", "00007")]
    fused.rename(photos / "masks")  # inside the photos' folder, it is not one of photos
    pairs = celebamask.find_pairs(photos, photos / "masks", "fused")
    assert [name for name, _, _ in pairs] == ["2001", "sub/7"]


def test_several_files_of_one_name_are_refused(folder):
    photos, fused = folder / "photos", folder / "fused"
    images.write_png(photos / "7.jpg", np.zeros((6, 8, 3), np.uint8))
    with _refused("photos: 2 files for photo '7': 7.jpg, 7.png; expected one"):
        celebamask.find_pairs(photos, fused, "fused")
    (photos / "7.jpg").unlink()
    images.write_png(fused / "7.tif", np.zeros((6, 8), np.uint8))
    with _refused("fused: 2 files for the mask of .*7.png: 7.png, 7.tif; expected one"):
        celebamask.find_pairs(photos, fused, "fused")


def test_parts_are_found_in_capitals_and_only_once(folder):
    photos, parts = folder / "photos", folder / "parts"
    key = parts / "0" / "00007"
    expected = celebamask.read_truth(key, "celebamask", PART_MAP, PARTS, PALETTE)
    hair = parts / "0" / "00007_hair.png"
    data = hair.read_bytes()
    hair.rename(hair.with_suffix(".PNG"))
    assert (
        dict((n, k) for n, _, k in celebamask.find_pairs(photos, parts, "celebamask"))["7"] == key
    )
    got = celebamask.read_truth(key, "celebamask", PART_MAP, PARTS, PALETTE)
    np.testing.assert_array_equal(got, expected)
    hair.write_bytes(data)
    with _refused("2 files for a part of .*7.png: 00007_hair.PNG, 00007_hair.png; expected one"):
        celebamask.find_pairs(photos, parts, "celebamask")
    hair.rename(parts / "1" / hair.name)
    with _refused("parts of .*7.png in 2 folders: .*0, .*1; expected all in one"):
        celebamask.find_pairs(photos, parts, "celebamask")


def test_bad_maps_and_masks_are_refused(folder):
    key, prefix = folder / "fused" / "7.png", folder / "parts" / "0" / "00007"

    def fused(class_map):
        celebamask.read_truth(key, "fused", class_map, (), PALETTE)

    def merged(order):
        celebamask.read_truth(prefix, "celebamask", PART_MAP, order, PALETTE)

    with _refused("7.png: unknown id 14 in 8 pixels; expected 0, 1, 4, 5, 13"):
        fused({k: name for k, name in ID_MAP.items() if k != "14"})
    with _refused(r"\Aclass_map.14: no class is named 'hat'; the classes are background"):
        fused(ID_MAP | {"14": "hat"})
    with _refused(r"\Aclass_map.skin: not an id"):
        fused(PART_MAP)
    with _refused(r"\Amerge_order: part 'nose' is not in class_map"):
        merged((*PARTS, "nose"))
    with _refused("00007_.*: no file of a part in merge_order"):
        merged(())
    images.write_png(folder / "parts/0/00007_hair.png", np.zeros((5, 8), np.uint8))
    with _refused("00007_hair.png: 8x5 pixels; the parts before it have 8x6"):
        merged(PARTS)
    images.write_png(key, np.full((6, 8, 3), (0, 0, 1), np.uint8))
    with _refused("7.png: a colour picture"):
        fused(ID_MAP)


def test_parts_without_a_background_are_refused(folder):
    key, palette = folder / "parts" / "0" / "00007", parse_classes("skin\neyes\nhair", "test")
    with _refused("00007_.*: no shape covers 17 of 48 pixels, and none of the classes"):
        celebamask.read_truth(key, "celebamask", PART_MAP, PARTS, palette)
    got = celebamask.read_truth(key, "celebamask", PART_MAP, PARTS, palette, background="eyes")
    assert np.bincount(got.ravel()).tolist() == [13, 19, 16]


def test_palette_masks_without_a_map_are_read_by_their_colours(folder):
    """Programs that save few colours number them as they like; so do our own shots."""
    mask = np.arange(48).reshape(6, 8) % 4
    shuffled = Image.fromarray((3 - mask).astype(np.uint8))
    shuffled.putpalette(PALETTE.colours[::-1].tobytes())
    shuffled.save(folder / "fused/7.png")
    got = celebamask.read_truth(folder / "fused/7.png", "fused", {}, (), PALETTE)
    np.testing.assert_array_equal(got, mask)


def test_real_masks_have_the_ten_classes(shared):
    """Ids of CelebAMask-HQ, by size: every part that faces usually show is there."""
    folder = shared("data/celebamask_hq")
    palette = masks.read_classes(CLASSES)
    ids = (0, 1, 2, 0, 3, 3, 4, 4, 5, 5, 6, 6, 6, 7, 0, 0, 0, 8, 9)
    class_map = {str(source): palette.names[k] for source, k in enumerate(ids)}
    pairs = celebamask.find_pairs(folder / "images", folder / "masks", "fused")
    assert len(pairs) == 691 and pairs == sorted(pairs)
    truths = np.stack(
        [celebamask.read_truth(key, "fused", class_map, (), palette) for _, _, key in pairs[:20]]
    )
    assert truths.shape == (20, 512, 512)
    shares = np.bincount(truths.ravel(), minlength=10) / truths.size
    assert (shares > 0.001).all() and shares[[0, 1, 7]].sum() > 0.7
    for truth, (_, _, key) in zip(truths, pairs, strict=False):  # its palette has other colours
        np.testing.assert_array_equal(truth, np.array(ids)[np.asarray(Image.open(key))])
