"""The generated dataset as COCO: pictures, and one JSON file of run-length masks a split."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from repgan_jax.data.export import folders as export_folders
from repgan_jax.errors import UserError
from repgan_jax.io import images, json_files
from repgan_jax.palette import Palette


class Coco(export_folders.FolderWriter):
    """`images/{split}/00000007.png` and `annotations/instances_{split}.json`.

    The format of instances, which detectors and segmenters read, and that of COCO-Stuff as well;
    there is no panoptic PNG. Each part in a picture is one annotation, whatever the number of its
    pieces; categories are the classes without the background, under their ids. `iscrowd` is 0,
    although masks are run-length encoded: toolkits neither learn from crowds nor score them.

    Raises:
        UserError: pycocotools is not installed.
    """

    LIST = "annotations/instances_{split}.json"

    def __init__(self, folder: Path, palette: Palette):
        super().__init__(folder, palette)
        try:
            from pycocotools import mask
        except ImportError as error:
            raise UserError(
                "config.export.format: coco is written by pycocotools, which is not installed; "
                'pip install "repgan-jax[export]"'
            ) from error
        self._rle = mask

    def write_example(self, split: str, example: export_folders.Example) -> dict[str, Any]:
        """Writes the picture; returns its entry and its annotations."""
        index, name = int(example["index"]), f"{example['index']:08d}.png"
        images.write_png(self.folder / "images" / split / name, example["image"])
        height, width = example["mask"].shape
        return {
            "image": {"id": index, "file_name": name, "width": width, "height": height},
            "annotations": [
                self._annotation(index, k, example["mask"] == k)
                for k in export_folders.shown(example["mask"])
            ],
        }

    def write_list(self, file: BinaryIO, paths: Sequence[Path]) -> None:
        """Writes the JSON file, a line an entry, within the memory of one part."""
        info = {"description": "Generated pictures with part labels, by RepGAN-JAX"}
        names = list(enumerate(self.palette.names))[1:]
        sections = {
            "categories": ({"id": k, "name": name, "supercategory": "part"} for k, name in names),
            "images": (record["image"] for record in _records(paths)),
            "annotations": (each for record in _records(paths) for each in record["annotations"]),
        }
        file.write(f'{{"info": {json.dumps(info)},\n"licenses": []'.encode())
        for title, entries in sections.items():
            file.write(f',\n"{title}": ['.encode())
            for i, entry in enumerate(entries):
                file.write(f"{',' if i else ''}\n{json.dumps(entry)}".encode())
            file.write(b"]")
        file.write(b"}\n")

    def _annotation(self, index: int, k: int, covered: np.ndarray) -> dict[str, Any]:
        rle = self._rle.encode(np.asfortranarray(covered, np.uint8))
        return {
            "id": index * self.palette.num_classes + k,  # from 1: pycocotools takes 0 for none
            "image_id": index,
            "category_id": k,
            "iscrowd": 0,
            "area": int(self._rle.area(rle)),
            "bbox": self._rle.toBbox(rle).tolist(),
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
        }


def _records(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """Yields the records of all parts, one part in memory at a time."""
    return (record for path in paths for record in json_files.read(path))
