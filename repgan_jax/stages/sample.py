"""Stage `sample`: a sheet of generated images, their labels, and where the heads disagree."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from repgan_jax.io import images
from repgan_jax.stages import common, datasets, labellers

FIELDS = ("seed", "dtype", "generate.truncation", "generate.noise", "generate.label", "sample")


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that the generator cannot serve."""
    common.expect_positive(config, "sample.num_images")
    if not common.may_be_done(config, "sample", FIELDS):
        with common.config_names(config, "generate"):
            options = datasets.options(config)
            options.check_samples(common.outline_generator(config))


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes `workdir/sample/sheet.png`: images of the dataset to be, with overlays below.

    Of an ensemble, below that, white where the heads disagree: what is white in many images is
    what to label next.
    """
    with common.stage("sample", config, workdir, FIELDS, after=("fewshot",)) as stage:
        if stage.finished:
            return
        generator, labeller = labellers.load_with_generator(config, workdir)
        found = labeller.sample(
            generator,
            jax.random.fold_in(jax.random.key(config.seed), 1),  # as in stage `generate`
            config.sample.num_images,
            truncation=config.generate.truncation,
            noise=config.generate.noise,
            image_size=labeller.label_size,
            label=config.generate.label,
        )
        overlays = [
            images.overlay(*pair, labeller.palette)
            for pair in zip(found.images, found.masks, strict=True)
        ]
        rows = [found.images, overlays]
        if found.disagreement.any():
            shade = np.clip(
                255 * found.disagreement / np.log(2), 0, 255
            )  # ln 2: two heads, opposed
            rows.append(np.repeat(shade[..., None].astype(np.uint8), 3, axis=-1))
        columns = [np.concatenate(column, 0) for column in zip(*rows, strict=True)]
        images.write_png(stage.folder / "sheet.png", images.contact_sheet(columns, columns=8))
        stage.finish({"num_images": len(found.images)})
