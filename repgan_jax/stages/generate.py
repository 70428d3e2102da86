"""Stage `generate`: a labelled dataset that generator and heads write, over all devices."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax import parallel, synthesize
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.io import checkpoint, dataset
from repgan_jax.stages import common, fewshot

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
        )
    ),
)


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the dataset's missing shards into `workdir/generate`, then its metadata.

    Raises:
        UserError: a setting that the generator cannot serve; a folder of other settings.
    """
    options = config.generate
    with common.stage(
        "generate", config, workdir, FIELDS, after=("fewshot",), refuse_changes=True
    ) as stage:
        if stage.finished:
            return
        generator = common.load_generator(config)
        _check(config, generator)
        head, names, variables, palette = fewshot.load_heads(workdir)
        sample = parallel.spread(
            synthesize.make_sampler(
                head,
                names,
                truncation=options.truncation,
                noise=options.noise,
                picture_size=options.picture_size,
                label=options.label,
            ),
            backend=config.backend,
        )
        # a stream of random numbers of its own, apart from the heads' initial weights
        key = jax.random.fold_in(jax.random.key(config.seed), 1)
        fixed = parallel.replicate((generator, variables, key))
        writer = dataset.Writer(
            stage.folder,
            palette.names,
            _shard_lengths(options.num_pictures, options.shard_size),
            options.picture_size,
            head.size,
            (generator.w_dim,),
            options.soft_labels,
        )
        write_shards(writer, lambda indices: sample(fixed, indices), options)
        writer.finalize()
        data = dataset.open_dataset(stage.folder)
        confidence = [float(data[i]["confidence"]) for i in range(len(data))]
        checkpoint.write_json(stage.folder / "confidence.json", {"confidence": confidence})
        stage.finish(
            {"num_pictures": len(confidence), "mean_confidence": float(np.mean(confidence))}
        )


def write_shards(writer: dataset.Writer, sample: Any, options: ConfigDict) -> None:
    """Writes every shard that is missing; one is encoded while the next is computed."""
    missing = writer.missing()
    done = options.num_pictures - sum(writer.shard_lengths[shard] for shard in missing)
    with (
        tqdm(total=options.num_pictures, initial=done, desc="generate", unit="image") as bar,
        ThreadPoolExecutor(1) as encoder,
    ):
        pending = None
        for shard in missing:
            start = shard * options.shard_size
            indices = np.arange(start, start + writer.shard_lengths[shard], dtype=np.int32)
            examples = list(_examples(sample, indices, options.batch_size, bar))
            if pending:
                pending.result()
            pending = encoder.submit(writer.write, shard, examples)
        if pending:
            pending.result()


def _examples(
    sample: Any, indices: np.ndarray, batch_size: int, bar: tqdm
) -> Iterator[dict[str, Any]]:
    """Yields the examples of `indices`, computed `batch_size` a device at a time."""
    step = batch_size * len(parallel.devices())
    for start in range(0, len(indices), step):
        wanted = indices[start : start + step]
        batch = jax.device_get(sample(parallel.padded(wanted, step)))
        for i, index in enumerate(wanted):
            example = {name: values[i] for name, values in batch.items()}
            example["probabilities"] = example.pop("soft").astype(np.float32) / 255
            yield {**example, "index": index}
        bar.update(len(wanted))


def check_label(config: ConfigDict, generator: Generator) -> None:
    """Raises UserError for a class that the generator does not have."""
    label, count = config.generate.label, generator.num_classes
    if label not in range(-1, count):
        raise UserError(
            f"config.generate.label: {label}, expected -1 (any) or one of the generator's {count} "
            "classes, counted from 0"
        )


def _shard_lengths(count: int, size: int) -> list[int]:
    return [min(size, count - start) for start in range(0, count, size)]


def _check(config: ConfigDict, generator: Generator) -> None:
    """Raises UserError for settings that make no dataset."""
    counts = ("num_pictures", "picture_size", "shard_size", "batch_size")
    common.expect_positive(config, *(f"generate.{name}" for name in counts))
    common.expect_one_of(config, "generate.noise", ("stored", "none", "fresh"))
    check_label(config, generator)
    if generator.resolution % config.generate.picture_size:
        raise UserError(
            f"config.generate.picture_size: {config.generate.picture_size}, expected a divisor of "
            f"the generator's {generator.resolution} pixels"
        )
