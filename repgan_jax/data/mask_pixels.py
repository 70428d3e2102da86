"""Pixels of mask files as they are stored, and as a viewer shows them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repgan_jax.errors import UserError
from repgan_jax.io import images

_LOSSLESS = ("PNG", "BMP", "DIB", "GIF", "PPM", "TGA")


@dataclass(frozen=True, eq=False)
class MaskFile:
    """A decoded mask file.

    Attributes:
        kind: "grey" (also RGB of three equal channels, and a palette in which every index in use
            shows itself as a grey value), "palette" or "colour".
        values: int32 [H, W], grey values or indices; None of the kind "colour".
        colours: int32 [H, W], 0xRRGGBB as a viewer shows it; -1 of 16 bits.
        opaque: bool [H, W].
        lossless: whether the format keeps values as they are.
        bits: whether it has one bit per pixel.
        table: int32 [N], the colours 0xRRGGBB of a palette; None of other kinds.
    """

    kind: str
    values: np.ndarray | None
    colours: np.ndarray
    opaque: np.ndarray
    lossless: bool
    bits: bool = False
    table: np.ndarray | None = None


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
        values = np.asarray(image).astype(np.int32)
        clear = values == image.info.get("transparency", -1)
        return MaskFile("grey", values, np.full(values.shape, -1, np.int32), ~clear, lossless)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise UserError(f"{path}: mask of mode {image.mode}; expected a grey, palette or RGB PNG")
    shown = np.array(image.convert("RGBA"))
    opaque = shown[..., 3] == 255
    colours = (shown.view(">u4")[..., 0] >> 8).astype(np.int32)
    values, kind, table = None, "colour", None
    if image.mode == "P":
        values = np.asarray(image).astype(np.int32)
        if opaque.all() and (colours == values * 0x010101).all():
            kind = "grey"
        else:
            kind, table = "palette", pack(np.array(image.getpalette("RGB")).reshape(-1, 3))
    elif image.mode in ("1", "L", "LA") or _is_grey(shown[opaque]):
        values = shown[..., 0].astype(np.int32) // (255 if image.mode == "1" else 1)
        kind = "grey"
    return MaskFile(kind, values, colours, opaque, lossless, image.mode == "1", table)


def _is_grey(pixels: np.ndarray) -> bool:
    """Returns whether R, G and B of `pixels` [N, 4] are the same."""
    return bool(((pixels[:, 0] == pixels[:, 1]) & (pixels[:, 0] == pixels[:, 2])).all())


def _png_bits(path: str | Path) -> int:
    """Returns the bits per sample that the header of a PNG file states."""
    with Path(path).open("rb") as file:
        return file.read(25)[24]
