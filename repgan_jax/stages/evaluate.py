"""Stage `evaluate`: the stand-alone network against the true masks of photos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from repgan_jax import evaluation, labeller, metrics
from repgan_jax.data import celebamask, masks
from repgan_jax.data.labelled_photos import LabelledPhotos, MaskOptions, Pair
from repgan_jax.errors import UserError
from repgan_jax.evaluation import Evaluation
from repgan_jax.io import files, json_files, listing
from repgan_jax.palette import Palette
from repgan_jax.segmenter import Segmenter, load_segmenter
from repgan_jax.stages import common, fingerprints

FIELDS = ("evaluate",)
_EXAMPLES = (("best", 0.0), ("median", 0.5), ("worst", 1.0))  # rank, quantile of the order


def check(config: ConfigDict) -> None:
    """Raises UserError for photos without masks, and where the first does not fit the classes.

    These are the classes of the shots, where the network is still to be trained.
    """
    options = config.evaluate
    common.expect_positive(config, "evaluate.size")
    common.expect_one_of(config, "evaluate.split", ("test", "validation"))
    with common.config_names(config, "evaluate"):
        _mask_options(config).check()
        if options.images and not common.is_made(config, options.images):
            pairs = _find(options)
            if palette := _find_classes(config):
                labelled_photos(config, pairs, palette)[0]


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
        with common.config_names(config, "evaluate"):
            labelled = labelled_photos(config, pairs, segmenter.palette)
            found = evaluation.compare(segmenter, labelled)
        notes = f"{options.masks}: {found.notes}"
        common.say("evaluate", notes)
        scores = {"pooled": found.pooled, "per_picture": found.per_image}
        scores |= {"num_pictures": len(pairs), "size": options.size, "split": options.split}
        json_files.write(stage.folder / "metrics.json", scores)
        table = found.table() + "\n"
        files.atomic_write(stage.folder / "metrics.txt", table.encode())
        _write_examples(stage.folder / "examples.npz", segmenter, labelled, found)
        means = {f"pooled_{n}": found.pooled[n] for n in ("mean_iou", "weighted_iou")}
        stage.finish({**means, "masks": notes})
        print(table, end="")


def _find_classes(config: ConfigDict) -> Palette | None:
    """Returns the classes of the network to be trained, None where `run` soon knows them."""
    if "fewshot" in config.stages:
        return masks.read_classes(config.classes)
    if "autoshot" in config.stages and (folder := common.find_result(config, "fewshot")):
        return labeller.read_palette(folder)
    return None


def labelled_photos(config: ConfigDict, pairs: Sequence[Pair], palette: Palette) -> LabelledPhotos:
    """Returns photos and true masks of `pairs` as `config.evaluate` says they are compared."""
    return LabelledPhotos(
        pairs,
        palette,
        _mask_options(config),
        size=config.evaluate.size,
        setting="config.evaluate.reading",
    )


def _mask_options(config: ConfigDict) -> MaskOptions:
    options = config.evaluate
    return MaskOptions(
        options.layout,
        dict(options.class_map),
        options.merge_order,
        options.reading,
        config.background,
    )


def _find(options: ConfigDict) -> list[Pair]:
    return select(celebamask.find_pairs(options.images, options.masks, options.layout), options)


def select(pairs: Sequence[Pair], options: ConfigDict) -> list[Pair]:
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


def _write_examples(
    path: Path, segmenter: Segmenter, labelled: LabelledPhotos, found: Evaluation
) -> None:
    """Writes the four best, median and worst photos by mean IoU, for the report."""
    alone = (metrics.summary(c[None], found.class_names) for c in found.counts)
    scores = np.array([score["per_picture"]["mean_iou"] for score in alone], float)
    order = np.argsort(-scores, kind="stable")
    shown = min(4, len(order))
    chosen = [
        (rank, index)
        for rank, quantile in _EXAMPLES
        for index in order[int(quantile * (len(order) - shown)) :][:shown]
    ]
    examples = [labelled[index] for _, index in chosen]
    photos = np.stack([photo for photo, _ in examples])
    files.write_npz(
        path,
        photos=photos,
        truths=np.stack([truth for _, truth in examples]).astype(np.uint8),
        guesses=segmenter.predict(photos).astype(np.uint8),
        names=np.array([found.names[index] for _, index in chosen]),
        mean_iou=scores[[index for _, index in chosen]],
        rank=np.array([rank for rank, _ in chosen]),
    )
