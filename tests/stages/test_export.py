"""The generated dataset in every format, by the command."""

import json
import shutil
import types

import numpy as np
import pytest
from tqdm import tqdm

from repgan_jax.data.export.coco import Coco
from repgan_jax.io import images
from repgan_jax.stages import export
from repgan_jax.training import batches


@pytest.fixture
def run(tiny_run, tmp_path):
    """Exports the dataset of the small run, in a copy of its folder; adds that folder."""
    for stage in ("fewshot", "generate"):
        shutil.copytree(tiny_run.workdir / stage, tmp_path / stage)

    def start(**changes):
        fields = {"held_out": 0.2, "shard_size": 4} | changes
        fields = {f"export__{name}": value for name, value in fields.items()}
        return tiny_run.run(tmp_path, stages="export", **fields)

    start.workdir = tmp_path
    return start


def _files(folder):
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "stage.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coco", {"images/train/*.png": 10, "images/val/*.png": 2, "annotations/*.json": 2}),
        ("voc", {"JPEGImages/*.jpg": 12, "SegmentationClass/*.png": 12, "ImageSets/*/*.txt": 2}),
        ("celebamask", {"CelebA-HQ-img/*.jpg": 12, "[!l]*.txt": 2}),
        ("parquet", {"data/train-*-of-00003.parquet": 3, "data/validation-*-of-00001.parquet": 1}),
    ],
)
def test_every_format_is_whole(run, name, expected):
    code, _, err = run(format=name)
    assert code == 0, err
    folder = run.workdir / "export" / name
    assert {pattern: len(list(folder.glob(pattern))) for pattern in expected} == expected
    assert not list(folder.rglob(".*"))
    record = json.loads((folder / "stage.json").read_text())
    assert record["summary"] == {"num_pictures": 12, "held_out": 2}


@pytest.mark.parametrize("share", [0.01, 0.05, 0.2, 0.5])
def test_held_out_pictures_are_those_of_autoshot(run, monkeypatch, share):
    seen = []
    fake = types.SimpleNamespace(is_written=lambda part: seen.append(part) or True)
    fake.finish = lambda parts: None
    monkeypatch.setitem(export.FORMATS, "coco", lambda folder, palette: fake)
    assert run(held_out=share)[0] == 0
    count = batches.num_held_out(12, share)
    held_out = [i for part in seen if part.split == "val" for i in part.indices]
    assert held_out == list(range(12 - count, 12))
    assert sorted(i for part in seen for i in part.indices) == list(range(12))


def test_killed_export_goes_on(run, monkeypatch):
    assert run()[0] == 0
    whole = _files(run.workdir / "export/coco")
    shutil.rmtree(run.workdir / "export")
    calls, write = [], Coco.write_example

    def killed(self, split, example):
        calls.append(int(example["index"]))
        if len(calls) == 7:
            raise KeyboardInterrupt
        return write(self, split, example)

    monkeypatch.setattr(Coco, "write_example", killed)
    assert run()[0] == 130
    assert not (run.workdir / "export/coco/annotations/instances_train.json").exists()
    assert run()[0] == 0
    assert calls == [*range(7), *range(4, 12)]  # the first part was there already
    assert _files(run.workdir / "export/coco") == whole
    assert "coco: done already" in run()[1] and len(calls) == 15


def test_changed_settings_start_again_but_not_in_a_folder_of_the_user(run):
    own = run.workdir / "own"
    assert run()[0] == run(output=own)[0] == 0
    changed = "config.export.held_out 0.2 -> 0.0"
    code, out, _ = run(held_out=0.0)
    assert code == 0 and f"coco: starting again, for these changed: {changed}\n" in out
    assert not (run.workdir / "export/coco/images/val").exists()
    before = _files(own)
    code, _, err = run(output=own, held_out=0.0)
    assert code == 2 and f"{own}: made with other settings ({changed})" in err
    assert _files(own) == before
    foreign = run.workdir / "photos"
    images.write_png(foreign / "a.png", np.zeros((2, 2), np.uint8))
    code, _, err = run(output=foreign)
    assert code == 2 and f"{foreign}: not the folder of a stage" in err
    assert [path.name for path in foreign.iterdir()] == ["a.png"]


def test_masks_take_the_size_of_their_pictures():
    class Data(list):
        class_names = ("background", "part")

    mask = np.random.default_rng(0).integers(0, 2, (8, 8)).astype(np.int32)
    data = Data([{"image": np.zeros((16, 16, 3), np.uint8), "mask": mask}])
    (example,) = export._examples(data, range(1), tqdm(disable=True))
    np.testing.assert_array_equal(example["mask"], mask.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "yolo"}, "config.export.format: 'yolo', expected one of coco, voc"),
        ({"shard_size": 0}, "config.export.shard_size: 0, expected at least 1"),
        ({"held_out": 1.0}, "config.export.held_out: 1.0, expected 0 <= share < 1"),
        ({"held_out": -0.1}, "config.export.held_out: -0.1, expected 0 <= share < 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(run, changes, message):
    code, _, err = run(**changes)
    assert code == 2 and message in err and err.count("\n") == 1
    assert not (run.workdir / "export").exists()


def test_dataset_must_be_finished(run):
    shutil.rmtree(run.workdir / "generate")
    code, _, err = run()
    assert code == 2 and "generate: stage generate is not finished; run it first" in err
