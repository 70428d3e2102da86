"""Stage `evaluate`: the stand-alone network against the true masks of photos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax import labeller, metrics
from repgan_jax.data import celebamask, mask_files, masks
from repgan_jax.errors import UserError
from repgan_jax.io import checkpoint, files, images, listing
from repgan_jax.palette import Palette
from repgan_jax.segmenter import Segmenter, load_segmenter
from repgan_jax.stages import common, fingerprints

FIELDS = ("evaluate",)
_BATCH = 8  # photos at a time: what it saves is overhead, what it costs is memory
_EXAMPLES = (("best", 0.0), ("median", 0.5), ("worst", 1.0))  # rank, quantile of the order


def check(config: ConfigDict) -> None:
    """Raises UserError for photos without masks, and where the first does not fit the classes.

    These are the classes of the shots, where the network is still to be trained.
    """
    options = config.evaluate
    common.expect_positive(config, "evaluate.size")
    common.expect_one_of(config, "evaluate.split", ("test", "validation"))
    common.expect_one_of(config, "evaluate.reading", mask_files.RULES)
    if options.class_map and options.layout == "fused" and options.reading == "colours":
        raise UserError(
            "config.evaluate.reading: 'colours', but config.evaluate.class_map translates ids; "
            "expected 'ids' or 'auto', or an empty class_map"
        )
    if options.images and not common.is_made(config, options.images):
        pairs = _find(options)
        if palette := _find_classes(config):
            truth = Truth(options, palette, pairs, background=config.background)
            read_pair(pairs[0], options, truth)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `metrics.json`, `metrics.txt` and `examples.npz` into `workdir/evaluate`.

    Raises:
        UserError: photos and masks that do not fit each other or the class map.
    """
    options = config.evaluate
    if not options.images:
        print(
            "evaluate: left out, no photos with true masks given "
            "(config.evaluate.images, config.evaluate.masks)"
        )
        return
    pairs = _find(options)
    inputs = {
        "config.evaluate.images": fingerprints.digest(options.images),
        "config.evaluate.masks": fingerprints.digest(options.masks),
    }
    after = ("autoshot",)
    with common.stage("evaluate", config, workdir, FIELDS, inputs=inputs, after=after) as stage:
        if stage.finished:
            folder = common.finished_folder(workdir, "evaluate")
            print((folder / "metrics.txt").read_text(), end="")
            return
        photos = listing.find_photos(options.images, recursive=True, without=[options.masks])
        common.say_passed_over("evaluate", photos)
        segmenter = load_segmenter(workdir)
        truth = Truth(options, segmenter.palette, pairs, background=config.background)
        counts = _compare(segmenter, pairs, options, truth)
        read = _describe(counts, options, truth)
        common.say("evaluate", read)
        scores = metrics.summary(counts, segmenter.class_names)
        scores |= {"num_pictures": len(pairs), "size": options.size, "split": options.split}
        checkpoint.write_json(stage.folder / "metrics.json", scores)
        table = metrics.format_table({k: scores[k] for k in ("pooled", "per_picture")}) + "\n"
        files.atomic_write(stage.folder / "metrics.txt", table.encode())
        _write_examples(stage.folder / "examples.npz", segmenter, pairs, counts, options, truth)
        means = {f"pooled_{n}": scores["pooled"][n] for n in ("mean_iou", "weighted_iou")}
        stage.finish({**means, "masks": read})
        print(table, end="")


def _find_classes(config: ConfigDict) -> Palette | None:
    """Returns the classes of the network to be trained, None where `run` soon knows them."""
    if "fewshot" in config.stages:
        return masks.read_classes(config.classes)
    if "autoshot" in config.stages and (folder := common.find_result(config, "fewshot")):
        return labeller.read_palette(folder)
    return None


def _find(options: ConfigDict) -> list[tuple]:
    return select(celebamask.find_pairs(options.images, options.masks, options.layout), options)


def select(pairs: Sequence[tuple], options: ConfigDict) -> list[tuple]:
    """Returns the pairs of the split that `options` name: the first for validation, or the rest."""
    first = options.validation
    chosen = list(pairs[:first] if options.split == "validation" else pairs[first:])
    chosen = chosen[: options.limit] if options.limit else chosen
    if not chosen:
        raise UserError(
            f"config.evaluate.images: {len(pairs)} photos leave none for the {options.split} split "
            f"(config.evaluate.validation={first})"
        )
    return chosen


class Truth:
    """Reads the true masks of `pairs`, all by one rule."""

    def __init__(
        self,
        options: ConfigDict,
        palette: Palette,
        pairs: Sequence[tuple],
        *,
        background: str = "",
    ) -> None:
        """Chooses the rule; raises UserError for masks that have none, see `choose_reader`."""
        self.palette = palette
        self._options, self._background, self._reader = options, background, None
        if options.layout == "fused" and not options.class_map:
            self._reader = mask_files.choose_reader(
                [key for _, _, key in pairs],
                palette,
                options.reading,
                setting="config.evaluate.reading",
            )

    @property
    def rule(self) -> str:
        """What the values of the masks are, in words."""
        if self._reader:
            return self._reader.rule
        return "ids" if self._options.layout == "fused" else "one file per part"

    @property
    def unknown(self) -> str:
        """In which masks pixels had no known meaning, in words."""
        return mask_files.describe_unknown(self._reader.unknown) if self._reader else ""

    def read(self, key: Path) -> np.ndarray:
        """Returns the true int32 ids [H, W] of the pair's mask `key`."""
        options = self._options
        return celebamask.read_truth(
            key,
            options.layout,
            dict(options.class_map),
            options.merge_order,
            self.palette,
            reader=self._reader,
            background=self._background,
        )


def read_pair(pair: tuple, options: ConfigDict, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Returns (photo uint8 [S, S, 3], truth int32 [S, S]) at the size of the comparison."""
    _, photo, key = pair
    true = truth.read(key)
    picture = images.read_photo(photo)
    (height, width, _), (rows, columns) = picture.shape, true.shape
    if height * columns != width * rows:
        raise UserError(
            f"{key}: true mask of {columns}x{rows} pixels (width x height) for a photo of "
            f"{width}x{height}; expected the same proportions"
        )
    return (
        images.resize_area(picture, options.size),
        masks.resize_mask(true, options.size, truth.palette.num_classes),
    )


def _compare(
    segmenter: Segmenter, pairs: Sequence[tuple], options: ConfigDict, truth: Truth
) -> np.ndarray:
    """Returns the confusion counts of each photo, [P, K, K]."""
    counts = []
    with tqdm(total=len(pairs), desc="evaluate", unit="photo") as bar:
        for start in range(0, len(pairs), _BATCH):
            batch = [read_pair(pair, options, truth) for pair in pairs[start:][:_BATCH]]
            guesses = segmenter.predict(np.stack([photo for photo, _ in batch]))
            for (_, true), guess in zip(batch, guesses, strict=True):
                counts.append(metrics.confusion(true, guess, segmenter.palette.num_classes))
            bar.update(len(batch))
    return np.stack(counts)


def _describe(counts: np.ndarray, options: ConfigDict, truth: Truth) -> str:
    """Returns how the masks with confusion counts [P, K, K] were read, and what they show."""
    shown = (counts.sum(-1) > 0).sum(0)  # [K]
    names = zip(truth.palette.names, shown, strict=True)
    ignored = 1 - counts.sum() / (len(counts) * options.size**2)
    return (
        f"{options.masks}: {len(counts)} masks read as {truth.rule}: "
        f"{', '.join(f'{name} in {n}' for name, n in names if n)}; {ignored:.1%} ignored"
        + truth.unknown
    )


def _write_examples(
    path: Path,
    segmenter: Segmenter,
    pairs: Sequence[tuple],
    counts: np.ndarray,
    options: ConfigDict,
    truth: Truth,
) -> None:
    """Writes the four best, median and worst photos by mean IoU, for the report."""
    alone = (metrics.summary(c[None], segmenter.class_names) for c in counts)
    scores = np.array([score["per_picture"]["mean_iou"] for score in alone], float)
    order = np.argsort(-scores, kind="stable")
    shown = min(4, len(order))
    chosen = [
        (rank, index)
        for rank, quantile in _EXAMPLES
        for index in order[int(quantile * (len(order) - shown)) :][:shown]
    ]
    read = [read_pair(pairs[index], options, truth) for _, index in chosen]
    photos = np.stack([photo for photo, _ in read])
    files.write_npz(
        path,
        photos=photos,
        truths=np.stack([true for _, true in read]).astype(np.uint8),
        guesses=segmenter.predict(photos).astype(np.uint8),
        names=np.array([pairs[index][0] for _, index in chosen]),
        mean_iou=scores[[index for _, index in chosen]],
        rank=np.array([rank for rank, _ in chosen]),
    )
