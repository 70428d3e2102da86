"""Labelled photos as shots: their latents are looked for first.

Then it is decided which photos can be used, once for all of them: see `agreement`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from repgan_jax.data import masks, shot_masks
from repgan_jax.errors import UserError
from repgan_jax.inversion import agreement, framing
from repgan_jax.inversion import cache as inversions
from repgan_jax.inversion.agreement import Judgement
from repgan_jax.inversion.cache import Inversion
from repgan_jax.io import images
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.stages.inversion import Inverter, describe

_JUDGED_SIZE = 64  # pixels a side at which labels are compared, at most


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


def check(config: ConfigDict) -> None:
    """Raises UserError for a limit that is no share."""
    if not 0 <= (limit := config.fewshot.min_agreement) <= 1:
        raise UserError(f"config.fewshot.min_agreement: {limit}, expected 0 to 1")


def read(
    config: ConfigDict,
    palette: Palette,
    inverter: Inverter,
    folder: Path,
    activations: Callable[[masks.Shots], taps_lib.Taps],
) -> tuple[masks.Shots, taps_lib.Taps]:
    """Returns the photos that can be used as shots, and their activations [k, h, w, C] by name.

    Their images are the photos, [k, S, S, 3], and their masks of the label size: 255 also where a
    photo and the image found for it differ too much. Scores and strips of all photos are written
    into `folder`.

    Args:
        config: of the run.
        palette: the classes.
        inverter: finds the photos' latents.
        folder: of the stage.
        activations: computes those of shots.

    Raises:
        UserError: no photo can be used, or what reading or inverting them refuses.
    """
    options = config.fewshot
    squares = framing.read_squares(config.invert.landmarks)
    photos, labels = {}, {}
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
    found = dict(inverter.find(photos))
    for name, one in found.items():
        unlike = _difference(photos[name], one.picture, config.label_size)
        labels[name][unlike > options.photo_tolerance] = IGNORE
    shots = _gather(photos, labels, found, drawn.notes)
    taps = activations(shots)
    verdicts = [inverter.verdict(one) for one in found.values()]
    judged = agreement.judge(
        _pairwise(shots, taps, palette.num_classes),
        distances=[one.lpips for one in found.values()],
        far=[verdict == "failed" for verdict in verdicts],
        limit=options.min_agreement,
    )
    _write(folder, found, verdicts, judged)
    _say(config, inverter, shots, [*found.values()], verdicts, judged)
    kept = np.flatnonzero([one.kept for one in judged])
    return _take(shots, kept), {name: tap[kept] for name, tap in taps.items()}


def _gather(
    photos: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    found: Mapping[str, Inversion],
    notes: tuple[str, ...],
) -> masks.Shots:
    """Returns all photos as shots."""
    layers = next(iter(found.values())).noise
    return masks.Shots(
        tuple(photos),
        np.stack([*photos.values()]),
        np.stack([*labels.values()]),
        np.stack([one.w for one in found.values()]),
        {layer: np.stack([one.noise[layer] for one in found.values()]) for layer in layers},
        notes,
    )


def _take(shots: masks.Shots, kept: np.ndarray) -> masks.Shots:
    """Returns the shots whose indices are in `kept`."""
    return dataclasses.replace(
        shots,
        names=tuple(shots.names[i] for i in kept),
        images=shots.images[kept],
        masks=shots.masks[kept],
        w=shots.w[kept],
        noise={layer: maps[kept] for layer, maps in shots.noise.items()},
    )


def _pairwise(shots: masks.Shots, taps: taps_lib.Taps, num_classes: int) -> np.ndarray:
    """Returns `agreement.pairwise` [k, k] of `shots`, at 64 px or less, which takes seconds."""
    size = min(_JUDGED_SIZE, shots.masks.shape[-1])
    labels = np.stack([masks.resize_mask(mask, size, num_classes) for mask in shots.masks])
    return agreement.pairwise(taps_lib.choose(taps, [*taps], size), labels, num_classes)


def _write(
    folder: Path,
    found: Mapping[str, Inversion],
    verdicts: Sequence[str],
    judged: Sequence[Judgement],
) -> None:
    """Writes the scores and the strip of every photo, used or not."""
    rows = []
    for (name, one), verdict, judgement in zip(found.items(), verdicts, judged, strict=True):
        known = not np.isnan(judgement.agreement)
        rows.append(
            {
                **inversions.score(name, one, verdict),
                "agreement": f"{judgement.agreement:.3f}" if known else "",
                "used": "yes" if judgement.kept else "no",
            }
        )
        inversions.write_strip(folder, name, one)
    inversions.write_scores(folder, rows)


def _say(
    config: ConfigDict,
    inverter: Inverter,
    shots: masks.Shots,
    found: Sequence[Inversion],
    verdicts: Sequence[str],
    judged: Sequence[Judgement],
) -> None:
    """Says of each photo how it was judged, and names those left out in one warning.

    Raises:
        UserError: all are left out.
    """
    folder, limit = Path(config.fewshot.shots) / "images", config.fewshot.min_agreement
    left_out = []
    for i, judgement in enumerate(judged):
        scores = describe(found[i])
        if not np.isnan(judgement.agreement):
            scores += f", agreement {judgement.agreement:.2f}"
        if not judgement.kept:
            left_out.append(f"{shots.names[i]} ({scores})")
            continue
        ignored = (shots.masks[i] == IGNORE).mean()
        remark = _remark(verdicts[i], judgement.agreement, limit)
        print(
            f"fewshot: {folder / shots.names[i]}: {verdicts[i]} ({scores}), {ignored:.1%} "
            f"ignored{remark}",
            flush=True,
        )
    if not left_out:
        return
    settings = (
        f"config.fewshot.min_agreement (now {limit:g}, 0 keeps every photo that can be compared) "
        f"and {inverter.limit_field} (now {inverter.settings.poor_lpips:g})"
    )
    if len(left_out) == len(judged):
        raise UserError(
            f"{folder}: none of {len(judged)} photos can be used: {', '.join(left_out)}; frame "
            "them as the generator's images are (config.invert.landmarks), check their masks, "
            f"label others, or change {settings}"
        )
    print(
        f"fewshot: warning: {len(left_out)} of {len(judged)} photos left out, since the generator "
        f"cannot make them or their masks contradict the others: {', '.join(left_out)}; "
        f"the limits are {settings}",
        flush=True,
    )


def _remark(verdict: str, agreed: float, limit: float) -> str:
    """Returns why a photo is used in spite of one of its scores, or nothing."""
    if verdict == "failed":
        return "; used, for its labels agree with those of the others"
    if agreed < limit:
        return "; its labels agree little with those of the others: look at its mask"
    return "; a photo that is made better teaches more" if verdict == "poor" else ""


def _difference(photo: np.ndarray, picture: np.ndarray, size: int) -> np.ndarray:
    """Returns [size, size], 0 to 255: mean absolute difference of the colours, both resized."""
    photo, picture = (images.resize_area(x, size).astype(np.float32) for x in (photo, picture))
    return np.abs(photo - picture).mean(-1)
