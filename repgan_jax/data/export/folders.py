"""The generated dataset as folders of pictures and masks: PASCAL VOC's layout, CelebAMask-HQ's.

A writer takes the dataset in parts, in any order and as often as it was killed, and keeps those
that are there; `finish` makes the whole of them.
"""

import io
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from repgan_jax.errors import UserError
from repgan_jax.io import files, images, json_files
from repgan_jax.palette import IGNORE, Palette

Example = Mapping[str, Any]  # as `dataset.Dataset` gives it, the mask at the picture's size


@dataclass(frozen=True)
class Part:
    """Neighbours in one split that are written together: what a kill can cost.

    Attributes:
        split: "train" or "val".
        number: of the part, from 0.
        total: parts of the split.
        indices: of the examples, in the dataset.
    """

    split: str
    number: int
    total: int
    indices: range


class FolderWriter:
    """Writes files of each picture, and a list of each split that holds a record a picture.

    The list grows as one hidden file a part, written after the part's pictures.
    """

    LIST: str  # path of a split's list, in the folder

    def __init__(self, folder: Path, palette: Palette):
        self.folder = folder
        self.palette = palette

    def is_written(self, part: Part) -> bool:
        """Returns whether the part is there, and whole."""
        return self._list_path(part.split).exists() or self._records_path(part).exists()

    def write(self, part: Part, examples: Iterable[Example]) -> None:
        """Writes the files of the part's examples, then their records."""
        with files.one_wait():
            records = [self.write_example(part.split, example) for example in examples]
        files.atomic_write(self._records_path(part), json.dumps(records).encode())

    def finish(self, parts: Sequence[Part]) -> None:
        """Writes the lists, and the class names into `labels.txt`: the line is the id."""
        for split, group in itertools.groupby(parts, key=lambda part: part.split):
            paths = [self._records_path(part) for part in group]
            if not self._list_path(split).exists():
                with files.atomic_open(self._list_path(split)) as file:
                    self.write_list(file, paths)
            for path in paths:  # not before the list is whole: this may be killed anywhere
                path.unlink(missing_ok=True)
        files.atomic_write(self.folder / "labels.txt", _lines(self.palette.names))

    def write_example(self, split: str, example: Example) -> Any:
        """Writes the files of one picture; returns its record, made of what JSON knows."""
        raise NotImplementedError

    def write_list(self, file: BinaryIO, paths: Sequence[Path]) -> None:
        """Writes the list of the records in `paths`: here, one a line."""
        file.writelines(_lines(json_files.read(path)) for path in paths)

    def _list_path(self, split: str) -> Path:
        return self.folder / self.LIST.format(split=split)

    def _records_path(self, part: Part) -> Path:
        path = self._list_path(part.split)
        return path.with_name(f".{path.name}.{part.number:05d}")


class Voc(FolderWriter):
    """PASCAL VOC's layout: `JPEGImages/`, `SegmentationClass/`, `ImageSets/Segmentation/`.

    Pictures are JPEG, for readers look for `.jpg`: quality 95, without subsampled colours. Masks
    are palette PNG of ids, in the classes' colours; 255 is "ignore", as in VOC.
    """

    LIST = "ImageSets/Segmentation/{split}.txt"

    def write_example(self, split: str, example: Example) -> str:
        """Writes picture and mask; returns their stem."""
        stem = f"{example['index']:08d}"
        mask_path = self.folder / "SegmentationClass" / f"{stem}.png"
        _write_jpeg(self.folder / "JPEGImages" / f"{stem}.jpg", example["image"])
        images.write_palette_png(mask_path, example["mask"], self.palette)
        return stem


class CelebAMask(FolderWriter):
    """CelebAMask-HQ's layout: `CelebA-HQ-img/7.jpg`, `CelebAMask-HQ-mask-anno/0/00007_nose.png`.

    A mask is 255 where its part is, and has the picture's size (as published: half of it); parts
    that a picture does not show have no file. Part names are the class names, with "_" for what
    is no letter, digit, "." or "-"; `train.txt` and `val.txt` list the pictures.

    Raises:
        UserError: two class names make one part name.
    """

    LIST = "{split}.txt"

    def __init__(self, folder: Path, palette: Palette):
        super().__init__(folder, palette)
        self.parts = [re.sub(r"[^\w.-]+", "_", name) for name in palette.names]
        same: dict[str, str] = {}
        for name, part in zip(palette.names, self.parts, strict=True):
            if (other := same.setdefault(part.casefold(), name)) != name:
                raise UserError(
                    f"config.export.format: classes {other!r} and {name!r} would share the files "
                    f"*_{part}.png of celebamask; rename one, or choose another format"
                )

    def write_example(self, split: str, example: Example) -> int:
        """Writes picture and masks; returns their number."""
        index = int(example["index"])
        folder = self.folder / "CelebAMask-HQ-mask-anno" / str(index // 2000)
        _write_jpeg(self.folder / "CelebA-HQ-img" / f"{index}.jpg", example["image"])
        for k in shown(example["mask"]):
            covered = np.where(example["mask"] == k, 255, 0)
            images.write_png(folder / f"{index:05d}_{self.parts[k]}.png", covered)
        return index


def shown(mask: np.ndarray) -> Iterator[int]:
    """Yields the ids of the parts in `mask` [H, W], in rising order."""
    return (int(k) for k in np.unique(mask) if k not in (0, IGNORE))


def _lines(values: Iterable[object]) -> bytes:
    return "".join(f"{value}\n" for value in values).encode()


def _write_jpeg(path: Path, picture: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
    files.atomic_write(path, buffer.getvalue())
