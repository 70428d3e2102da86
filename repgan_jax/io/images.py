"""Photos in, PNG files out: uint8 [H, W, 3] RGB on both sides."""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from repgan_jax.errors import UserError
from repgan_jax.io import files, listing, pixel_formats
from repgan_jax.palette import IGNORE, Palette

# What Pillow raises on damaged files, depending on the format and on the place of the damage.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


@contextlib.contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Turns whatever Pillow raises on the file at `path` into a UserError that names it."""
    try:
        yield
    except UserError:  # names it already
        raise
    except UnidentifiedImageError as error:
        kind = pixel_formats.describe_unreadable(path)
        problem = f"{kind} cannot be read" if kind else "not a picture"
        raise UserError(f"{path}: {problem}; expected JPEG, PNG, WebP or the like") from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: too large to be read safely; reduce it first") from error
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); replace or remove it") from error


def open_picture(path: str | Path) -> Image.Image:
    """Returns the picture as Pillow decodes it, in its own mode, fully read.

    Raises:
        UserError: missing, damaged, not a picture, or so large that it may be an attack.
    """
    with _naming(path), Image.open(path) as image:
        image.load()
        return image


def orientation(path: str | Path, image: Image.Image) -> int:
    """Returns the EXIF orientation of the image in the file `path`: 1 to 8, 1 where none is."""
    with _naming(path):  # the EXIF block may be damaged
        return int(image.getexif().get(ExifTags.Base.Orientation) or 1)


def read_photo(path: str | Path) -> np.ndarray:
    """Returns uint8 [H, W, 3], upright (EXIF orientation), in RGB.

    - What is transparent shows white, as on a page.
    - Palette, CMYK, YCbCr and LAB images become RGB as Pillow converts them. Colour profiles in the
      files are not applied.
    - Of 16 bits for each channel the upper 8 are taken. Grey with no value above 255, 1023 or 4095
      in 16 bits is taken as 8, 10 or 12 bits; colours with none above 4095 are refused, as Pillow
      does not read their lower bits.
    - Grey of 32 bits is refused unless it lies in 0 to 65535, and then read as 16 bits.
    - Floats from 0 to 1 are black to white; others are refused.
    - Of several images in a file (GIF, TIFF, MPO, ...) the first is taken.
    - HDR (PQ, HLG) and cameras' raw files, of which Pillow reads but a preview, are refused.

    Raises:
        UserError: a format refused by these rules, or see `open_picture`.
    """
    return read_photo_and_notes(path)[0]


def read_photo_and_notes(path: str | Path) -> tuple[np.ndarray, list[str]]:
    """Returns what `read_photo` does, and a phrase for everything that it changed or chose."""
    if Path(path).suffix.lower() in listing.RAW_SUFFIXES:
        raise UserError(f"{path}: a raw file of a camera; export it as JPEG, PNG or TIFF")
    with _naming(path), Image.open(path) as image:
        pixel_formats.expect_standard_range(path, image)
        deep = pixel_formats.is_deep(image)
        notes = []
        if getattr(image, "is_animated", False) and image.format != "PSD":  # layers are no frames
            notes.append("the first of several images in the file is taken")
        if image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9):
            notes.append("turned as its EXIF orientation says")
        image.load()  # turns a TIFF already
        ImageOps.exif_transpose(image, in_place=True)
        pixels, said = pixel_formats.to_rgb(path, image, deep=deep)
    return pixels, notes + said


def encode_png(array: np.ndarray) -> bytes:
    """Returns uint8 [H, W, 3] or [H, W] as the bytes of a PNG file."""
    return _png(Image.fromarray(np.asarray(array, np.uint8)))


# How a picture is stored: losslessly as PNG; as well as WebP, smaller and in a sixth of the time,
# which older readers do not know; or with a loss, in a third of the space.
ENCODINGS = {
    "png": {},
    "webp": {"lossless": True, "method": 0},
    "jpeg": {"quality": 95, "subsampling": 0},
}


def encode_picture(picture: np.ndarray, encoding: str) -> bytes:
    """Returns uint8 [H, W, 3] as the bytes of a file in one of the `ENCODINGS`."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, encoding, **ENCODINGS[encoding])
    return buffer.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """Returns the uint8 [H, W, 3] or [H, W] that `encode_png` was given."""
    return np.array(Image.open(io.BytesIO(data)))


def write_png(path: str | Path, array: np.ndarray) -> None:
    """Writes uint8 [H, W, 3] or [H, W] as a PNG file, whole or not at all."""
    files.atomic_write(path, encode_png(array))


def write_palette_png(path: str | Path, mask: np.ndarray, palette: Palette) -> None:
    """Writes ids [H, W] as a PNG of indices that viewers show in the palette's colours."""
    image = Image.fromarray(np.asarray(mask, np.uint8))
    image.putpalette(_colour_table(palette).tobytes())
    files.atomic_write(path, _png(image))


def to_float(picture: np.ndarray) -> np.ndarray:
    """Returns uint8 0..255 as float32 in [-1, 1]."""
    return np.asarray(picture, np.float32) / 127.5 - 1


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Returns floats in [-1, 1] as uint8: rounded, and clipped where they lie outside."""
    return np.round((np.asarray(picture, np.float32) + 1) * 127.5).clip(0, 255).astype(np.uint8)


def resize_area(picture: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Returns uint8 [H, W, 3] resized to `size` (a side, or height and width).

    Reducing averages the area under each new pixel; enlarging is bicubic.
    """
    height, width = (size, size) if isinstance(size, int) else size
    reducing = height <= picture.shape[0] and width <= picture.shape[1]
    method = Image.Resampling.BOX if reducing else Image.Resampling.BICUBIC
    return np.array(Image.fromarray(picture).resize((width, height), method))


def overlay(
    photo: np.ndarray,
    mask: np.ndarray,
    palette: Palette,
    *,
    alpha: float = 0.5,
    background: bool = False,
) -> np.ndarray:
    """Returns uint8 [H, W, 3]: `photo` tinted by the colours of `mask` [H, W].

    Ignored pixels keep the photo's colours, as does the first class unless `background` is true.
    """
    mask = np.asarray(mask)
    part = (mask != IGNORE) & (background | (mask != 0))
    tinted = photo.copy()
    tint = alpha * palette.colours[mask[part]] + (1 - alpha) * photo[part]
    tinted[part] = np.round(tint).astype(np.uint8)
    return tinted


def contact_sheet(pictures: Sequence[np.ndarray], *, columns: int, gap: int = 4) -> np.ndarray:
    """Returns uint8 [H', W', 3]: equal pictures [H, W, 3] in rows, `gap` white pixels between."""
    height, width, _ = pictures[0].shape
    rows = -(-len(pictures) // columns)
    shape = (rows * (height + gap) - gap, columns * (width + gap) - gap, 3)
    sheet = np.full(shape, 255, np.uint8)
    for i, picture in enumerate(pictures):
        y, x = (i // columns) * (height + gap), (i % columns) * (width + gap)
        sheet[y : y + height, x : x + width] = picture
    return sheet


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _colour_table(palette: Palette) -> np.ndarray:
    """Returns uint8 [256, 3]: the classes' colours, white for the other ids, 255 among them."""
    table = np.full((256, 3), 255, np.uint8)
    table[: palette.num_classes] = palette.colours
    return table
