"""Masks of shots, in any of the formats people draw them in."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from repgan_jax.data import coco, labelme, mask_files, shapes
from repgan_jax.data.mask_files import Mask
from repgan_jax.data.mask_sizes import fit_mask
from repgan_jax.errors import UserError
from repgan_jax.io import listing
from repgan_jax.palette import IGNORE, Palette

_COCO = "annotations.json"  # masks of all shots in one file


@dataclasses.dataclass(frozen=True, eq=False)
class ShotMasks:
    """Masks int32 [H, W] of shots by name, 255 = ignore, and lines that say how they were read."""

    masks: Mapping[str, np.ndarray]
    notes: tuple[str, ...]


def read_shot_masks(
    folder: str | Path,
    sizes: Mapping[str, tuple[int, int]],
    palette: Palette,
    *,
    reading: str = "auto",
    background: str = "",
    empty: bool = False,
) -> ShotMasks:
    """Returns the masks of the shots in `folder`, at the `sizes` of their images, by name.

    A shot's mask is `masks/NAME.png`, or else labelme's `labelme/NAME.json` or
    `images/NAME.json`, or else a part of `annotations.json` (COCO).

    Args:
        folder: of the shots.
        sizes: height and width of each shot's image; masks enlarged or reduced by a whole factor
            are brought to it.
        palette: the classes.
        reading: how the files in `masks/` are read, all alike: "auto", "ids" or "colours"; see
            `mask_files.choose_reader`.
        background: name of the class of pixels that no shape covers, "" = see
            `shapes.find_background`.
        empty: whether masks may show nothing but background.

    Raises:
        UserError: no mask, one of another size, an empty one, and what the readers refuse.
    """
    folder = Path(folder)
    paths = {name: _find_mask(folder, name) for name in sizes}
    known = shapes.find_background(palette, background)
    files = [path for path in paths.values() if not _is_shapes(path)]
    reader = mask_files.choose_reader(files, palette, reading, setting="config.fewshot.reading")
    drawn = (
        coco.read_masks(folder / _COCO, palette, background=background)
        if (folder / _COCO in paths.values())
        else {}
    )
    found: dict[str, Mask] = {}
    masks: dict[str, np.ndarray] = {}
    for name, path in paths.items():
        if not _is_shapes(path):
            found[name] = reader.read(path)
        elif path != folder / _COCO:
            found[name] = Mask(labelme.read_mask(path, palette, sizes[name], background=background))
        elif name in drawn:
            found[name] = Mask(drawn[name]())
        else:
            raise UserError(f"{path}: no picture named {name!r}; there are {', '.join(drawn)}")
        masks[name] = fit_mask(found[name].ids, sizes[name], palette.num_classes, path)
        if not empty:
            _expect_drawn(masks[name], name, path, palette, known)
    notes = _describe(folder, paths, found, sizes, reader.rule, palette)
    return ShotMasks(masks, notes)


def _expect_drawn(
    ids: np.ndarray, name: str, path: Path, palette: Palette, background: int | None
) -> None:
    """Raises UserError for a mask that shows nothing but background and ignored pixels."""
    shown = set(np.unique(ids).tolist()) - {IGNORE}
    if shown <= {background or 0}:
        only = f"nothing but {palette.names[background or 0]!r}" if shown else "no class"
        hint = f" ({IGNORE} means: ignore)" if IGNORE in ids else ""
        raise UserError(
            f"{path}: the mask of {name!r} shows {only}{hint}; draw its parts, or leave the shot "
            "out (config.fewshot.names), or, if that is true, set config.fewshot.empty=True"
        )


def _describe(
    folder: Path,
    paths: Mapping[str, Path],
    found: Mapping[str, Mask],
    sizes: Mapping[str, tuple[int, int]],
    rule: str,
    palette: Palette,
) -> tuple[str, ...]:
    """Returns one line per source of masks: how they were read, and what they show."""
    notes = []
    for place in dict.fromkeys(p if p == folder / _COCO else p.parent for p in paths.values()):
        names = [name for name, path in paths.items() if place in (path, path.parent)]
        files = [paths[name] for name in names]
        how = rule if not _is_shapes(files[0]) else "shapes"
        masks = {name: found[name] for name in names}
        text = f"{place.relative_to(folder)}: {len(names)} masks read as {how}: "
        text += mask_files.describe(masks, palette)
        if scaled := [n for n in names if found[n].ids.shape != tuple(sizes[n])]:
            text += f"; brought to the size of their images: {', '.join(scaled)}"
        notes.append(text)
    return tuple(notes)


def _is_shapes(path: Path) -> bool:
    """Returns whether the mask file `path` holds shapes instead of pixels."""
    return path.suffix.lower() == ".json"


def _find_mask(folder: Path, name: str) -> Path:
    """Returns the path of a shot's mask: the image if there is one, else the shapes."""
    json = (".json",)
    places = (("masks", listing.MASK_SUFFIXES), ("labelme", json), ("images", json))
    for place, suffixes in places:
        if found := listing.index(folder / place, suffixes).get(listing.stem_key(name)):
            return listing.the_one(found, f"the mask of shot {name!r}")
    if (folder / _COCO).is_file():
        return folder / _COCO
    raise UserError(
        f"{folder}: no mask for shot {name!r}; expected masks/{name}.png, labelme/{name}.json, "
        f"images/{name}.json or {_COCO}"
    )
