"""Stage `export`: the generated dataset in other formats, for other tools."""

from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict
from tqdm import tqdm

from repgan_jax.data import dataset, masks
from repgan_jax.data.export.coco import Coco
from repgan_jax.data.export.folders import CelebAMask, Example, FolderWriter, Part, Voc
from repgan_jax.data.export.parquet import Parquet
from repgan_jax.errors import UserError
from repgan_jax.io import files
from repgan_jax.stages import common, datasets, labellers

FORMATS: dict[str, type[FolderWriter] | type[Parquet]] = {
    "coco": Coco,
    "voc": Voc,
    "celebamask": CelebAMask,
    "parquet": Parquet,
}
FIELDS = ("generate.drop", "export.format", "export.held_out", "export.shard_size")


def check(config: ConfigDict) -> None:
    """Raises UserError for settings that make no export."""
    common.expect_one_of(config, "export.format", tuple(FORMATS))
    common.expect_positive(config, "export.shard_size")
    datasets.check_drop(config)
    if config.export.output:
        files.expect_writable(config.export.output, "config.export.output")
    if not 0 <= config.export.held_out < 1:
        raise UserError(
            f"config.export.held_out: {config.export.held_out}, expected 0 <= share < 1"
        )


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes the dataset into `config.export.output`, or `workdir/export/FORMAT`.

    Masks take their picture's size. What is in a folder of the user's own is never thrown away.

    Raises:
        UserError: no finished dataset; a folder of other settings.
    """
    options = config.export
    own = options.output and str(Path(options.output).absolute())
    name = own or f"export/{options.format}"
    with common.stage(
        name, config, workdir, FIELDS, after=("generate",), refuse_changes=bool(own)
    ) as stage:
        if stage.finished:
            return
        data = datasets.open_kept(config, workdir, stage.folder)
        palette = labellers.load_palette(workdir)
        writer = FORMATS[options.format](stage.folder, palette)
        # The pictures that stage autoshot validates with, where the shares are the same.
        held_out = max(round(options.held_out * len(data)), options.held_out > 0)
        parts = [*_parts("train", range(len(data) - held_out), options.shard_size)]
        parts += _parts("val", range(len(data) - held_out, len(data)), options.shard_size)
        missing = [part for part in parts if not writer.is_written(part)]
        done = len(data) - sum(len(part.indices) for part in missing)
        with tqdm(total=len(data), initial=done, desc="export", unit="image") as bar:
            for part in missing:
                writer.write(part, _examples(data, part.indices, bar))
        writer.finish(parts)
        stage.finish({"num_pictures": len(data), "held_out": held_out})


def _parts(split: str, indices: range, size: int) -> Iterator[Part]:
    """Yields the parts of a split, of at most `size` pictures."""
    starts = range(0, len(indices), size)
    for number, start in enumerate(starts):
        yield Part(split, number, len(starts), indices[start : start + size])


def _examples(data: dataset.Dataset, indices: range, bar: tqdm) -> Iterator[Example]:
    """Yields the examples of `indices`, their masks at the size of the pictures."""
    for i in indices:
        example = data[i]
        size = example["image"].shape[0]
        example["mask"] = masks.resize_mask(example["mask"], size, len(data.class_names))
        yield example
        bar.update()
