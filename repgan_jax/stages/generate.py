"""Stage `generate`: a labelled dataset that generator and heads write, over all devices."""

from pathlib import Path

from ml_collections import ConfigDict

from repgan_jax.runtime import distributed
from repgan_jax.stages import common, datasets

FIELDS = datasets.FIELDS


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that the generator cannot serve, or that make no dataset."""
    common.expect_positive(config, "generate.batch_size")
    if "fewshot" in config.stages or not common.may_be_done(config, "generate", FIELDS):
        label_size = common.made_with(config, "fewshot", "label_size") or config.label_size
        with common.config_names(config, "generate"):
            datasets.options(config).check(common.outline_generator(config), label_size)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the dataset's missing shards into `workdir/generate`, then its metadata.

    A finished dataset of other settings stays until this one is complete, and is kept beside it.
    An unfinished one may be days of work, and is not dropped because of what may be a mistake.

    Raises:
        UserError: a setting that the generator cannot serve; unfinished work of other settings.
    """
    with datasets.open_stage(config, workdir, refuse_changes=False) as stage:
        if not stage.finished:
            metadata = datasets.complete(config, workdir, stage)
            if distributed.leads():
                stage.finish(metadata)
