"""Stage `invert`: photos in; their latents, pictures of these, scores and strips of progress out.

With masks drawn on `images/` its folder is one of shots, as stage `fewshot` reads them. Results of
photos in folders are in folders of the same names, in which `fewshot` does not look for shots.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from repgan_jax.inversion import cache, framing
from repgan_jax.inversion.cache import Inversion
from repgan_jax.io import files, images, listing
from repgan_jax.stages import common, fingerprints, inverters


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that do not fit, and where no photos are named or there."""
    common.expect_photos(config, "invert.input", recursive=config.invert.recursive)
    inverters.check(config)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `latents.npz`, `scores.csv`, `images/`, `strips/` and `noise/` of all photos.

    Raises:
        UserError: a photo that cannot be used, missing weights, settings that do not fit, a loss
            that is not a number.
    """
    options = config.invert
    photos = listing.find_photos(options.input, recursive=options.recursive, without=[workdir])
    readable = ((name, file) for name, file in photos.files.items() if file.is_file())
    digest = fingerprints.digest_files(readable)
    inputs = {**inverters.inputs(config), "config.invert.input": digest}
    with common.stage("invert", config, workdir, inverters.fields(config), inputs=inputs) as stage:
        if stage.finished:
            return
        common.say_passed_over("invert", photos)
        inverter = inverters.build(config, workdir, common.load_generator(config))
        with inverters.naming(config):
            framed = framing.read_photos(photos, inverter.size, options.landmarks)
        latents, rows = {}, []
        for name, found in inverters.find(config, inverter, framed):
            _write_pictures(stage.folder, name, found)
            latents[name] = found.w
            rows.append(cache.score(name, found, inverter.options.verdict(found)))
        files.write_npz(
            stage.folder / "latents.npz", w=np.stack([*latents.values()]), name=np.array([*latents])
        )
        cache.write_scores(stage.folder, rows)
        _say_verdicts(rows)
        verdicts = [row["verdict"] for row in rows]
        stage.finish(
            {
                "photos": len(rows),
                "mean_lpips": float(np.mean([float(row["lpips"]) for row in rows])),
                **{name: verdicts.count(name) for name in ("good", "poor", "failed")},
            }
        )


def _write_pictures(folder: Path, name: str, found: Inversion) -> None:
    images.write_png(folder / "images" / f"{name}.png", found.picture)
    cache.write_strip(folder, name, found)
    if found.noise:
        files.write_npz(folder / "noise" / f"{name}.npz", **found.noise)


def _say_verdicts(rows: Sequence[Mapping[str, str]]) -> None:
    """Names the photos that the generator cannot make, and says what to do about it."""
    for row in rows:
        if row["verdict"] != "good":
            print(
                f"invert: {row['photo']}: {row['verdict']} (LPIPS {row['lpips']}, {row['distance']}"
                f" from the mean latent); {inverters.ADVICE}",
                flush=True,
            )
