"""Scores equal those of a slow loop written from the definitions."""

import json

import numpy as np
import pytest

from repgan_jax import metrics

NAMES = ("background", "nose", "eyes", "hat")


def _pictures() -> tuple[np.ndarray, np.ndarray]:
    """Returns truth and guess [5, 7, 9] with ignored pixels and classes that come and go."""
    rng = np.random.default_rng(4)
    truth = rng.choice([0, 1, 2, 255], size=(5, 7, 9), p=[0.5, 0.3, 0.1, 0.1])
    guess = np.where(rng.random(truth.shape) < 0.7, truth % 255, rng.integers(0, 3, truth.shape))
    truth[1] = 0  # nothing but background
    truth[2][truth[2] == 2] = 1  # no eyes
    guess[3][guess[3] == 1] = 0  # the nose is missed
    truth[4] = 255  # nothing counts
    return truth, guess


def _sets(truth: np.ndarray, guess: np.ndarray, k: int) -> tuple[int, int, int]:
    """Returns intersection, union and true pixels of class k, pixel by pixel."""
    both = either = true = 0
    for t, g in zip(truth.ravel(), guess.ravel(), strict=True):
        if t != 255:
            both += t == k and g == k
            either += t == k or g == k
            true += t == k
    return both, either, true


def _slow(truth: np.ndarray, guess: np.ndarray, classes: range, *, present: bool) -> dict:
    """Returns the scores of one set of pixels; `present` leaves out classes that truth lacks."""
    sets = {k: _sets(truth, guess, k) for k in classes}
    ious = {k: b / e for k, (b, e, t) in sets.items() if e and (t or not present)}
    total = sum(t for _, _, t in sets.values())
    weighted = sum(t / total * sets[k][0] / sets[k][1] for k, (_, _, t) in sets.items() if t)
    return {
        "iou": ious,
        "mean": sum(ious.values()) / len(ious) if ious else None,
        "weighted": weighted if total else None,
    }


def _mean(values) -> float:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined)


@pytest.fixture(name="scores")
def _scores() -> dict:
    counts = [metrics.confusion(t, g, 4) for t, g in zip(*_pictures(), strict=True)]
    return metrics.summary(np.stack(counts), NAMES)


def test_confusion_counts_every_pixel_once():
    truth, guess = _pictures()
    expected = np.zeros((4, 4), int)
    for t, g in zip(truth.ravel(), guess.ravel(), strict=True):
        if t != 255:
            expected[t, g] += 1
    got = metrics.confusion(truth, guess, 4)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, expected)
    parts = [metrics.confusion(t, g, 4) for t, g in zip(truth, guess, strict=True)]
    np.testing.assert_array_equal(np.sum(parts, axis=0), got)


def test_confusion_refuses_what_would_be_counted_elsewhere():
    with pytest.raises(ValueError, match="differ in shape"):
        metrics.confusion(np.zeros((2, 3)), np.zeros((3, 2)), 4)
    with pytest.raises(ValueError, match=r"ids 0\.\.4; expected 0\.\.3"):
        metrics.confusion(np.array([0, 1]), np.array([0, 4]), 4)


def test_pooled_scores(scores):
    truth, guess = _pictures()
    whole = _slow(truth, guess, range(4), present=False)
    parts = _slow(truth, guess, range(1, 4), present=False)
    got = scores["pooled"]
    assert got["iou"]["hat"] is None  # in neither
    for k, value in whole["iou"].items():
        assert got["iou"][NAMES[k]] == pytest.approx(value)
    assert got["mean_iou"] == pytest.approx(whole["mean"])
    assert got["mean_iou_without_background"] == pytest.approx(parts["mean"])
    assert got["weighted_iou"] == pytest.approx(whole["weighted"])
    assert got["weighted_iou_without_background"] == pytest.approx(parts["weighted"])
    counted = truth != 255
    assert got["pixel_accuracy"] == pytest.approx((truth == guess)[counted].mean())


def test_scores_per_picture(scores):
    truth, guess = _pictures()
    pairs = list(zip(truth, guess, strict=True))
    whole = [_slow(t, g, range(4), present=True) for t, g in pairs]
    parts = [_slow(t, g, range(1, 4), present=True) for t, g in pairs]
    got = scores["per_picture"]
    for k, name in enumerate(NAMES[:3]):
        assert got["iou"][name] == pytest.approx(_mean(one["iou"].get(k) for one in whole))
    assert got["iou"]["hat"] is None
    assert got["mean_iou"] == pytest.approx(_mean(one["mean"] for one in whole))
    assert got["mean_iou_without_background"] == pytest.approx(_mean(one["mean"] for one in parts))
    assert got["weighted_iou"] == pytest.approx(_mean(one["weighted"] for one in whole))
    assert got["weighted_iou_without_background"] == pytest.approx(
        _mean(one["weighted"] for one in parts)
    )
    accuracies = [(t == g)[t != 255].mean() for t, g in pairs[:4]]
    assert got["pixel_accuracy"] == pytest.approx(np.mean(accuracies))


def test_the_conventions_differ_in_what_they_average():
    # A class that is only guessed costs the pooled mean; a picture without it does not see it.
    counts = np.array([[[6, 2], [0, 0]]])
    got = metrics.summary(counts, ("background", "nose"))
    assert got["pooled"]["mean_iou"] == pytest.approx((6 / 8 + 0) / 2)
    assert got["per_picture"]["mean_iou"] == pytest.approx(6 / 8)
    assert got["per_picture"]["mean_iou_without_background"] is None


def test_counts_beyond_32_bits_keep_every_pixel():
    counts = np.array([[[2**40, 1], [1, 2**40]]])
    assert metrics.iou(counts)[0, 0] == 2**40 / (2**40 + 2)


def test_summary_is_json_and_a_table(scores):
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    lines = metrics.format_table(scores).splitlines()
    assert len({len(line) for line in lines}) == 1  # columns line up
    assert lines[0].split() == ["IoU,", "%", "pooled", "per", "picture"]
    assert lines[4].split() == ["hat", "-", "-"]
    assert lines[5].split()[-2] == f"{100 * scores['pooled']['mean_iou']:.1f}"
