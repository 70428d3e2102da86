"""Files of every format that Pillow writes give the right pixels by the stated rules, or none."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from repgan_jax.errors import UserError
from repgan_jax.io import images

RNG = np.random.default_rng(3)
COLOUR = np.repeat(np.repeat(RNG.integers(0, 256, (4, 6, 3), np.uint8), 16, 0), 16, 1)
GREY = COLOUR[..., 0]
GREYS = np.repeat(GREY[..., None], 3, 2)


def _read(image, path, **options):
    """Returns what is read of `image` saved at `path`, and what is said."""
    image.save(path, **options)
    return images.read_photo_and_notes(path)


def _needs(feature):
    return pytest.mark.skipif(not features.check(feature), reason=f"Pillow has no {feature}")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", {}),
        ("a.JPG", {"quality": 95, "subsampling": 0}),
        ("a.jfif", {"quality": 95, "subsampling": 0}),
        ("a.jpe", {"quality": 95, "subsampling": 0}),
        ("a.mpo", {"quality": 95, "subsampling": 0}),
        ("a.bmp", {}),
        ("a.ppm", {}),
        ("a.tga", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.tiff", {}),
        ("a.gif", {}),
        ("a.pcx", {}),
        pytest.param("a.webp", {"lossless": True}, marks=_needs("webp")),
        pytest.param("a.avif", {"quality": 95, "subsampling": "4:4:4"}, marks=_needs("avif")),
        pytest.param("a.jp2", {}, marks=_needs("jpg_2000")),
        pytest.param("a.j2k", {}, marks=_needs("jpg_2000")),
    ],
)
def test_every_kind_of_file(tmp_path, name, options):
    got, notes = _read(Image.fromarray(COLOUR), tmp_path / name, **options)
    assert got.shape == COLOUR.shape and got.dtype == np.uint8
    assert np.abs(got.astype(int) - COLOUR).mean() < (3 if "quality" in options else 0.01)
    assert notes == (["its mode is P, it is taken as RGB"] if name == "a.gif" else [])
    # without its suffix it is the same file
    again = (tmp_path / name).rename(tmp_path / "photo")
    np.testing.assert_array_equal(images.read_photo(again), got)


@pytest.mark.parametrize("kind", ["png", "tif", "jp2"])
def test_sixteen_bits_of_grey(tmp_path, kind):
    if kind == "jp2" and not features.check("jpg_2000"):
        pytest.skip("Pillow has no jpg_2000")
    deep = GREY.astype(np.uint16) * 257
    got, notes = _read(Image.fromarray(deep), tmp_path / f"a.{kind}")
    np.testing.assert_array_equal(got, GREYS)
    assert notes == ["its mode is I;16, it is taken as RGB"]


@pytest.mark.parametrize(("bits", "kind"), [(8, "png"), (10, "tif"), (12, "png"), (12, "tif")])
def test_fewer_bits_in_sixteen_are_not_read_as_black(tmp_path, bits, kind):
    values = (GREY.astype(np.uint16) << (bits - 8)) + (1 << (bits - 8)) - 1
    got, notes = _read(Image.fromarray(values), tmp_path / f"a.{kind}")
    np.testing.assert_array_equal(got, GREYS)
    assert notes[1:] == [
        f"no value above {values.max()} in 16 bits, its values are taken as {bits} bits"
    ]


def test_dark_and_black_photos_of_sixteen_bits(tmp_path):
    values = GREY.astype(np.uint16) * 40
    got, notes = _read(Image.fromarray(values), tmp_path / "a.png")
    np.testing.assert_array_equal(got[..., 0], values >> 8)
    assert notes[1:] == [f"dark: no value above {values.max()} of 65535"]
    got, notes = _read(Image.fromarray(values * 0), tmp_path / "b.png")
    assert not got.any() and len(notes) == 1


def test_integers_of_32_bits(tmp_path):
    got, _ = _read(Image.fromarray(GREY.astype(np.int32) * 257), tmp_path / "a.tif")
    np.testing.assert_array_equal(got, GREYS)
    for factor, low, high in ((300, 0, 76500), (-1, -255, 0)):
        wide = GREY.astype(np.int32)
        wide[0, :2] = 0, 255
        with pytest.raises(UserError, match=f"a.tif: grey values from {low} to {high}, expected 0"):
            _read(Image.fromarray(wide * factor), tmp_path / "a.tif")


def test_floats(tmp_path):
    got, notes = _read(Image.fromarray(GREY.astype(np.float32) / 255), tmp_path / "a.tif")
    np.testing.assert_array_equal(got, GREYS)
    assert notes[1:] == ["its values from 0 to 1 are taken as black to white"]
    for bad in (GREY.astype(np.float32), np.full((4, 4), np.nan, np.float32)):
        with pytest.raises(UserError, match=r"a.tif: floats from .* to .*, expected 0 to 1"):
            _read(Image.fromarray(bad), tmp_path / "a.tif")


def _png(colour, *, chunks=()):
    """Returns the bytes of a PNG of 16 bits for each channel, [H, W, 3] or [H, W, 4]."""
    height, width, channels = colour.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    kind = {3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def _tiff(values, bits, photometric):
    """Returns the bytes of an uncompressed little-endian TIFF of `values`, uint8 [N] as packed."""
    height, width, channels = values["shape"]
    data, entries = values["data"], []

    def add(tag, kind, count, value):
        entries.append(struct.pack("<HHII", tag, kind, count, value))

    end = 8 + len(data)
    add(256, 4, 1, width)
    add(257, 4, 1, height)
    add(258, 3, channels, bits if channels == 1 else end)
    add(259, 3, 1, 1)
    add(262, 3, 1, photometric)
    add(273, 4, 1, 8)
    add(277, 3, 1, channels)
    add(278, 4, 1, height)
    add(279, 4, 1, len(data))
    extra = struct.pack(f"<{channels}H", *[bits] * channels) if channels > 1 else b""
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    return b"II*\0" + struct.pack("<I", end + len(extra)) + data + extra + directory


def test_colours_of_sixteen_bits(tmp_path):
    deep = COLOUR.astype(np.uint16) * 257
    (tmp_path / "a.png").write_bytes(_png(deep))
    values = {"shape": deep.shape, "data": deep.astype("<u2").tobytes()}
    (tmp_path / "a.tif").write_bytes(_tiff(values, 16, 2))
    for name in ("a.png", "a.tif"):
        got, notes = images.read_photo_and_notes(tmp_path / name)
        np.testing.assert_array_equal(got, COLOUR)
        assert notes == []
    (tmp_path / "b.png").write_bytes(_png(deep >> 4))
    with pytest.raises(UserError, match=r"b.png: 16 bits .*, but no value above 4095"):
        images.read_photo(tmp_path / "b.png")
    (tmp_path / "d.png").write_bytes(_png(deep >> 2))
    got, notes = images.read_photo_and_notes(tmp_path / "d.png")
    np.testing.assert_array_equal(got, COLOUR >> 2)
    assert notes == [f"dark: no value above {COLOUR.max() >> 2} of 255"]
    clear = np.concatenate([deep, np.full_like(deep[..., :1], 65535)], -1)
    clear[:, :48, 3] = 0
    (tmp_path / "c.png").write_bytes(_png(clear))
    got = images.read_photo(tmp_path / "c.png")
    assert (got[:, :48] == 255).all()
    np.testing.assert_array_equal(got[:, 48:], COLOUR[:, 48:])


def test_twelve_bits_as_tiff_declares_them(tmp_path):
    """Two values in three bytes; the largest tells nothing, so none is guessed."""
    values = (GREY.astype(np.uint32) >> 2 << 4).ravel()  # a dark photo
    first, second = values[::2], values[1::2]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1)
    data = {"shape": (*GREY.shape, 1), "data": packed.astype(np.uint8).tobytes()}
    (tmp_path / "a.tif").write_bytes(_tiff(data, 12, 1))
    got, notes = images.read_photo_and_notes(tmp_path / "a.tif")
    np.testing.assert_array_equal(got, GREYS >> 2)
    assert len(notes) == 1


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (16, "<u2")])
def test_tiff_where_0_is_white(tmp_path, bits, dtype):
    values = GREY.astype(dtype) * (257 if bits == 16 else 1)
    data = {"shape": (*GREY.shape, 1), "data": values.tobytes()}
    (tmp_path / "a.tif").write_bytes(_tiff(data, bits, 0))
    np.testing.assert_array_equal(images.read_photo(tmp_path / "a.tif"), 255 - GREYS)


def test_print_and_lab_colours(tmp_path):
    plain = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [90, 90, 90]]], np.uint8)
    plain = plain.repeat(16, 0).repeat(16, 1)
    got, notes = _read(Image.fromarray(plain).convert("CMYK"), tmp_path / "a.tif")
    np.testing.assert_array_equal(got, plain)
    assert notes == ["its mode is CMYK, it is taken as RGB"]
    got, _ = _read(Image.fromarray(plain).convert("CMYK"), tmp_path / "a.jpg", quality=95)
    assert np.abs(got.astype(int) - plain)[:, 6:10].max() < 12
    if not features.check("littlecms2"):
        pytest.skip("Pillow has no littlecms2")
    lab = Image.merge("LAB", [Image.new("L", (8, 8), value) for value in (137, 128, 128)])
    got, notes = _read(lab, tmp_path / "b.tif")
    assert notes == ["its mode is LAB, it is taken as RGB"]
    expected = 255 * (1.055 * (((137 / 2.55 + 16) / 116) ** 3) ** (1 / 2.4) - 0.055)  # of sRGB
    assert np.abs(got - expected).max() < 2


def test_transparent_is_white(tmp_path):
    colour = np.concatenate([COLOUR, np.full_like(COLOUR[..., :1], 255)], -1)
    colour[:, :48, 3] = 0
    expected = COLOUR.copy()
    expected[:, :48] = 255
    for name in ("a.png", "a.webp", "a.tif"):
        got, _ = _read(Image.fromarray(colour), tmp_path / name, lossless=True)
        np.testing.assert_array_equal(got, expected)
    grey = Image.fromarray(GREY)
    grey.putalpha(Image.fromarray(colour[..., 3]))
    np.testing.assert_array_equal(
        _read(grey, tmp_path / "grey.png")[0], np.where(colour[..., 3:], GREYS, 255)
    )
    deep = GREY.astype(np.uint16) * 257
    got, _ = _read(Image.fromarray(deep), tmp_path / "deep.png", transparency=int(deep[0, 0]))
    np.testing.assert_array_equal(got, np.where(GREY[0, 0] == GREYS, 255, GREYS))
    # premultiplied: half of white, half transparent, is white on white
    half = Image.frombytes("RGBa", (1, 1), bytes([128, 128, 128, 128]))
    half.convert("RGBA").save(tmp_path / "half.png")
    np.testing.assert_array_equal(images.read_photo(tmp_path / "half.png"), [[[255] * 3]])


def test_indexed_colours_with_transparency(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    for name in ("a.png", "a.gif"):
        got, _ = _read(image, tmp_path / name, transparency=1)
        white = [255, 255, 255]
        np.testing.assert_array_equal(got, [[[255, 0, 0], white], [[0, 0, 255], white]])


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.mpo", "a.webp", "a.png"])
def test_the_first_of_several_images_is_taken_and_that_is_said(tmp_path, name):
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    got, notes = _read(first, tmp_path / name, save_all=True, append_images=[second])
    assert np.abs(got.astype(int) - [255, 0, 0]).max() < 8
    assert notes[0] == "the first of several images in the file is taken"


@pytest.mark.parametrize("kind", ["png", "tif", "jpg", "webp"])
def test_what_exif_turns_is_said(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    square = COLOUR[:64, :64]
    got, notes = _read(Image.fromarray(square), tmp_path / f"a.{kind}", exif=exif, quality=98)
    assert notes == ["turned as its EXIF orientation says"]
    assert np.abs(got.astype(int) - np.rot90(square, -1)).mean() < 12


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_refused(tmp_path, transfer):
    deep, said = COLOUR.astype(np.uint16) * 257, "an HDR image .PQ or HLG.*; export it in standard"
    (tmp_path / "a.png").write_bytes(_png(deep, chunks=[(b"cICP", bytes([9, transfer, 0, 1]))]))
    with pytest.raises(UserError, match=f"a.png: {said}"):
        images.read_photo(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(_png(deep, chunks=[(b"cICP", bytes([1, 13, 0, 1]))]))
    np.testing.assert_array_equal(images.read_photo(tmp_path / "a.png"), COLOUR)
    if not features.check("avif"):
        pytest.skip("Pillow has no avif")
    Image.fromarray(COLOUR).save(tmp_path / "a.avif")
    data = (tmp_path / "a.avif").read_bytes()
    at = data.index(b"colrnclx") + 10
    (tmp_path / "a.avif").write_bytes(data[:at] + bytes([0, transfer]) + data[at + 2 :])
    with pytest.raises(UserError, match=f"a.avif: {said}"):
        images.read_photo(tmp_path / "a.avif")


def test_images_that_cannot_be_read_are_called_what_they_are(tmp_path):
    floats = {"shape": (2, 2, 3), "data": np.zeros(12, "<u8").tobytes()}
    files = {
        "a.heic": (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC cannot be read; expected JPEG"),
        "a.jxl": (b"\xff\x0a\0\0", "JPEG XL cannot be read"),
        "a.exr": (b"v/1\x01\0\0\0\0", "OpenEXR cannot be read"),
        "a.hdr": (b"#?RADIANCE\n", "Radiance HDR cannot be read"),
        "a.tif": (_tiff(floats, 64, 2), r"TIFF \(of this pixel format\) cannot be read"),
        "a.png": (b"hello", "not a picture; expected JPEG"),
        "a.NEF": (b"II*\0", "a raw file of a camera; export it as JPEG"),
    }
    for name, (data, message) in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name}: {message}"):
            images.read_photo(tmp_path / name)
