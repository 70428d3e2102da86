"""A labelled dataset written by a generator and its labeller, over all devices of this process."""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from tqdm import tqdm

from repgan_jax import synthesize
from repgan_jax.data import dataset
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator
from repgan_jax.io import checksums, images, json_files
from repgan_jax.labeller import Labeller
from repgan_jax.runtime import parallel, pipelining

T = TypeVar("T")
_AHEAD = 4  # device calls whose results may wait to be encoded


@dataclasses.dataclass(frozen=True)
class DatasetOptions:
    """What decides the records of a generated dataset.

    Attributes:
        num_images: number of records.
        seed: of all random choices, 0 to 2**32 - 1.
        truncation: psi; 1 = all of the generator's variety, 0 = the mean image.
        noise: "stored", "none" or "fresh" (a new noise map per sample).
        label: class of all images of a class-conditional generator; -1 = random.
        image_size: side length of the stored images in pixels; a divisor of the resolution.
        soft_labels: whether class probabilities are stored as well.
        soft_size: their side length in pixels, a divisor of the label size; 0 = the label size.
        soft_type: "uint8" (255ths, as PNG) or "float16".
        encoding: of images: "png", "webp" (lossless, faster) or "jpeg" (lossy).
        shard_size: images per shard; a kill costs one shard at most.
    """

    num_images: int = 1000
    seed: int = 0
    truncation: float = 1.0
    noise: str = "stored"
    label: int = -1
    image_size: int = 128
    soft_labels: bool = True
    soft_size: int = 0
    soft_type: str = "uint8"
    encoding: str = "png"
    shard_size: int = 50

    def check(self, generator: Generator, label_size: int) -> None:
        """Raises UserError for options that `generator` or labels of `label_size` cannot serve."""
        for name in ("num_images", "image_size", "shard_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name}: {getattr(self, name)}, expected at least 1")
        self.check_samples(generator)
        for name, known in (
            ("encoding", tuple(images.ENCODINGS)),
            ("soft_type", dataset.SOFT_TYPES),
        ):
            if getattr(self, name) not in known:
                raise UserError(
                    f"{name}: {getattr(self, name)!r}, expected one of {', '.join(known)}"
                )
        if generator.resolution % self.image_size:
            raise UserError(
                f"image_size: {self.image_size}, expected a divisor of the generator's "
                f"{generator.resolution} pixels"
            )
        soft_size = self.soft_size or label_size
        if soft_size < 1 or label_size % soft_size:
            raise UserError(
                f"soft_size: {soft_size}, expected a divisor of the label size {label_size}"
            )

    def check_samples(self, generator: Generator) -> None:
        """Raises UserError for noise or a class that `generator` does not have."""
        if self.noise not in synthesize.NOISES:
            raise UserError(
                f"noise: {self.noise!r}, expected one of {', '.join(synthesize.NOISES)}"
            )
        if self.label not in range(-1, generator.num_classes):
            raise UserError(
                f"label: {self.label}, expected -1 (any) or one of the generator's "
                f"{generator.num_classes} classes, counted from 0"
            )


class DatasetJob:
    """The work of one dataset: which shards are missing, and how a sample is made.

    Attributes:
        writer: of the dataset.
        step: samples that all devices of this process compute in one call.
    """

    def __init__(
        self,
        generator: Generator,
        labeller: Labeller,
        folder: str | os.PathLike[str],
        options: DatasetOptions,
        *,
        batch_size: int = 4,
        backend: str = "shard_map",
    ):
        """Checks the options and compiles nothing yet.

        Args:
            generator: of the images.
            labeller: of the masks.
            folder: of the dataset.
            options: what decides the records.
            batch_size: images per device and call; changes no record.
            backend: see `parallel`.

        Raises:
            UserError: options that do not fit.
        """
        if batch_size < 1:
            raise UserError(f"batch_size: {batch_size}, expected at least 1")
        options.check(generator, labeller.label_size)
        soft_size = options.soft_size or labeller.label_size
        sample = parallel.spread(
            synthesize.make_sampler(
                truncation=options.truncation,
                noise=options.noise,
                image_size=options.image_size,
                soft_size=soft_size,
                soft_type=options.soft_type,
                label=options.label,
            ),
            backend=backend,
        )
        # a stream of random numbers of its own, apart from the heads' initial weights
        key = jax.random.fold_in(jax.random.key(options.seed), 1)
        self._sample = functools.partial(sample, parallel.replicate((generator, labeller, key)))
        self._options, self._labels = options, (labeller.palette, labeller.flip)
        self.step = batch_size * len(parallel.devices())
        self.writer = dataset.Writer(
            Path(folder),
            labeller.class_names,
            shard_lengths(options.num_images, options.shard_size),
            options.image_size,
            labeller.label_size,
            (generator.w_dim,),
            soft_size if options.soft_labels else 0,
            options.soft_type,
            options.encoding,
        )

    def begin(self, **origin: Any) -> None:
        """Writes `manifest.json`, which states what the dataset will be.

        Args:
            origin: of the dataset, to be stated beside its size and classes.
        """
        options, (palette, flip) = self._options, self._labels
        manifest = {
            **origin,
            "num_shards": len(self.writer.shard_lengths),
            "shard_size": options.shard_size,
            "num_images": options.num_images,
            "palette": palette.to_json(),
            "flip": flip,
        }
        json_files.write(self.writer.folder / dataset.MANIFEST, manifest)

    def examples(
        self,
        indices: Iterable[int],
        watch: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda fn: fn,
    ) -> Iterator[dict[str, Any]]:
        """Yields the examples of `indices`, `step` at a time: one device call is always ahead.

        Args:
            indices: of samples in the whole dataset.
            watch: wraps the sampler, to measure it.
        """
        indices, waiting, sample = iter(indices), None, watch(self._sample)
        while wanted := list(itertools.islice(indices, self.step)):
            computing = wanted, sample(parallel.padded(np.array(wanted, np.int32), self.step))
            if waiting:
                yield from _split(*waiting)
            waiting = computing
        if waiting:
            yield from _split(*waiting)

    def write(
        self,
        shards: Sequence[int],
        *,
        on_shard: Callable[[int], None] = lambda shard: None,
        progress: bool = True,
    ) -> float:
        """Writes `shards`; computes samples while others are encoded and written.

        Args:
            shards: indices of shards.
            on_shard: called with the index of each shard once it is on disk.
            progress: whether a progress bar is shown.

        Returns:
            The share of the time for which the devices were busy; 0 where there are no shards.
        """
        busy, writer = pipelining.Busy(), self.writer
        indices = itertools.chain.from_iterable(writer.shard(i).indices for i in shards)
        compute = functools.partial(next, self.examples(indices, busy.watch))
        count = sum(writer.shard_lengths[i] for i in shards)
        with (
            ThreadPoolExecutor(1) as device,
            tqdm(total=count, desc="generate", unit="image", disable=not progress) as bar,
            contextlib.closing(
                pipelining.ahead(device, itertools.repeat(compute, count), _AHEAD * self.step)
            ) as computed,
        ):
            stream = _counted(computed, bar)
            for shard in shards:
                writer.write(shard, itertools.islice(stream, writer.shard_lengths[shard]))
                on_shard(shard)
        return busy.share()


def generate_dataset(
    generator: Generator,
    labeller: Labeller,
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 4,
    backend: str = "shard_map",
    progress: bool = True,
    **options: Any,
) -> dataset.Dataset:
    """Returns the dataset of generated images [N, s, s, 3] and labels that it writes to `folder`.

    Record i depends on the seed and i alone, so that devices and batch size change nothing. A call
    that was interrupted continues where it stopped; a finished dataset is only opened.

    Args:
        generator: of the images.
        labeller: of the masks, fitted to this generator.
        folder: of the dataset; new, or of the same generator, labeller and options.
        batch_size: images per device and call; changes no record.
        backend: "shard_map" or "pmap".
        progress: whether a progress bar is shown.
        **options: fields of `DatasetOptions`.

    Raises:
        UserError: options that do not fit, or a folder that holds another dataset.
    """
    chosen = DatasetOptions(**options)
    job = DatasetJob(generator, labeller, folder, chosen, batch_size=batch_size, backend=backend)
    path, origin = Path(folder) / dataset.MANIFEST, _origin(generator, labeller, chosen)
    if path.exists():
        found = json_files.read(path)
        if any(found.get(name) != value for name, value in origin.items()):
            raise UserError(
                f"{folder}: holds a dataset of another generator, labeller or other options; "
                "delete that folder or choose another one"
            )
    else:
        job.begin(**origin)
    if missing := job.writer.missing():
        job.write(missing, progress=progress)
    job.writer.finalize(seed=chosen.seed)
    return dataset.open_dataset(folder)


def _origin(generator: Generator, labeller: Labeller, options: DatasetOptions) -> dict[str, Any]:
    """Returns what decides the records of a dataset, as JSON."""
    weights = {"generator": generator.variables, "labeller": labeller.variables}
    digests = {name: checksums.tensor_digest(tree) for name, tree in weights.items()}
    return {**dataclasses.asdict(options), **digests}


def shard_lengths(count: int, size: int) -> list[int]:
    """Returns the number of images in each shard: `size`, and fewer in the last one."""
    return [min(size, count - start) for start in range(0, count, size)]


def _counted(items: Iterable[T], bar: tqdm) -> Iterator[T]:
    for item in items:
        bar.update()  # before the next one is asked for, or the last one would not show
        yield item


def _split(wanted: Sequence[int], batch: dict[str, jax.Array]) -> Iterator[dict[str, Any]]:
    """Yields an example for each index `wanted`; `batch` may be longer."""
    batch = jax.device_get({name: batch[name] for name in batch if name != "disputed"})
    batch["probabilities"] = batch.pop("soft")
    for i, index in enumerate(wanted):
        yield {"index": index, **{name: values[i] for name, values in batch.items()}}
