"""Stage `repair`: generates the shards that `verify` found bad, and these alone."""

from pathlib import Path

from ml_collections import ConfigDict

from repgan_jax.stages import common, datasets


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the shards that are missing, cut or marked as bad, then the metadata as it was.

    Raises:
        UserError: the dataset is of other settings, or was never finished.
    """
    with datasets.open_stage(config, workdir) as stage:
        common.finished_folder(workdir, "generate")
        datasets.complete(config, workdir, stage)
