"""Stage `invert`: photos in; their latents, pictures of these, scores and strips of progress out.

With masks drawn on `images/` its folder is one of shots, as stage `fewshot` reads them.
"""

import csv
import dataclasses
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax import invert, parallel, projection
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.io import checkpoint, files, images, masks
from repgan_jax.perceptual import Perceptual, load_perceptual
from repgan_jax.stages import common, framing

FIELDS = ("seed", "dtype", "invert.preset")  # and the settings of that preset
PRESETS = ("fast", "standard", "paper")
PANELS = (0.0, 0.1, 0.5, 1.0)  # of a strip: shares of the steps; the photo itself follows
COLUMNS = ("photo", "lpips", "psnr", "distance", "verdict", "steps")


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `latents.npz`, `scores.csv`, `images/`, `strips/` and `noise/` of all photos.

    Raises:
        UserError: a photo that cannot be used, missing weights, settings that do not fit, a loss
            that is not a number.
    """
    options = config.invert
    if not options.input:
        raise UserError(
            "config.invert.input: no photos given; say --config.invert.input=PHOTO_OR_FOLDER"
        )
    common.expect_one_of(config, "invert.preset", PRESETS)
    group = f"invert.{options.preset}"
    common.expect_one_of(config, f"{group}.space", projection.SPACES)
    common.expect_positive(config, f"{group}.steps", f"{group}.save_every", f"{group}.size")
    settings = options[options.preset]
    checkpoint.check_generator(config.generator)
    perceptual = load_perceptual(options.perceptual, net=settings.net)
    inputs = {
        "config.generator": common.digest(config.generator),
        "config.invert.input": common.digest(options.input),
        "config.invert.perceptual": common.digest(Path(options.perceptual) / settings.net),
    }
    if options.landmarks:
        inputs["config.invert.landmarks"] = common.digest(options.landmarks)
    if settings.start:
        inputs[f"config.{group}.start"] = common.digest(settings.start)
    fields = (*FIELDS, group)
    with common.stage(
        "invert", config, workdir, fields, inputs=inputs, refuse_changes=True
    ) as stage:
        if stage.finished:
            return
        photos = framing.read_photos(options.input, settings.size, options.landmarks)
        generator = common.load_generator(config)
        _check_size(config, generator)
        starts = _read_starts(settings.start, photos, generator) if settings.start else None
        projector = _make_projector(config, generator, perceptual, settings)
        rows = _project_all(stage.folder, projector, photos, starts, settings)
        verdicts = [row["verdict"] for row in rows]
        stage.finish(
            {
                "photos": len(rows),
                "mean_lpips": float(np.mean([float(row["lpips"]) for row in rows])),
                **{name: verdicts.count(name) for name in ("good", "poor", "failed")},
            }
        )


def _make_projector(
    config: ConfigDict, generator: Generator, perceptual: Perceptual, settings: ConfigDict
) -> invert.Projector:
    # a stream of random numbers of its own, apart from the other stages'
    statistics_key, key = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 3))
    fields = dataclasses.fields(projection.Settings)
    return invert.Projector(
        generator,
        perceptual,
        projection.measure_latents(generator, statistics_key),
        key,
        projection.Settings(**{field.name: settings[field.name] for field in fields}),
        backend=config.backend,
    )


def verdict(lpips: float, distance: float, settings: ConfigDict) -> str:
    """Returns "good", "poor" or "failed": how like the photo, and how usual the latent is."""
    if lpips > settings.poor_lpips:
        return "failed"
    good = lpips <= settings.good_lpips and distance <= settings.good_distance
    return "good" if good else "poor"


def _project_all(
    folder: Path,
    projector: invert.Projector,
    photos: Mapping[str, np.ndarray],
    starts: Mapping[str, np.ndarray] | None,
    settings: ConfigDict,
) -> list[dict[str, str]]:
    """Returns the rows of scores.csv; projects the photos that are missing, one a device."""
    latents, rows = _read_results(folder)
    done = {row["photo"] for row in rows}
    missing = [name for name in photos if name not in done]
    total = len(photos) * settings.steps
    with tqdm(total=total, initial=len(rows) * settings.steps, desc="invert", unit="step") as bar:
        for first in range(0, len(missing), len(parallel.devices())):
            names = missing[first : first + len(parallel.devices())]
            start = np.stack([starts[name] for name in names]) if starts else None
            targets = np.stack([photos[name] for name in names])
            before = len(rows) * settings.steps

            def progress(found, before=before):
                bar.set_postfix(lpips=f"{np.mean(found.lpips):.3f}")
                bar.update(before + int(np.sum(found.step)) - bar.n)

            found, strips = _project(folder, projector, names, targets, start, settings, progress)
            _write_pictures(folder, names, found, strips)
            for i, name in enumerate(names):
                latents.append(np.asarray(found.w[i]))
                rows.append(_row(name, jax.tree.map(lambda leaf, i=i: leaf[i], found), settings))
            _write_results(folder, latents, rows)
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)
            bar.update(len(rows) * settings.steps - bar.n)  # some may have ended before
    return rows


def _project(
    folder: Path,
    projector: invert.Projector,
    names: Sequence[str],
    targets: np.ndarray,
    start: np.ndarray | None,
    settings: ConfigDict,
    progress: Callable[[projection.Projection], None],
) -> tuple[projection.Projection, np.ndarray]:
    """Returns what is found for `targets` [N, S, S, 3], and strips [N, panels, S, S, 3].

    Goes on from the last checkpoint of the same photos on as many devices.
    """
    photos = images.to_float(targets)
    devices = len(parallel.devices())
    store = checkpoint.Checkpoints(folder / "checkpoints" / f"{names[0]}_{devices}")
    strips, states, kept = np.stack([targets] * (len(PANELS) + 1), axis=1), None, store.latest()
    if kept is not None:
        like = projector.init(jnp.zeros((devices, projector.generator.w_dim)))
        saved = jax.device_get(store.restore({"states": like, "strips": strips}))
        states, strips = saved["states"], saved["strips"].copy()
    elif start is None:
        start = projector.best_of(photos, settings.candidates)

    def on_chunk(states, found):
        step = int(states.step.max())
        pictures = [images.resize_area(x, settings.size) for x in np.asarray(found.picture)]
        for panel, share in enumerate(PANELS):  # the first checkpoint at its share, or the end
            if share * settings.steps > step - settings.save_every:
                strips[:, panel] = pictures
        if step != kept:
            store.save(step, {"states": states, "strips": strips})
        progress(found)

    found = invert.project(
        projector,
        photos,
        chunk=settings.save_every,
        names=names,
        start=start,
        states=states,
        on_chunk=on_chunk,
    )
    return found, strips


def _write_pictures(
    folder: Path, names: Sequence[str], found: projection.Projection, strips: np.ndarray
) -> None:
    for i, name in enumerate(names):
        images.write_png(folder / "images" / f"{name}.png", np.asarray(found.picture[i]))
        images.write_png(folder / "strips" / f"{name}.png", np.concatenate(strips[i], axis=1))
        if found.noise:
            maps = {layer: np.asarray(noise[i]) for layer, noise in found.noise.items()}
            files.write_npz(folder / "noise" / f"{name}.npz", **maps)


def _row(name: str, found: projection.Projection, settings: ConfigDict) -> dict[str, str]:
    lpips, distance = float(found.lpips), float(found.distance)
    scores = (f"{lpips:.4f}", f"{float(found.psnr):.2f}", f"{distance:.3f}")
    outcome = (verdict(lpips, distance, settings), str(int(found.step)))
    return dict(zip(COLUMNS, (name, *scores, *outcome), strict=True))


def _write_results(
    folder: Path, latents: Sequence[np.ndarray], rows: Sequence[Mapping[str, str]]
) -> None:
    """Writes latents.npz, then scores.csv: what has a row there is done."""
    names = np.array([row["photo"] for row in rows])
    files.write_npz(folder / "latents.npz", w=np.stack(latents), name=names)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.atomic_write(folder / "scores.csv", text.getvalue().encode())


def _read_results(folder: Path) -> tuple[list[np.ndarray], list[dict[str, str]]]:
    """Returns what `_write_results` wrote, empty lists before that."""
    if not (folder / "scores.csv").exists():
        return [], []
    rows = list(csv.DictReader(io.StringIO((folder / "scores.csv").read_text())))
    latents = masks.read_latents(folder / "latents.npz")
    return [latents[row["photo"]] for row in rows], rows


def _read_starts(
    path: str, photos: Mapping[str, np.ndarray], generator: Generator
) -> dict[str, np.ndarray]:
    """Returns the latents [D] or [L, D] to start from, by photo.

    Raises:
        UserError: a photo without latent, or one that does not fit the generator.
    """
    latents = masks.read_latents(Path(path))
    shapes = ((generator.w_dim,), (generator.num_layers, generator.w_dim))
    for name in photos:
        if name not in latents:
            raise UserError(
                f"{path}: no latent for photo {name!r}; there are latents for {', '.join(latents)}"
            )
        if latents[name].shape not in shapes:
            raise UserError(
                f"{path}: w of shape {latents[name].shape}, expected {shapes[0]} or {shapes[1]}"
            )
    return latents


def _check_size(config: ConfigDict, generator: Generator) -> None:
    """Raises UserError for a size at which pictures cannot be compared."""
    field = f"config.invert.{config.invert.preset}.size"
    size = config.invert[config.invert.preset].size
    if size < 32 or generator.resolution % size:
        raise UserError(
            f"{field}: {size}, expected a divisor of the generator's {generator.resolution} "
            "pixels, at least 32"
        )
