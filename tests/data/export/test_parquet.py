"""Parquet files hold what `datasets` expects."""

import json

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from repgan_jax.data.export import parquet as export_parquet
from repgan_jax.data.export.parquet import Parquet
from repgan_jax.io import images


def test_pyarrow_reads_pictures_masks_and_numbers(export, examples, tmp_path):
    export(Parquet)
    names = sorted(path.name for path in (tmp_path / "data").iterdir())
    assert names == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
        "validation-00000-of-00001.parquet",
    ]
    rows = [
        row for name in names for row in parquet.read_table(tmp_path / "data" / name).to_pylist()
    ]
    assert len(rows) == 5
    for row, example in zip(rows, examples, strict=True):
        for column in ("image", "mask"):
            stored = images.decode_png(row[column]["bytes"])
            np.testing.assert_array_equal(stored, example[column])
        assert row["classes"] == sorted({*np.unique(example["mask"])} - {0, 255})
        assert (row["index"], row["confidence"]) == (example["index"], 0.5)
        np.testing.assert_array_equal(np.float32(row["latent"]), example["latent"])


def test_schema_names_features_and_classes(export, palette, tmp_path):
    export(Parquet)
    schema = parquet.read_schema(tmp_path / "data/train-00000-of-00002.parquet")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == schema.names
    assert features["image"] == features["mask"] == {"_type": "Image"}
    assert features["classes"]["feature"]["names"] == list(palette.names)
    assert "left eye" in (tmp_path / "README.md").read_text()


def test_row_groups_are_bounded(monkeypatch, examples, parts, palette, tmp_path):
    monkeypatch.setattr(export_parquet, "ROWS", 2)
    Parquet(tmp_path, palette).write(parts[0], iter(examples))
    file = parquet.ParquetFile(tmp_path / "data/train-00000-of-00002.parquet")
    groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert groups == [2, 2, 1]


def test_nothing_is_left_of_a_part_that_failed(examples, parts, palette, tmp_path):
    def broken():
        yield examples[0]
        raise KeyboardInterrupt

    writer = Parquet(tmp_path, palette)
    with pytest.raises(KeyboardInterrupt):
        writer.write(parts[0], broken())
    assert not writer.is_written(parts[0]) and not list((tmp_path / "data").iterdir())


def test_datasets_reads_it(export, examples, palette, tmp_path):
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face's datasets")
    export(Parquet)
    (tmp_path / "stage.json").write_text("{}")  # lies beside them
    found = datasets.load_dataset(str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert {split: len(data) for split, data in found.items()} == {"train": 3, "validation": 2}
    row = found["train"][1]
    assert isinstance(row["image"], Image.Image) and row["mask"].mode == "L"
    np.testing.assert_array_equal(np.asarray(row["mask"]), examples[1]["mask"])
    assert found["train"].features["classes"].feature.names == list(palette.names)
