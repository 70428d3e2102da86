"""Pixels of mask files as they are stored, and as a viewer shows them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repgan_jax.errors import UserError
from repgan_jax.io import images

_LOSSLESS = ("PNG", "BMP", "DIB", "GIF", "PPM", "TGA")


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A decoded mask file: N kinds of pixels, and where they are.

    What a file may mean is decided on the kinds, of which there are few, not on its pixels.

    Attributes:
        kind: "grey" (also RGB of three equal channels, and a palette in which every index in use
            shows itself as a grey value), "palette" or "colour".
        codes: intp [H, W], the kind of each pixel.
        counts: int [N], pixels of each kind, all above 0.
        values: int32 [N], grey values or indices; None of the kind "colour".
        colours: int32 [N], 0xRRGGBB as a viewer shows it; -1 of 16 bits.
        opaque: bool [N].
        lossless: whether the format keeps values as they are.
        bits: whether it has one bit per pixel.
        table: int32 [M], the colours 0xRRGGBB of a palette; None of other kinds.
    """

    kind: str
    codes: np.ndarray
    counts: np.ndarray
    values: np.ndarray | None
    colours: np.ndarray
    opaque: np.ndarray
    lossless: bool
    bits: bool = False
    table: np.ndarray | None = None

    def count(self, kinds: np.ndarray) -> int:
        """Returns how many pixels are of the `kinds`, bool [N]."""
        return int(self.counts[kinds].sum())


def pack(colours: np.ndarray) -> np.ndarray:
    """Returns int32 [...], 0xRRGGBB of `colours` [..., 3]."""
    return colours.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)


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
        values, codes, counts = _find_kinds(np.asarray(image).astype(np.int32))
        clear = values == image.info.get("transparency", -1)
        unseen = np.full(values.shape, -1, np.int32)
        return MaskFile("grey", codes, counts, values, unseen, ~clear, lossless)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise UserError(f"{path}: mask of mode {image.mode}; expected a grey, palette or RGB PNG")
    kind, values, table = "colour", None, None
    if image.mode == "P":
        index, codes, counts = _find_kinds(np.asarray(image))
        each = image.crop((0, 0, index.size, 1))  # a pixel of each kind, with the same palette
        each.putdata(index.tolist())
        shown = np.array(each.convert("RGBA"))[0]
        values, kind = index.astype(np.int32), "palette"
        table = pack(np.array(image.getpalette("RGB")).reshape(-1, 3))
        if (shown[:, 3] == 255).all() and (pack(shown[:, :3]) == values * 0x010101).all():
            kind, table = "grey", None
    else:
        found, codes, counts = _find_kinds(np.array(image.convert("RGBA")).view(np.uint32)[..., 0])
        shown = found.view(np.uint8).reshape(-1, 4)
    opaque = shown[:, 3] == 255
    if image.mode in ("1", "L", "LA") or (kind == "colour" and _is_grey(shown[opaque])):
        values = shown[:, 0].astype(np.int32) // (255 if image.mode == "1" else 1)
        kind = "grey"
    bits = image.mode == "1"
    return MaskFile(kind, codes, counts, values, pack(shown[:, :3]), opaque, lossless, bits, table)


def _find_kinds(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the sorted values [N] in `pixels` [H, W], which each has [H, W], and counts [N]."""
    line = pixels.ravel()
    starts = np.flatnonzero(np.r_[True, line[1:] != line[:-1]])  # masks have few runs of pixels
    lengths = np.diff(starts, append=line.size)
    kinds, places = np.unique(line[starts], return_inverse=True)
    counts = np.bincount(places, lengths, len(kinds)).astype(int)
    return kinds, np.repeat(places, lengths).reshape(pixels.shape), counts


def _is_grey(pixels: np.ndarray) -> bool:
    """Returns whether R, G and B of `pixels` [N, 4] are the same."""
    return bool(((pixels[:, 0] == pixels[:, 1]) & (pixels[:, 0] == pixels[:, 2])).all())


def _png_bits(path: str | Path) -> int:
    """Returns the bits per sample that the header of a PNG file states."""
    with Path(path).open("rb") as file:
        return file.read(25)[24]
