"""Datasets come back as written, through TFDS and Grain, and cut shards are found."""

import sys

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds

from repgan_jax.errors import UserError
from repgan_jax.io import dataset

NAMES = ("background", "left eye", "nose")


def _writer(folder, **changes):
    options = {
        "folder": folder,
        "class_names": NAMES,
        "shard_lengths": (3, 3, 1),
        "picture_size": 8,
        "label_size": 6,
        "latent_shape": (5,),
    }
    return dataset.Writer(**{**options, **changes})


def _example(index):
    rng = np.random.default_rng(index)
    probabilities = rng.dirichlet(np.ones(3), (6, 6)).astype(np.float32)
    return {
        "image": rng.integers(0, 256, (8, 8, 3), np.uint8),
        "mask": probabilities.argmax(-1).astype(np.int32),
        "probabilities": probabilities,
        "latent": rng.normal(size=5).astype(np.float32),
        "index": index,
        "confidence": probabilities.max(-1).mean(),
    }


def _write(writer):
    for shard in (2, 0, 1):  # any order
        start = sum(writer.shard_lengths[:shard])
        length = writer.shard_lengths[shard]
        writer.write(shard, (_example(start + i) for i in range(length)))


@pytest.fixture
def folder(tmp_path):
    """A finished dataset of 7 examples in 3 shards."""
    writer = _writer(tmp_path)
    assert writer.missing() == [0, 1, 2]
    _write(writer)
    writer.finalize()
    return tmp_path


def _assert_is_example(got, index):
    expected = _example(index)
    assert got.keys() == expected.keys()
    for name in ("image", "mask", "latent", "index"):
        np.testing.assert_array_equal(got[name], expected[name])
    assert got["mask"].dtype == np.int32
    np.testing.assert_allclose(got["confidence"], expected["confidence"], rtol=1e-6)
    # stored as 0..255: half a step, and float32
    np.testing.assert_allclose(got["probabilities"], expected["probabilities"], atol=0.5001 / 255)


def test_examples_come_back(folder):
    data = dataset.open_dataset(folder)
    assert len(data) == 7 and data.class_names == NAMES
    for index in (5, 0, 6):
        _assert_is_example(data[index], index)


def test_tfds_reads_it(folder):
    builder = tfds.builder_from_directory(folder / "generated" / "1.0.0")
    assert builder.info.features["mask"].names == list(NAMES)
    source = builder.as_data_source()["train"]
    np.testing.assert_array_equal(source[4]["image"], _example(4)["image"])
    np.testing.assert_array_equal(source[4]["mask"][..., 0], _example(4)["mask"])
    assert source[4]["soft"].shape == (3 * 6, 6, 1)
    assert "tensorflow" not in sys.modules


def test_grain_reads_it(folder):
    batches = grain.MapDataset.source(dataset.open_dataset(folder)).shuffle(seed=1).batch(7)
    (batch,) = list(batches)
    assert batch["image"].shape == (7, 8, 8, 3) and batch["probabilities"].shape == (7, 6, 6, 3)
    assert sorted(batch["index"]) == list(range(7))
    assert "tensorflow" not in sys.modules


def test_hard_labels_alone(tmp_path):
    writer = _writer(tmp_path, soft=False, shard_lengths=(2,))
    writer.write(0, [_example(0), _example(1)])
    writer.finalize()
    assert "probabilities" not in dataset.open_dataset(tmp_path)[1]


def test_same_examples_give_the_same_bytes(tmp_path):
    first, second = _writer(tmp_path / "first"), _writer(tmp_path / "second")
    _write(first)
    _write(second)
    for shard in range(3):
        assert first.shard_path(shard).read_bytes() == second.shard_path(shard).read_bytes()


@pytest.mark.parametrize("keep", [0.0, 0.4, 0.999])
def test_cut_shard_is_found(folder, keep):
    writer = _writer(folder)
    path = writer.shard_path(1)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert writer.missing() == [1]
    with pytest.raises(UserError, match="train.array_record-00001-of-00003: not a whole shard"):
        writer.finalize()
    with pytest.raises(UserError, match="array_record-00001-of-00003 is missing or not whole"):
        dataset.open_dataset(folder)
    writer.write(1, [_example(3), _example(4), _example(5)])
    assert writer.missing() == []
    _assert_is_example(dataset.open_dataset(folder)[4], 4)


def test_unfinished_dataset_is_refused(tmp_path):
    writer = _writer(tmp_path)
    writer.write(0, [_example(i) for i in range(3)])
    with pytest.raises(UserError, match="no finished dataset here; run the stage generate"):
        dataset.open_dataset(tmp_path)


def test_damaged_metadata_is_named(folder):
    (folder / "generated/1.0.0/features.json").write_text("{")
    with pytest.raises(UserError, match="the dataset cannot be read"):
        dataset.open_dataset(folder)


def test_nothing_is_left_of_a_shard_that_failed(tmp_path, monkeypatch):
    class FullDisk(dataset.ArrayRecordWriter):
        def write(self, record):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset, "ArrayRecordWriter", FullDisk)
    writer = _writer(tmp_path)
    with pytest.raises(UserError, match="00000-of-00003: not written .*No space left"):
        writer.write(0, [_example(i) for i in range(3)])
    assert list(writer.shard_path(0).parent.iterdir()) == []


def test_disk_that_swallows_records_is_noticed(tmp_path):
    with pytest.raises(UserError, match="fewer records than expected"):
        _writer(tmp_path).write(0, [_example(0)])
