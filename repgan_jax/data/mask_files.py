"""Masks in image files: all files of a set are read by one rule, as ids or as colours.

A grey or palette PNG may hold ids; any file may show the classes' colours. Which of the two is
meant is stated, or found out from all files of the set together ("auto"), which demands certainty:
whatever could mean something else is refused. The checks of that are in `mask_doubts`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from repgan_jax.data import mask_doubts
from repgan_jax.data.mask_doubts import MaskFile, pack
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import IGNORE, Palette

RULES = ("auto", "ids", "colours")
UNKNOWN = 1e-3  # share of a file's pixels that may be of no known meaning; they become 255


_SAVE = "save it as PNG, without smoothing, and without JPEG on the way"
_LOSSLESS = ("PNG", "BMP", "DIB", "GIF", "PPM", "TGA")


@dataclass(frozen=True, eq=False)
class Mask:
    """What a mask file says.

    Attributes:
        ids: int32 [H, W], 255 = ignore.
        unknown: how many of the pixels with 255 have no known meaning.
    """

    ids: np.ndarray
    unknown: int = 0


@dataclass(frozen=True, eq=False)
class Reader:
    """The rule by which all mask files of a set are read.

    Attributes:
        rule: "ids" or "colours".
        palette: the classes.
        stated: whether the user has stated the rule.
        unknown: pixels of unknown meaning that were met so far, by file name.
    """

    rule: str
    palette: Palette
    stated: bool = False
    unknown: dict[str, int] = field(default_factory=dict)

    def read(self, path: str | Path) -> Mask:
        """Returns what the file says; raises UserError if it says nothing by this rule."""
        file = open_mask(path)
        if self.rule == "ids":
            found = _by_ids(file, self.palette, stated=self.stated)
        else:
            found = _by_colours(file, self.palette)
        if isinstance(found, str):
            raise UserError(f"{path}: {found}")
        if found.unknown:
            self.unknown[Path(path).name] = found.unknown
        return found


def choose_reader(
    paths: Iterable[str | Path], palette: Palette, rule: str = "auto", *, setting: str = "reading"
) -> Reader:
    """Returns the reader for the set of mask files `paths`.

    By "auto" the files are colours if the colours of each are the palette's, up to 0.1 % of its
    pixels; they are ids if the values of each are ids and nothing speaks against that. Where both
    are possible, both must say the same.

    Args:
        paths: the mask files.
        palette: the classes.
        rule: "ids", "colours" or "auto".
        setting: what errors call the argument `rule`.

    Raises:
        UserError: an unknown rule; by "auto", files that cannot be read, and sets that are
            neither ids nor colours, or that could be both.
    """
    if rule not in RULES:
        raise UserError(f"{setting}: {rule!r}, expected one of {', '.join(RULES)}")
    if rule != "auto":
        return Reader(rule, palette, stated=True)
    against: dict[str, tuple[Path, str]] = {}  # the first file that is not ids, not colours, ...
    kinds = []
    for path in map(Path, paths):
        kind, ids, colours = _read_both(path, palette, setting)
        kinds.append(kind)
        for name, found in (("ids", ids), ("colours", colours)):
            if isinstance(found, str):
                against.setdefault(name, (path, found))
        differing = _count_differing(ids, colours)
        if differing:
            against.setdefault("both", (path, str(differing)))
        if len(against.keys() & {"ids", "colours"}) == 2:
            raise UserError(_neither(against, kinds))
    if "ids" in against:
        return Reader("colours", palette)
    if "both" in against and "colours" not in against:
        path, differing = against["both"]
        raise UserError(
            f"{path}: {differing} pixels mean one class by their colours and another one by their "
            f"values; state which of them counts: {setting}=ids or {setting}=colours"
        )
    return Reader("ids", palette)


def _count_differing(ids: Mask | str, colours: Mask | str) -> int:
    """Returns in how many pixels two masks differ, 0 where there are not two."""
    if isinstance(ids, str) or isinstance(colours, str):
        return 0
    return int((ids.ids != colours.ids).sum())


def _read_both(path: Path, palette: Palette, setting: str) -> tuple[str, Mask | str, Mask | str]:
    """Returns the file's kind, its mask by ids, and that by colours, or why there is none."""
    file = open_mask(path)
    ids, colours = _by_ids(file, palette), _by_colours(file, palette)
    if isinstance(ids, Mask) and (doubt := mask_doubts.find_doubt(file, ids.ids, palette)):
        ids = f"{doubt}; or set {setting}=ids, if its values are ids after all"
    if isinstance(colours, Mask) and mask_doubts.is_smoothed(colours.ids, palette.colours):
        colours = f"its edges look smoothed; {_SAVE}"
    return file.kind, ids, colours


def read_values(path: str | Path) -> np.ndarray:
    """Returns the int32 values [H, W] of a grey or palette PNG; raises UserError without any."""
    file = open_mask(path)
    opaque = file.opaque | (file.kind == "palette")
    if reason := _no_values(file) or _too_clear(opaque):
        raise UserError(f"{path}: {reason}")
    return np.where(opaque, file.values, IGNORE)


def describe(masks: Mapping[str, Mask], palette: Palette) -> str:
    """Returns in which masks the classes are, and what share of the pixels counts for none."""
    shown = [set(np.unique(mask.ids).tolist()) for mask in masks.values()]
    counts = [sum(k in found for found in shown) for k in range(palette.num_classes)]
    pixels = sum(mask.ids.size for mask in masks.values())
    ignored = sum(int((mask.ids == IGNORE).sum()) for mask in masks.values())
    text = ", ".join(f"{name} in {n}" for name, n in zip(palette.names, counts, strict=True) if n)
    if ignored:
        text += f"; {ignored} of {pixels} pixels ignored"
    return text + describe_unknown({n: mask.unknown for n, mask in masks.items() if mask.unknown})


def describe_unknown(counts: Mapping[str, int]) -> str:
    """Returns in which files pixels had no known meaning, "" where `counts` is empty."""
    if not counts:
        return ""
    return (
        f", {sum(counts.values())} of them because their colour is no class's "
        f"(in {', '.join(counts)})"
    )


def open_mask(path: str | Path) -> MaskFile:
    """Returns the decoded mask file.

    Raises:
        UserError: it cannot be read, has an EXIF orientation, or pixels of a kind that masks have
            not.
    """
    image = images.open_picture(path)
    turned = images.orientation(path, image)
    if turned != 1:
        raise UserError(
            f"{path}: a mask with the EXIF orientation {turned}, which viewers turn and other "
            "programs do not; save it upright, without EXIF"
        )
    if image.mode == "L" and image.format == "PNG" and _png_bits(path) < 8:
        raise UserError(
            f"{path}: a grey PNG of {_png_bits(path)} bits, whose values programs read in two "
            "ways; save it with 8 bits"
        )
    lossless = image.format in _LOSSLESS or (
        image.format == "TIFF" and image.info.get("compression") != "jpeg"
    )
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int32)
        clear = values == image.info.get("transparency", -1)
        return MaskFile("grey", values, np.full(values.shape, -1, np.int32), ~clear, lossless)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise UserError(f"{path}: mask of mode {image.mode}; expected a grey, palette or RGB PNG")
    shown = np.array(image.convert("RGBA"))
    opaque = shown[..., 3] == 255
    colours = (shown.view(">u4")[..., 0] >> 8).astype(np.int32)
    values, kind = None, "colour"
    if image.mode == "P":
        values, kind = np.asarray(image).astype(np.int32), "palette"
    elif image.mode in ("1", "L", "LA") or _is_grey(shown[opaque]):
        values = shown[..., 0].astype(np.int32) // (255 if image.mode == "1" else 1)
        kind = "grey"
    return MaskFile(kind, values, colours, opaque, lossless, image.mode == "1")


def _by_ids(file: MaskFile, palette: Palette, *, stated: bool = False) -> Mask | str:
    """Returns the mask of which the values are ids, or why there is none."""
    if reason := _no_values(file):
        return reason
    # Indices are there also where the palette makes them transparent, for those who say so.
    opaque = file.opaque | (stated and file.kind == "palette")
    is_id = (file.values >= 0) & (file.values < palette.num_classes)
    strange, counts = np.unique(
        file.values[opaque & (file.values != IGNORE) & ~is_id],
        return_counts=True,
    )
    if strange.size:
        return (
            f"unknown id {strange[0]} in {counts[0]} pixels; the classes are "
            f"{', '.join(f'{i} {name}' for i, name in enumerate(palette.names))}, "
            f"and {IGNORE} is ignored"
        )
    if reason := _too_clear(opaque):
        return reason
    return Mask(np.where(opaque, file.values, IGNORE).astype(np.int32), int((~opaque).sum()))


def _by_colours(file: MaskFile, palette: Palette) -> Mask | str:
    """Returns the mask of which the colours are the classes', or why there is none."""
    ids = np.full(file.opaque.shape, IGNORE, np.int32)
    for k, wanted in enumerate(pack(palette.colours)):
        ids[file.opaque & (file.colours == wanted)] = k
    unknown = ids == IGNORE
    if file.kind == "palette":  # index 255 is ignored in whatever colour
        unknown &= ~(file.opaque & (file.values == IGNORE))
    count = int(unknown.sum())
    if count <= (0 if file.kind == "grey" else UNKNOWN * unknown.size):
        return Mask(ids, count)
    if reason := _too_clear(file.opaque):
        return reason
    colours, counts = np.unique(file.colours[unknown & file.opaque], return_counts=True)
    known = zip(pack(palette.colours), palette.names, strict=True)
    return (
        f"{count} pixels in no class's colour, {counts.max()} of them of "
        f"{_name(colours[counts.argmax()])}; expected "
        f"{', '.join(f'{_name(colour)} {name}' for colour, name in known)}: {_SAVE}"
    )


def _no_values(file: MaskFile) -> str:
    """Returns why the file has no values that may be ids, or ""."""
    if file.values is None:
        return "a colour picture; expected a grey or palette PNG of ids"
    if not file.lossless:
        return "a format that changes values, such as JPEG, cannot hold ids; " + _SAVE
    return ""


def _too_clear(opaque: np.ndarray) -> str:
    """Returns why a file cannot be read of which few pixels are `opaque` [H, W], or ""."""
    count = int((~opaque).sum())
    if count <= UNKNOWN * opaque.size:
        return ""
    return (
        f"{count} pixels are transparent, which stands for no class; give them the background's "
        "colour or id, or the id 255 to have them ignored, and save without transparency"
    )


def _neither(against: Mapping[str, tuple[Path, str]], kinds: list[str]) -> str:
    """Returns the one line that says why the files are neither ids nor colours."""
    (ids, no_ids), (colours, no_colours) = against["ids"], against["colours"]
    if kinds[0] == "grey":
        return f"{ids}: {no_ids}"
    if kinds[0] == "colour":
        return f"{colours}: {no_colours}"
    return f"{colours}: {no_colours}; nor are the values ids for certain: {ids.name}: {no_ids}"


def _is_grey(pixels: np.ndarray) -> bool:
    """Returns whether R, G and B of `pixels` [N, 4] are the same."""
    return bool(((pixels[:, 0] == pixels[:, 1]) & (pixels[:, 0] == pixels[:, 2])).all())


def _png_bits(path: str | Path) -> int:
    """Returns the bits per sample that the header of a PNG file states."""
    with Path(path).open("rb") as file:
        return file.read(25)[24]


def _name(colour: int) -> str:
    return f"#{colour:06x}"
