"""A segmenter against the true masks of photos."""

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from repgan_jax import metrics
from repgan_jax.data import celebamask, mask_files
from repgan_jax.data.mask_sizes import resize_mask
from repgan_jax.errors import UserError
from repgan_jax.io import images
from repgan_jax.palette import IGNORE, Palette
from repgan_jax.segmenter import Segmenter, as_photos

Pair = tuple[str, Any, Any]  # name, photo, mask: paths or arrays


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


@dataclasses.dataclass(frozen=True)
class MaskOptions:
    """How true masks are read.

    Attributes:
        layout: "fused": one mask per photo; "celebamask": one file {id}_{part}.png per part.
        class_map: id in the masks (as text), or part name -> class name; empty = ids of the
            segmenter's classes.
        merge_order: part names, each painted over those before it ("celebamask").
        reading: of mask files without a `class_map`: "ids", "colours", or "auto" = whichever of
            them is certain.
        background: class of pixels that no part covers ("celebamask"); "" = by its name.
    """

    layout: str = "fused"
    class_map: Mapping[str, str] = dataclasses.field(default_factory=dict)
    merge_order: Sequence[str] = ()
    reading: str = "auto"
    background: str = ""

    def check(self) -> None:
        """Raises UserError for options that do not fit each other."""
        for name, choices in (("layout", celebamask.LAYOUTS), ("reading", mask_files.RULES)):
            if (value := getattr(self, name)) not in choices:
                raise UserError(f"{name}: {value!r}, expected one of {', '.join(choices)}")
        if self.layout == "celebamask" and not self.merge_order:
            raise UserError(
                "merge_order: empty, expected the part names in the order in which they are "
                "painted over each other"
            )
        if self.class_map and self.layout == "fused" and self.reading == "colours":
            raise UserError(
                "reading: 'colours', but class_map translates ids; expected 'ids' or 'auto', or an "
                "empty class_map"
            )


class LabelledPhotos(Sequence[tuple[np.ndarray, np.ndarray]]):
    """Photos uint8 [S, S, 3] with their true ids int32 [S, S], read when they are asked for."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        palette: Palette,
        options: MaskOptions,
        *,
        size: int,
        setting: str = "reading",
    ) -> None:
        """Finds out how the mask files are read.

        Args:
            pairs: (name, photo, mask) of each; photos are paths, arrays or PIL images; masks are
                paths, see `celebamask.find_pairs`, or arrays of ids.
            palette: the classes.
            options: of the masks.
            size: S, side length in pixels at which photo and truth are compared.
            setting: what errors call `options.reading`.

        Raises:
            UserError: options that do not fit; mask files that are neither ids nor colours for
                certain, see `mask_files.choose_reader`.
        """
        options.check()
        if size < 1:
            raise UserError(f"size: {size}, expected at least 1")
        self.palette, self.size = palette, size
        self.names = tuple(name for name, _, _ in pairs)
        self._pairs, self._options, self._reader = pairs, options, None
        files = [mask for _, _, mask in pairs if _is_path(mask)]
        if files and options.layout == "fused" and not options.class_map:
            self._reader = mask_files.choose_reader(
                files, palette, options.reading, setting=setting
            )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns (photo uint8 [S, S, 3], truth int32 [S, S]).

        Raises:
            UserError: a photo or mask that cannot be read; other proportions; unknown ids.
        """
        name, photo, mask = self._pairs[index]
        image = images.read_photo(photo) if _is_path(photo) else _as_photo(photo, name)
        truth = self._read_mask(mask, name)
        (height, width, _), (rows, columns) = image.shape, truth.shape
        if height * columns != width * rows:
            source = mask if _is_path(mask) else f"masks[{name}]"
            raise UserError(
                f"{source}: true mask of {columns}x{rows} pixels (width x height) for a photo of "
                f"{width}x{height}; expected the same proportions"
            )
        return (
            images.resize_area(image, self.size),
            resize_mask(truth, self.size, self.palette.num_classes),
        )

    def describe(self, counts: np.ndarray) -> str:
        """Returns how the masks with confusion counts [P, K, K] were read, and what they show."""
        if self._options.layout == "celebamask":
            rule = "one file per part"
        else:
            rule = self._reader.rule if self._reader else "ids"
        unknown = mask_files.describe_unknown(self._reader.unknown) if self._reader else ""
        shown = zip(self.palette.names, (counts.sum(-1) > 0).sum(0), strict=True)
        ignored = 1 - counts.sum() / (len(counts) * self.size**2)
        return (
            f"{len(counts)} masks read as {rule}: "
            f"{', '.join(f'{name} in {n}' for name, n in shown if n)}; {ignored:.1%} ignored"
            + unknown
        )

    def _read_mask(self, mask: Any, name: str) -> np.ndarray:
        """Returns the true ids int32 [H, W]."""
        options = self._options
        if not _is_path(mask):
            return _as_ids(mask, f"masks[{name}]", options, self.palette)
        return celebamask.read_truth(
            mask,
            options.layout,
            options.class_map,
            options.merge_order,
            self.palette,
            reader=self._reader,
            background=options.background,
        )


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
    if _is_path(photos) != _is_path(masks):
        one, other = ("a folder", "a sequence") if _is_path(photos) else ("a sequence", "a folder")
        raise UserError(f"masks: {other}, but photos are {one}; expected the same for both")
    if _is_path(photos):
        return list(celebamask.find_pairs(photos, masks, layout))
    if len(photos) != len(masks) or not len(photos):
        raise UserError(
            f"masks: {len(masks)} for {len(photos)} photos; expected one or more photos, and one "
            "mask for each"
        )
    names = (os.fspath(x) if _is_path(x) else str(i) for i, x in enumerate(photos))
    return list(zip(names, photos, masks, strict=True))


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def _as_photo(photo: Any, name: str) -> np.ndarray:
    """Returns uint8 [H, W, 3] of an array or a PIL image."""
    array = as_photos(photo, f"photos[{name}]")
    if array.ndim != 3:
        raise UserError(f"photos[{name}]: uint8 {list(array.shape)}, expected [H, W, 3]")
    return array


def _as_ids(mask: Any, source: str, options: MaskOptions, palette: Palette) -> np.ndarray:
    """Returns the int32 ids [H, W] that the array `mask` holds, or that it stands for."""
    values = np.asarray(mask)
    if values.ndim != 2 or values.dtype.kind not in "iub":
        raise UserError(
            f"{source}: {values.dtype} {list(values.shape)}, expected integer ids [H, W]"
        )
    values = values.astype(np.int64)
    if options.layout != "fused":
        raise UserError(f"{source}: an array; expected paths for layout={options.layout!r}")
    if options.class_map:
        return celebamask.translate(values, options.class_map, palette, source)
    known = values[values != IGNORE]
    if known.size and not 0 <= known.min() <= known.max() < palette.num_classes:
        raise UserError(
            f"{source}: ids {known.min()} to {known.max()}, expected 0 to "
            f"{palette.num_classes - 1}, or {IGNORE} = ignore"
        )
    return values.astype(np.int32)
