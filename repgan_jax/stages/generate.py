"""Stage `generate`: a labelled dataset that generator and heads write, over all devices."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax import synthesize
from repgan_jax.data import dataset
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.io import checkpoint, images, remote, results
from repgan_jax.runtime import distributed, parallel
from repgan_jax.stages import common, fewshot

Sampler = Callable[[np.ndarray], dict[str, jax.Array]]  # of indices [n]
T = TypeVar("T")
_AHEAD = 4  # calls of the device whose results may wait to be encoded

# not batch_size and backend: they change no record
FIELDS = (
    "seed",
    "dtype",
    *(
        f"generate.{name}"
        for name in (
            "num_pictures",
            "truncation",
            "noise",
            "label",
            "picture_size",
            "shard_size",
            "soft_labels",
            "soft_size",
            "soft_type",
            "encoding",
        )
    ),
)


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that the generator cannot serve, or that make no dataset."""
    if "fewshot" in config.stages or not common.may_be_done(config, "generate", FIELDS):
        label_size = common.made_with(config, "fewshot", "label_size") or config.label_size
        _check(config, common.outline_generator(config), label_size)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the dataset's missing shards into `workdir/generate`, then its metadata.

    A finished dataset of other settings stays until this one is complete, and is kept beside it.
    An unfinished one may be days of work, and is not dropped for what may be a slip.

    Raises:
        UserError: a setting that the generator cannot serve; unfinished work of other settings.
    """
    with open_stage(config, workdir, refuse_changes=False) as stage:
        if not stage.finished:
            metadata = complete(config, workdir, stage)
            if distributed.leads():
                stage.finish(metadata)


def open_stage(
    config: ConfigDict, workdir: Path, *, refuse_changes: bool = True
) -> AbstractContextManager[common.Stage]:
    """Returns the stage, for all processes of a run; see `common.stage` for `refuse_changes`."""
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


def complete(config: ConfigDict, workdir: Path, stage: common.Stage) -> dict[str, Any]:
    """Writes the shards that are missing, then the dataset's metadata, which it returns."""
    writer, sample = prepare(config, workdir, stage.folder)
    origin = {"seed": config.seed, "fingerprint": stage.record["fingerprint"]}
    manifest = {
        **origin,
        "num_shards": len(writer.shard_lengths),
        "shard_size": config.generate.shard_size,
        "num_pictures": config.generate.num_pictures,
    }

    def begin() -> list[int]:
        remote.pull(stage.folder)
        checkpoint.write_json(stage.folder / "manifest.json", manifest)
        return writer.missing()

    missing = distributed.by_leader(begin)
    if distributed.leads():
        common.say("generate", f"{len(missing)} of {manifest['num_shards']} shards to be written")
    if share := write_shards(writer, sample, distributed.mine(missing), step=device_step(config)):
        common.say("generate", f"the devices were busy for {100 * share:.1f} % of the time")
    distributed.wait()

    def end() -> dict[str, Any]:
        remote.pull(stage.folder)  # what the others have sent
        metadata = writer.finalize(**origin)
        remote.push(stage.folder)
        return metadata

    return distributed.by_leader(end)


def prepare(config: ConfigDict, workdir: Path, folder: Path) -> tuple[dataset.Writer, Sampler]:
    """Returns the writer of the dataset in `folder`, and `sample(indices) -> arrays [n, ...]`."""
    options = config.generate
    generator, head, names, variables, palette = fewshot.load_with_generator(config, workdir)
    _check(config, generator, head.size)
    soft_size = options.soft_size or head.size
    sample = parallel.spread(
        synthesize.make_sampler(
            head,
            names,
            truncation=options.truncation,
            noise=options.noise,
            picture_size=options.picture_size,
            soft_size=soft_size,
            soft_type=options.soft_type,
            label=options.label,
        ),
        backend=config.backend,
    )
    # a stream of random numbers of its own, apart from the heads' initial weights
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    writer = dataset.Writer(
        folder,
        palette.names,
        _shard_lengths(options.num_pictures, options.shard_size),
        options.picture_size,
        head.size,
        (generator.w_dim,),
        soft_size if options.soft_labels else 0,
        options.soft_type,
        options.encoding,
    )
    return writer, functools.partial(sample, parallel.replicate((generator, variables, key)))


def device_step(config: ConfigDict) -> int:
    """Returns the number of samples that all devices of this process compute in one call."""
    return config.generate.batch_size * len(parallel.devices())


def examples(sample: Sampler, indices: Iterable[int], step: int) -> Iterator[dict[str, Any]]:
    """Yields the examples of `indices`, computed `step` at a time: one call is always ahead."""
    indices, waiting = iter(indices), None
    while wanted := list(itertools.islice(indices, step)):
        computing = wanted, sample(parallel.padded(np.array(wanted, np.int32), step))
        if waiting:
            yield from _split(*waiting)
        waiting = computing
    if waiting:
        yield from _split(*waiting)


def write_shards(
    writer: dataset.Writer, sample: Sampler, missing: Sequence[int], *, step: int
) -> float:
    """Writes the shards `missing`; computes samples while others are encoded and written.

    Returns the share of the time for which devices were busy; 0 where nothing is missing.
    """
    busy = parallel.Busy()
    indices = itertools.chain.from_iterable(writer.shard(i).indices for i in missing)
    compute = functools.partial(next, examples(busy.watch(sample), indices, step))
    count = sum(writer.shard_lengths[i] for i in missing)
    with (
        ThreadPoolExecutor(1) as device,
        tqdm(total=count, desc="generate", unit="image") as bar,
        contextlib.closing(
            parallel.ahead(device, itertools.repeat(compute, count), _AHEAD * step)
        ) as computed,
    ):
        stream = _counted(computed, bar)
        for shard in missing:
            writer.write(shard, itertools.islice(stream, writer.shard_lengths[shard]))
            remote.push(writer.folder)
    return busy.share()


def _counted(items: Iterable[T], bar: tqdm) -> Iterator[T]:
    for item in items:
        bar.update()  # before it is asked for more, or the last one would not show
        yield item


def _split(wanted: Sequence[int], batch: dict[str, jax.Array]) -> Iterator[dict[str, Any]]:
    """Yields an example for each index `wanted`; `batch` may be longer."""
    batch = jax.device_get({name: batch[name] for name in batch if name != "disputed"})
    batch["probabilities"] = batch.pop("soft")
    for i, index in enumerate(wanted):
        yield {"index": index, **{name: values[i] for name, values in batch.items()}}


def open_kept(config: ConfigDict, workdir: Path, folder: Path) -> dataset.Dataset:
    """Returns the finished dataset without the worst share, `generate.drop`.

    These are the pictures on which the heads disagree most (DatasetGAN, section 3.2);
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
    if not (count := round(share * len(data))):
        return data
    if count == len(data):
        raise UserError(f"config.generate.drop: {share} of {len(data)} pictures leaves none")
    disagreement = dataset.read_scores(source)["disagreement"]
    if not disagreement.any():
        raise _never_disagrees(share)
    dropped = np.sort(np.argsort(-disagreement, kind="stable")[:count])
    least = float(disagreement[dropped].min())
    if distributed.leads():
        listed = {"share": share, "disagreement_from": least, "indices": dropped.tolist()}
        checkpoint.write_json(folder / "dropped.json", listed)
        text = f"{count} of {len(data)} pictures left out (disagreement from {least:.4f})"
        common.say(results.name(folder), text)
    return data.without(dropped)


def check_drop(config: ConfigDict) -> None:
    """Raises UserError for a share that is none, or that heads still to be fitted cannot tell."""
    share = config.generate.drop
    if not 0 <= share < 1:
        raise UserError(f"config.generate.drop: {share}, expected 0 <= share < 1")
    count = round(share * config.generate.num_pictures)
    if count and config.fewshot.ensemble < 2 and {"fewshot", "generate"} <= set(config.stages):
        raise _never_disagrees(share)


def _never_disagrees(share: float) -> UserError:
    return UserError(
        f"config.generate.drop: {share}, but a single head never disagrees; "
        "expected config.fewshot.ensemble of 2 or more, or a share of 0"
    )


def check_samples(config: ConfigDict, generator: Generator) -> None:
    """Raises UserError for noise or a class that the generator does not have."""
    common.expect_one_of(config, "generate.noise", ("stored", "none", "fresh"))
    label, count = config.generate.label, generator.num_classes
    if label not in range(-1, count):
        raise UserError(
            f"config.generate.label: {label}, expected -1 (any) or one of the generator's {count} "
            "classes, counted from 0"
        )


def _shard_lengths(count: int, size: int) -> list[int]:
    return [min(size, count - start) for start in range(0, count, size)]


def _check(config: ConfigDict, generator: Generator, label_size: int) -> None:
    """Raises UserError for settings that make no dataset."""
    counts = ("num_pictures", "picture_size", "shard_size", "batch_size")
    common.expect_positive(config, *(f"generate.{name}" for name in counts))
    check_samples(config, generator)
    common.expect_one_of(config, "generate.encoding", tuple(images.ENCODINGS))
    common.expect_one_of(config, "generate.soft_type", dataset.SOFT_TYPES)
    if generator.resolution % config.generate.picture_size:
        raise UserError(
            f"config.generate.picture_size: {config.generate.picture_size}, expected a divisor of "
            f"the generator's {generator.resolution} pixels"
        )
    soft_size = config.generate.soft_size or label_size
    if soft_size < 1 or label_size % soft_size:
        raise UserError(
            f"config.generate.soft_size: {soft_size}, expected a divisor of the labels' "
            f"{label_size}"
        )
