"""What is exported is what pycocotools reads."""

import sys

import numpy as np
import pytest
from pycocotools.coco import COCO

from repgan_jax.data import coco
from repgan_jax.data.export.coco import Coco
from repgan_jax.errors import UserError
from repgan_jax.io import images


def test_pycocotools_reads_pictures_and_masks(export, examples, tmp_path):
    export(Coco)
    seen = []
    for split, indices in (("train", [0, 1, 2]), ("val", [3, 4])):
        found = COCO(tmp_path / f"annotations/instances_{split}.json")
        assert found.getImgIds() == indices
        for index, entry in found.imgs.items():
            picture = images.read_photo(tmp_path / "images" / split / entry["file_name"])
            np.testing.assert_array_equal(picture, examples[index]["image"])
            assert (entry["height"], entry["width"]) == (16, 16)
            mask = examples[index]["mask"]
            annotations = found.imgToAnns[index]
            assert [a["category_id"] for a in annotations] == sorted({*np.unique(mask)} - {0, 255})
            for each in annotations:
                covered = mask == each["category_id"]
                np.testing.assert_array_equal(found.annToMask(each), covered)
                assert each["area"] == covered.sum() and each["iscrowd"] == 0
                y, x = covered.nonzero()
                corner, far = (x.min(), y.min()), (x.max() + 1, y.max() + 1)
                assert each["bbox"] == [*corner, *np.subtract(far, corner)]
            seen += [each["id"] for each in annotations]
    assert len(set(seen)) == len(seen) == 11 and min(seen) > 0


def test_categories_are_the_classes(export, palette, tmp_path):
    export(Coco)
    categories = COCO(tmp_path / "annotations/instances_val.json").loadCats([1, 2, 3])
    assert [category["name"] for category in categories] == list(palette.names[1:])
    assert (tmp_path / "labels.txt").read_text().splitlines() == list(palette.names)


def test_masks_can_be_read_as_shots(export, examples, palette, tmp_path):
    export(Coco)
    found = coco.read_masks(tmp_path / "annotations/instances_train.json", palette)
    assert list(found) == ["00000000", "00000001", "00000002"]
    for draw, example in zip(found.values(), examples, strict=False):
        np.testing.assert_array_equal(draw(), np.where(example["mask"] == 255, 0, example["mask"]))


def test_a_kill_between_list_and_cleaning_up_changes_nothing(export, examples, parts, tmp_path):
    writer = export(Coco)
    path = tmp_path / "annotations/instances_train.json"
    before = path.read_bytes()
    writer.write(parts[1], [examples[2]])  # what had not yet been removed
    writer.finish(parts)
    assert path.read_bytes() == before and not list(tmp_path.rglob(".*"))


def test_without_pycocotools_it_says_what_to_install(monkeypatch, palette, tmp_path):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(UserError, match=r'not installed; pip install "repgan-jax\[export\]"'):
        Coco(tmp_path, palette)
