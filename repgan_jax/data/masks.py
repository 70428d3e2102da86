"""Class lists, and labelled shots."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from repgan_jax.data import shapes, shot_masks
from repgan_jax.data.latents import read_latents
from repgan_jax.data.mask_sizes import resize_mask, whole_factor
from repgan_jax.errors import UserError
from repgan_jax.io import files, images, listing
from repgan_jax.palette import IGNORE, Palette, parse_classes

LATENTS = "latents.npz"  # in a folder of shots that the generator made


def read_classes(path: str | Path) -> Palette:
    """Returns the palette in a text file of `name [#rrggbb]` lines; see `parse_classes`.

    Labelme's own list, which starts with `__ignore__` and `_background_`, is read as labelme does:
    the first line is the label of ignored pixels, and ids are counted from the second.

    Raises:
        UserError: no such file, another place of `__ignore__`, and what `parse_classes` refuses.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(
            f"{path}: no class list ({reason}); expected 'name [#rrggbb]' a line"
        ) from error
    names = [re.sub(r"\s+#\S*$", "", line.strip()) for line in text.strip().splitlines()]
    if names[:2] == [shapes.IGNORED, "_background_"]:
        text = text.strip().split("\n", 1)[1]
    elif shapes.IGNORED in names:
        raise UserError(
            f"{path}: {shapes.IGNORED} is the label of ignored pixels (id {IGNORE}), not a class; "
            "remove that line, or let '_background_' follow it as in labelme's own lists"
        )
    return parse_classes(text, str(path))


@dataclasses.dataclass(frozen=True, eq=False)
class Shots:
    """k labelled images with the latents that make them.

    Attributes:
        names: k file stems.
        images: uint8 [k, H, W, 3].
        masks: int32 [k, M, M'], 255 = ignore.
        w: float32 [k, D], or [k, L, D] with one latent per layer.
        noise: {layer: [k, r, r]}, if the shots have their own noise maps.
        notes: lines that say how images and masks were read.
        palette: names and colours of the classes.
    """

    names: tuple[str, ...]
    images: np.ndarray
    masks: np.ndarray
    w: np.ndarray
    noise: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    palette: Palette | None = None


def load_shots(
    folder: str | Path,
    *,
    classes: str | Path = "",
    names: Sequence[str] = (),
    mirror_pairs: str = "",
    resolution: int = 0,
    reading: str = "auto",
    background: str = "",
    empty: bool = False,
) -> Shots:
    """Returns the labelled images in `folder` with their latents and class names.

    Args:
        folder: holds `images/`, one mask per image in `masks/`, `labelme/` or `annotations.json`,
            and `latents.npz`; "examples/face" is the library's own.
        classes: file with one class per line; "" = `classes.txt` in the folder.
        names: file stems of the shots to read; () = all.
        mirror_pairs: classes that are swapped under horizontal flips, see `Palette.with_pairs`.
        resolution: of the generator; images that were enlarged beyond it, for drawing, are
            reduced. 0 = the size of the smallest image.
        reading: of `masks/`: "ids", "colours", or "auto", which must be certain.
        background: class of pixels that no labelme or COCO shape covers; "" = by its name.
        empty: whether masks that show only background are accepted.

    Raises:
        UserError: a class list, image, mask or latent that is missing, or cannot be read with
            certainty.
    """
    folder = Path(files.find_example(str(folder)))
    palette = read_classes(files.find_example(str(classes)) if classes else folder / "classes.txt")
    return read_shots(
        folder,
        palette.with_pairs(mirror_pairs, "mirror_pairs"),
        names,
        resolution=resolution,
        reading=reading,
        background=background,
        empty=empty,
    )


def read_shots(
    folder: str | Path,
    palette: Palette,
    names: Sequence[str] = (),
    *,
    resolution: int = 0,
    reading: str = "auto",
    background: str = "",
    empty: bool = False,
) -> Shots:
    """Returns the shots in `folder`, sorted by name, or those `names` in their order.

    The folder holds `images/`, one mask per image (see `shot_masks`), and `latents.npz`: `w`
    [k, D] or [k, L, D], with `name` [k], or `seed` [k] for the stems `seed000`, `seed001`, ....

    Args:
        folder: of the shots.
        palette: the classes.
        names: of the shots to read; () = all.
        resolution: of the generator; images that were enlarged beyond it, for drawing, are
            reduced.
        reading: see `shot_masks`.
        background: see `shot_masks`.
        empty: see `shot_masks`.

    Raises:
        UserError: an image without mask or latent, sizes that differ other than by a whole
            factor, an unknown name, and whatever `shot_masks.read_shot_masks` refuses.
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
    photos = {name: images.read_photo(path) for name, path in pictures.items()}
    sizes = {name: photo.shape[:2] for name, photo in photos.items()}
    drawn = shot_masks.read_shot_masks(
        folder, sizes, palette, reading=reading, background=background, empty=empty
    )
    size, notes = _common_size(pictures, sizes, resolution)
    count = palette.num_classes
    return Shots(
        tuple(pictures),
        np.stack([images.resize_area(photo, size) for photo in photos.values()]),
        np.stack([resize_mask(drawn.masks[name], size, count) for name in pictures]),
        np.stack([latents[name] for name in pictures]),
        notes=(*notes, *drawn.notes),
        palette=palette,
    )


def _common_size(
    pictures: Mapping[str, Path], sizes: Mapping[str, tuple[int, int]], resolution: int
) -> tuple[tuple[int, int], list[str]]:
    """Returns the height and width to which the images are reduced, and a note if any are.

    It is the size of the smallest, or `resolution` where that is smaller.

    Raises:
        UserError: another image's size is no whole multiple of it.
    """
    smallest = min(sizes, key=lambda name: sizes[name])
    size = sizes[smallest]
    if resolution and whole_factor(size, (resolution, resolution)):
        size = resolution, resolution
    factors = {name: whole_factor(sizes[name], size) for name in sizes}
    for name, factor in factors.items():
        if not factor:
            raise UserError(
                f"{pictures[name]}: {sizes[name][1]}x{sizes[name][0]} pixels, but "
                f"{pictures[smallest].name} has {sizes[smallest][1]}x{sizes[smallest][0]}; all "
                "shots must have one size, or whole multiples of it"
            )
    larger = [f"{name} ({factor} times)" for name, factor in factors.items() if factor > 1]
    text = f"images: enlarged ones are reduced to {size[1]}x{size[0]} pixels: {', '.join(larger)}"
    return size, [text] if larger else []


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
