"""How pixels of other formats than 8 bits RGB are read, and which are refused."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from repgan_jax.errors import UserError

_HEAD = 1 << 16  # bytes at the start of a file, among which its header is
_TIFF_WHITE_IS_ZERO = (262, 0)  # tag and value
_TIFF_BITS = 258
# Transfer functions of HDR (16: PQ, 18: HLG) in a PNG's chunk and in an AVIF's colour box; the
# number follows the primaries, which have one and two bytes.
_HDR = {
    "PNG": re.compile(rb"\0\0\0\x04cICP.[\x10\x12]", re.DOTALL),
    "AVIF": re.compile(rb"colrnclx..\0[\x10\x12]", re.DOTALL),
}
# Images that Pillow does not decode, by how their files start.
_UNREADABLE = (
    (re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL), "HEIC"),
    (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "JPEG XL"),
    (re.compile(rb"v/1\x01"), "OpenEXR"),
    (re.compile(rb"#\?(RADIANCE|RGBE)"), "Radiance HDR"),
    (re.compile(rb"II\*\0|MM\0\*"), "TIFF (of this pixel format)"),
)


def describe_unreadable(path: str | Path) -> str:
    """Returns what an image file is that Pillow does not identify, "" if it is not known."""
    head = _read_head(path)
    return next((kind for start, kind in _UNREADABLE if start.match(head)), "")


def _read_head(path: str | Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(_HEAD)


def expect_standard_range(path: str | Path, image: Image.Image) -> None:
    """Raises UserError for the `image` at `path` if its colours are those of an HDR display."""
    pattern = _HDR.get(image.format or "")
    if pattern and pattern.search(_read_head(path).split(b"IDAT", 1)[0]):
        raise UserError(
            f"{path}: an HDR image (PQ or HLG), of which 8 bits show too little; "
            "export it in standard dynamic range (sRGB)"
        )


def is_deep(image: Image.Image) -> bool:
    """Returns whether the file of an `image` not yet loaded has 16 bits for each channel."""
    return ";16" in str(getattr(image, "tile", ""))  # images that come from no file have none


def to_rgb(path: str | Path, image: Image.Image, *, deep: bool) -> tuple[np.ndarray, list[str]]:
    """Returns uint8 [H, W, 3] by the rules in `images.read_photo`, and what to say of it.

    Args:
        path: for errors.
        image: loaded, of any mode.
        deep: what `is_deep` said before it was loaded.

    Raises:
        UserError: values that no rule maps to 8 bits.
    """
    notes = [f"its mode is {image.mode}, it is taken as RGB"] if image.mode != "RGB" else []
    if image.mode.startswith("I"):
        image, said = _from_integers(path, image)
        notes += said
    elif image.mode == "F":
        image = _from_floats(path, image)
        notes.append("its values from 0 to 1 are taken as black to white")
    elif deep and (high := _brightest(image)) < 64:
        if 0 < high < 16:
            raise UserError(
                f"{path}: 16 bits for each channel, but no value above 4095: nearly black; "
                "scale the values to 16 bits, or save it in 8"
            )
        notes += [f"dark: no value above {high} of 255"] if high else []
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB")), notes


def _brightest(image: Image.Image) -> int:
    """Returns the largest value of the channels other than opacity."""
    return int(np.asarray(image.convert("RGB")).max())


def _from_integers(path: str | Path, image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Returns a grey image of 8 bits from one of up to 16, and what to say of it."""
    values = np.asarray(image).astype(np.int64)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise UserError(
            f"{path}: grey values from {low} to {high}, expected 0 to 65535; "
            "scale them, or save it in 8 bits"
        )
    notes, tags = [], getattr(image, "tag_v2", {})
    if tags.get(_TIFF_BITS) == (12,):
        bits = 12
    else:
        bits = next(bits for bits in (8, 10, 12, 16) if high < 1 << bits)
        if high > 0 and bits < 16:
            notes.append(f"no value above {high} in 16 bits, its values are taken as {bits} bits")
        elif 0 < high < 1 << 14:
            notes.append(f"dark: no value above {high} of 65535")
    tag, white_is_zero = _TIFF_WHITE_IS_ZERO
    if tags.get(tag) == white_is_zero:
        values = (1 << bits) - 1 - values
    grey = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        opacity = np.where(np.asarray(image) == clear, 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(opacity))
    return grey, notes


def _from_floats(path: str | Path, image: Image.Image) -> Image.Image:
    """Returns a grey image of 8 bits from one of floats in [0, 1]."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # not a number, too
        raise UserError(
            f"{path}: floats from {low:g} to {high:g}, expected 0 to 1; "
            "scale them, or save it in 8 bits"
        )
    tag, white_is_zero = _TIFF_WHITE_IS_ZERO
    if getattr(image, "tag_v2", {}).get(tag) == white_is_zero:
        values = 1 - values
    return Image.fromarray(np.round(values * 255).astype(np.uint8))
