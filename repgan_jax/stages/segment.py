"""Stage `segment`: photos in; masks, overlays and areas of the parts out.

By the stand-alone network, or by the few-shot heads on the latents found for each photo. It does
all photos anew each time, and removes nothing: the folder may be the user's own.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

import repgan_jax
from repgan_jax import segmentation
from repgan_jax.errors import UserError
from repgan_jax.inversion import framing
from repgan_jax.io import files, images, listing, remote
from repgan_jax.palette import Palette
from repgan_jax.segmenter import most_likely
from repgan_jax.stages import common, inverters, labellers

FIELDS = ("segment",)


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that do not fit, and where no photos are named or there."""
    common.expect_one_of(config, "segment.method", ("network", "invert"))
    common.expect_positive(config, "segment.batch_size")
    common.expect_photos(config, "segment.input", recursive=config.segment.recursive)
    if config.segment.output:
        files.expect_writable(config.segment.output, "config.segment.output")
    if config.segment.method == "invert":
        inverters.check(config)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `masks/`, `overlays/` and `areas.csv` into `config.segment.output`.

    Raises:
        UserError: after all the others were done, photos that cannot be read or that the generator
            cannot make.
    """
    options = config.segment
    folder = Path(options.output or workdir / "segment")
    own = (workdir, *segmentation.result_folders(folder))
    photos = listing.find_photos(options.input, recursive=options.recursive, without=own)
    common.say_passed_over("segment", photos)
    failures: list[str] = []
    if options.method == "network":
        segmenter = repgan_jax.load_segmenter(workdir)
        found = segmentation.segment_photos(
            segmenter, photos, folder, batch_size=options.batch_size
        )
        for note, paths in found.notes.items():
            common.say("segment", f"{note}: {listing.name_some(paths)}")
        areas, failures = found.areas, [*found.failures.values()]
    else:
        palette, results = _by_inversion(config, workdir, photos.files, failures)
        areas = segmentation.write_results(folder, photos.files, results, palette)
    remote.push(folder)
    total = len(photos.files)
    print(f"segment: {len(areas)} of {total} photos done, in {remote.name(folder)}")
    if failures:
        raise UserError(f"{len(failures)} of {total} photos left out: {'; '.join(failures)}")


def _by_inversion(
    config: ConfigDict, workdir: Path, photos: Mapping[str, Path], failures: list[str]
) -> tuple[Palette, Iterator[segmentation.Result]]:
    """Returns the classes, and what the heads say of the photos' latents; notes those left out.

    Pixels outside of a photo's square are 255.
    """
    generator, labeller = labellers.load_with_generator(config, workdir)
    inverter = inverters.build(config, workdir, generator)
    with inverters.naming(config):
        squares = framing.assign(framing.read_squares(config.invert.landmarks), photos)
    framed, paths = {}, {name: path for path, name in listing.result_names(photos).items()}
    for name, path in paths.items():
        try:
            with inverters.naming(config):
                framed[name] = framing.read_photo(photos[path], inverter.size, squares, name=path)
        except UserError as error:
            failures.append(str(error))
    label = jax.jit(lambda labeller, generator, w: labeller.label(generator, w)[0])

    def results():
        for name, found in inverters.find(config, inverter, framed):
            path, verdict = paths[name], inverter.options.verdict(found)
            said = f"{verdict} ({found.describe()})"
            if verdict == "failed":
                failures.append(f"{photos[path]}: {said}; {inverters.ADVICE}")
                continue
            if verdict == "poor":
                print(f"segment: {path}: {said}: look at it; {inverters.ADVICE}")
            side = max(round(framed[name].square.side), 1)
            probabilities = label(labeller, generator.with_noise(found.noise), found.w[None])
            mask = framed[name].restore(most_likely(np.asarray(probabilities), (side, side)))
            yield path, images.read_photo(photos[path]), mask

    return labeller.palette, results()
