"""Class lists are read as written, and colours tell classes apart."""

import numpy as np
import pytest

from repgan_jax import palette
from repgan_jax.errors import UserError


def test_names_and_colours_come_in_the_order_of_the_lines():
    got = palette.parse_classes("background\nleft wheel #ff8000\r\nwindow\n\n", "classes.txt")
    assert got.names == ("background", "left wheel", "window")
    assert got.num_classes == 3 and got.index("window") == 2
    expected = palette.default_colours(3)
    expected[1] = (255, 128, 0)
    np.testing.assert_array_equal(got.colours, expected)


def test_left_and_right_trade_places_in_a_mirrored_picture():
    names = ("background", "left ear", "l_eye", "nose", "right ear", "r_eye", "Left", "wheel R")
    names += ("Right", "wheel L", "clear", "left wing", "bright ear", "r")
    names += ("LEFT_LEG", "RIGHT_LEG", "wheel_l2", "wheel_r2", "l10", "r10")
    names += ("leftHand", "rightHand", "footL", "footR", "lKnee", "rKnee", "armLeft", "armRight")
    names += ("LEG", "REG", "upperleft", "upperright")
    got = palette.parse_classes("\n".join(names), "classes.txt").mirrored
    pairs = {(1, 4), (2, 5), (6, 8), (7, 9), (14, 15), (16, 17), (18, 19)}
    pairs |= {(20, 21), (22, 23), (24, 25), (26, 27), (30, 31)}
    assert {(k, other) for k, other in enumerate(got) if k < other} == pairs
    assert [got[other] for other in got] == list(range(len(names)))
    assert palette.parse_classes("background\nleft ear\nnose", "classes.txt").mirrored == ()


FACE = "background\nalpha\nbeta\nleft ear\nright ear\n"


@pytest.mark.parametrize(
    ("lines", "stated", "mirrored"),
    [
        ("", None, (0, 1, 2, 4, 3)),  # guessed
        ("alpha <-> beta\n", ((1, 2),), (0, 2, 1, 3, 4)),  # what is stated is complete
        ("\n  beta<->alpha\r\nright ear <-> left ear", ((1, 2), (3, 4)), (0, 2, 1, 4, 3)),
        ("<->", (), ()),
    ],
)
def test_pairs_after_the_classes(lines, stated, mirrored):
    got = palette.parse_classes(FACE + lines, "c.txt")
    assert got.names == ("background", "alpha", "beta", "left ear", "right ear")
    assert got.stated == stated and got.mirrored == mirrored


def test_pairs_in_the_config_win_over_those_in_the_file():
    classes = palette.parse_classes(FACE + "left ear <-> right ear", "c.txt")
    assert classes.with_pairs("", "config.mirror_pairs") is classes
    assert classes.with_pairs("none", "config.mirror_pairs").mirrored == ()
    got = classes.with_pairs("alpha <-> beta, left ear<->right ear", "config.mirror_pairs")
    assert got.mirrored == (0, 2, 1, 4, 3)
    with pytest.raises(UserError, match="^config.mirror_pairs: no class is named 'eye'; the "):
        classes.with_pairs("alpha <-> eye", "config.mirror_pairs")


@pytest.mark.parametrize("lines", ["", "alpha <-> beta", "<->"])
def test_what_is_stored_no_longer_depends_on_guesses(lines):
    classes = palette.parse_classes(FACE + lines, "c.txt")
    stored = classes.to_json()
    again = palette.Palette.from_json(stored)
    assert again.mirrored == classes.mirrored and again.stated == classes.pairs
    del stored["pairs"]  # as earlier versions wrote it
    assert palette.Palette.from_json(stored).mirrored == (0, 1, 2, 4, 3)


def test_default_colours_start_black_and_stay_apart():
    colours = palette.default_colours(255).astype(int)
    assert colours.shape == (255, 3) and not colours[0].any()
    assert len(np.unique(colours, axis=0)) == 255
    np.testing.assert_array_equal(palette.default_colours(20), colours[:20])
    distance = np.abs(colours[:20, None] - colours[None, :20]).sum(-1)
    assert distance[~np.eye(20, dtype=bool)].min() > 40  # of 3 x 255: told apart by eye


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.txt: 0 classes; expected 2 to 255"),
        ("background", "c.txt: 1 classes; expected 2 to 255"),
        ("\n".join(f"part{i}" for i in range(256)), "c.txt: 256 classes; expected 2 to 255"),
        ("background\n\nnose", "c.txt, line 2: no name"),
        ("background\n#ff0000", "c.txt, line 2: no name"),
        ("background\nnose #ff00", "c.txt, line 2: '#ff00' is no colour; expected #rrggbb"),
        ("background <-> nose", "c.txt: 0 classes; expected 2 to 255"),
        ("background\nnose\nnose <-> hat", "c.txt, line 3: no class is named 'hat'; the classes"),
        ("a\nb\nc\n\na <-> b\nb <-> c", "c.txt, line 6: 'b' is paired with 'a' already"),
        ("a\nb\na <-> b\nc", "c.txt, line 4: 'c' after pairs of classes; expected all classes"),
        ("background\nnose\nnose", "c.txt, line 3: class 'nose' is there twice"),
        ("background\na #ff0000\nb #FF0000", "c.txt: another class has the colour of 'a'"),
    ],
)
def test_bad_lists_are_refused_in_one_line(text, message):
    with pytest.raises(UserError) as error:
        palette.parse_classes(text, "c.txt")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_unknown_class_names_the_known_ones():
    classes = palette.parse_classes("background\nnose", "c.txt")
    with pytest.raises(
        UserError, match="no class is named 'hat'; the classes are background, nose"
    ):
        classes.index("hat")
