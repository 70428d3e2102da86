"""Datasets come back as written, through TFDS and Grain, and cut shards are found."""

import sys

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds

from repgan_jax.data import dataset, shards
from repgan_jax.errors import UserError

NAMES = ("background", "left eye", "nose")


def _writer(folder, **changes):
    options = {
        "folder": folder,
        "class_names": NAMES,
        "shard_lengths": (3, 3, 1),
        "image_size": 8,
        "label_size": 6,
        "latent_shape": (5,),
        "soft_size": 6,
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
        "disagreement": [0.3, 0.1, 0.7, 0.1, 0.9, 0.2, 0.7][index],
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
    for name in ("confidence", "disagreement"):
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6)
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
    writer = _writer(tmp_path, soft_size=0, shard_lengths=(2,))
    writer.write(0, [_example(0), _example(1)])
    writer.finalize()
    assert "probabilities" not in dataset.open_dataset(tmp_path)[1]


def test_probabilities_may_be_coarse_floats(tmp_path):
    """Through TFDS alone, too, which needs no TensorFlow for them."""
    writer = _writer(tmp_path, soft_size=3, soft_type="float16", shard_lengths=(2,))
    coarse = [_example(i)["probabilities"][::2, ::2] for i in range(2)]
    writer.write(0, [{**_example(i), "probabilities": coarse[i]} for i in range(2)])
    writer.finalize()
    for i, example in enumerate(dataset.open_dataset(tmp_path)):
        assert example["probabilities"].dtype == np.float32
        np.testing.assert_allclose(example["probabilities"], coarse[i], atol=2**-12)
    source = tfds.builder_from_directory(tmp_path / "generated" / "1.0.0").as_data_source()["train"]
    assert source[1]["soft"].dtype == np.float16 and source[1]["soft"].shape == (3, 3, 3)
    assert "tensorflow" not in sys.modules


def test_examples_may_be_left_out(folder):
    left = dataset.open_dataset(folder).without([0, 4, 5]).without([1])
    assert [example["index"] for example in left] == [1, 3, 6] and len(left) == 3
    _assert_is_example(left[2], 6)


def test_scores_of_all_pictures_are_listed(folder):
    for name, values in dataset.read_scores(folder).items():
        np.testing.assert_allclose(values, [_example(i)[name] for i in range(7)], rtol=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"PK\3\4"])
def test_damaged_scores_are_named(folder, content):
    path = folder / "scores.npz"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"scores.npz: cannot be read .*generate again"):
        dataset.read_scores(folder)


def test_same_examples_give_the_same_bytes(tmp_path):
    first, second = _writer(tmp_path / "first"), _writer(tmp_path / "second")
    _write(first)
    _write(second)
    for shard in range(3):
        assert first.shard(shard).path.read_bytes() == second.shard(shard).path.read_bytes()


@pytest.mark.parametrize(("encoding", "loss"), [("png", 0), ("webp", 0), ("jpeg", 40)])
def test_pictures_come_back_from_each_encoding(tmp_path, encoding, loss):
    writer = _writer(tmp_path, encoding=encoding, shard_lengths=(2,))
    writer.write(0, [_example(0), _example(1)])
    writer.finalize()
    for i, example in enumerate(dataset.open_dataset(tmp_path)):
        difference = np.abs(example["image"].astype(int) - _example(i)["image"])
        assert (difference.mean() == 0) == (loss == 0)
        assert difference.mean() < loss or not loss  # of noise, which JPEG keeps badly
        np.testing.assert_array_equal(example["mask"], _example(i)["mask"])


def test_probabilities_may_come_as_they_are_stored(tmp_path):
    example = _example(0)
    stored = np.round(255 * example["probabilities"]).astype(np.uint8)
    writer = _writer(tmp_path)
    assert writer.record({**example, "probabilities": stored}) == writer.record(example)


def test_metadata_is_what_the_labels_add_up_to(folder):
    examples = [_example(i) for i in range(7)]
    found = tfds.builder_from_directory(folder / "generated" / "1.0.0").info.metadata
    assert found["num_images"] == 7
    for name in ("confidence", "disagreement"):
        assert found[f"mean_{name}"] == pytest.approx(np.mean([e[name] for e in examples]))
    pixels = np.bincount(np.stack([example["mask"] for example in examples]).ravel())
    shares = dict(zip(NAMES, pixels / pixels.sum(), strict=True))
    assert found["class_shares"] == pytest.approx(shares)


def test_a_whole_shard_has_no_flaw(folder):
    assert [_writer(folder).flaw(i) for i in range(3)] == ["", "", ""]


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"index": 5}, "sample 5 is out of place"),
        ({"mask": np.full((6, 6), 3)}, "sample 4 has class 3, of 3"),
        ({"mask": np.zeros((6, 6), int)}, "labels that do not add up to what was noted"),
        ({"disagreement": 0.5}, "labels that do not add up to what was noted"),
        ({"confidence": 0.5}, "labels that do not add up to what was noted"),
    ],
)
def test_records_that_were_not_written_are_found(folder, monkeypatch, change, flaw):
    """Even where the checksum is right: the note's labels stay those of the true examples."""
    writer = _writer(folder)
    true = [writer._label(_example(i)) for i in (3, 4, 5)]
    false = writer.record({**_example(4), **change})
    writer.shard(1).write([true[0], (false, *true[1][1:]), true[2]])
    assert writer.missing() == []
    assert writer.flaw(1) == flaw


def test_a_mark_makes_a_shard_count_as_missing(folder):
    writer = _writer(folder)
    writer.shard(1).mark("a flaw")
    assert writer.missing() == [1] and writer.shard(1).marked_flaw() == "a flaw"
    writer.shard(1).mark("")
    assert writer.missing() == [] and writer.shard(1).marked_flaw() == ""
    writer.shard(1).mark("a flaw")
    writer.write(1, [_example(3), _example(4), _example(5)])
    assert writer.missing() == []


@pytest.mark.parametrize("note", ["{", "[]", '{"records": 3}', ""])
def test_a_shard_without_its_note_counts_as_missing(folder, note):
    writer = _writer(folder)
    writer.shard(2).note.write_text(note)
    assert writer.missing() == [2] and writer.flaw(2) == "missing, or its note is"


def test_samples_are_found_by_their_index(folder):
    writer = _writer(folder)
    assert [writer.shard_of(i) for i in range(7)] == [0, 0, 0, 1, 1, 1, 2]
    for i in (6, 0, 4):
        assert writer.read_record(i) == writer.record(_example(i))


@pytest.mark.parametrize("keep", [0.0, 0.4, 0.999])
def test_cut_shard_is_found(folder, keep):
    writer = _writer(folder)
    path = writer.shard(1).path
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
    class FullDisk(shards.ArrayRecordWriter):
        def write(self, record):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "ArrayRecordWriter", FullDisk)
    writer = _writer(tmp_path)
    with pytest.raises(UserError, match="00000-of-00003: not written .*No space left"):
        writer.write(0, [_example(i) for i in range(3)])
    assert list(writer.shard(0).path.parent.iterdir()) == []


def test_what_fails_before_the_disk_is_not_its_fault(tmp_path):
    def examples():
        yield _example(0)
        raise RuntimeError("RESOURCE_EXHAUSTED")

    writer = _writer(tmp_path)
    with pytest.raises(RuntimeError, match="^RESOURCE_EXHAUSTED$"):
        writer.write(0, examples())
    assert list(writer.shard(0).path.parent.iterdir()) == []


def test_disk_that_swallows_records_is_noticed(tmp_path):
    with pytest.raises(UserError, match="fewer records than expected"):
        _writer(tmp_path).write(0, [_example(0)])
