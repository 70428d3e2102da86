"""The generated, labelled dataset on disk: ArrayRecord shards that TFDS and Grain read.

`{folder}/generated/1.0.0/generated-train.array_record-{i:05d}-of-{n:05d}`, without TensorFlow.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from repgan_jax.errors import UserError
from repgan_jax.io import images

NAME, VERSION, SPLIT = "generated", "1.0.0", "train"


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes a dataset shard by shard, in any order; what is there already stays.

    Attributes:
        folder: that holds the dataset.
        class_names: K names, in the order of the ids.
        shard_lengths: pictures in each shard.
        picture_size: pixels a side of the pictures.
        label_size: pixels a side of the labels.
        latent_shape: (D,) or (L, D).
        soft: whether examples also have probabilities.
    """

    folder: Path
    class_names: Sequence[str]
    shard_lengths: Sequence[int]
    picture_size: int
    label_size: int
    latent_shape: tuple[int, ...]
    soft: bool = True

    def missing(self) -> list[int]:
        """Returns the shards that are not there, or not whole."""
        lengths = enumerate(self.shard_lengths)
        return [i for i, length in lengths if _count(self.shard_path(i)) != length]

    def shard_path(self, shard: int) -> Path:
        """Returns where the shard of this index lies."""
        name = f"{NAME}-{SPLIT}.array_record-{shard:05d}-of-{len(self.shard_lengths):05d}"
        return _version_folder(self.folder) / name

    def write(self, shard: int, examples: Iterable[Mapping[str, Any]]) -> None:
        """Writes one shard, whole or not at all.

        Args:
            shard: index of the shard.
            examples: as many as its length says, of image [S, S, 3] uint8, mask [H, H] ids,
                probabilities [H, H, K] (where `soft`), latent, index (the sample's, in the whole
                dataset), and confidence (mean of the largest probability).
        """
        path = self.shard_path(shard)
        partial = path.with_name(f".{path.name}.partial")
        features = self._features()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_records(partial, (self._record(features, example) for example in examples))
            if _count(partial) != self.shard_lengths[shard]:
                raise OSError("fewer records than expected arrived on the disk")
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:  # the latter is what ArrayRecord raises
            raise UserError(
                f"{path}: not written ({error}); make room, and run the same command to go on"
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def finalize(self) -> None:
        """Writes the metadata with which the shards become a dataset."""
        if missing := self.missing():
            raise UserError(f"{self.shard_path(missing[0])}: not a whole shard; generate again")
        shards = range(len(self.shard_lengths))
        split = tfds.core.SplitInfo(
            name=SPLIT,
            shard_lengths=list(self.shard_lengths),
            num_bytes=sum(self.shard_path(i).stat().st_size for i in shards),
        )
        tfds.folder_dataset.write_metadata(
            data_dir=_version_folder(self.folder),
            features=self._features(),
            split_infos=[split],
            check_data=False,  # would need TensorFlow
            description="Generated pictures with part labels.",
        )

    def _features(self) -> tfds.features.FeaturesDict:
        size, num_classes = self.label_size, len(self.class_names)
        features = {
            "image": tfds.features.Image(
                shape=(self.picture_size, self.picture_size, 3), encoding_format="png"
            ),
            "mask": tfds.features.LabeledImage(
                labels=list(self.class_names), shape=(size, size, 1), encoding_format="png"
            ),
            "latent": tfds.features.Tensor(shape=self.latent_shape, dtype=np.float32),
            "index": tfds.features.Scalar(np.int64),
            "confidence": tfds.features.Scalar(np.float32),
        }
        if self.soft:
            features["soft"] = tfds.features.Image(
                shape=(num_classes * size, size, 1),
                encoding_format="png",
                doc="probabilities times 255, one class below the other",
            )
        return tfds.features.FeaturesDict(features)

    def _record(self, features: tfds.features.FeaturesDict, example: Mapping[str, Any]) -> bytes:
        stored = {
            "image": images.encode_png(example["image"]),
            "mask": images.encode_png(example["mask"].astype(np.uint8)),
            "latent": np.asarray(example["latent"], np.float32),
            "index": int(example["index"]),
            "confidence": float(example["confidence"]),
        }
        if self.soft:
            stored["soft"] = images.encode_png(stack(example["probabilities"]))
        return features.serialize_example(features.encode_example(stored))


class Dataset:
    """A finished dataset; `dataset[i]` is an example in the form that `Writer.write` takes."""

    def __init__(self, source: Sequence[Mapping[str, Any]], class_names: Sequence[str]):
        self._source = source
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self._source)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields all examples; TFDS's sources do not end a loop by themselves."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Returns the example with probabilities [H, H, K] in place of the stored picture."""
        example = dict(self._source[i])
        example["mask"] = example["mask"][..., 0].astype(np.int32)
        if "soft" in example:
            stacked = example.pop("soft")[..., 0]
            example["probabilities"] = unstack(stacked, len(self.class_names))
        return example


def open_dataset(folder: str | Path) -> Dataset:
    """Returns the dataset that a `Writer` finished in `folder`; Grain takes it as a source."""
    path = _version_folder(Path(folder))
    if not (path / "dataset_info.json").exists():
        raise UserError(f"{folder}: no finished dataset here; run the stage generate")
    try:
        builder = tfds.builder_from_directory(path)
        split = builder.info.splits[SPLIT]
        for shard, length in zip(split.filepaths, split.shard_lengths, strict=True):
            if _count(Path(shard)) != length:
                raise ValueError(f"{Path(shard).name} is missing or not whole")
        return Dataset(builder.as_data_source(split=SPLIT), builder.info.features["mask"].names)
    except Exception as error:  # whatever TFDS or JSON find in a damaged folder
        raise UserError(
            f"{folder}: the dataset cannot be read ({error}); "
            "delete that folder and run the stage generate again"
        ) from error


def stack(probabilities: np.ndarray) -> np.ndarray:
    """Returns [K * H, W] uint8 of `probabilities` [H, W, K] in [0, 1], class below class."""
    stacked = np.moveaxis(np.asarray(probabilities), -1, 0)
    return np.round(stacked * 255).astype(np.uint8).reshape(-1, stacked.shape[-1])


def unstack(stacked: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns probabilities [H, W, K] float32 in [0, 1] of `stacked` [K * H, W] uint8."""
    planes = stacked.reshape(num_classes, -1, stacked.shape[-1])
    return np.moveaxis(planes, 0, -1).astype(np.float32) / 255


def _version_folder(folder: Path) -> Path:
    return Path(folder).absolute() / NAME / VERSION


def _write_records(path: Path, records: Iterable[bytes]) -> None:
    writer = ArrayRecordWriter(str(path), "group_size:1")  # every record can be read alone
    try:
        for record in records:
            writer.write(record)
    finally:
        writer.close()


def _count(path: Path) -> int:
    """Returns the number of records; 0 where the file is missing or was cut off."""
    if not path.exists():
        return 0
    reader = ArrayRecordReader(str(path))
    try:
        return reader.num_records()
    finally:
        with contextlib.suppress(RuntimeError):  # closing a damaged file complains once more
            reader.close()
