"""Whose labels predict those of the others, and who is kept."""

import jax.numpy as jnp
import numpy as np
import pytest

from repgan_jax.inversion import agreement
from repgan_jax.palette import IGNORE

NAN = np.nan
CLASSES = 4


@pytest.fixture
def shots():
    """Returns (taps, masks) of four shots of 16 px in blocks of 4; activations tell the class."""
    rng = np.random.default_rng(0)
    blocks = np.array([rng.permutation(np.repeat(np.arange(CLASSES), 4)) for _ in range(4)])
    masks = blocks.reshape(4, 4, 4).repeat(4, 1).repeat(4, 2).astype(np.int32)
    seen = np.eye(CLASSES)[masks] @ rng.normal(size=(CLASSES, 12))
    fine = seen + 0.3 * rng.normal(size=seen.shape)
    return {"conv_01_16": jnp.asarray(fine, jnp.float32)}, masks


def off_diagonal(scores):
    return scores[~np.eye(len(scores), dtype=bool)]


def test_shots_whose_activations_tell_the_class_agree(shots):
    scores = agreement.pairwise(*shots, CLASSES)
    assert np.isnan(np.diagonal(scores)).all()
    assert off_diagonal(scores).min() > 0.9
    np.testing.assert_array_equal(scores, scores.T)


def test_order_and_repetition_change_nothing(shots):
    taps, masks = shots
    scores, order = agreement.pairwise(taps, masks, CLASSES), np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(agreement.pairwise(taps, masks, CLASSES), scores)
    turned = agreement.pairwise({k: x[order] for k, x in taps.items()}, masks[order], CLASSES)
    np.testing.assert_allclose(turned, scores[np.ix_(order, order)], atol=0.02)


@pytest.mark.parametrize("fault", ["mask", "latent"])
def test_a_shot_whose_mask_or_latent_is_wrong_agrees_with_none(shots, fault):
    taps, masks = shots
    if fault == "mask":
        masks[1] = (masks[1] + 1) % CLASSES
    else:
        taps = {k: x.at[1].set(x[1, :, ::-1].swapaxes(0, 1)) for k, x in taps.items()}
    scores = agreement.pairwise(taps, masks, CLASSES)
    others = [0, 2, 3]
    assert scores[1, others].max() < 0.4
    assert off_diagonal(scores[np.ix_(others, others)]).min() > 0.9
    found = agreement.judge(scores, [0.1] * 4, [False] * 4, 0.8)
    assert [one.kept for one in found] == [True, False, True, True]


def test_only_classes_that_both_show_are_compared(shots):
    taps, masks = shots
    masks[0][masks[0] == 3] = IGNORE  # its classifier never says 3
    masks[1][masks[1] != 3] = IGNORE
    scores = agreement.pairwise(taps, masks, CLASSES)
    assert np.isnan(scores[0, 1]) and scores[1, 2] == 1.0  # a class alone is always found
    assert scores[0, 2:].min() > 0.9


def scores_of(*pairs):
    """Returns the symmetric matrix of the pairs (0, 1), (0, 2), ..., (1, 2), ...."""
    count = round((1 + (1 + 8 * len(pairs)) ** 0.5) / 2)
    scores = np.full((count, count), NAN)
    scores[np.triu_indices(count, 1)] = pairs
    return np.where(np.isnan(scores), scores.T, scores)


@pytest.mark.parametrize(
    ("pairs", "far", "kept", "agreements"),
    [
        ([], [False], [True], [NAN]),  # alone: the distance decides
        ([], [True], [False], [NAN]),
        ([0.5], [True, True], [True, True], [0.5, 0.5]),  # they agree, however far
        ([0.3], [False, False], [True, True], [0.3, 0.3]),  # in between: the distance decides
        ([0.3], [False, True], [True, False], [NAN, 0.3]),
        ([0.1], [False, False], [True, False], [NAN, 0.1]),  # of two the farther goes ...
        ([0.1], [True, True], [False, False], [NAN, 0.1]),  # ... and then the other is alone
        # 2 agrees with neither: 0 and 1 have no more to suffer by it once it is gone
        ([0.5, 0.1, 0.1], [True, True, False], [True, True, False], [0.5, 0.5, 0.1]),
        ([0.4, NAN, NAN], [True, True, True], [True, True, False], [0.4, 0.4, NAN]),
        # 3 and 4, both wrong in the same way, outvote nobody
        (
            [0.6, 0.6, 0.1, 0.1, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1],
            [False] * 5,
            [True, True, True, False, False],
            [0.6, 0.6, 0.6, 0.1, 0.1],
        ),
    ],
)
def test_who_is_kept(pairs, far, kept, agreements):
    distances = np.linspace(0.1, 0.3, len(far))
    found = agreement.judge(scores_of(*pairs), distances, far, 0.4)
    assert [one.kept for one in found] == kept
    np.testing.assert_allclose([one.agreement for one in found], agreements)


def test_a_limit_of_zero_keeps_all_that_can_be_compared():
    found = agreement.judge(scores_of(0.0, 0.0, 0.0), [9, 9, 9], [True] * 3, 0.0)
    assert all(one.kept for one in found)
