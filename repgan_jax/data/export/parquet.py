"""The generated dataset as Parquet files that Hugging Face's `datasets` reads."""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from repgan_jax.data.export.folders import Example, Part, shown
from repgan_jax.io import files, images
from repgan_jax.palette import Palette

ROWS = 50  # in a row group: what must fit into memory, here and for readers

_NAMES = {"train": "train", "val": "validation"}  # splits as `datasets` calls them
_PICTURE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_SCHEMA = pa.schema(
    {
        "image": _PICTURE,
        "mask": _PICTURE,
        "classes": pa.list_(pa.int64()),
        "index": pa.int64(),
        "confidence": pa.float32(),
        "latent": pa.list_(pa.float32()),
    }
)
_CARD = """---
pretty_name: Generated pictures with part labels
task_categories:
- image-segmentation
---

Pictures that a generator made, and the part labels that RepGAN-JAX gave them.

| column | |
| --- | --- |
| `image` | picture |
| `mask` | class ids of its pixels; 255 is "ignore" |
| `classes` | ids of the parts it shows; the feature names all classes |
| `index` | number of the sample |
| `confidence` | mean probability of the labels |
| `latent` | w, from which the generator makes the picture |

Classes, from 0: {}.
"""


class Parquet:
    """`data/{split}-00000-of-00003.parquet`, one file a part, and `README.md`, the dataset card.

    Pictures and masks are PNG files within; the schema's `huggingface` metadata say so, and name
    the classes. `datasets.load_dataset(folder)` needs nothing else.
    """

    def __init__(self, folder: Path, palette: Palette):
        self.folder = folder
        self.palette = palette

    def is_written(self, part: Part) -> bool:
        """Returns whether the part is there, and whole."""
        return self._path(part).exists()

    def write(self, part: Part, examples: Iterable[Example]) -> None:
        """Writes the part's file, whole or not at all."""
        metadata = {"huggingface": json.dumps({"info": {"features": self._features()}})}
        schema = _SCHEMA.with_metadata(metadata)
        rows = (_row(example) for example in examples)
        with files.atomic_open(self._path(part)) as file, parquet.ParquetWriter(file, schema) as to:
            while group := list(itertools.islice(rows, ROWS)):
                to.write_table(pa.Table.from_pylist(group, schema))

    def finish(self, parts: Sequence[Part]) -> None:
        """Writes the dataset card."""
        card = _CARD.format(", ".join(self.palette.names))
        files.atomic_write(self.folder / "README.md", card.encode())

    def _path(self, part: Part) -> Path:
        name = f"{_NAMES[part.split]}-{part.number:05d}-of-{part.total:05d}.parquet"
        return self.folder / "data" / name

    def _features(self) -> dict[str, Any]:
        """Returns what the columns mean, in the words of `datasets`."""
        classes = {"_type": "ClassLabel", "names": list(self.palette.names)}
        return {
            "image": {"_type": "Image"},
            "mask": {"_type": "Image"},
            "classes": {"_type": "Sequence", "feature": classes},
            "index": {"_type": "Value", "dtype": "int64"},
            "confidence": {"_type": "Value", "dtype": "float32"},
            "latent": {"_type": "Sequence", "feature": {"_type": "Value", "dtype": "float32"}},
        }


def _row(example: Example) -> dict[str, Any]:
    name = f"{example['index']:08d}.png"
    return {
        "image": {"bytes": images.encode_png(example["image"]), "path": name},
        "mask": {"bytes": images.encode_png(example["mask"]), "path": name},
        "classes": list(shown(example["mask"])),
        "index": int(example["index"]),
        "confidence": float(example["confidence"]),
        "latent": np.ravel(example["latent"]).tolist(),
    }
