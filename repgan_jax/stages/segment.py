"""Stage `segment`: photos in; masks, overlays and areas of the parts out.

By the stand-alone network, or by the few-shot heads on the latents found for each photo. It does
all photos anew each time, and removes nothing: the folder may be the user's own.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

import repgan_jax
from repgan_jax.errors import UserError
from repgan_jax.inversion import framing
from repgan_jax.io import files, images, listing, remote
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.segmenter import most_likely
from repgan_jax.stages import common, inversion, labellers
from repgan_jax.stages.inversion import ADVICE, Inverter, describe

FIELDS = ("segment",)
Result = tuple[str, np.ndarray, np.ndarray]  # relative path, photo [H, W, 3], ids [H, W]


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that do not fit, and where no photos are named or there."""
    common.expect_one_of(config, "segment.method", ("network", "invert"))
    common.expect_positive(config, "segment.batch_size")
    common.expect_photos(config, "segment.input", recursive=config.segment.recursive)
    if config.segment.output:
        files.expect_writable(config.segment.output, "config.segment.output")
    if config.segment.method == "invert":
        inversion.check(config)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `masks/`, `overlays/` and `areas.csv` into `config.segment.output`.

    Raises:
        UserError: after all the others were done, photos that cannot be read or that the generator
            cannot make.
    """
    options = config.segment
    folder = Path(options.output or workdir / "segment")
    own = (workdir, folder, folder / "masks", folder / "overlays")
    photos = listing.find_photos(options.input, recursive=options.recursive, without=own)
    common.say_passed_over("segment", photos)
    names, areas, failures = listing.result_names(photos.files), {}, []
    by = _by_network if options.method == "network" else _by_inversion
    palette, results = by(config, workdir, photos.files, failures)
    for path, photo, mask in results:
        _write(folder, names[path], photo, mask, palette)
        areas[path] = _areas(mask, palette.num_classes)
    files.atomic_write(
        folder / "areas.csv", _table(areas, palette.names).encode(errors="surrogateescape")
    )
    remote.push(folder)
    total = len(photos.files)
    print(f"segment: {len(areas)} of {total} photos done, in {remote.name(folder)}")
    if failures:
        raise UserError(f"{len(failures)} of {total} photos left out: {'; '.join(failures)}")


def _by_network(
    config: ConfigDict, workdir: Path, photos: Mapping[str, Path], failures: list[str]
) -> tuple[Palette, Iterator[Result]]:
    """Returns the classes, and what the stand-alone network sees; notes photos left out."""
    segmenter = repgan_jax.load_segmenter(workdir)

    def results():
        notes: dict[str, list[str]] = {}
        with tqdm(total=len(photos), desc="segment", unit="photo") as progress:
            readable = _read(photos, failures, notes, progress)
            for batch in _batches(readable, config.segment.batch_size):
                masks = segmenter.predict(np.stack([photo for _, photo in batch]))
                for (path, photo), mask in zip(batch, masks, strict=True):
                    yield path, photo, mask
                progress.update(len(batch))
        for note, noted in notes.items():
            common.say("segment", f"{note}: {listing.name_some(noted)}")

    return segmenter.palette, results()


def _by_inversion(
    config: ConfigDict, workdir: Path, photos: Mapping[str, Path], failures: list[str]
) -> tuple[Palette, Iterator[Result]]:
    """Returns the classes, and what the heads say of the photos' latents; notes those left out.

    Pixels outside of a photo's square are 255.
    """
    generator, labeller = labellers.load_with_generator(config, workdir)
    inverter = Inverter(config, workdir)
    squares = framing.assign(framing.read_squares(config.invert.landmarks), photos)
    framed, paths = {}, {name: path for path, name in listing.result_names(photos).items()}
    for name, path in paths.items():
        try:
            framed[name] = framing.read_photo(photos[path], inverter.size, squares, name=path)
        except UserError as error:
            failures.append(str(error))
    label = jax.jit(lambda labeller, generator, w: labeller.label(generator, w)[0])

    def results():
        for name, found in inverter.find({name: each.photo for name, each in framed.items()}):
            path, verdict = paths[name], inverter.verdict(found)
            if verdict == "failed":
                failures.append(f"{photos[path]}: failed ({describe(found)}); {ADVICE}")
                continue
            if verdict == "poor":
                print(f"segment: {path}: poor ({describe(found)}): look at it; {ADVICE}")
            side = max(round(framed[name].square.side), 1)
            probabilities = label(labeller, generator.with_noise(found.noise), found.w[None])
            mask = framed[name].restore(most_likely(np.asarray(probabilities), (side, side)))
            yield path, images.read_photo(photos[path]), mask

    return labeller.palette, results()


def _read(
    photos: Mapping[str, Path],
    failures: list[str],
    notes: dict[str, list[str]],
    progress: tqdm,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the photos that can be read; notes why others cannot, and what was done to which."""
    for path, file in photos.items():
        try:
            photo, said = images.read_photo_and_notes(file)
        except UserError as error:
            failures.append(str(error))
            progress.update()
            continue
        for note in said:
            notes.setdefault(note, []).append(path)
        yield path, photo


def _batches(
    photos: Iterator[tuple[str, np.ndarray]], size: int
) -> Iterator[list[tuple[str, np.ndarray]]]:
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


def _write(folder: Path, name: str, photo: np.ndarray, mask: np.ndarray, palette: Palette) -> None:
    images.write_palette_png(folder / "masks" / f"{name}.png", mask, palette)
    overlay = images.overlay(photo, mask, palette)
    images.write_png(folder / "overlays" / f"{name}.png", overlay)


def _areas(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns [K]: each class's share of the pixels of `mask` [H, W] that have a class."""
    known = np.asarray(mask)[mask != IGNORE]
    return np.bincount(known, minlength=num_classes) / max(known.size, 1)


def _table(areas: dict[str, np.ndarray], class_names: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("photo", *class_names))
    writer.writerows((name, *(f"{share:.6f}" for share in row)) for name, row in areas.items())
    return text.getvalue()
