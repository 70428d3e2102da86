"""Stage `autoshot`: the stand-alone network, trained on the generated dataset."""

import contextlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from repgan_jax.io import images, remote
from repgan_jax.runtime import distributed, preemption
from repgan_jax.segmenter import RESULT, Segmenter
from repgan_jax.stages import common, datasets, labellers
from repgan_jax.training import batches
from repgan_jax.training.augment import Augmentation
from repgan_jax.training.curve import Validation
from repgan_jax.training.options import TrainingOptions
from repgan_jax.training.segmenter import Trainer

FIELDS = ("seed", "generate.drop", "autoshot")
_OPTIONS = tuple(TrainingOptions.__dataclass_fields__.keys() - {"augment"})


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that do not fit each other or the devices."""
    datasets.check_drop(config)
    options = _options(config)
    with common.config_names(config, "autoshot", "generate"):
        options.check()
        if not common.may_be_done(config, "autoshot", FIELDS):
            common.expect_share(config, "autoshot.batch_size")
        size, count, soft_labels = (
            common.made_with(config, "generate", f"generate.{name}")
            for name in ("image_size", "num_images", "soft_labels")
        )
        if size is None:  # there is no dataset, or a remote one, of which `run` will know
            return
        options.check_targets(has_probabilities=soft_labels)
        batches.num_held_out(datasets.num_kept(config, count), options.held_out)
        if label_size := common.made_with(config, "fewshot", "label_size"):
            options.check_sizes(size, label_size)


def run(config: ConfigDict, workdir: Path) -> None:
    """Trains the network and keeps the weights that did best on held-out generated images.

    Raises:
        UserError: settings that do not fit the dataset or the devices, or that diverge.
    """
    with common.stage(
        "autoshot", config, workdir, FIELDS, after=("generate",), together=True
    ) as stage:
        if stage.finished:
            return
        with common.config_names(config, "autoshot", "generate"):
            best, segmenter = _train(config, workdir, stage.folder)
        if segmenter:
            segmenter.save(stage.folder / RESULT)
            stage.finish({"steps": config.autoshot.steps, "held_out_mean_iou": best})


def _options(config: ConfigDict) -> TrainingOptions:
    options = config.autoshot
    augmentation = Augmentation(**options.augment)
    return TrainingOptions(augment=augmentation, **{name: options[name] for name in _OPTIONS})


def _train(config: ConfigDict, workdir: Path, folder: Path) -> tuple[float, Segmenter | None]:
    """Returns the best validation score, and the network that had it (in process 0)."""
    options, leads = _options(config), distributed.leads()
    data = datasets.open_kept(config, workdir, folder)
    labeller = labellers.load(workdir)
    if options.augment.flip and not labeller.flip and leads:
        common.say("autoshot", "nothing is mirrored, as stage fewshot decided")
    trainer = Trainer(
        jax.random.key(config.seed),
        data,
        Segmenter(
            None,
            options.network(labeller.num_classes),
            labeller.palette,
            len(data[0]["image"]),
            bool(labeller.flip and options.augment.flip),
        ),
        folder,
        options,
        backend=config.backend,
    )
    board: Any
    with (
        common.board(workdir, "autoshot") if leads else contextlib.nullcontext() as board,
        preemption.deferred() as told,
    ):

        def show(found: Validation) -> None:
            for name in ("loss", "learning_rate", "mean_iou"):
                board.add_scalar(name, getattr(found, name), found.step)
            pairs = zip(found.images, found.predictions, strict=True)
            overlays = [images.overlay(*pair, labeller.palette) for pair in pairs]
            held_out = np.concatenate(overlays, 1)
            board.add_image("held out", held_out, found.step, dataformats="HWC")

        best = trainer.run(on_validation=show, on_checkpoint=lambda: remote.keep(folder), stop=told)
    return best, trainer.best() if leads else None
