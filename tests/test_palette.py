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
    pairs |= {(20, 21), (22, 23), (24, 25), (26, 27)}
    assert {(k, other) for k, other in enumerate(got) if k < other} == pairs
    assert [got[other] for other in got] == list(range(len(names)))
    assert palette.parse_classes("background\nleft ear\nnose", "classes.txt").mirrored == ()


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
