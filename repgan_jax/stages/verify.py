"""Stage `verify`: reads every record of the generated dataset, and makes some of them again."""

import random
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax.data import dataset
from repgan_jax.errors import UserError
from repgan_jax.generation import DatasetJob
from repgan_jax.io import remote
from repgan_jax.runtime import distributed
from repgan_jax.stages import common, datasets


def check(config: ConfigDict) -> None:
    """Raises UserError for a number of samples that is none."""
    if config.verify.samples < 0:
        raise UserError(f"config.verify.samples: {config.verify.samples}, expected at least 0")


def run(config: ConfigDict, workdir: Path) -> None:
    """Checks counts, checksums, labels, and all bytes of `verify.samples` records.

    Raises:
        UserError: names the bad shards, which it has marked for the stage `repair`.
    """
    with datasets.open_stage(config, workdir) as stage:
        common.finished_folder(workdir, "generate")
        job = datasets.open_job(config, workdir, stage.folder)
        writer = job.writer
        shards, count = range(len(writer.shard_lengths)), sum(writer.shard_lengths)
        for i in tqdm(distributed.mine(shards), desc="verify", unit="shard"):
            with remote.fetched(writer.shard(i).path):
                writer.shard(i).mark(writer.flaw(i))
        _share_marks(stage.folder)
        chosen = random.Random(config.seed).sample(range(count), min(config.verify.samples, count))
        _compare(job, distributed.mine(sorted(chosen)))
        _share_marks(stage.folder)
        if distributed.leads():
            _conclude(writer)
            print(
                f"verify: {count} records in {len(shards)} shards are as they were written; "
                f"{len(chosen)} of them, generated again, have the same bytes",
                flush=True,
            )


def _share_marks(folder: Path) -> None:
    """Waits until all processes know which shards each of them has marked as bad."""
    remote.push(folder)
    distributed.wait()
    remote.pull(folder / "shards")


def _compare(job: DatasetJob, chosen: Sequence[int]) -> None:
    """Generates the samples `chosen` again, and marks the shards that hold other ones."""
    writer = job.writer
    good = [i for i in chosen if not writer.shard(writer.shard_of(i)).marked_flaw()]
    for example in job.examples(good):
        index = example["index"]
        shard = writer.shard(writer.shard_of(index))
        with remote.fetched(shard.path):
            if writer.record(example) != writer.read_record(index):
                shard.mark(f"sample {index} is not what is generated here and now")


def _conclude(writer: dataset.Writer) -> None:
    """Raises UserError where a shard is bad."""
    shards = map(writer.shard, range(len(writer.shard_lengths)))
    flaws = [f"{s.path.name} ({flaw})" for s in shards if (flaw := s.marked_flaw())]
    if flaws:
        more = f" and {len(flaws) - 5} more" if len(flaws) > 5 else ""
        raise UserError(
            f"{writer.folder}: {len(flaws)} of {len(writer.shard_lengths)} shards are bad: "
            f"{', '.join(flaws[:5])}{more}; generate them again with --config.stages=repair"
        )
