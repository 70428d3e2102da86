"""Labelled photos as shots: their latents are looked for first."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from repgan_jax.data import masks, shot_masks
from repgan_jax.errors import UserError
from repgan_jax.inversion import cache as inversions
from repgan_jax.inversion import framing
from repgan_jax.inversion.cache import Inversion
from repgan_jax.io import images
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.stages.inversion import Inverter, describe


def are_photos(config: ConfigDict) -> bool:
    """Returns whether `config.fewshot.shots` come without latents, and says so."""
    if have_latents(config):
        return False
    shots = Path(config.fewshot.shots)
    print(f"fewshot: no {masks.LATENTS} in {shots}: its pictures are taken as photos", flush=True)
    return True


def have_latents(config: ConfigDict) -> bool:
    """Returns whether `config.fewshot.shots` come with latents."""
    return (Path(config.fewshot.shots) / masks.LATENTS).exists()


def read(config: ConfigDict, palette: Palette, inverter: Inverter, folder: Path) -> masks.Shots:
    """Returns the shots, and writes their scores and strips into `folder`.

    Their images are the photos, [k, S, S, 3], and their masks of the label size: 255 also where a
    photo and the picture found for it differ too much.

    Raises:
        UserError: a photo that the generator cannot make, or what reading or inverting it refuses.
    """
    options = config.fewshot
    squares = framing.read_squares(config.invert.landmarks)
    photos, labels, found, rows = {}, {}, {}, []
    framed = {
        name: framing.read_photo(file, inverter.size, squares)
        for name, file in masks.find_shots(options.shots, options.names).items()
    }
    drawn = shot_masks.read_shot_masks(
        options.shots,
        {name: one.shape for name, one in framed.items()},
        palette,
        reading=options.reading,
        background=config.background,
        empty=options.empty,
    )
    for name, one in framed.items():
        photos[name] = one.photo
        labels[name] = one.cut(drawn.masks[name], config.label_size, palette.num_classes)
    for name, one in inverter.find(photos):
        verdict = inverter.verdict(one)
        unlike = _difference(photos[name], one.picture, config.label_size)
        unlike = unlike > options.photo_tolerance
        _say(f"{options.shots}/images/{name}", one, verdict, unlike.mean())
        labels[name][unlike] = IGNORE
        found[name] = one
        inversions.write_strip(folder, name, one)
        rows.append(inversions.score(name, one, verdict))
    inversions.write_scores(folder, rows)
    layers = next(iter(found.values())).noise
    return masks.Shots(
        tuple(photos),
        np.stack([*photos.values()]),
        np.stack([*labels.values()]),
        np.stack([one.w for one in found.values()]),
        {layer: np.stack([one.noise[layer] for one in found.values()]) for layer in layers},
        drawn.notes,
    )


def _say(name: str, found: Inversion, verdict: str, ignored: float) -> None:
    """Says how well the photo `name` was made; raises UserError if it was not."""
    if verdict == "failed":
        raise UserError(
            f"{name}: the generator cannot make this photo ({describe(found)}); frame it as the "
            "generator's pictures are (config.invert.landmarks), or label another one"
        )
    advice = "; a photo that is made better teaches more" if verdict == "poor" else ""
    print(f"fewshot: {name}: {verdict} ({describe(found)}), {ignored:.1%} ignored{advice}")


def _difference(photo: np.ndarray, picture: np.ndarray, size: int) -> np.ndarray:
    """Returns [size, size], 0 to 255: mean absolute difference of the colours, both resized."""
    photo, picture = (images.resize_area(x, size).astype(np.float32) for x in (photo, picture))
    return np.abs(photo - picture).mean(-1)
