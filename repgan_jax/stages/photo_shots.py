"""Labelled photos as shots of stage `fewshot`: what is read, written and said of them."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from repgan_jax.data import masks
from repgan_jax.errors import UserError
from repgan_jax.inversion import cache, photo_shots
from repgan_jax.inversion.agreement import Judgement
from repgan_jax.inversion.inverter import Inverter
from repgan_jax.inversion.photo_shots import PhotoShots
from repgan_jax.ops import taps as taps_lib
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.stages import common, inverters


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
    with common.config_names(config, "fewshot"):
        photo_shots.check_limit(config.fewshot.min_agreement)


def read(
    config: ConfigDict,
    palette: Palette,
    inverter: Inverter,
    folder: Path,
    activations: Callable[[masks.Shots], taps_lib.Taps],
) -> tuple[masks.Shots, taps_lib.Taps]:
    """Returns the photos that can be used as shots, and their activations [k, h, w, C] by name.

    Scores and strips of all photos are written into `folder`.

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
    with inverters.naming(config):
        photos = photo_shots.read_photo_shots(
            options.shots,
            palette,
            inverter,
            label_size=config.label_size,
            names=options.names,
            landmarks=config.invert.landmarks,
            reading=options.reading,
            background=config.background,
            empty=options.empty,
            photo_tolerance=options.photo_tolerance,
        )
    taps = activations(photos.shots)
    judged = photo_shots.judge(
        photos, taps, palette.num_classes, min_agreement=options.min_agreement
    )
    _write(folder, photos, judged)
    _say(config, photos, judged)
    kept = np.flatnonzero([one.kept for one in judged])
    return photo_shots.take(photos.shots, kept), {name: tap[kept] for name, tap in taps.items()}


def _write(folder: Path, photos: PhotoShots, judged: Sequence[Judgement]) -> None:
    """Writes the scores and the strip of every photo, used or not."""
    rows = []
    for (name, one), verdict, judgement in zip(
        photos.found.items(), photos.verdicts, judged, strict=True
    ):
        known = not np.isnan(judgement.agreement)
        rows.append(
            {
                **cache.score(name, one, verdict),
                "agreement": f"{judgement.agreement:.3f}" if known else "",
                "used": "yes" if judgement.kept else "no",
            }
        )
        cache.write_strip(folder, name, one)
    cache.write_scores(folder, rows)


def _say(config: ConfigDict, photos: PhotoShots, judged: Sequence[Judgement]) -> None:
    """Says of each photo how it was judged, and names those left out in one warning.

    Raises:
        UserError: all are left out.
    """
    folder, limit = Path(config.fewshot.shots) / "images", config.fewshot.min_agreement
    shots, found, left_out = photos.shots, [*photos.found.values()], []
    for i, judgement in enumerate(judged):
        scores, verdict = found[i].describe(), photos.verdicts[i]
        if not np.isnan(judgement.agreement):
            scores += f", agreement {judgement.agreement:.2f}"
        if not judgement.kept:
            left_out.append(f"{shots.names[i]} ({scores})")
            continue
        ignored = (shots.masks[i] == IGNORE).mean()
        remark = _remark(verdict, judgement.agreement, limit)
        print(
            f"fewshot: {folder / shots.names[i]}: {verdict} ({scores}), {ignored:.1%} "
            f"ignored{remark}",
            flush=True,
        )
    if not left_out:
        return
    poor_lpips = config.invert[config.invert.preset].poor_lpips
    settings = (
        f"config.fewshot.min_agreement (now {limit:g}, 0 keeps every photo that can be compared) "
        f"and config.{inverters.group(config)}.poor_lpips (now {poor_lpips:g})"
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
