"""Mask files mean one thing, or are refused: never another thing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repgan_jax.data import mask_files, masks
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import IGNORE, parse_classes

FACE = Path(__file__).parents[2] / "examples" / "face"
PALETTE = parse_classes("background #000000\nnose #e8743b\neyes #2a7fff", "test")
MASK = np.array([[0, 1, 1, 2], [2, 2, 0, 1], [0, 0, 2, 1]], np.uint8)  # H != W on purpose
LARGE = np.zeros((64, 64), np.uint8)  # so that a pixel is less than 0.1 %
LARGE[10:50, 10:50], LARGE[5:15, 5:55], LARGE[40:44, 20:40] = 1, 2, 2


def _refused(message: str):
    """Expects a UserError whose one line contains `message`."""
    return pytest.raises(UserError, match=rf"\A[^\n]*{message}[^\n]*\Z")


def _read(path, palette=PALETTE, rule="auto"):
    return mask_files.choose_reader([path], palette, rule).read(path).ids


def _indexed(mask, colours) -> Image.Image:
    image = Image.fromarray(np.asarray(mask, np.uint8))
    image.putpalette(np.asarray(colours, np.uint8).tobytes())
    return image


def test_formats_agree(tmp_path):
    mask = MASK.astype(int)
    mask[0, 0] = IGNORE
    images.write_png(tmp_path / "grey.png", mask.astype(np.uint8))
    images.write_palette_png(tmp_path / "palette.png", mask, PALETTE)
    Image.fromarray(mask.astype(np.uint8)).convert("LA").save(tmp_path / "la.png")
    Image.fromarray(mask.astype(np.uint8)).convert("RGB").save(tmp_path / "equal_channels.png")
    Image.fromarray(mask.astype(np.uint16)).save(tmp_path / "sixteen_bits.png")
    paths = sorted(tmp_path.iterdir())
    reader = mask_files.choose_reader(paths, PALETTE)
    assert reader.rule == "ids"
    for path in paths:
        got = reader.read(path)
        assert got.ids.dtype == np.int32 and not got.unknown
        np.testing.assert_array_equal(got.ids, mask, err_msg=path.name)


def test_colours_win_over_indices(tmp_path):
    """Programs that save few colours number them as they like."""
    colours = Image.fromarray(PALETTE.colours[MASK])
    colours.save(tmp_path / "rgb.png")
    colours.convert("RGBA").save(tmp_path / "rgba.png")
    colours.quantize(256).save(tmp_path / "few.png")
    _indexed(2 - MASK, PALETTE.colours[::-1]).save(tmp_path / "shuffled.png")
    images.write_palette_png(tmp_path / "ours.png", MASK, PALETTE)
    paths = sorted(tmp_path.iterdir())
    reader = mask_files.choose_reader(paths, PALETTE)
    assert reader.rule == "colours"
    for path in paths:
        np.testing.assert_array_equal(reader.read(path).ids, MASK, path.name)


def test_indices_count_under_a_foreign_palette(tmp_path):
    _indexed(MASK, [[0, 0, 0], [128, 0, 0], [0, 128, 0]]).save(tmp_path / "voc.png")
    np.testing.assert_array_equal(_read(tmp_path / "voc.png"), MASK)


def test_the_palette_of_voc_is_told_from_smoothed_colours(tmp_path):
    """Its first colours are halves of pure ones, as smoothing makes them of these and black."""
    voc = [[128 * (k & 1), 64 * (k & 2), 32 * (k & 4)] for k in range(8)]
    voc += [[red + 64, green, blue] for red, green, blue in voc]
    voc += [[red, green + 64, blue] for red, green, blue in voc]
    voc += [[red, green, blue + 64] for red, green, blue in voc]
    voc += [[red + 32, green, blue] for red, green, blue in voc]
    voc += [[red, green + 32, blue] for red, green, blue in voc]
    palette = parse_classes("background #000000\nnose #ff0000\neyes #00ff00", "test")
    _indexed(LARGE, voc).save(tmp_path / "voc.png")
    np.testing.assert_array_equal(_read(tmp_path / "voc.png", palette), LARGE)
    _indexed(LARGE, [*voc[:-1], [1, 2, 3]]).save(tmp_path / "other.png")
    with _refused("other.png: .*: its colours are close to the classes' or mixtures of them"):
        _read(tmp_path / "other.png", palette)


def test_a_palette_of_grey_values_in_order_says_what_the_grey_picture_says(tmp_path):
    """As `Image.convert("P")` and many programs write grey pictures."""
    image = Image.fromarray(MASK).convert("P")
    image.save(tmp_path / "ramp.png")
    _indexed(MASK, np.arange(3)[:, None].repeat(3, 1)).save(tmp_path / "short.png")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(_read(path), MASK)
    brightness = np.array([0, 2, 1], np.uint8)[LARGE]  # grey values that are those of the colours
    palette = parse_classes("background #000000\nnose #020202\neyes #010101", "test")
    Image.fromarray(brightness).convert("P").save(tmp_path / "both.png")
    with _refused("both.png: .* mean one class by their colours and another one"):
        _read(tmp_path / "both.png", palette)


def test_grey_and_palette_files_of_a_set_may_both_hold_ids(tmp_path):
    images.write_png(tmp_path / "grey.png", MASK)
    _indexed(MASK, [[0, 0, 0], [128, 0, 0], [0, 128, 0]]).save(tmp_path / "voc.png")
    assert mask_files.choose_reader(sorted(tmp_path.iterdir()), PALETTE).rule == "ids"


def test_one_bit_masks_are_the_ids_of_two_classes(tmp_path):
    path, two = tmp_path / "bits.png", parse_classes("background\nnose", "test")
    Image.fromarray(MASK == 1).save(path)
    np.testing.assert_array_equal(_read(path, two), MASK == 1)
    with _refused("bits.png: a mask of black and white for 3 classes: .* or set reading=ids"):
        _read(path)
    np.testing.assert_array_equal(_read(path, rule="ids"), MASK == 1)
    white = parse_classes("background #000000\nnose #ffffff\neyes #ddddff", "test")
    with _refused("bits.png: a mask of black and white for 3 classes"):  # eyes may be white now
        _read(path, white)
    light = parse_classes("background #eeeeee\nnose #111111", "test")  # white is the background?
    with _refused("bits.png: its values are also the brightness of other classes' colours"):
        _read(path, light)


def test_black_and_white_may_be_colours(tmp_path):
    path = tmp_path / "mask.png"
    images.write_png(path, np.where(MASK == 1, 255, 0))
    white = parse_classes("background #000000\nnose #ffffff", "test")
    np.testing.assert_array_equal(_read(path, white), MASK == 1)
    with _refused("mask.png: its values are 0 and 255 alone"):
        _read(path)


@pytest.mark.parametrize("stem", sorted(path.stem for path in (FACE / "masks").iterdir()))
def test_a_pixel_of_an_unknown_colour_is_ignored_alone(tmp_path, stem):
    palette, path = masks.read_classes(FACE / "classes.txt"), tmp_path / "mask.png"
    mask = np.asarray(images.open_picture(FACE / "masks" / f"{stem}.png"))
    colours = palette.colours[mask]
    y, x = np.argwhere(mask == 1)[0]
    colours[y, x] //= 2  # the average with black
    Image.fromarray(colours).quantize(256).save(path)
    reader = mask_files.choose_reader([path], palette)
    got = reader.read(path)
    assert got.unknown == 1 and reader.unknown == {"mask.png": 1}
    expected = mask.astype(int)
    expected[y, x] = IGNORE
    np.testing.assert_array_equal(got.ids, expected)


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize(("count", "right"), [(4, True), (5, False)])
def test_unknown_colours_are_allowed_in_one_of_a_thousand_pixels(tmp_path, count, right, quantize):
    colours, path = PALETTE.colours[LARGE].copy(), tmp_path / "mask.png"  # of 4096
    colours[0, :count] = 7, 99, 200
    image = Image.fromarray(colours)
    (image.quantize(256) if quantize else image).save(path)
    if right:
        expected = LARGE.astype(int)
        expected[0, :count] = IGNORE
        np.testing.assert_array_equal(_read(path), expected)
    else:
        with _refused("5 pixels in no class's colour, 5 of them of #0763c8; expected #000000 back"):
            _read(path)


def test_an_unknown_colour_never_makes_colours_into_ids(tmp_path):
    """Here the indices would all be ids, and in the order of the classes."""
    colours = [*PALETTE.colours[:2], [7, 99, 200]]
    _indexed(MASK, colours).save(tmp_path / "mask.png")
    with _refused("in no class's colour, 4 of them of #0763c8; .* it shows some of the classes'"):
        _read(tmp_path / "mask.png")
    np.testing.assert_array_equal(_read(tmp_path / "mask.png", rule="ids"), MASK)


def test_files_of_one_set_are_read_alike(tmp_path):
    images.write_png(tmp_path / "a.png", MASK)
    images.write_png(tmp_path / "b.png", PALETTE.colours[MASK])
    for names in ("ab", "ba"):
        with _refused("b.png shows colours and a.png holds grey values, but all masks"):
            mask_files.choose_reader([tmp_path / f"{name}.png" for name in names], PALETTE)


def test_what_could_be_both_is_refused(tmp_path):
    greys, path = (
        parse_classes("background #000000\na #020202\nb #010101", "test"),
        tmp_path / "a.png",
    )
    images.write_png(path, MASK)
    with _refused("a.png: 8 pixels mean one class by their colours and another one by their"):
        _read(path, greys)
    np.testing.assert_array_equal(_read(path, greys, "ids"), MASK)
    np.testing.assert_array_equal(_read(path, greys, "colours"), np.array([0, 2, 1])[MASK])
    with _refused("reading: 'indices', expected one of auto, ids, colours"):
        _read(path, greys, "indices")


def test_transparent_pixels_stand_for_no_class(tmp_path):
    """Whatever colour the editor left in them."""
    path = tmp_path / "mask.png"
    alpha = np.where(LARGE == 0, 0, 255).astype(np.uint8)
    colours = np.dstack([PALETTE.colours[np.where(LARGE == 0, 2, LARGE)], alpha])
    grey = np.dstack([LARGE, alpha])
    indexed = _indexed(LARGE, PALETTE.colours)
    indexed.info["transparency"] = 0
    count = (LARGE == 0).sum()
    for image in (Image.fromarray(colours), Image.fromarray(grey, "LA"), indexed):
        image.save(path)
        with _refused(f"mask.png: {count} pixels are transparent, which stands for no class"):
            _read(path)
    np.testing.assert_array_equal(_read(path, rule="ids"), LARGE)  # indices are there
    alpha[:] = 255
    alpha[0, :3] = 0, 120, 254
    expected = LARGE.astype(int)
    expected[0, :3] = IGNORE
    for image in (np.dstack([PALETTE.colours[LARGE], alpha]), np.dstack([LARGE, alpha])):
        Image.fromarray(image).save(path)
        np.testing.assert_array_equal(_read(path), expected)


def test_smoothed_masks_are_refused(tmp_path):
    path, half, full = tmp_path / "mask.png", (32, 32), (64, 64)
    for smooth in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.BOX):
        for image in (Image.fromarray(LARGE), Image.fromarray(PALETTE.colours[LARGE])):
            image.resize(half, smooth).resize(full, Image.Resampling.BILINEAR).save(path)
            with _refused("without smoothing|edges look smoothed"):
                _read(path)
    mixed = parse_classes("background #000000\nnose #804000\neyes #ff8000", "test")
    edges = np.zeros((64, 64), np.uint8)
    edges[20:40, 20:40] = 1  # half of the colours on both sides
    edges[21:39, 21:39] = 2
    Image.fromarray(mixed.colours[edges]).save(path)
    with _refused("mask.png: its edges look smoothed; save it as PNG"):
        _read(path, mixed)


@pytest.mark.parametrize("suffix", ["JPEG", "WEBP"])
def test_lossy_formats_hold_no_ids(tmp_path, suffix):
    Image.fromarray(MASK).save(tmp_path / "mask.png", suffix)
    with _refused("mask.png: a format that changes values, such as JPEG, cannot hold ids; save"):
        _read(tmp_path / "mask.png", rule="ids")
    Image.fromarray(PALETTE.colours[LARGE]).save(tmp_path / "mask.png", "JPEG")
    with _refused("mask.png: [0-9]* pixels in no class's colour"):
        _read(tmp_path / "mask.png")


def test_turned_masks_are_refused(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(MASK).save(tmp_path / "mask.png", exif=exif)
    with _refused("mask.png: a mask with the EXIF orientation 6, .* save it upright"):
        _read(tmp_path / "mask.png")


def test_doubtful_values_are_refused(tmp_path):
    path = tmp_path / "mask.png"
    dark = parse_classes("background #000000\nnose #000012\neyes #030000", "test")
    Image.fromarray(dark.colours[MASK]).convert("L").save(path)  # 0, 2 and 1
    with _refused("mask.png: its values are also the brightness of other classes' colours"):
        _read(path, dark)
    _indexed(2 - MASK, [[2] * 3, [1] * 3, [0] * 3]).save(path)  # what an optimiser makes of ids
    with _refused("its indices and the grey values that they show are both ids, and differ"):
        _read(path)
    changed = np.roll(PALETTE.colours, 1, 0).astype(int) + [[-1], [2], [1]]
    _indexed((MASK + 1) % 3, changed).save(path)
    with _refused("its colours are close to the classes' or mixtures of them"):
        _read(path)
    Image.fromarray(MASK.astype(np.uint8) * 127).convert("CMYK").save(path, "TIFF")
    with _refused("mask.png: mask of mode CMYK; expected a grey, palette or RGB PNG"):
        _read(path)
    images.write_png(path, np.where(MASK == 2, 7, MASK))
    with _refused("unknown id 7 in 4 pixels; the classes are 0 background, 1 nose, 2 eyes"):
        _read(path)
    path.write_bytes(b"nothing")
    with _refused("mask.png: not a picture"):
        _read(path)


def test_masks_are_described():
    mask = LARGE.astype(int)
    mask[0, :2] = IGNORE
    found = {"a": mask_files.Mask(mask, 1), "b": mask_files.Mask(np.zeros((64, 64), int))}
    assert mask_files.describe(found, PALETTE) == (
        "background in 2, nose in 1, eyes in 1; 2 of 8192 pixels ignored, 1 of them because "
        "their colour is no class's (in a)"
    )


def test_real_palette_masks_of_car_parts_are_ids(shared):
    folder = shared("data/car_parts")
    palette = masks.read_classes(folder / "classes.txt")
    paths = sorted((folder / "test/masks").glob("*.png"))[:8]
    reader = mask_files.choose_reader(paths, palette)
    assert reader.rule == "ids"
    for path in paths:
        np.testing.assert_array_equal(reader.read(path).ids, np.asarray(Image.open(path)))


@pytest.fixture
def stated(tmp_path):
    """Three files of the ids 0 to 3, of a data set whose palette has colours for 20."""
    rng, paths = np.random.default_rng(0), []
    table = rng.permutation(256**3)[:20]
    colours = np.stack([table >> 16, table >> 8 & 255, table & 255], -1).astype(np.uint8)
    for i in range(3):
        ids = rng.integers(0, 4, (6, 6)).repeat(16, 0).repeat(16, 1).astype(np.uint8)
        image = Image.fromarray(ids, "P")
        image.putpalette(colours.tobytes())
        image.save(paths.append(tmp_path / f"{i}.png") or paths[-1])
    return paths


def test_values_of_a_data_set_are_as_they_were_drawn(stated):
    mask_files.expect_values(stated)
    for path in stated[:2]:
        Image.open(path).convert("RGB").quantize(256).save(path)
    mask_files.expect_values(stated)  # one file shows that there is a palette for all
    Image.open(stated[2]).convert("RGB").quantize(256).save(stated[2])
    with pytest.raises(UserError, match="0.png: all colours of its palette are used: .*or set x="):
        mask_files.expect_values(stated, setting="x")


def test_smoothed_values_of_a_data_set_are_recognised(stated):
    for path in stated:
        grey = Image.fromarray(np.asarray(Image.open(path)) * 5)
        grey.save(path)
    mask_files.expect_values(stated)
    grey.resize((40, 40), Image.Resampling.BILINEAR).save(stated[1])
    with pytest.raises(UserError, match="1.png: its edges look smoothed: between two values lie"):
        mask_files.expect_values(stated)


def test_real_masks_with_stated_values_are_accepted(shared):
    for folder in ("data/celebamask_hq/masks", "data/car_parts/test"):
        files = sorted(shared(folder).rglob("*.png"))
        mask_files.expect_values(files)
