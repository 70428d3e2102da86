"""Class lists, masks in the formats people draw them in, and labelled shots."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from repgan_jax.errors import UserError
from repgan_jax.io import coco, images, listing
from repgan_jax.io.latents import read_latents
from repgan_jax.palette import IGNORE, Palette, parse_classes

LATENTS = "latents.npz"  # in a folder of shots that the generator made
_COCO = "annotations.json"  # masks of all shots in one file
_LABELME_IGNORE = "__ignore__"  # labelme's own name for pixels that count nowhere


def read_classes(path: str | Path) -> Palette:
    """Returns the palette in a text file of `name [#rrggbb]` lines; see `parse_classes`."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(
            f"{path}: no class list ({reason}); expected 'name [#rrggbb]' a line"
        ) from error
    return parse_classes(text, str(path))


def read_mask(
    path: str | Path, palette: Palette, size: tuple[int, int] | None = None
) -> np.ndarray:
    """Returns int32 ids [H, W], 255 = ignore, from any of the formats masks come in.

    The content decides. Colours that are all the palette's stand for their classes (RGB or
    palette PNG); otherwise the values of a grey or palette PNG are ids. Labelme's JSON is drawn
    polygon by polygon, later over earlier, on background.

    Args:
        path: a picture, or a `.json` file of labelme's.
        palette: the classes.
        size: height and width that the mask must have.

    Raises:
        UserError: unreadable, another size, an unknown id, colour or label.
    """
    path = Path(path)
    if path.suffix.lower() == ".json":
        mask = _read_labelme(path, palette)
    else:
        mask = _ids(path, images.open_picture(path), palette)
    return _expect_size(mask, path, size)


def _expect_size(mask: np.ndarray, path: Path, size: tuple[int, int] | None) -> np.ndarray:
    if size and mask.shape != tuple(size):
        raise UserError(
            f"{path}: mask of {mask.shape[1]}x{mask.shape[0]} pixels (width x height) for a "
            f"picture of {size[1]}x{size[0]}; draw it at the picture's size"
        )
    return mask


def resize_mask(mask: np.ndarray, size: int, num_classes: int) -> np.ndarray:
    """Returns int32 [size, size]: `mask` [H, W] by majority vote, or by nearest pixel.

    Where both sides shrink by whole numbers every new pixel takes the most frequent id of its
    cell, ignore among them, the lowest at a tie; otherwise the id of the nearest old pixel.
    """
    height, width = mask.shape
    if (height, width) == (size, size):
        return mask
    if height % size or width % size:
        rows = ((np.arange(size) + 0.5) * height / size).astype(int)
        columns = ((np.arange(size) + 0.5) * width / size).astype(int)
        return mask[np.ix_(rows, columns)].astype(np.int32)
    ids = np.array([*range(num_classes), IGNORE], np.int32)
    cells = np.asarray(mask).reshape(size, height // size, size, width // size)
    votes = np.stack([(cells == k).sum((1, 3)) for k in ids])  # [K + 1, size, size]
    return ids[votes.argmax(0)]


@dataclasses.dataclass(frozen=True, eq=False)
class Shots:
    """k labelled pictures with the latents that make them.

    Attributes:
        names: k file stems.
        images: uint8 [k, H, W, 3].
        masks: int32 [k, M, M'], 255 = ignore.
        w: float32 [k, D], or [k, L, D] with a latent a layer.
        noise: {layer: [k, r, r]}, where a shot has noise maps of its own.
    """

    names: tuple[str, ...]
    images: np.ndarray
    masks: np.ndarray
    w: np.ndarray
    noise: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


def read_shots(folder: str | Path, palette: Palette, names: Sequence[str] = ()) -> Shots:
    """Returns the shots in `folder`, sorted by name, or those `names` in their order.

    The folder holds `images/`, one mask a picture in `masks/` (PNG) or else in `labelme/` (JSON),
    and `latents.npz`: `w` [k, D] or [k, L, D], with `name` [k], or `seed` [k] for the stems
    `seed000`, `seed001`, ....

    Raises:
        UserError: a picture without mask or latent, sizes that differ, an unknown name, and
            whatever `read_mask` refuses.
    """
    folder = Path(folder)
    latents = read_latents(folder / LATENTS)
    pictures = find_shots(folder, names)
    for name, path in pictures.items():
        if name not in latents:
            raise UserError(
                f"{folder / LATENTS}: no latent for {path}; "
                f"there are latents for {', '.join(latents)}: add it or remove the picture"
            )
    photos = [images.read_photo(path) for path in pictures.values()]
    for path, photo in zip(pictures.values(), photos, strict=True):
        if photo.shape != photos[0].shape:
            raise UserError(
                f"{path}: {photo.shape[1]}x{photo.shape[0]} pixels, but "
                f"{next(iter(pictures.values())).name} has "
                f"{photos[0].shape[1]}x{photos[0].shape[0]}; all shots must have one size"
            )
    size = photos[0].shape[:2]
    return Shots(
        tuple(pictures),
        np.stack(photos),
        np.stack([read_shot_mask(folder, name, palette, size) for name in pictures]),
        np.stack([latents[name] for name in pictures]),
    )


def find_shots(folder: str | Path, names: Sequence[str] = ()) -> dict[str, Path]:
    """Returns the pictures in `folder/images` by stem, or those called `names`, in that order.

    Raises:
        UserError: no pictures; two of one stem; an unknown name.
    """
    folder = Path(folder) / "images"
    by_stem: dict[str, list[Path]] = {}
    for path in listing.find_photos(folder).files.values():
        by_stem.setdefault(path.stem, []).append(path)
    pictures = {s: listing.the_one(paths, f"shot {s!r}") for s, paths in by_stem.items()}
    names = [str(name) for name in names]  # `--config.fewshot.names=10,20` gives numbers
    for name in names:
        if name not in pictures:
            raise UserError(f"{folder}: no shot named {name!r}; there are {', '.join(pictures)}")
    return {name: pictures[name] for name in names} if names else pictures


def read_shot_mask(
    folder: str | Path, name: str, palette: Palette, size: tuple[int, int]
) -> np.ndarray:
    """Returns int32 ids `size` of the shot `name`: `masks/` if it is there, else `labelme/`.

    Raises:
        UserError: no mask, or what `read_mask` refuses.
    """
    path = _find_mask(Path(folder), name)
    if path != Path(folder) / _COCO:
        return read_mask(path, palette, size)
    drawn = coco.read_masks(path, palette)
    if name not in drawn:
        raise UserError(f"{path}: no picture named {name!r}; there are {', '.join(drawn)}")
    return _expect_size(drawn[name](), path, size)


def _ids(path: Path, image: Image.Image, palette: Palette) -> np.ndarray:
    """Returns the int32 ids [H, W] that a mask picture stands for."""
    if image.mode in ("RGB", "RGBA", "P"):
        by_colour, unknown = _match_colours(image, palette)
        if not unknown.any():
            return by_colour
        if image.mode != "P":
            colours, counts = np.unique(
                np.asarray(image.convert("RGB"))[unknown], axis=0, return_counts=True
            )
            worst = counts.argmax()
            raise UserError(
                f"{path}: {counts[worst]} pixels of #{colours[worst].tobytes().hex()}, no class's "
                f"colour; expected {_known_colours(palette)}: save PNG without smoothed edges"
            )
    if image.mode not in ("1", "L", "P", "I;16"):
        raise UserError(f"{path}: mask of mode {image.mode}; expected a grey, palette or RGB PNG")
    mask = np.asarray(image).astype(np.int32)
    ids, counts = np.unique(mask, return_counts=True)
    for k, count in zip(ids, counts, strict=True):
        if k >= palette.num_classes and k != IGNORE:
            raise UserError(
                f"{path}: unknown id {k} in {count} pixels; the classes are "
                f"{', '.join(f'{i} {name}' for i, name in enumerate(palette.names))}, "
                f"and {IGNORE} is ignored"
            )
    return mask


def _match_colours(image: Image.Image, palette: Palette) -> tuple[np.ndarray, np.ndarray]:
    """Returns ids [H, W] by colour, and [H, W] true where a pixel's colour is no class's."""
    colour = np.asarray(image.convert("RGB"))
    mask = np.full(colour.shape[:2], IGNORE, np.int32)
    for k, wanted in enumerate(palette.colours):
        mask[(colour == wanted).all(-1)] = k
    ignored = np.asarray(image) == IGNORE if image.mode == "P" else np.zeros(mask.shape, bool)
    mask[ignored] = IGNORE  # index 255, whatever its colour
    return mask, (mask == IGNORE) & ~ignored


def _known_colours(palette: Palette) -> str:
    pairs = zip(palette.colours, palette.names, strict=True)
    return ", ".join(f"#{colour.tobytes().hex()} {name}" for colour, name in pairs)


def _read_labelme(path: Path, palette: Palette) -> np.ndarray:
    """Returns int32 ids [H, W] drawn from the polygons of a labelme file."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        size = coco.expect_size("it", document["imageHeight"], document["imageWidth"])
        shapes = [
            (
                str(shape["label"]),
                shape["shape_type"],
                [float(number) for x, y in shape["points"] for number in (x, y)],
            )
            for shape in document["shapes"]
        ]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path}: not a labelme file ({type(error).__name__}: {error}); "
            "expected imageWidth, imageHeight and shapes: save it again with labelme"
        ) from error
    mask = np.zeros(size, np.int32)
    ids = {name: k for k, name in enumerate(palette.names)} | {_LABELME_IGNORE: IGNORE}
    for label, kind, points in shapes:
        if label not in ids:
            raise UserError(f"{path}: unknown label {label!r}; expected {', '.join(palette.names)}")
        if kind != "polygon" or len(points) < 6:
            raise UserError(
                f"{path}: {label!r} is a {kind} of {len(points) // 2} points; draw polygons instead"
            )
        try:
            mask[coco.draw_polygons([points], size)] = ids[label]
        except ValueError as error:
            raise UserError(
                f"{path}: {label!r} cannot be drawn ({error}); draw it again"
            ) from error
    return mask


def _find_mask(folder: Path, name: str) -> Path:
    """Returns the path of a shot's mask: the picture if there is one, else the polygons."""
    places = (("masks", listing.MASK_SUFFIXES), ("labelme", (".json",)))
    for place, suffixes in places:
        if found := listing.index(folder / place, suffixes).get(listing.stem_key(name)):
            return listing.the_one(found, f"the mask of shot {name!r}")
    if (folder / _COCO).is_file():
        return folder / _COCO
    raise UserError(
        f"{folder}: no mask for shot {name!r}; expected masks/{name}.png, labelme/{name}.json "
        f"or {_COCO}"
    )
