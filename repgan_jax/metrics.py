"""Confusion counts, and what is read from them at the end.

Two conventions stand side by side and are never mixed. "pooled" adds the counts of all pictures
and divides once. "per_picture" divides in every picture, averages there over the classes present
in the truth, and then over pictures. Counts are [K, K], row = truth, column = guess; they add.
"""

from collections.abc import Sequence

import numpy as np

from repgan_jax.palette import IGNORE


def confusion(truth: np.ndarray, guess: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns int64 counts [K, K] of two equal arrays of ids; pixels with truth 255 are left out.

    Raises:
        ValueError: shapes differ, or an id is not in 0..K-1.
    """
    truth, guess = np.asarray(truth), np.asarray(guess)
    if truth.shape != guess.shape:
        raise ValueError(f"truth {truth.shape} and guess {guess.shape} differ in shape")
    counted = truth != IGNORE
    truth, guess = truth[counted].astype(np.int64), guess[counted].astype(np.int64)
    for ids in (truth, guess):
        if ids.size and not 0 <= ids.min() <= ids.max() < num_classes:
            raise ValueError(f"ids {ids.min()}..{ids.max()}; expected 0..{num_classes - 1}")
    cells = np.bincount(truth * num_classes + guess, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def iou(counts: np.ndarray) -> np.ndarray:
    """Returns float [..., K]: intersection over union, nan where truth and guess lack a class."""
    counts = np.asarray(counts)
    both = np.diagonal(counts, axis1=-2, axis2=-1)
    either = counts.sum(-1) + counts.sum(-2) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def summary(counts: np.ndarray, names: Sequence[str]) -> dict:
    """Returns the scores of pictures with counts [P, K, K], under both conventions.

    Class 0 is the background. A weighted IoU weighs each class by its share of the true pixels
    (of those that are not background, where it is left out). In "pooled" a mean runs over the
    classes that truth or guess have; in "per_picture", over those in the picture's truth, and
    `iou` over the pictures whose truth has the class. Scores that nothing defines are None.
    """
    counts = np.asarray(counts)
    return {
        "pooled": _scores(counts.sum(0)[None], names, pooled=True),
        "per_picture": _scores(counts, names, pooled=False),
    }


def format_table(scores: dict) -> str:
    """Returns `summary` as text: a row a class and a score, a column a convention, in percent."""
    pooled, single = scores["pooled"], scores["per_picture"]
    rows = [(name, pooled["iou"][name], single["iou"][name]) for name in pooled["iou"]]
    rows += [(key.replace("_", " "), pooled[key], single[key]) for key in pooled if key != "iou"]
    width = max(len(row[0]) for row in rows)
    lines = [f"{'IoU, %':{width}}  {'pooled':>11}  per picture"]
    lines += [f"{name:{width}}  {_percent(a):>11}  {_percent(b):>11}" for name, a, b in rows]
    return "\n".join(lines)


def _scores(counts: np.ndarray, names: Sequence[str], *, pooled: bool) -> dict:
    """Returns the scores of counts [P, K, K], each a mean over the P pictures that define it."""
    true = counts.sum(-1)  # [P, K]
    values = iou(counts)  # [P, K]
    if not pooled:
        values = np.where(true > 0, values, np.nan)
    correct = np.diagonal(counts, axis1=-2, axis2=-1).sum(-1)
    by_class = (_mean(column) for column in values.T)
    return {
        "iou": dict(zip(names, by_class, strict=True)),
        "mean_iou": _mean([_mean(row) for row in values]),
        "mean_iou_without_background": _mean([_mean(row[1:]) for row in values]),
        "weighted_iou": _mean(_weighted(values, true)),
        "weighted_iou_without_background": _mean(_weighted(values[:, 1:], true[:, 1:])),
        "pixel_accuracy": _mean(_ratio(correct, true.sum(-1))),
    }


def _weighted(values: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Returns [P]: IoU [P, K] weighted by the share of true pixels [P, K]."""
    return _ratio((np.nan_to_num(values) * true).sum(-1), true.sum(-1))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: Sequence[float | None] | np.ndarray) -> float | None:
    """Returns the mean of what is defined (neither nan nor None), or None."""
    defined = np.array(values, float)
    defined = defined[~np.isnan(defined)]
    return float(defined.mean()) if defined.size else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
