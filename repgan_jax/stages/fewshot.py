"""Stage `fewshot`: heads fitted to the activations of a few labelled pictures."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax import synthesize
from repgan_jax.data import mask_files, masks, shapes
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.inversion import photo_shots
from repgan_jax.io import checkpoint, files, images, listing, results
from repgan_jax.models import heads
from repgan_jax.ops import resampling
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.runtime import distributed
from repgan_jax.stages import common, fingerprints, inversion, mirroring
from repgan_jax.stages.inversion import Inverter
from repgan_jax.training import heads as segment

FIELDS = ("seed", "label_size", "dtype", "background", "fewshot")


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that no heads can be fitted with, and shots that do not fit.

    Weights are not loaded: whether latents make their pictures is found out by `run`.
    """
    options = config.fewshot
    counts = ("label_size", "fewshot.steps", "fewshot.ensemble", "fewshot.batch_size")
    common.expect_positive(config, *counts)
    common.expect_one_of(config, "fewshot.resize", ("bilinear", "nearest"))
    mirroring.check(config)
    photo_shots.check(config)
    common.expect_one_of(config, "fewshot.reading", mask_files.RULES)
    if options.batch_size > 1:
        common.expect_share(config, "fewshot.batch_size")
    segment.learning_rate(options.decay, options.learning_rate, options.steps)
    palette, generator = read_classes(config), common.outline_generator(config)
    shapes.find_background(palette, config.background)
    build_head(_architecture(config, generator), palette.num_classes)
    if common.is_made(config, options.shots):
        return
    masks.find_shots(options.shots, options.names)
    if photo_shots.have_latents(config):
        shots = _read_shots(config, palette, generator)
        _check_shapes(generator, shots, config)
        _expect_classes(_resize_masks(shots, palette, config.label_size), palette)
    else:
        inversion.check(config)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the heads' weights and what the report shows of them into `workdir/fewshot`.

    Raises:
        UserError: what `masks.read_shots` refuses; a picture that its latent does not make; a
            folder of photos of which none can be used.
    """
    options = config.fewshot
    together = options.batch_size > 1  # one shot is work for one device
    inputs = {"config.generator": fingerprints.generator_digest(config.generator)}
    inputs["config.classes"] = fingerprints.digest(config.classes)
    inputs["config.fewshot.shots"] = fingerprints.shots_digest(options.shots)
    if config.mirror_pairs:  # a run without, of an earlier version too, has no such input
        inputs["config.mirror_pairs"] = config.mirror_pairs
    inverter = Inverter(config, workdir) if photo_shots.are_photos(config) else None
    fields = FIELDS
    if inverter:
        fields, inputs = (*FIELDS, *inverter.fields), {**inverter.inputs, **inputs}
    with common.stage(
        "fewshot", config, workdir, fields, inputs=inputs, together=together
    ) as stage:
        if stage.finished:
            return
        palette = read_classes(config)
        generator = common.load_generator(config)
        architecture = _architecture(config, generator)
        head = build_head(architecture, palette.num_classes)
        if not distributed.leads():
            like_first = _like_first()
            flip = distributed.by_leader(lambda: None)  # as the first one decides
            _fit(config, head, *like_first, flip=flip)
            return
        shown = listing.find_photos(Path(options.shots) / "images", companions=(".json",))
        common.say_passed_over("fewshot", shown)
        names, made = architecture["taps"], not inverter
        activations = partial(read_activations, generator, names=names, config=config, made=made)
        if inverter:
            shots, taps = photo_shots.read(config, palette, inverter, stage.folder, activations)
        else:
            shots = _read_shots(config, palette, generator)
            taps = activations(shots)
        _say_read(shots, palette, config)
        labels = _resize_masks(shots, palette, config.label_size)
        _expect_classes(labels, palette)
        _say_missing(labels, palette)
        flip = architecture["flip"] = mirroring.decide(labels, palette, options.flip)
        if together:
            _like_first(taps, labels)
            distributed.by_leader(lambda: flip)
        variables, curve = _fit(config, head, taps, labels, flip=flip)
        guesses = _guess(head, variables, taps)
        known = labels != IGNORE
        accuracy = float((guesses == labels)[known].mean())
        checkpoint.write_tree(stage.folder / "heads", variables)
        checkpoint.write_json(stage.folder / "head.json", architecture)
        checkpoint.write_json(stage.folder / "palette.json", palette.to_json())
        _write_preview(stage.folder, workdir, shots.images, labels, guesses, curve)
        stage.finish(
            {
                "shots": list(shots.names),
                "read": list(shots.notes),
                "loss": float(curve[-1]),
                "pixel_accuracy": accuracy,
            }
        )


def _architecture(config: ConfigDict, generator: Generator) -> dict[str, Any]:
    """Returns what `build_head` takes; raises UserError for taps that the generator lacks."""
    options = config.fewshot
    return {
        "head": options.head,
        "label_size": config.label_size,
        "resize": options.resize,
        "taps": list(taps_lib.select(generator.tap_names, options.taps)),
    }


def _resize_masks(shots: masks.Shots, palette: Palette, size: int) -> np.ndarray:
    """Returns int32 [k, size, size], the masks of the shots."""
    return np.stack([masks.resize_mask(m, size, palette.num_classes) for m in shots.masks])


def _like_first(*arrays: Any) -> Any:
    """Returns zeros in the shapes of process 0's `arrays`, which alone gives any."""
    shapes = distributed.by_leader(
        lambda: jax.tree.map(lambda x: {"shape": x.shape, "dtype": x.dtype.name}, arrays)
    )
    return jax.tree.map(lambda x: jnp.zeros(**x), shapes, is_leaf=lambda x: "shape" in x)


def _fit(
    config: ConfigDict, head: nn.Module, taps: taps_lib.Taps, labels: np.ndarray, *, flip: bool
) -> tuple[dict[str, Any], np.ndarray]:
    """Returns what `segment.fit_heads` does, with the options of `config`.

    Raises:
        UserError: in all processes, where the loss is no number any more.
    """
    options = config.fewshot
    with (
        tqdm(
            total=options.steps, desc="fewshot", unit="step", disable=not distributed.leads()
        ) as bar,
        distributed.collective(),
    ):
        variables, curve = segment.fit_heads(
            jax.random.key(config.seed),
            head,
            taps,
            jnp.asarray(labels),
            members=options.ensemble,
            steps=options.steps,
            schedule=segment.learning_rate(options.decay, options.learning_rate, options.steps),
            weight_decay=options.weight_decay,
            flip=flip,
            batch_size=options.batch_size,
            progress=lambda step, loss: (bar.set_postfix(loss=loss), bar.update(step - bar.n)),
        )
    if not np.isfinite(curve).all():
        raise UserError(
            f"fewshot: the loss became {curve[-1]}; try a lower config.fewshot.learning_rate than "
            f"{options.learning_rate:g}"
        )
    return variables, curve


def build_head(architecture: dict[str, Any], num_classes: int) -> nn.Module:
    """Returns the head that a `head.json` describes."""
    return heads.build(
        architecture["head"], num_classes, architecture["label_size"], architecture["resize"]
    )


def load_heads(workdir: Path) -> tuple[nn.Module, tuple[str, ...], Any, Palette]:
    """Returns (architecture, taps they read, variables, classes) of the finished stage's heads."""
    common.finished_folder(workdir, "fewshot")

    def read(folder: Path) -> tuple[nn.Module, tuple[str, ...], Any, Palette]:
        architecture = checkpoint.read_json(folder / "head.json")
        palette = checkpoint.read_json(folder / "palette.json", parse=Palette.from_json)
        head = build_head(architecture, palette.num_classes)
        return head, tuple(architecture["taps"]), checkpoint.read_tree(folder / "heads"), palette

    head, names, variables, palette = results.read(workdir / "fewshot", read)
    return head, names, jax.device_put(variables), palette


def load_with_generator(
    config: ConfigDict, workdir: Path
) -> tuple[Generator, nn.Module, tuple[str, ...], Any, Palette]:
    """Returns the run's generator, and what `load_heads` does.

    Raises:
        UserError: the heads were fitted to another generator.
    """
    found = load_heads(workdir)
    common.expect_same_generator(config, workdir)
    return common.load_generator(config), *found


def load_flip(workdir: Path) -> bool:
    """Returns whether images may be mirrored, as the stage decided; earlier versions always did."""
    folder = common.finished_folder(workdir, "fewshot")
    return checkpoint.read_json(folder / "head.json").get("flip", True)


def read_classes(config: ConfigDict) -> Palette:
    """Returns the classes of `config.classes` and, where there are some, `config.mirror_pairs`."""
    palette = masks.read_classes(config.classes)
    return palette.with_pairs(config.mirror_pairs, "config.mirror_pairs")


def load_palette(workdir: Path) -> Palette:
    """Returns the classes of the stage."""
    folder = common.finished_folder(workdir, "fewshot")
    return checkpoint.read_json(folder / "palette.json", parse=Palette.from_json)


def read_activations(
    generator: Generator,
    shots: masks.Shots,
    names: Sequence[str],
    config: ConfigDict,
    *,
    made: bool,
) -> dict[str, jax.Array]:
    """Returns the taps of all shots, [k, h, w, C], computed once.

    Args:
        generator: of the shots.
        shots: with their latents.
        names: of the taps.
        config: of the run.
        made: whether the generator made the shots, which is checked; a photo is never quite what
            its latent makes.

    Raises:
        UserError: a latent does not fit the generator, or makes another picture.
    """
    _check_shapes(generator, shots, config)
    factor = generator.resolution // shots.images.shape[1]

    @jax.jit
    def activations(generator: Generator, w: jax.Array, noise: Mapping[str, jax.Array]):
        image, taps = generator.with_noise(noise).synthesis(w)
        picture = synthesize.to_uint8(resampling.area_reduce(image, factor))
        return picture, taps_lib.choose(taps, names, config.label_size)

    found = [
        activations(generator, w[None], {layer: maps[i] for layer, maps in shots.noise.items()})
        for i, w in enumerate(shots.w)
    ]
    pictures, taps = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *found)
    if made:
        _check_pictures(np.asarray(pictures), shots, config)
    return taps


def _check_shapes(generator: Generator, shots: masks.Shots, config: ConfigDict) -> None:
    """Raises UserError for latents or pictures that are not of this generator's shape."""
    layers = shots.w.shape[1:]
    if layers not in ((generator.w_dim,), (generator.num_layers, generator.w_dim)):
        raise UserError(
            f"{config.fewshot.shots}/latents.npz: w of shape {layers}; {config.generator} expects "
            f"({generator.w_dim},) or ({generator.num_layers}, {generator.w_dim})"
        )
    height, width = shots.images.shape[1:3]
    if height != width or generator.resolution % height:
        raise UserError(
            f"{config.fewshot.shots}/images: {width}x{height} pixels; expected "
            f"squares whose side divides the generator's {generator.resolution}"
        )


def _check_pictures(pictures: np.ndarray, shots: masks.Shots, config: ConfigDict) -> None:
    """Raises UserError for a shot that is not the picture its latent makes."""
    tolerance = config.fewshot.picture_tolerance
    for name, picture, drawn in zip(shots.names, pictures, shots.images, strict=True):
        difference = np.abs(picture.astype(np.float32) - drawn).mean()
        if difference > tolerance:
            raise UserError(
                f"{config.fewshot.shots}/images/{name}: its latent makes another picture (mean "
                f"difference {difference:.1f} of 255, config.fewshot.picture_tolerance is "
                f"{tolerance:g}); check latents.npz and config.generator"
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


def _expect_classes(labels: np.ndarray, palette: Palette) -> None:
    """Raises UserError for labels that show fewer than two classes."""
    seen = set(np.unique(labels).tolist()) - {IGNORE}
    if len(seen) < 2:
        only = f"{palette.names[seen.pop()]!r} alone" if seen else "no class"
        hint = f" ({IGNORE} means: ignore)" if IGNORE in labels else ""
        raise UserError(f"config.fewshot.shots: the masks show {only}{hint}; expected two or more")


def _say_missing(labels: np.ndarray, palette: Palette) -> None:
    """Says which classes the labels do not show."""
    seen = np.unique(labels)
    if missing := [name for k, name in enumerate(palette.names) if k not in seen]:
        common.say("fewshot", f"no shot shows {', '.join(missing)}: that will not be found")


def _guess(head: nn.Module, variables: Any, taps: taps_lib.Taps) -> np.ndarray:
    """Returns the heads' own ids [k, S, S] for the shots."""
    predict = jax.jit(lambda v, t: segment.head_probabilities(head, v, t)[0].argmax(-1))
    count = len(next(iter(taps.values())))
    one_by_one = (
        predict(variables, {name: tap[i : i + 1] for name, tap in taps.items()})
        for i in range(count)
    )
    return np.concatenate([np.asarray(guess, np.int32) for guess in one_by_one])


def _write_preview(
    folder: Path,
    workdir: Path,
    pictures: np.ndarray,
    labels: np.ndarray,
    guesses: np.ndarray,
    curve: np.ndarray,
) -> None:
    """Writes shots.npz and curve.json for the report, and the curve for TensorBoard."""
    size = labels.shape[1]
    small = np.stack([images.resize_area(picture, size) for picture in pictures])
    files.write_npz(folder / "shots.npz", images=small, masks=labels, guesses=guesses)
    rows = [{"step": i + 1, "loss": float(loss)} for i, loss in enumerate(curve)]
    checkpoint.write_json(folder / "curve.json", rows)
    with common.board(workdir, "fewshot") as board:
        for row in rows:
            board.add_scalar("loss", row["loss"], row["step"])
