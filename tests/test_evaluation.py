"""A segmenter against true masks: folders, files and arrays; both conventions of the scores."""

import json

import numpy as np
import pytest
from PIL import Image

import repgan_jax as rg
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import Palette, default_colours
from repgan_jax.segmenter import Segmenter

NAMES = ("background", "dark", "bright")


@pytest.fixture(autouse=True)
def threshold(monkeypatch):
    """Lets every segmenter predict by brightness: up to 99 is 0, up to 199 is 1, the rest 2."""

    def predict(self, photos):
        grey = photos[..., 0].astype(int)
        return ((grey >= 100).astype(int) + (grey >= 200)).astype(np.int32)

    monkeypatch.setattr(Segmenter, "predict", predict)


@pytest.fixture
def segmenter():
    return Segmenter({}, None, Palette(NAMES, default_colours(3)), 32)


def make_photo(ids):
    """Returns the photo uint8 [H, W, 3] for which ids [H, W] are predicted."""
    return np.repeat(np.array([50, 150, 250], np.uint8)[np.asarray(ids)][..., None], 3, -1)


PREDICTED = (
    np.array([[[0, 0], [1, 1]], [[0, 0], [2, 0]], [[2, 2], [2, 2]]]).repeat(4, 1).repeat(4, 2)
)
TRUE = np.array([[[0, 0], [1, 2]], [[0, 0], [2, 255]], [[2, 2], [2, 2]]]).repeat(4, 1).repeat(4, 2)


@pytest.fixture
def arrays():
    return [make_photo(ids) for ids in PREDICTED], list(TRUE)


def run(segmenter, photos, masks, **options):
    return rg.evaluate(segmenter, photos, masks, size=8, progress=False, **options)


def test_scores_under_both_conventions(segmenter, arrays):
    found = run(segmenter, *arrays)
    cell = 16  # pixels
    expected = [
        [[2, 0, 0], [0, 1, 0], [0, 1, 0]],
        [[2, 0, 0], [0, 0, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 4]],
    ]
    np.testing.assert_array_equal(found.counts, cell * np.array(expected))
    assert found.pooled["iou"] == pytest.approx({"background": 1, "dark": 1 / 2, "bright": 5 / 6})
    assert found.pooled["mean_iou"] == pytest.approx((1 + 1 / 2 + 5 / 6) / 3)
    assert found.pooled["pixel_accuracy"] == pytest.approx(10 / 11)
    # bright: 0 of 1 in the first photo, 1 in the others
    assert found.per_image["iou"] == pytest.approx(
        {"background": 1, "dark": 1 / 2, "bright": 2 / 3}
    )
    assert found.per_image["mean_iou"] == pytest.approx(((1 + 1 / 2 + 0) / 3 + 1 + 1) / 3)
    assert found.per_image["pixel_accuracy"] == pytest.approx((3 / 4 + 1 + 1) / 3)
    assert found.names == ("0", "1", "2") and found.class_names == NAMES
    ignored = "3 masks read as ids: background in 2, dark in 1, bright in 3; 8.3% ignored"
    assert found.notes == ignored
    assert repr(found) == (
        "Evaluation(3 photos, 3 classes, mean IoU 0.778 pooled, 0.833 per image)"
    )
    assert found.table().splitlines()[1].split() == ["background", "100.0", "100.0"]


def test_arrays_files_and_folders_score_alike(segmenter, arrays, tmp_path):
    photos, masks = arrays
    for i, (photo, mask) in enumerate(zip(photos, masks, strict=True)):
        images.write_png(tmp_path / "photos" / "sub" / f"{i}.png", photo)
        images.write_png(tmp_path / "masks" / "sub" / f"{i}.png", mask)
    files = [sorted((tmp_path / name / "sub").iterdir()) for name in ("photos", "masks")]
    expected = run(segmenter, photos, masks)
    for given in (
        (tmp_path / "photos", str(tmp_path / "masks")),
        (files[0], [str(path) for path in files[1]]),
        ([Image.fromarray(photo) for photo in photos], files[1]),
        (np.stack(photos), np.stack(masks).astype(np.uint8)),
    ):
        found = run(segmenter, *given, batch_size=2)
        np.testing.assert_array_equal(found.counts, expected.counts)
        assert (found.pooled, found.notes) == (expected.pooled, expected.notes)
    assert run(segmenter, tmp_path / "photos", tmp_path / "masks").names == (
        "sub/0",
        "sub/1",
        "sub/2",
    )


def test_ids_of_others_are_translated(segmenter, arrays, tmp_path):
    photos, masks = arrays
    foreign = [
        np.select([mask == 1, mask == 2], [7, 300], mask).astype(np.uint16) for mask in masks
    ]
    class_map = {0: "background", 7: "dark", 300: "bright"}
    expected = run(segmenter, photos, masks).counts
    found = run(segmenter, photos, foreign, class_map=class_map)
    np.testing.assert_array_equal(found.counts, expected)
    with pytest.raises(
        UserError, match=r"\Amasks\[0\]: unknown id 300 in 16 pixels; expected 0, 7"
    ):
        run(segmenter, photos, foreign, class_map={0: "background", 7: "dark"})
    with pytest.raises(UserError, match=r"\Aclass_map.7: no class is named 'hat'"):
        run(segmenter, photos, foreign, class_map=class_map | {7: "hat"})


def test_parts_are_painted_over_each_other(segmenter, arrays, tmp_path):
    photos = arrays[0][:2]
    for i, ids in enumerate(PREDICTED[:2]):
        images.write_png(tmp_path / "photos" / f"{i}.png", photos[i])
        for part, least in (("skin", 1), ("hair", 2)):  # hair lies over skin
            path = tmp_path / "parts" / f"{i:05d}_{part}.png"
            images.write_png(path, 255 * (ids >= least))
    options = {"layout": "celebamask", "class_map": {"skin": "dark", "hair": "bright"}}
    folders = (tmp_path / "photos", tmp_path / "parts")
    found = run(segmenter, *folders, merge_order=("skin", "hair"), **options)
    assert found.pooled["mean_iou"] == 1 and "read as one file per part" in found.notes
    with pytest.raises(UserError, match=r"\Amerge_order: empty, expected the part names"):
        run(segmenter, *folders, **options)


def test_photos_of_another_size_are_compared_at_one_size(segmenter):
    ids = np.zeros((40, 24), int)
    ids[20:] = 2
    found = run(segmenter, [make_photo(ids)], [ids[::2, ::2]])
    assert found.counts.sum() == 64 and found.pooled["pixel_accuracy"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": list(TRUE[:2])}, "masks: 2 for 3 photos"),
        ({"photos": [], "masks": []}, "masks: 0 for 0 photos"),
        ({"masks": "folder"}, "masks: a folder, but photos are a sequence"),
        ({"masks": [*TRUE[:2], TRUE[2] + 1]}, r"masks\[2\]: ids 3 to 3, expected 0 to 2, or 255"),
        ({"masks": TRUE / 2}, r"masks\[0\]: float64 \[8, 8\], expected integer ids"),
        ({"masks": TRUE[:, :4]}, r"masks\[0\]: true mask of 8x4 pixels .* photo of 8x8"),
        ({"photos": PREDICTED}, r"photos\[0\]: int64 \[8, 8\]; expected uint8 RGB photos"),
        ({"layout": "voc"}, "layout: 'voc', expected one of fused, celebamask"),
        ({"reading": "colors"}, "reading: 'colors', expected one of auto, ids, colours"),
        (
            {"reading": "colours", "class_map": {1: "dark"}},
            "reading: 'colours', but class_map translates ids",
        ),
        ({"batch_size": 0}, "batch_size: 0, expected at least 1"),
        ({"layout": "celebamask", "merge_order": ("a",)}, r"masks\[0\]: an array; expected paths"),
    ],
)
def test_what_does_not_fit_is_named(segmenter, arrays, change, message):
    given = {"photos": arrays[0], "masks": arrays[1], **change}
    with pytest.raises(UserError, match=rf"\A{message}"):
        run(segmenter, **given)


def test_size_is_positive(segmenter, arrays):
    with pytest.raises(UserError, match="size: 0, expected at least 1"):
        rg.evaluate(segmenter, *arrays, size=0)


def test_scores_from_python_are_those_of_the_command(tiny_run, monkeypatch):
    monkeypatch.undo()  # the network itself
    photos, masks = (sorted((tiny_run.photos / name).iterdir()) for name in ("images", "masks"))
    segmenter = rg.load_segmenter(tiny_run.workdir)
    found = rg.evaluate(segmenter, photos[1:], masks[1:], size=48, progress=False)
    expected = json.loads((tiny_run.workdir / "evaluate/metrics.json").read_text())
    assert (found.pooled, found.per_image) == (expected["pooled"], expected["per_picture"])
