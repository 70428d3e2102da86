"""Latents of photos, from Python."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.inversion import framing
from repgan_jax.inversion.cache import Store
from repgan_jax.inversion.inverter import Inverter
from repgan_jax.inversion.options import find_preset
from repgan_jax.inversion.perceptual import load_perceptual
from repgan_jax.io import pixel_formats


@dataclass(frozen=True, eq=False)
class Inversions:
    """What was found for N photos.

    Attributes:
        photos: uint8 [N, S, S, 3], the squares of the photos that were compared.
        images: uint8 [N, R, R, 3], what the generator makes of the latents.
        w: float32 [N, L, D], the latents.
        noise: {layer: [N, r, r]}; empty where noise maps were not optimised.
        lpips: float [N], distance of the images from the photos.
        psnr: float [N], in dB.
        distance: float [N], of w from the mean latent; about 1 for random latents.
        verdicts: N words: "good", "poor" or "failed".
    """

    photos: np.ndarray
    images: np.ndarray
    w: np.ndarray
    noise: Mapping[str, np.ndarray]
    lpips: np.ndarray
    psnr: np.ndarray
    distance: np.ndarray
    verdicts: tuple[str, ...]


def invert(
    key: jax.Array,
    generator: Generator,
    photos: np.ndarray | Image.Image | str | os.PathLike[str] | Sequence[Any],
    *,
    perceptual: str | os.PathLike[str] = "weights/lpips",
    preset: str = "fast",
    landmarks: str | os.PathLike[str] = "",
    start: np.ndarray | None = None,
    cache: str | os.PathLike[str] | None = None,
    backend: str = "shard_map",
    progress: bool = True,
    **options: Any,
) -> Inversions:
    """Returns latents w [N, L, D] of N photos, the images [N, R, R, 3] they make, and scores.

    The result has the attributes `photos`, `images`, `w`, `noise`, `lpips`, `psnr`, `distance` and
    `verdicts`. `labeller.label(generator, result.w)` gives the probabilities of the photos' parts.
    Where noise maps were optimised (`preset="paper"`), photo i belongs to the generator
    `generator.with_noise({name: maps[i] for name, maps in result.noise.items()})`.

    A photo must be framed like the generator's images: without `landmarks`, its centre square is
    taken. It is reduced to S pixels (the option `size`), which it must have at least.

    Args:
        key: of all random choices.
        generator: whose latents are wanted.
        photos: uint8 [N, H, W, 3], or a list of photos of any sizes. A photo is an array uint8
            [H, W, 3], a PIL image or a path. A single photo counts as N = 1.
        perceptual: folder of the weights of LPIPS, which `converters.lpips` wrote.
        preset: "fast", "standard" or "paper" (StyleGAN2's projector).
        landmarks: file of 5 or 68 points, or a box, for each photo by its file name; "" = none.
        start: latents [N, D] or [N, L, D] to start from; None = as the preset says.
        cache: folder in which results are kept, for later calls with the same photos; None = none.
        backend: "shard_map" or "pmap".
        progress: whether a progress bar, and what is changed about photos, are shown.
        **options: fields of `InversionOptions` that differ from the preset.

    Raises:
        UserError: photos that cannot be used, options that do not fit, missing weights, or a loss
            that is not a number.
    """
    chosen = find_preset(preset, **options)
    chosen.check(generator)
    framed = _read(photos, chosen.size, landmarks, progress=progress)
    names = [str(i) for i in range(len(framed))]
    if start is not None and len(start) != len(framed):
        raise UserError(f"start: {len(start)} latents, expected one for each of {len(framed)}")
    inverter = Inverter(
        key,
        generator,
        load_perceptual(perceptual, net=chosen.net),
        chosen,
        start=None if start is None else dict(zip(names, np.asarray(start), strict=True)),
        store=Store(Path(cache).expanduser()) if cache else None,
        backend=backend,
        progress=progress,
    )
    found = [one for _, one in inverter.find(dict(zip(names, framed, strict=True)))]
    return Inversions(
        np.stack(framed),
        np.stack([one.picture for one in found]),
        np.stack([one.w for one in found]),
        {layer: np.stack([one.noise[layer] for one in found]) for layer in found[0].noise},
        np.array([one.lpips for one in found]),
        np.array([one.psnr for one in found]),
        np.array([one.distance for one in found]),
        tuple(map(chosen.verdict, found)),
    )


def _read(
    photos: Any, size: int, landmarks: str | os.PathLike[str], *, progress: bool
) -> list[np.ndarray]:
    """Returns the squares of the photos, uint8 [S, S, 3] each."""
    single = isinstance(photos, str | os.PathLike | Image.Image)
    single = single or getattr(photos, "ndim", 0) == 3
    photos = [photos] if single else photos
    if not len(photos):
        raise UserError("photos: none; expected at least one")
    squares = framing.read_squares(os.fspath(landmarks))
    say = framing.say if progress else lambda name, text: None
    return [_frame(photo, i, size, squares, say).photo for i, photo in enumerate(photos)]


def _frame(
    photo: Any, i: int, size: int, squares: framing.Squares | None, say: framing.Say
) -> framing.Framed:
    """Returns the square of photo `i`: an array, a PIL image or a path."""
    if isinstance(photo, str | os.PathLike):
        return framing.read_photo(Path(photo), size, squares, say=say)
    name, notes = f"photos[{i}]", []
    if isinstance(photo, Image.Image):
        deep = pixel_formats.is_deep(photo)
        photo.load()
        photo, notes = pixel_formats.to_rgb(name, photo, deep=deep)
    photo = np.asarray(photo)
    if photo.ndim != 3 or photo.shape[-1] != 3 or photo.dtype != np.uint8:
        raise UserError(
            f"photos: {photo.dtype} {list(photo.shape)} at index {i}, expected uint8 RGB [H, W, 3]"
        )
    return framing.frame(photo, notes, size, squares, name=name, source=name, say=say)
