"""The generated dataset, for the stages that write, check and read it."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from repgan_jax.data import dataset
from repgan_jax.errors import UserError
from repgan_jax.generation import DatasetJob, DatasetOptions
from repgan_jax.io import json_files, remote, results
from repgan_jax.runtime import distributed
from repgan_jax.stages import common, labellers

_OPTIONS = tuple(DatasetOptions.__dataclass_fields__.keys() - {"seed"})
# not batch_size and backend: they change no record
FIELDS = ("seed", "dtype", *(f"generate.{name}" for name in _OPTIONS))


def options(config: ConfigDict) -> DatasetOptions:
    """Returns what decides the records of the run's dataset."""
    return DatasetOptions(seed=config.seed, **{name: config.generate[name] for name in _OPTIONS})


def open_stage(
    config: ConfigDict, workdir: Path, *, refuse_changes: bool = True
) -> AbstractContextManager[common.Stage]:
    """Returns stage `generate`, for all processes of a run; see `common.stage`."""
    return common.stage(
        "generate",
        config,
        workdir,
        FIELDS,
        after=("fewshot",),
        refuse_changes=refuse_changes,
        keep_unfinished=True,
        together=True,
    )


def open_job(config: ConfigDict, workdir: Path, folder: Path) -> DatasetJob:
    """Returns the work on the dataset in `folder`, with the run's generator and labeller."""
    generator, labeller = labellers.load_with_generator(config, workdir)
    with common.config_names(config, "generate"):
        return DatasetJob(
            generator,
            labeller,
            folder,
            options(config),
            batch_size=config.generate.batch_size,
            backend=config.backend,
        )


def complete(config: ConfigDict, workdir: Path, stage: common.Stage) -> dict[str, Any]:
    """Writes the shards that are missing, then the dataset's metadata, which it returns."""
    job = open_job(config, workdir, stage.folder)
    origin = {"seed": config.seed, "fingerprint": stage.record["fingerprint"]}

    def begin() -> list[int]:
        remote.pull(stage.folder)
        job.begin(**origin)
        return job.writer.missing()

    missing = distributed.by_leader(begin)
    if distributed.leads():
        total = len(job.writer.shard_lengths)
        common.say("generate", f"{len(missing)} of {total} shards to be written")
    share = job.write(distributed.mine(missing), on_shard=lambda _: remote.push(stage.folder))
    if share:
        common.say("generate", f"the devices were busy for {100 * share:.1f} % of the time")
    distributed.wait()

    def end() -> dict[str, Any]:
        remote.pull(stage.folder)  # what the others have sent
        metadata = job.writer.finalize(**origin)
        remote.push(stage.folder)
        return metadata

    return distributed.by_leader(end)


def open_kept(config: ConfigDict, workdir: Path, folder: Path) -> dataset.Dataset:
    """Returns the finished dataset without the worst share, `config.generate.drop`.

    These are the images on which the heads disagree most (DatasetGAN, section 3.2);
    `folder/dropped.json` lists them.

    Raises:
        UserError: no dataset, or one that other heads have labelled than those that are there
            now; a share that is none; heads that cannot disagree.
    """
    check_drop(config)
    common.expect_consistent(workdir, "generate")
    share = config.generate.drop
    source = common.finished_folder(workdir, "generate")
    data = dataset.open_dataset(source)
    if not (count := len(data) - num_kept(config, len(data))):
        return data
    disagreement = dataset.read_scores(source)["disagreement"]
    if not disagreement.any():
        raise _never_disagrees(share)
    dropped = np.sort(np.argsort(-disagreement, kind="stable")[:count])
    least = float(disagreement[dropped].min())
    if distributed.leads():
        listed = {"share": share, "disagreement_from": least, "indices": dropped.tolist()}
        json_files.write(folder / "dropped.json", listed)
        text = f"{count} of {len(data)} images left out (disagreement from {least:.4f})"
        common.say(results.name(folder), text)
    return data.without(dropped.tolist())


def check_drop(config: ConfigDict) -> None:
    """Raises UserError for a share that is none, or that heads still to be fitted cannot tell."""
    share = config.generate.drop
    if not 0 <= share < 1:
        raise UserError(f"config.generate.drop: {share}, expected 0 <= share < 1")
    count = round(share * config.generate.num_images)
    if count and config.fewshot.ensemble < 2 and {"fewshot", "generate"} <= set(config.stages):
        raise _never_disagrees(share)


def num_kept(config: ConfigDict, count: int) -> int:
    """Returns how many of `count` images `config.generate.drop` leaves; UserError where none."""
    share = config.generate.drop
    if (dropped := round(share * count)) == count:
        raise UserError(f"config.generate.drop: {share} of {count} images leaves none")
    return count - dropped


def _never_disagrees(share: float) -> UserError:
    return UserError(
        f"config.generate.drop: {share}, but a single head never disagrees; "
        "expected config.fewshot.ensemble of 2 or more, or a share of 0"
    )
