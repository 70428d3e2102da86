"""The generated, labelled dataset on disk: ArrayRecord shards that TFDS and Grain read.

`{folder}/generated/1.0.0/generated-train.array_record-{i:05d}-of-{n:05d}`, without TensorFlow;
`{folder}/shards/{i:05d}.json` tells the checksum of a shard and what its labels add up to.
"""

import bisect
import dataclasses
import functools
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import example_serializer

from repgan_jax.data import shards
from repgan_jax.errors import UserError
from repgan_jax.io import files, images, json_files, remote
from repgan_jax.palette import Palette, default_colours
from repgan_jax.runtime import pipelining

MANIFEST = "manifest.json"  # what the dataset is, or will be
NAME, VERSION, SPLIT = "generated", "1.0.0", "train"
SOFT_TYPES = ("uint8", "float16")


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes a dataset shard by shard, in any order; what is there already stays.

    Attributes:
        folder: that holds the dataset.
        class_names: K names, in the order of the ids.
        shard_lengths: pictures in each shard.
        image_size: pixels a side of the pictures.
        label_size: pixels a side of the labels.
        latent_shape: (D,) or (L, D).
        soft_size: pixels a side of the probabilities; 0 where examples have none.
        soft_type: of the probabilities, one of `SOFT_TYPES`.
        encoding: of the pictures, one of `images.ENCODINGS`; labels are always PNG.
    """

    folder: Path
    class_names: Sequence[str]
    shard_lengths: Sequence[int]
    image_size: int
    label_size: int
    latent_shape: tuple[int, ...]
    soft_size: int
    soft_type: str = "uint8"
    encoding: str = "png"

    def missing(self) -> list[int]:
        """Returns the shards that are not there, not whole, or marked as bad; reads no record."""
        return [i for i in range(len(self.shard_lengths)) if not self.shard(i).is_whole()]

    def shard(self, i: int) -> shards.Shard:
        """Returns the shard of this index, whether it is there or not."""
        name = f"{NAME}-{SPLIT}.array_record-{i:05d}-of-{len(self.shard_lengths):05d}"
        return shards.Shard(
            _version_folder(self.folder) / name,
            self.folder / "shards" / f"{i:05d}.json",
            range(self._starts[i], self._starts[i + 1]),
            len(self.class_names),
        )

    def write(self, shard: int, examples: Iterable[Mapping[str, Any]]) -> None:
        """Writes one shard, whole or not at all; encodes on all cores, a few examples at a time.

        Args:
            shard: index of the shard.
            examples: as many as its length says, of image [S, S, 3] uint8, mask [H, H] ids,
                probabilities [P, P, K] (where `soft_size` is P; in [0, 1], or uint8 of 255ths),
                latent, index (the sample's, in the whole dataset), confidence (mean of the largest
                probability) and disagreement of the heads (mean over pixels, nats).
        """
        threads = os.cpu_count() or 1
        with ThreadPoolExecutor(threads) as pool:
            calls = (functools.partial(self._label, example) for example in examples)
            self.shard(shard).write(pipelining.ahead(pool, calls, 4 * threads))

    def finalize(self, **origin: Any) -> dict[str, Any]:
        """Writes the metadata with which the shards become a dataset, and returns it.

        Args:
            origin: of the dataset, to be stated beside its size, mean scores and the classes'
                shares of all pixels.
        """
        if missing := self.missing():
            raise UserError(f"{self.shard(missing[0]).path}: not a whole shard; generate again")
        size, pixels = 0, np.zeros(len(self.class_names), int)
        scores = {name: np.zeros(self._starts[-1], np.float32) for name in shards.SCORES}
        for i, (start, stop) in enumerate(itertools.pairwise(self._starts)):
            facts = self.shard(i).facts()
            size += facts["bytes"]
            pixels += facts["pixels"]
            for name, values in scores.items():
                values[start:stop] = facts[name]
        metadata = {
            **origin,
            "num_images": self._starts[-1],
            **{f"mean_{name}": values.mean(dtype=float) for name, values in scores.items()},
            "class_shares": dict(zip(self.class_names, pixels / pixels.sum(), strict=True)),
        }
        files.write_npz(self.folder / "scores.npz", **scores)
        folder = _version_folder(self.folder)
        json_files.write(folder / "metadata.json", metadata)  # TFDS's `builder.info.metadata`
        split = tfds.core.SplitInfo(
            name=SPLIT, shard_lengths=list(self.shard_lengths), num_bytes=size
        )
        tfds.folder_dataset.write_metadata(
            data_dir=folder,
            features=self._features,
            split_infos=[split],
            check_data=False,  # would need TensorFlow
            description="Generated pictures with part labels.",
        )
        return metadata

    def record(self, example: Mapping[str, Any]) -> bytes:
        """Returns the bytes in which an example is stored: the same ones in every process."""
        stored = {
            "image": images.encode_picture(example["image"], self.encoding),
            "mask": images.encode_png(example["mask"].astype(np.uint8)),
            "latent": np.asarray(example["latent"], np.float32),
            "index": int(example["index"]),
            **{name: float(example[name]) for name in shards.SCORES},
        }
        if self.soft_size and self.soft_type == "float16":
            stored["soft"] = np.asarray(example["probabilities"], np.float16)
        elif self.soft_size:
            stored["soft"] = images.encode_png(stack(example["probabilities"]))
        proto = self._serializer.get_tf_example(self._features.encode_example(stored))
        return proto.SerializeToString(deterministic=True)  # else in an order of each process's own

    def read_record(self, index: int) -> bytes:
        """Returns the stored bytes of the sample `index`."""
        shard = self.shard(self.shard_of(index))
        return next(shards.read_records(shard.path, [index - shard.indices.start]))

    def shard_of(self, index: int) -> int:
        """Returns the shard that holds the sample `index`."""
        return bisect.bisect_right(self._starts, index) - 1

    def flaw(self, shard: int) -> str:
        """Returns what is wrong with a shard, all of which is read; "" where nothing is."""
        return self.shard(shard).flaw(self._features.deserialize_example_np)

    @functools.cached_property
    def _starts(self) -> list[int]:
        return list(itertools.accumulate(self.shard_lengths, initial=0))

    @functools.cached_property
    def _features(self) -> tfds.features.FeaturesDict:
        size, num_classes = self.label_size, len(self.class_names)
        features = {
            "image": tfds.features.Image(
                shape=(self.image_size, self.image_size, 3),
                # TFDS knows but two by name; whatever the bytes are, it decodes them
                encoding_format="jpeg" if self.encoding == "jpeg" else "png",
            ),
            "mask": tfds.features.LabeledImage(
                labels=list(self.class_names), shape=(size, size, 1), encoding_format="png"
            ),
            "latent": tfds.features.Tensor(shape=self.latent_shape, dtype=np.float32),
            "index": tfds.features.Scalar(np.int64),
            **{name: tfds.features.Scalar(np.float32) for name in shards.SCORES},
        }
        soft = self.soft_size
        if soft and self.soft_type == "float16":
            features["soft"] = tfds.features.Tensor(
                shape=(soft, soft, num_classes), dtype=np.float16, encoding="zlib"
            )
        elif soft:
            features["soft"] = tfds.features.Image(
                shape=(num_classes * soft, soft, 1),
                encoding_format="png",
                doc="probabilities times 255, one class below the other",
            )
        return tfds.features.FeaturesDict(features)

    @functools.cached_property
    def _serializer(self) -> example_serializer.ExampleSerializer:
        return example_serializer.ExampleSerializer(self._features.get_serialized_info())

    def _label(self, example: Mapping[str, Any]) -> tuple[bytes, dict[str, float], np.ndarray]:
        """Returns the example's record, scores (as they are read back) and pixels a class."""
        pixels = np.bincount(example["mask"].ravel(), minlength=len(self.class_names))
        scores = {name: float(np.float32(example[name])) for name in shards.SCORES}
        return self.record(example), scores, pixels


class Dataset:
    """A finished dataset; `dataset[i]` is an example in the form that `Writer.write` takes.

    Attributes:
        class_names: K names, in the order of the ids.
        palette: names and colours of the classes.
        flip: whether images may be mirrored where networks learn from these labels.
    """

    def __init__(
        self,
        source: Sequence[Mapping[str, Any]],
        class_names: Sequence[str],
        kept: Sequence[int] | None = None,
        palette: Palette | None = None,
        flip: bool = True,
    ):
        self._source = source
        self._kept = range(len(source)) if kept is None else kept
        self.class_names, self.flip = tuple(class_names), flip
        self.palette = palette or Palette(self.class_names, default_colours(len(self.class_names)))

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields all examples; TFDS's sources do not end a loop by themselves."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Returns the example with probabilities [P, P, K] float32 in place of what is stored."""
        example = dict(self._source[int(self._kept[i])])
        example["mask"] = example["mask"][..., 0].astype(np.int32)
        if "soft" in example:
            soft = example.pop("soft")
            if soft.dtype == np.uint8:
                soft = unstack(soft[..., 0], len(self.class_names))
            example["probabilities"] = soft.astype(np.float32)
        return example

    def without(self, indices: Sequence[int]) -> "Dataset":
        """Returns the dataset without the examples at `indices`."""
        left = np.delete(np.asarray(self._kept), indices).tolist()
        return Dataset(self._source, self.class_names, left, self.palette, self.flip)


def open_dataset(folder: str | os.PathLike[str]) -> Dataset:
    """Returns the dataset that a `Writer` finished in `folder`; Grain takes it as a source."""
    path = _version_folder(Path(folder))
    remote.fetch(path)
    if not (path / "dataset_info.json").exists():
        raise UserError(f"{folder}: no finished dataset here; run the stage generate")
    try:
        builder = tfds.builder_from_directory(path)
        split = builder.info.splits[SPLIT]
        for shard, length in zip(split.filepaths, split.shard_lengths, strict=True):
            if shards.count_records(Path(shard)) != length:
                raise ValueError(f"{Path(shard).name} is missing or not whole")
        source, names = builder.as_data_source(split=SPLIT), builder.info.features["mask"].names
        palette, flip = _read_manifest(Path(folder))
        return Dataset(source, names, palette=palette, flip=flip)
    except Exception as error:  # whatever TFDS or JSON find in a damaged folder
        raise UserError(
            f"{folder}: the dataset cannot be read ({error}); --config.stages=verify compares it "
            "with its checksums, --config.stages=repair makes again what is missing or damaged"
        ) from error


def _read_manifest(folder: Path) -> tuple[Palette | None, bool]:
    """Returns (palette, flip) of the dataset's manifest; version 0.1.0 stated neither."""
    path = folder / MANIFEST
    remote.pull(path)
    found = json_files.read(path) if path.exists() else {}
    palette = Palette.from_json(found["palette"]) if "palette" in found else None
    return palette, found.get("flip", True)


def read_scores(folder: str | Path) -> dict[str, np.ndarray]:
    """Returns the `shards.SCORES` [n] float32 of all pictures of the dataset in `folder`."""
    path = Path(folder) / "scores.npz"
    try:
        with np.load(path) as arrays:
            return {name: arrays[name] for name in shards.SCORES}
    except Exception as error:  # whatever numpy and zipfile find in a damaged file
        raise UserError(
            f"{path}: cannot be read ({error}); run the stage generate again"
        ) from error


def stack(probabilities: np.ndarray) -> np.ndarray:
    """Returns [K * H, W] uint8 of `probabilities` [H, W, K], class below class.

    They are in [0, 1], or uint8 already.
    """
    stacked = np.moveaxis(np.asarray(probabilities), -1, 0)
    if stacked.dtype != np.uint8:
        stacked = np.round(stacked * 255).astype(np.uint8)
    return stacked.reshape(-1, stacked.shape[-1])


def unstack(stacked: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns probabilities [H, W, K] float32 in [0, 1] of `stacked` [K * H, W] uint8."""
    planes = stacked.reshape(num_classes, -1, stacked.shape[-1])
    return np.moveaxis(planes, 0, -1).astype(np.float32) / 255


def _version_folder(folder: Path) -> Path:
    return Path(folder).absolute() / NAME / VERSION
