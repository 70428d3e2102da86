"""Stage `segment`: photos in; masks, overlays and areas of the parts out.

It does all photos anew each time, and removes nothing: the folder may be the user's own.
"""

import collections
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

import repgan_jax
from repgan_jax.errors import UserError
from repgan_jax.io import files, images
from repgan_jax.palette import Palette

FIELDS = ("segment",)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `masks/`, `overlays/` and `areas.csv` into `config.segment.output`.

    Raises:
        UserError: no photos, or, after all the others were done, photos that cannot be read.
    """
    options = config.segment
    if not options.input:
        raise UserError(
            "config.segment.input: no photos given; say --config.segment.input=PHOTO_OR_FOLDER"
        )
    photos = images.find_photos(options.input)
    segmenter = repgan_jax.load_segmenter(workdir)
    folder = Path(options.output or workdir / "segment")
    names = _output_names(photos)
    areas, failures = {}, []
    with tqdm(total=len(photos), desc="segment", unit="photo") as progress:
        readable = _read(photos, failures, progress)
        for batch in _batches(readable, options.batch_size):
            masks = segmenter.predict(np.stack([photo for _, photo in batch]))
            for (path, photo), mask in zip(batch, masks, strict=True):
                _write(folder, names[path], photo, mask, segmenter.palette)
                areas[path.name] = _areas(mask, segmenter.palette.num_classes)
            progress.update(len(batch))
    files.atomic_write(folder / "areas.csv", _table(areas, segmenter.class_names).encode())
    print(f"segment: {len(areas)} of {len(photos)} photos done, in {folder}")
    if failures:
        raise UserError(f"{len(failures)} of {len(photos)} photos left out: {'; '.join(failures)}")


def _read(
    photos: Iterable[Path], failures: list[str], progress: tqdm
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yields the photos that can be read; notes why the others cannot."""
    for path in photos:
        try:
            yield path, images.read_photo(path)
        except UserError as error:
            failures.append(str(error))
            progress.update()


def _batches(
    photos: Iterable[tuple[Path, np.ndarray]], size: int
) -> Iterator[list[tuple[Path, np.ndarray]]]:
    """Yields runs of at most `size` neighbours whose pictures have one shape."""
    for _, equal in groupby(photos, key=lambda pair: pair[1].shape):
        batch = []
        for pair in equal:
            batch.append(pair)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch


def _output_names(photos: Sequence[Path]) -> dict[Path, str]:
    """Returns the stems, or the whole names where `a.jpg` and `a.png` have one stem."""
    count = collections.Counter(path.stem for path in photos)
    return {path: path.stem if count[path.stem] == 1 else path.name for path in photos}


def _write(folder: Path, name: str, photo: np.ndarray, mask: np.ndarray, palette: Palette) -> None:
    images.write_palette_png(folder / "masks" / f"{name}.png", mask, palette)
    overlay = images.overlay(photo, mask, palette)
    images.write_png(folder / "overlays" / f"{name}.png", overlay)


def _areas(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns [K]: each class's share of the pixels of `mask` [H, W]."""
    return np.bincount(np.ravel(mask), minlength=num_classes) / np.size(mask)


def _table(areas: dict[str, np.ndarray], class_names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("photo", *class_names))
    writer.writerows((name, *(f"{share:.6f}" for share in row)) for name, row in areas.items())
    return text.getvalue()
