"""Labelled photos as shots: their latents are looked for, then their labels decide which are used.

That decision is made once for all photos: see `agreement`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from repgan_jax.data import masks, shot_masks
from repgan_jax.errors import UserError
from repgan_jax.inversion import agreement, framing
from repgan_jax.inversion.agreement import Judgement
from repgan_jax.inversion.cache import Inversion
from repgan_jax.inversion.inverter import Inverter
from repgan_jax.io import images
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import IGNORE, Palette

_JUDGED_SIZE = 64  # largest side length in pixels at which labels are compared


@dataclasses.dataclass(frozen=True, eq=False)
class PhotoShots:
    """k labelled photos, used or not.

    Attributes:
        shots: photos uint8 [k, S, S, 3], latents, and masks of the label size: 255 also where a
            photo and the image found for it differ too much.
        found: what was found for each photo, by its name.
        verdicts: on each of these, see `InversionOptions.verdict`.
    """

    shots: masks.Shots
    found: Mapping[str, Inversion]
    verdicts: tuple[str, ...]


def check_limit(min_agreement: float) -> None:
    """Raises UserError for a limit that is no share."""
    if not 0 <= min_agreement <= 1:
        raise UserError(f"min_agreement: {min_agreement}, expected 0 to 1")


def read_photo_shots(
    folder: str | Path,
    palette: Palette,
    inverter: Inverter,
    *,
    label_size: int,
    names: Sequence[str] = (),
    landmarks: str | Path = "",
    reading: str = "auto",
    background: str = "",
    empty: bool = False,
    photo_tolerance: float = 48.0,
) -> PhotoShots:
    """Returns the labelled photos in `folder`, and what `inverter` finds for them.

    Args:
        folder: with `images/` and masks, but no latents.
        palette: the classes.
        inverter: finds the photos' latents.
        label_size: side length of the labels in pixels.
        names: file stems of the photos to use; () = all.
        landmarks: see `framing.read_squares`.
        reading: see `shot_masks.read_shot_masks`, as for the next two.
        background: name of the class of pixels that no shape covers.
        empty: whether masks may show nothing but background.
        photo_tolerance: mean absolute difference of the colours (0 to 255) above which a pixel is
            excluded from the loss.

    Raises:
        UserError: what reading or inverting the photos refuses.
    """
    squares = framing.read_squares(landmarks)
    framed = {
        name: framing.read_photo(file, inverter.size, squares)
        for name, file in masks.find_shots(folder, names).items()
    }
    drawn = shot_masks.read_shot_masks(
        folder,
        {name: one.shape for name, one in framed.items()},
        palette,
        reading=reading,
        background=background,
        empty=empty,
    )
    photos = {name: one.photo for name, one in framed.items()}
    found, labels = dict(inverter.find(photos)), []
    for name, one in found.items():
        label = framed[name].cut(drawn.masks[name], label_size, palette.num_classes)
        unlike = _difference(photos[name], one.picture, label_size)
        labels.append(np.where(unlike > photo_tolerance, IGNORE, label))
    layers = next(iter(found.values())).noise
    shots = masks.Shots(
        tuple(photos),
        np.stack([*photos.values()]),
        np.stack(labels),
        np.stack([one.w for one in found.values()]),
        {layer: np.stack([one.noise[layer] for one in found.values()]) for layer in layers},
        drawn.notes,
    )
    return PhotoShots(shots, found, tuple(map(inverter.options.verdict, found.values())))


def judge(
    photos: PhotoShots, taps: taps_lib.Taps, num_classes: int, *, min_agreement: float
) -> list[Judgement]:
    """Returns which of k photos can be used as shots.

    Args:
        photos: all of them.
        taps: their activations by name, [k, h, w, C].
        num_classes: K.
        min_agreement: see `limit` of `agreement.judge`.
    """
    size = min(_JUDGED_SIZE, photos.shots.masks.shape[-1])  # larger ones take minutes
    labels = [masks.resize_mask(mask, size, num_classes) for mask in photos.shots.masks]
    chosen = taps_lib.choose(taps, [*taps], size)
    return agreement.judge(
        agreement.pairwise(chosen, np.stack(labels), num_classes),
        distances=[one.lpips for one in photos.found.values()],
        far=[verdict == "failed" for verdict in photos.verdicts],
        limit=min_agreement,
    )


def take(shots: masks.Shots, kept: np.ndarray) -> masks.Shots:
    """Returns the shots whose indices are in `kept`."""
    return dataclasses.replace(
        shots,
        names=tuple(shots.names[i] for i in kept),
        images=shots.images[kept],
        masks=shots.masks[kept],
        w=shots.w[kept],
        noise={layer: maps[kept] for layer, maps in shots.noise.items()},
    )


def _difference(photo: np.ndarray, picture: np.ndarray, size: int) -> np.ndarray:
    """Returns [size, size], 0 to 255: mean absolute difference of the colours, both resized."""
    photo, picture = (images.resize_area(x, size).astype(np.float32) for x in (photo, picture))
    return np.abs(photo - picture).mean(-1)
