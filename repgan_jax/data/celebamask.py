"""True part masks of face photos, as CelebAMask-HQ publishes them or fused into one a photo."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np

from repgan_jax.data import mask_files, shapes
from repgan_jax.data.mask_files import Reader
from repgan_jax.data.mask_pixels import open_mask
from repgan_jax.errors import UserError
from repgan_jax.io import listing
from repgan_jax.palette import IGNORE, Palette

LAYOUTS = ("fused", "celebamask")
_PART_SUFFIXES = (".png", ".PNG")


def find_pairs(photos: str | Path, masks: str | Path, layout: str) -> list[tuple[str, Path, Path]]:
    """Returns (name, photo, mask key) of every photo in a folder, sorted by name.

    Names are relative paths without suffix: photos in folders inside are found, too.

    Args:
        photos: folder of photos.
        masks: folder of their masks. "fused": one picture of that name for each, in the same
            folder inside. "celebamask": `{id}_{part}.png`, ids padded to five digits, all in this
            folder or in folders inside it.
        layout: "fused" or "celebamask".

    Returns:
        Keys for `read_truth`: the picture itself, or the part files' path up to `_{part}.png`.

    Raises:
        UserError: an unknown layout, no photos, two photos of one name, or a photo without a mask
            or with several.
    """
    if layout not in LAYOUTS:
        raise UserError(f"layout: {layout!r}; expected {' or '.join(LAYOUTS)}")
    masks = Path(masks)
    if not masks.is_dir():
        raise UserError(f"{masks}: no such folder; expected the true masks of {photos}")
    find_key = _find_fused(masks) if layout == "fused" else _find_parts(masks)
    found = listing.find_photos(photos, recursive=True, without=[masks]).files
    by_name: dict[str, list[Path]] = {}
    for relative, photo in found.items():
        by_name.setdefault(PurePath(relative).with_suffix("").as_posix(), []).append(photo)
    pairs = []
    for name, files in by_name.items():
        photo = listing.the_one(files, f"photo {name!r}")
        pairs.append((name, photo, find_key(photo, name)))
    return sorted(pairs)


def _find_fused(masks: Path) -> Callable[[Path, str], Path]:
    """Returns a function that finds the mask of (photo, name)."""

    @functools.cache
    def index(folder: Path) -> dict[str, list[Path]]:
        return listing.index(folder, listing.MASK_SUFFIXES)

    def find(photo: Path, name: str) -> Path:
        path = masks / name
        if not (files := index(path.parent).get(listing.stem_key(path.name))):
            raise UserError(f"{masks}: no mask for {photo}; expected {name}.png")
        return listing.the_one(files, f"the mask of {photo}")

    return find


def _find_parts(masks: Path) -> Callable[[Path, str], Path]:
    """Returns a function that finds the key of the part files of (photo, name)."""
    parts: dict[str, list[Path]] = {}
    for path in sorted(masks.rglob("*_*")):
        if path.suffix in _PART_SUFFIXES and path.name[0] != ".":
            parts.setdefault(path.name.split("_", 1)[0], []).append(path)

    def find(photo: Path, name: str) -> Path:
        stem = PurePath(name).name
        stem = stem.zfill(5) if stem.isdigit() else stem
        if stem not in parts:
            raise UserError(f"{masks}: no mask for {photo}; expected {stem}_skin.png and the like")
        files = parts[stem]
        folders = sorted({str(path.parent) for path in files})
        if len(folders) > 1:
            raise UserError(
                f"{masks}: parts of {photo} in {len(folders)} folders: {', '.join(folders)}; "
                "expected all in one: remove the others"
            )
        for path in files:
            same = [other for other in files if other.stem == path.stem]
            listing.the_one(same, f"a part of {photo}")
        return files[0].with_name(stem)

    return find


def read_truth(
    key: str | Path,
    layout: str,
    class_map: Mapping[str, str],
    merge_order: Sequence[str],
    palette: Palette,
    *,
    reader: Reader | None = None,
    background: str = "",
) -> np.ndarray:
    """Returns the true int32 ids [H, W] of one photo.

    Args:
        key: from `find_pairs`.
        layout: "fused" or "celebamask".
        class_map: the truth's id (as text) or part name -> class name. Ids in it say that fused
            masks hold ids; empty: masks are read by `reader`.
        merge_order: part names, each painted over those before it; parts not named are left out.
        palette: our classes.
        reader: of all fused masks; without, this one is read as the only one of its set.
        background: name of the class of pixels that no part covers, "" = see
            `shapes.find_background`.

    Raises:
        UserError: an unreadable mask, a part file that is not black and white, an id or part that
            `class_map` does not name, or a class that the palette does not have.
    """
    ids = {source: _target(source, name, palette) for source, name in class_map.items()}
    if layout == "celebamask":
        mask = _merge_parts(Path(key), ids, merge_order)
        known = shapes.find_background(palette, background)
        return shapes.fill_undrawn(mask, palette, known, f"{key}_*.png")
    if ids:
        return _translate(mask_files.read_values(key), ids, key)
    return (reader or mask_files.choose_reader([key], palette)).read(key).ids


def translate(
    values: np.ndarray, class_map: Mapping[str, str], palette: Palette, source: str | Path
) -> np.ndarray:
    """Returns int32 ids [H, W] of `values` [H, W], whose meaning `class_map` states; 255 stays.

    Args:
        values: whole numbers from 0.
        class_map: value (as text) -> class name.
        palette: our classes.
        source: what errors call the mask.

    Raises:
        UserError: a value that `class_map` does not name, or a class that the palette does not
            have.
    """
    ids = {value: _target(value, name, palette) for value, name in class_map.items()}
    return _translate(values, ids, source)


def _translate(values: np.ndarray, ids: Mapping[str, int], source: str | Path) -> np.ndarray:
    values = values.clip(-1, 65535)
    table = np.full(65537, -1, np.int32)  # values of 8 or 16 bits, and any negative one
    table[IGNORE] = IGNORE
    for value, k in ids.items():
        if not value.isdecimal() or int(value) > 65535:
            raise UserError(f"class_map.{value}: not an id; expected whole numbers for fused masks")
        table[int(value)] = k
    mask = table[values]
    unknown = values[mask < 0]
    if unknown.size:
        raise UserError(
            f"{source}: unknown id {unknown[0]} in {(unknown == unknown[0]).sum()} pixels; "
            f"expected {', '.join(ids)}, as class_map says"
        )
    return mask


def _merge_parts(prefix: Path, ids: Mapping[str, int], merge_order: Sequence[str]) -> np.ndarray:
    """Returns int32 ids [H, W] of the part files `{prefix}_{part}.png`, painted in order.

    What no part covers is `shapes.UNDRAWN`.
    """
    mask: np.ndarray | None = None
    for part in merge_order:
        if part not in ids:
            raise UserError(
                f"merge_order: part {part!r} is not in class_map, which names {', '.join(ids)}"
            )
        path = _part_file(prefix, part)
        if not path.is_file():  # a face without, say, a hat has no file of it
            continue
        covered = _read_part(path)
        mask = np.full(covered.shape, shapes.UNDRAWN, np.int32) if mask is None else mask
        if covered.shape != mask.shape:
            raise UserError(
                f"{path}: {covered.shape[1]}x{covered.shape[0]} pixels; "
                f"the parts before it have {mask.shape[1]}x{mask.shape[0]}"
            )
        mask[covered] = ids[part]
    if mask is None:
        raise UserError(
            f"{prefix}_*.png: no file of a part in merge_order ({', '.join(merge_order)})"
        )
    return mask


def _read_part(path: Path) -> np.ndarray:
    """Returns bool [H, W]: where a part file is white, or 1 if its values are 0 and 1.

    Raises:
        UserError: it is transparent somewhere, or shows something but nothing bright.
    """
    file = open_mask(path)
    if not file.opaque.all():
        raise UserError(
            f"{path}: {file.count(~file.opaque)} pixels are transparent; expected the part in "
            "white on black, without transparency"
        )
    if file.kind == "grey":
        brightness = file.values.clip(0, 255)
    else:
        brightness = np.max([file.colours >> shift & 255 for shift in (16, 8, 0)], 0)
    brightest = brightness.max()
    if 1 < brightest <= 127:
        raise UserError(
            f"{path}: no pixel is brighter than {brightest} of 255; expected the part in white on "
            "black, or as 1 among 0"
        )
    return (brightness > (0 if brightest == 1 else 127))[file.codes]


def _part_file(prefix: Path, part: str) -> Path:
    """Returns the path of the file of a part, which need not be there."""
    paths = [prefix.with_name(f"{prefix.name}_{part}{suffix}") for suffix in _PART_SUFFIXES]
    return next((path for path in paths if path.is_file()), paths[0])


def _target(source: str, name: str, palette: Palette) -> int:
    try:
        return palette.index(name)
    except UserError as error:
        raise UserError(f"class_map.{source}: {error}") from error
