"""Left and right: stated, guessed only where certain, and contradicted by masks."""

import numpy as np
import pytest

from repgan_jax import sides
from repgan_jax.errors import UserError


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("left ear", "right ear"),
        ("Left Eye", "right eye"),
        ("lefteye", "righteye"),
        ("LEFT_LEG", "right-leg"),
        ("leftHand", "RightHand"),
        ("earLeft", "earRight"),
        ("upperleft", "upperright"),
        ("bright left", "bright right"),
        ("left arm, left hand", "right arm, right hand"),
        ("l_eye", "r_eye"),
        ("lipL", "lipR"),
        ("lKnee", "rKnee"),
        ("wheel_l2", "wheel_r2"),
        ("l", "r"),
        ("cara izquierda", "cara derecha"),
        ("ojo izquierdo", "ojo derecho"),
        ("olho_esquerdo", "olho_direito"),
        ("oreille gauche", "oreille droite"),
        ("œil gauche", "œil droit"),
        ("occhio sinistro", "occhio destro"),
        ("linkes Auge", "rechtes Auge"),
        ("augeLinks", "augeRechts"),
        ("Левый глаз", "Правый глаз"),
        ("左眼", "右眼"),
    ],
)
def test_names_that_differ_by_the_side_alone_are_a_pair(one, other):
    assert sides.guess_pairs(("background", one, "nose", other)) == ((1, 3),)
    assert sides.guess_pairs((other, "nose", one)) == ((0, 2),)


@pytest.mark.parametrize(
    "names",
    [
        ("left ear", "nose"),
        ("left ear", "right eye"),
        ("left ear 1", "right ear 2"),
        ("LF", "RF"),  # may stand for anything
        ("leye", "reye"),
        ("LEG", "REG"),
        ("l_lip", "u_lip"),
        ("clear", "crear"),
        ("bright ear", "bleft ear x"),
        ("left eye", "LEFT_EYE", "right eye"),  # which of the two?
        ("œil gauche", "œil droit", "œil droite"),
    ],
)
def test_nothing_is_guessed_where_it_is_not_certain(names):
    assert sides.guess_pairs(names) == ()


def test_several_sides_in_a_name():
    names = [f"{a} eye {b} corner" for a in ("left", "right") for b in ("left", "right")]
    assert sides.guess_pairs(names) == ((0, 3), (1, 2))


NAMES = ("background", "alpha", "beta", "gamma")


def test_pairs_are_read_in_any_order_and_spacing():
    lines = [("here", "gamma<->background"), ("there", "beta   <->   alpha")]
    assert sides.parse_pairs(lines, NAMES) == ((0, 3), (1, 2))
    assert sides.parse_pairs([("here", "none")], NAMES) == ()
    assert sides.parse_pairs([("here", "<->")], NAMES) == ()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["alpha <-> delta"], "f, line 9: no class is named 'delta'; the classes are background, "),
        (["alpha <-> alpha"], "f, line 9: 'alpha' is paired with itself; "),
        (["alpha <->"], "f, line 9: no class is named ''; "),
        (["alpha <-> beta <-> gamma"], "f, line 9: 'alpha <-> beta <-> gamma'; expected 'NAME"),
        (["alpha <-> beta", "beta <-> alpha"], "f, line 10: 'beta' is paired with 'alpha' already"),
        (["alpha <-> beta", "gamma <-> beta"], "f, line 10: 'beta' is paired with 'alpha' already"),
        (["<->", "alpha <-> beta"], "f, line 9: pairs beside one that says that there are none"),
    ],
)
def test_bad_pairs_are_refused_in_one_line(lines, message):
    with pytest.raises(UserError) as error:
        sides.parse_pairs([(f"f, line {9 + i}", line) for i, line in enumerate(lines)], NAMES)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def _mask(**columns):
    """Returns ids [2, 40] with class 1, 2, ... in the given columns; the centre line is at 20."""
    mask = np.zeros((2, 40), np.int32)
    for k, (start, stop) in enumerate(columns.values(), 1):
        mask[:, start:stop] = k
    return mask


def test_three_masks_on_one_side_are_evidence_and_fewer_are_a_warning():
    masks = np.stack([_mask(a=(2 + i, 12 + i), b=(18, 22), c=(30, 36)) for i in range(4)])
    for count in (1, 2, 3, 4):
        found = sides.find_one_sided(masks[:count], (), 4)
        assert [(one.k, one.side, one.shots) for one in found] == [
            (1, "left", count),
            (3, "right", count),
        ]
        assert all(one.is_certain == (count >= 3) for one in found)
    assert sides.find_one_sided(masks, ((1, 3),), 4) == ()
    assert [one.k for one in sides.find_one_sided(masks, ((2, 3),), 4)] == [1]


@pytest.mark.parametrize(
    ("starts", "certain", "warned"),
    [
        ((4, 4, 4, 30), False, False),  # on both sides
        ((4, 4, 4, 16), True, False),  # in the middle as well
        ((4, 4, 16, 16), False, False),  # chance
        ((4, 16), False, False),
        ((4, 4), False, True),
        # ten columns from `start`: the centroid is 4, a tenth of the width, from the centre at 11
        ((11, 11, 11), False, False),
        ((10, 10, 10), True, False),
        ((19, 19, 19), False, False),
        ((20, 20, 20), True, False),
    ],
)
def test_a_side_is_more_than_a_tenth_of_the_width_from_the_centre(starts, certain, warned):
    found = sides.find_one_sided(np.stack([_mask(a=(s, s + 10)) for s in starts]), (), 2)
    assert [one.is_certain for one in found] == [certain] * (certain or warned)


def test_what_is_not_shown_or_ignored_has_no_side():
    masks = np.stack([_mask(a=(2, 12))] * 3)
    masks[2][masks[2] == 1] = 255
    (one,) = sides.find_one_sided(masks, (), 3)
    assert (one.k, one.shots, one.is_certain) == (1, 2, False)
    assert sides.find_one_sided(np.zeros((3, 2, 40), np.int32), (), 3) == ()


def test_the_background_has_no_side():
    masks = np.stack([_mask(a=(0, 40))] * 3)
    masks[:, :, :5] = 0
    assert sides.find_one_sided(masks, (), 2) == ()
