"""Masks as common tools write them are read without any setting, or refused with the way out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repgan_jax.data import mask_files, masks
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import Palette, default_colours, parse_classes

FACE = Path(__file__).parents[2] / "examples" / "face"
CLASSES = masks.read_classes(FACE / "classes.txt")
CELEBA = (
    *("background", "skin", "nose", "glasses", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear"),
    *("r_ear", "mouth", "u_lip", "l_lip", "hair", "hat", "earring", "necklace", "neck", "cloth"),
)


def _voc() -> np.ndarray:
    """Returns uint8 [256, 3]: the palette of PASCAL VOC, also labelme's and CVAT's."""
    bits = np.arange(256)[:, None] >> np.arange(8) & 1  # of an index, the lowest first
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= (bits[:, bit] << (7 - bit // 3)).astype(np.uint8)
    return colours


def _indexed(mask: np.ndarray, table: np.ndarray) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette(np.asarray(table, np.uint8).tobytes())
    return image


FOREIGN = np.random.default_rng(0).integers(0, 256, (256, 3))
ORDINARY = {  # rule, and the image of a mask
    "grey": ("ids", Image.fromarray),
    "16 bits": ("ids", lambda mask: Image.fromarray(mask.astype(np.uint16))),
    "equal channels": ("ids", lambda mask: Image.fromarray(mask).convert("RGB")),
    "grey as palette": ("ids", lambda mask: Image.fromarray(mask).convert("P")),
    "VOC, labelme": ("ids", lambda mask: _indexed(mask, _voc())),
    "palette of a data set": ("ids", lambda mask: _indexed(mask, FOREIGN)),
    "palette of the classes": ("ids", lambda mask: _indexed(mask, CLASSES.colours)),
    "colours": ("colours", lambda mask: Image.fromarray(CLASSES.colours[mask])),
    "with alpha": ("colours", lambda mask: Image.fromarray(CLASSES.colours[mask]).convert("RGBA")),
    "few colours": ("colours", lambda mask: Image.fromarray(CLASSES.colours[mask]).quantize(256)),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    """Returns three of the library's own masks, two of which lack a class."""
    paths = sorted((FACE / "masks").iterdir())[:3]
    found = {path.stem: np.asarray(Image.open(path)) for path in paths}
    found["partly"] = np.where(found[paths[0].stem] == 1, 2, found[paths[0].stem]).astype(np.uint8)
    return found


@pytest.mark.parametrize("form", ORDINARY)
def test_ordinary_masks_are_read(tmp_path, drawn, form):
    """Each by itself, and all as one set."""
    rule, encode = ORDINARY[form]
    for name, mask in drawn.items():
        encode(mask).save(tmp_path / f"{name}.png")
        reader = mask_files.choose_reader([tmp_path / f"{name}.png"], CLASSES)
        np.testing.assert_array_equal(reader.read(tmp_path / f"{name}.png").ids, mask)
    assert mask_files.choose_reader(sorted(tmp_path.iterdir()), CLASSES).rule == rule


def test_our_own_files_are_read_with_any_number_of_classes(tmp_path):
    mask, path = np.kron(np.arange(64).reshape(8, 8), np.ones((8, 8), int)), tmp_path / "mask.png"
    for count in (2, 3, 19, 64):
        palette = Palette(tuple(map(str, range(count))), default_colours(count))
        images.write_palette_png(path, mask % count, palette)
        np.testing.assert_array_equal(
            mask_files.choose_reader([path], palette).read(path).ids, mask % count
        )


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        # As programs do that number the colours they find, such as GIMP.
        (lambda mask: _indexed(mask, FOREIGN[:10]), "or set reading=ids"),
        # As CVAT exports, or anyone draws who has chosen colours of his own.
        (lambda mask: Image.fromarray(_voc()[mask]), "or state its own in the class list, as 'na"),
        # As Label Studio exports each class.
        (lambda mask: Image.fromarray((mask == 2).astype(np.uint8) * 255), "or set reading=ids"),
    ],
)
def test_what_is_refused_names_the_way_out(tmp_path, drawn, encode, message):
    path = tmp_path / "mask.png"
    mask = next(iter(drawn.values())).copy()
    mask[0, :10] = np.arange(10)  # all classes
    encode(mask).save(path)
    with pytest.raises(UserError, match=rf"\A[^\n]*mask.png: [^\n]*{message}[^\n]*\Z"):
        mask_files.choose_reader([path], CLASSES)


def test_a_palette_that_gives_indices_one_colour_says_less_than_they(tmp_path):
    """A palette that was lost, or too short, shows further classes as the background."""
    mask = np.kron([[0, 1, 2], [2, 0, 1]], np.ones((8, 8))).astype(np.uint8)
    palette = parse_classes("background #000000\nnose #e8743b\neyes #2a7fff", "test")
    _indexed(mask, [[0, 0, 0], [232, 116, 59], [0, 0, 0]]).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match="its palette gives one colour to the indices 0, 2; nor"):
        mask_files.choose_reader([tmp_path / "mask.png"], palette)


@pytest.mark.parametrize("others", [[], ["ids"], ["colours"], ["ids", "colours"]])
def test_grey_values_that_are_ids_and_colours_are_refused_in_any_set(tmp_path, others):
    """As an optimiser writes ids with a palette, or as grey values. No other file can tell."""
    palette = parse_classes("background #000000\na #a0a0a0\nb #505050\nc #010101", "test")
    mask = np.kron([[0, 1, 0], [1, 0, 1]], np.ones((8, 8))).astype(np.uint8)  # a, or c?
    every = np.kron([[0, 1, 2], [3, 0, 1]], np.ones((8, 8))).astype(np.uint8)
    for name in others:
        shown = every if name == "ids" else palette.colours[every]
        Image.fromarray(shown).save(tmp_path / f"{name}.png")
    table = [[1, 1, 1], [0, 0, 0]]
    for image in (Image.fromarray(mask), _indexed(1 - mask, table)):
        image.save(tmp_path / "mask.png")
        for paths in (sorted(tmp_path.iterdir()), sorted(tmp_path.iterdir(), reverse=True)):
            with pytest.raises(UserError, match="(mask|ids|colours).png: "):
                mask_files.choose_reader(paths, palette)
    with pytest.raises(UserError, match="mask.png: .* reading=colours"):
        mask_files.choose_reader([tmp_path / "mask.png"], palette)


def test_ids_that_are_spread_over_all_grey_values_are_no_colours(tmp_path):
    palette = parse_classes("background #000000\na #ff0000\nb #0000ff\nc #555555", "test")
    mask = np.kron([[0, 85, 0], [85, 0, 85]], np.ones((8, 8))).astype(np.uint8)  # c, or a of 255/3?
    Image.fromarray(mask).save(tmp_path / "mask.png")
    with pytest.raises(UserError, match="mask.png: 192 pixels mean one class by their colours and"):
        mask_files.choose_reader([tmp_path / "mask.png"], palette)
    reader = mask_files.choose_reader([tmp_path / "mask.png"], palette, "colours")
    np.testing.assert_array_equal(reader.read(tmp_path / "mask.png").ids, mask // 85 * 3)


def test_real_masks_of_faces_are_ids(shared):
    paths = sorted(shared("data/celebamask_hq/masks").glob("*.png"))[:20]
    palette = Palette(CELEBA, default_colours(len(CELEBA)))
    reader = mask_files.choose_reader(paths, palette)
    assert reader.rule == "ids"
    for path in paths:
        np.testing.assert_array_equal(reader.read(path).ids, np.asarray(Image.open(path)))
