"""Layouts of folders come back through their readers."""

import numpy as np
import pytest
from PIL import Image

from repgan_jax.data import celebamask, mask_files
from repgan_jax.data.export.folders import CelebAMask, Voc
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import Palette, default_colours


def _assert_is_picture(path, example):
    with Image.open(path) as image:
        assert image.format == "JPEG"
    difference = images.read_photo(path).astype(int) - example["image"]
    assert np.abs(difference).mean() < 2  # of 255, on a smooth picture


def test_voc_has_masks_of_ids_in_the_colours_of_the_classes(export, examples, palette, tmp_path):
    export(Voc)
    for example in examples:
        stem = f"{example['index']:08d}"
        _assert_is_picture(tmp_path / "JPEGImages" / f"{stem}.jpg", example)
        with Image.open(tmp_path / "SegmentationClass" / f"{stem}.png") as mask:
            assert mask.mode == "P"
            np.testing.assert_array_equal(np.asarray(mask), example["mask"])  # 255 among them
            colours = np.asarray(mask.convert("RGB"))
        known = example["mask"] != 255
        np.testing.assert_array_equal(colours[known], palette.colours[example["mask"][known]])
        path = tmp_path / "SegmentationClass" / f"{stem}.png"
        read = mask_files.choose_reader([path], palette).read(path).ids
        np.testing.assert_array_equal(read, example["mask"])


def test_voc_lists_splits_and_classes(export, palette, tmp_path):
    export(Voc)
    lists = tmp_path / "ImageSets" / "Segmentation"
    assert (lists / "train.txt").read_text() == "00000000\n00000001\n00000002\n"
    assert (lists / "val.txt").read_text() == "00000003\n00000004\n"
    assert (tmp_path / "labels.txt").read_text().splitlines() == list(palette.names)


def test_celebamask_comes_back(export, examples, palette, tmp_path):
    export(CelebAMask)
    photos, anno = tmp_path / "CelebA-HQ-img", tmp_path / "CelebAMask-HQ-mask-anno"
    assert not list(anno.rglob("00004_*"))  # no part, no file: a photo that cannot be scored
    (photos / "4.jpg").unlink()
    class_map = {"left_eye": "left eye", "a_b": "a/b", "nose": "nose"}
    pairs = celebamask.find_pairs(photos, anno, "celebamask")
    assert [stem for stem, _, _ in pairs] == ["0", "1", "2", "3"]
    for (_, photo, key), example in zip(pairs, examples, strict=False):
        _assert_is_picture(photo, example)
        truth = celebamask.read_truth(key, "celebamask", class_map, tuple(class_map), palette)
        expected = np.where(example["mask"] == 255, 0, example["mask"])
        np.testing.assert_array_equal(truth, expected)
    with Image.open(anno / "0" / "00002_nose.png") as part:
        assert part.mode == "L" and set(np.unique(part)) == {0, 255}
    assert (tmp_path / "train.txt").read_text() == "0\n1\n2\n"


def test_celebamask_has_2000_pictures_a_folder(examples, palette, tmp_path):
    CelebAMask(tmp_path, palette).write_example("train", {**examples[0], "index": 123456})
    assert (tmp_path / "CelebAMask-HQ-mask-anno/61/123456_nose.png").exists()


@pytest.mark.parametrize("names", [("left eye", "left_eye"), ("a/b", "a\\b"), ("Hair", "hair")])
def test_classes_that_would_share_a_file_are_refused(names, tmp_path):
    palette = Palette(("background", *names), default_colours(3))
    with pytest.raises(UserError, match="would share the files .*rename one"):
        CelebAMask(tmp_path, palette)
