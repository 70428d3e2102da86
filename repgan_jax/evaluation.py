"""A segmenter against the true masks of photos."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from repgan_jax import metrics
from repgan_jax.data import celebamask
from repgan_jax.data.labelled_photos import LabelledPhotos, MaskOptions, Pair, is_path
from repgan_jax.errors import UserError
from repgan_jax.segmenter import Segmenter


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """Scores of a segmenter on P photos, under two conventions that are never mixed.

    `pooled` and `per_image` have the same keys: "iou" ({class name: intersection over union}),
    "mean_iou", "mean_iou_without_background", "weighted_iou" (by the classes' shares of the true
    pixels), "weighted_iou_without_background" and "pixel_accuracy". Scores are between 0 and 1, or
    None where nothing defines them. Class 0 is the background.

    Attributes:
        pooled: of the confusion counts of all photos, added; a mean runs over the classes that
            truth or prediction have.
        per_image: means over the photos of the scores of each; a mean runs over the classes in the
            photo's truth, and "iou" over the photos whose truth has the class.
        counts: int64 [P, K, K], confusion of each photo in pixels; row = truth, column =
            prediction. Pixels with truth 255 are not counted.
        names: P names of the photos.
        class_names: K names.
        notes: one line that says how the masks were read, and what they show.
    """

    pooled: dict[str, Any]
    per_image: dict[str, Any]
    counts: np.ndarray
    names: tuple[str, ...]
    class_names: tuple[str, ...]
    notes: str

    def __repr__(self) -> str:
        means = (scores["mean_iou"] for scores in (self.pooled, self.per_image))
        pooled, single = ("none" if mean is None else f"{mean:.3f}" for mean in means)
        return (
            f"Evaluation({len(self.names)} photos, {len(self.class_names)} classes, mean IoU "
            f"{pooled} pooled, {single} per image)"
        )

    def table(self) -> str:
        """Returns the scores as text: one row per class and score, one column per convention."""
        return metrics.format_table({"pooled": self.pooled, "per_picture": self.per_image})


def evaluate(
    segmenter: Segmenter,
    photos: str | os.PathLike[str] | Sequence[Any] | np.ndarray,
    masks: str | os.PathLike[str] | Sequence[Any] | np.ndarray,
    *,
    layout: str = "fused",
    class_map: Mapping[Any, str] | None = None,
    merge_order: Sequence[str] = (),
    reading: str = "auto",
    background: str = "",
    size: int = 512,
    batch_size: int = 8,
    progress: bool = True,
) -> Evaluation:
    """Returns the scores of predictions for `photos` [H, W, 3] against true `masks` [H, W].

    Photos are resized to squares of `size` pixels, and so are their masks, in which ids are
    chosen by majority. Predictions are compared at that size.

    Args:
        segmenter: of the predictions.
        photos: a folder, its subfolders included; or a sequence of files, of uint8 arrays
            [H, W, 3], or of PIL images.
        masks: a folder that mirrors that of the photos; or a sequence of as many files or of
            arrays of ids [H, W], 255 = ignore. With `layout` "celebamask": a folder of
            {id}_{part}.png, or paths up to the underscore.
        layout: "fused" = one mask per photo, or "celebamask" = one file per part.
        class_map: {id in the masks, or part name: class name}; None = ids of the segmenter's
            classes, or their colours.
        merge_order: part names, each painted over those before it ("celebamask").
        reading: of mask files without a `class_map`: "ids", "colours", or "auto" = whichever of
            them is certain.
        background: name of the class of pixels that no part covers ("celebamask"); "" = the class
            whose name says so.
        size: side length in pixels at which predictions and masks are compared.
        batch_size: photos per call of the segmenter; changes no score.
        progress: whether a progress bar is shown.

    Raises:
        UserError: photos and masks that do not fit each other; masks whose meaning is not certain;
            ids or parts that `class_map` does not name.
    """
    names = {str(source): name for source, name in (class_map or {}).items()}
    options = MaskOptions(layout, names, merge_order, reading, background)
    options.check()
    pairs = _pair(photos, masks, layout)
    labelled = LabelledPhotos(pairs, segmenter.palette, options, size=size)
    return compare(segmenter, labelled, batch_size=batch_size, progress=progress)


def compare(
    segmenter: Segmenter, photos: LabelledPhotos, *, batch_size: int = 8, progress: bool = True
) -> Evaluation:
    """Returns the scores of predictions for `photos`; see `evaluate`."""
    if batch_size < 1:
        raise UserError(f"batch_size: {batch_size}, expected at least 1")
    found: list[np.ndarray] = []
    with tqdm(total=len(photos), desc="evaluate", unit="photo", disable=not progress) as bar:
        for batch in _batches(photos, batch_size):
            predictions = segmenter.predict(np.stack([photo for photo, _ in batch]))
            for (_, truth), prediction in zip(batch, predictions, strict=True):
                found.append(metrics.confusion(truth, prediction, segmenter.palette.num_classes))
            bar.update(len(batch))
    counts = np.stack(found)
    scores = metrics.summary(counts, segmenter.class_names)
    return Evaluation(
        scores["pooled"],
        scores["per_picture"],
        counts,
        photos.names,
        segmenter.class_names,
        photos.describe(counts),
    )


def _batches(photos: LabelledPhotos, size: int) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    for start in range(0, len(photos), size):
        yield [photos[i] for i in range(start, min(start + size, len(photos)))]


def _pair(photos: Any, masks: Any, layout: str) -> list[Pair]:
    """Returns (name, photo, mask) of each photo; see `evaluate`."""
    if is_path(photos) != is_path(masks):
        one, other = ("a folder", "a sequence") if is_path(photos) else ("a sequence", "a folder")
        raise UserError(f"masks: {other}, but photos are {one}; expected the same for both")
    if is_path(photos):
        return list(celebamask.find_pairs(photos, masks, layout))
    if len(photos) != len(masks) or not len(photos):
        raise UserError(
            f"masks: {len(masks)} for {len(photos)} photos; expected one or more photos, and one "
            "mask for each"
        )
    names = (os.fspath(x) if is_path(x) else str(i) for i, x in enumerate(photos))
    return list(zip(names, photos, masks, strict=True))
