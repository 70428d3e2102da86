"""Photos in; masks, overlays and areas of the classes out."""

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from repgan_jax.errors import UserError
from repgan_jax.io import files, images, listing
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.segmenter import Segmenter

MASKS, OVERLAYS, AREAS = "masks", "overlays", "areas.csv"
Result = tuple[str, np.ndarray, np.ndarray]  # relative path, photo [H, W, 3], ids [H, W]


class SegmentedFolder(NamedTuple):
    """What was done with the photos in a folder.

    Attributes:
        areas: {relative path of a photo: float [K], each class's share of its pixels}.
        failures: {relative path of a photo that was left out: why}.
        notes: {what was changed or chosen in reading photos: relative paths of these}.
        passed_over: relative paths of files that are no photos, and of folders not searched.
    """

    areas: dict[str, np.ndarray]
    failures: dict[str, str]
    notes: dict[str, list[str]]
    passed_over: Sequence[str]


def segment_folder(
    segmenter: Segmenter,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    recursive: bool = True,
    batch_size: int = 8,
    progress: bool = True,
) -> SegmentedFolder:
    """Writes the masks [H, W] of photos [H, W, 3] to `output`; returns areas by photo.

    `masks/` (index PNG, in the classes' colours) and `overlays/` mirror the folders of the photos;
    `areas.csv` lists each class's share of the pixels. All photos are done anew each time, and
    nothing is removed. A photo that cannot be read is left out.

    Args:
        segmenter: of the masks.
        input: a photo, or a folder of photos.
        output: folder.
        recursive: whether photos in subfolders are segmented.
        batch_size: photos of one size per call of the segmenter.
        progress: whether a progress bar is shown.

    Raises:
        UserError: no photos; a folder that cannot be listed or written.
    """
    files.expect_writable(output, "output")
    photos = listing.find_photos(input, recursive=recursive, without=result_folders(output))
    return segment_photos(segmenter, photos, output, batch_size=batch_size, progress=progress)


def segment_photos(
    segmenter: Segmenter,
    photos: listing.Photos,
    output: str | os.PathLike[str],
    *,
    batch_size: int = 8,
    progress: bool = True,
) -> SegmentedFolder:
    """Writes what `segment_folder` does for `photos` that have been found."""
    if batch_size < 1:
        raise UserError(f"batch_size: {batch_size}, expected at least 1")
    failures: dict[str, str] = {}
    notes: dict[str, list[str]] = {}

    def results() -> Iterator[Result]:
        total = len(photos.files)
        with tqdm(total=total, desc="segment", unit="photo", disable=not progress) as bar:
            readable = _read(photos.files, failures, notes, bar)
            for batch in _batches(readable, batch_size):
                masks = segmenter.predict(np.stack([photo for _, photo in batch]))
                for (path, photo), mask in zip(batch, masks, strict=True):
                    yield path, photo, mask
                bar.update(len(batch))

    areas = write_results(output, photos.files, results(), segmenter.palette)
    return SegmentedFolder(areas, failures, notes, photos.passed_over)


def write_results(
    output: str | os.PathLike[str],
    paths: Iterable[str],
    results: Iterable[Result],
    palette: Palette,
) -> dict[str, np.ndarray]:
    """Writes `masks/`, `overlays/` and `areas.csv` to `output`; returns areas [K] by path.

    Args:
        output: folder.
        paths: relative paths of all photos, which decide the names of the results.
        results: (path, photo, mask) of those that could be segmented.
        palette: names and colours of the classes.
    """
    folder, names = Path(output), listing.result_names(paths)
    areas = {}
    for path, photo, mask in results:
        name = f"{names[path]}.png"
        images.write_palette_png(folder / MASKS / name, mask, palette)
        images.write_png(folder / OVERLAYS / name, images.overlay(photo, mask, palette))
        areas[path] = measure_areas(mask, palette.num_classes)
    table = _format_table(areas, palette.names)
    files.atomic_write(folder / AREAS, table.encode(errors="surrogateescape"))
    return areas


def result_folders(output: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Returns the folders of results, in which no photos are looked for."""
    return (Path(output), Path(output) / MASKS, Path(output) / OVERLAYS)


def measure_areas(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns [K]: each class's share of the pixels of `mask` [H, W] that have a class."""
    known = np.asarray(mask)[mask != IGNORE]
    return np.bincount(known, minlength=num_classes) / max(known.size, 1)


def _read(
    photos: Mapping[str, Path],
    failures: dict[str, str],
    notes: dict[str, list[str]],
    bar: tqdm,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the photos that can be read; notes why others cannot, and what was done to which."""
    for path, file in photos.items():
        try:
            photo, said = images.read_photo_and_notes(file)
        except UserError as error:
            failures[path] = str(error)
            bar.update()
            continue
        for note in said:
            notes.setdefault(note, []).append(path)
        yield path, photo


def _batches(
    photos: Iterator[tuple[str, np.ndarray]], size: int
) -> Iterator[list[tuple[str, np.ndarray]]]:
    """Yields runs of at most `size` neighbours whose photos have one shape."""
    for _, equal in groupby(photos, key=lambda pair: pair[1].shape):
        batch = []
        for pair in equal:
            batch.append(pair)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch


def _format_table(areas: Mapping[str, np.ndarray], class_names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("photo", *class_names))
    writer.writerows((path, *(f"{share:.6f}" for share in row)) for path, row in areas.items())
    return text.getvalue()
