"""Stage `fewshot`: heads fitted to the activations of a few labelled images."""

from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax.data import mask_files, masks, shapes
from repgan_jax.generator import Generator
from repgan_jax.io import files, images, json_files, listing
from repgan_jax.labeller import RESULT, Labeller
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.runtime import distributed
from repgan_jax.stages import common, fingerprints, inverters, labellers, photo_shots
from repgan_jax.training import activations, mirroring
from repgan_jax.training import labeller as training
from repgan_jax.training.labeller import FewShotOptions, Fitted

FIELDS = ("seed", "label_size", "dtype", "background", "fewshot")
_OPTIONS = tuple(FewShotOptions.__dataclass_fields__.keys() - {"label_size"})


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that no heads can be fitted with, and shots that do not fit.

    Weights are not loaded: whether latents make their images is found out by `run`.
    """
    options = config.fewshot
    photo_shots.check(config)
    common.expect_one_of(config, "fewshot.reading", mask_files.RULES)
    palette, generator = labellers.read_classes(config), common.outline_generator(config)
    shapes.find_background(palette, config.background)
    with common.config_names(config, "fewshot"):
        _options(config).check(generator, palette.num_classes)
    if options.batch_size > 1:
        common.expect_share(config, "fewshot.batch_size")
    if common.is_made(config, options.shots):
        return
    masks.find_shots(options.shots, options.names)
    if not photo_shots.have_latents(config):
        inverters.check(config)
        return
    shots = _read_shots(config, palette, generator)
    with common.config_names(config, "fewshot"):
        activations.check_shapes(generator, shots)
        training.expect_classes(training.resize_masks(shots, palette, config.label_size), palette)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the labeller, and what the report shows of it, into `workdir/fewshot`.

    Raises:
        UserError: what `masks.read_shots` refuses; an image that its latent does not make; a
            folder of photos of which none can be used.
    """
    options = config.fewshot
    together = options.batch_size > 1  # one shot is work for one device
    inputs = {"config.generator": fingerprints.generator_digest(config.generator)}
    inputs["config.classes"] = fingerprints.digest(config.classes)
    inputs["config.fewshot.shots"] = fingerprints.shots_digest(options.shots)
    if config.mirror_pairs:  # a run without, of an earlier version too, has no such input
        inputs["config.mirror_pairs"] = config.mirror_pairs
    are_photos, fields = photo_shots.are_photos(config), FIELDS
    if are_photos:
        fields = (*FIELDS, *inverters.fields(config))
        inputs = {**inverters.inputs(config), **inputs}
    with common.stage(
        "fewshot", config, workdir, fields, inputs=inputs, together=together
    ) as stage:
        if stage.finished:
            return
        palette = labellers.read_classes(config)
        if not distributed.leads():
            like_first = _like_first()  # in the order in which the first process tells
            flip = distributed.by_leader(lambda: False)
            _fit(config, palette, *like_first, flip=flip)
            return
        shown = listing.find_photos(Path(options.shots) / "images", companions=(".json",))
        common.say_passed_over("fewshot", shown)
        generator = common.load_generator(config)
        read_taps = partial(_read_taps, config, generator, are_photos=are_photos)
        if are_photos:
            inverter = inverters.build(config, workdir, generator)
            shots, taps = photo_shots.read(config, palette, inverter, stage.folder, read_taps)
        else:
            shots = _read_shots(config, palette, generator)
            taps = read_taps(shots)
        _say_read(shots, palette, config)
        labels = _read_labels(config, palette, shots)
        _say_missing(labels, palette)
        flip = mirroring.decide(
            labels, palette, options.flip, say=lambda text: common.say("fewshot", text)
        )
        if together:
            _like_first(taps, labels)
            distributed.by_leader(lambda: flip)
        labeller, losses = _fit(config, palette, taps, labels, flip=flip)
        predictions = _predict(labeller, taps)
        labelled = labels != IGNORE
        accuracy = float((predictions == labels)[labelled].mean())
        labeller.save(stage.folder / RESULT)
        _write_preview(stage.folder, workdir, shots.images, labels, predictions, losses)
        stage.finish(
            {
                "shots": list(shots.names),
                "read": list(shots.notes),
                "loss": float(losses[-1]),
                "pixel_accuracy": accuracy,
            }
        )


def _options(config: ConfigDict) -> FewShotOptions:
    return FewShotOptions(
        label_size=config.label_size, **{name: config.fewshot[name] for name in _OPTIONS}
    )


def _read_taps(
    config: ConfigDict, generator: Generator, shots: masks.Shots, *, are_photos: bool
) -> taps_lib.Taps:
    """Returns the activations of the shots by name, [k, h, w, C]."""
    options = _options(config)
    with common.config_names(config, "fewshot"):
        return activations.read_activations(
            generator,
            shots,
            options.tap_names(generator),
            options.label_size,
            image_tolerance=None if are_photos else options.image_tolerance,
        )


def _read_labels(config: ConfigDict, palette: Palette, shots: masks.Shots) -> np.ndarray:
    """Returns the labels of the shots, int32 [k, S, S]."""
    labels = training.resize_masks(shots, palette, config.label_size)
    with common.config_names(config, "fewshot"):
        training.expect_classes(labels, palette)
    return labels


def _like_first(*arrays: Any) -> Any:
    """Returns zeros in the shapes of process 0's `arrays`, which alone gives any."""
    shapes = distributed.by_leader(
        lambda: jax.tree.map(lambda x: {"shape": x.shape, "dtype": x.dtype.name}, arrays)
    )
    return jax.tree.map(lambda x: jnp.zeros(**x), shapes, is_leaf=lambda x: "shape" in x)


def _fit(
    config: ConfigDict, palette: Palette, taps: taps_lib.Taps, labels: np.ndarray, *, flip: bool
) -> Fitted:
    """Returns the fitted labeller, and shows the progress."""
    options = _options(config)
    with (
        tqdm(
            total=options.steps, desc="fewshot", unit="step", disable=not distributed.leads()
        ) as bar,
        distributed.collective(),
        common.config_names(config, "fewshot"),
    ):
        return training.fit(
            jax.random.key(config.seed),
            taps,
            labels,
            palette,
            options,
            flip=flip,
            backend=config.backend,
            on_chunk=lambda step, loss: (bar.set_postfix(loss=loss), bar.update(step - bar.n)),
        )


def _read_shots(config: ConfigDict, palette: Palette, generator: Generator) -> masks.Shots:
    """Returns the shots that `generator` made, as `config` says."""
    options = config.fewshot
    return masks.read_shots(
        options.shots,
        palette,
        options.names,
        resolution=generator.resolution,
        reading=options.reading,
        background=config.background,
        empty=options.empty,
    )


def _say_read(shots: masks.Shots, palette: Palette, config: ConfigDict) -> None:
    """Says how images and masks were read, and which class is taken for the background."""
    for note in shots.notes:
        common.say("fewshot", note)
    background = shapes.find_background(palette, config.background)
    if background:
        common.say(
            "fewshot",
            f"{palette.names[background]!r} is the background of shapes, but overlays, scores "
            f"without background and exports take the first class, {palette.names[0]!r}, for "
            "it: put the background first in the class list",
        )


def _say_missing(labels: np.ndarray, palette: Palette) -> None:
    """Says which classes the labels do not show."""
    seen = np.unique(labels)
    if missing := [name for k, name in enumerate(palette.names) if k not in seen]:
        common.say("fewshot", f"no shot shows {', '.join(missing)}: that will not be found")


def _predict(labeller: Labeller, taps: taps_lib.Taps) -> np.ndarray:
    """Returns the predicted ids [k, S, S] for the shots, one after the other."""
    predict = jax.jit(lambda labeller, taps: labeller(taps).argmax(-1))
    count = len(next(iter(taps.values())))
    one_by_one = (
        predict(labeller, {name: tap[i : i + 1] for name, tap in taps.items()})
        for i in range(count)
    )
    return np.concatenate([np.asarray(ids, np.int32) for ids in one_by_one])


def _write_preview(
    folder: Path,
    workdir: Path,
    shown: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    losses: np.ndarray,
) -> None:
    """Writes shots.npz and curve.json for the report, and the curve for TensorBoard."""
    size = labels.shape[1]
    small = np.stack([images.resize_area(image, size) for image in shown])
    files.write_npz(folder / "shots.npz", images=small, masks=labels, guesses=predictions)
    rows = [{"step": i + 1, "loss": float(loss)} for i, loss in enumerate(losses)]
    json_files.write(folder / "curve.json", rows)
    with common.board(workdir, "fewshot") as board:
        for row in rows:
            board.add_scalar("loss", row["loss"], row["step"])
