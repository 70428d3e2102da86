"""The fitted heads of a run, for the stages that use them."""

from pathlib import Path

from ml_collections import ConfigDict

from repgan_jax import labeller as labeller_lib
from repgan_jax.data import masks
from repgan_jax.generator import Generator
from repgan_jax.io import results
from repgan_jax.labeller import Labeller
from repgan_jax.palette import Palette
from repgan_jax.stages import common


def load(workdir: Path) -> Labeller:
    """Returns the labeller of the finished stage `fewshot`."""
    common.finished_folder(workdir, "fewshot")
    return results.read(workdir / "fewshot", labeller_lib.read_result)


def load_with_generator(config: ConfigDict, workdir: Path) -> tuple[Generator, Labeller]:
    """Returns the run's generator and labeller.

    Raises:
        UserError: the heads were fitted to another generator.
    """
    labeller = load(workdir)
    common.expect_same_generator(config, workdir)
    return common.load_generator(config), labeller


def load_palette(workdir: Path) -> Palette:
    """Returns the classes of the finished stage `fewshot`."""
    return labeller_lib.read_palette(common.finished_folder(workdir, "fewshot"))


def read_classes(config: ConfigDict) -> Palette:
    """Returns the classes of `config.classes` and, where there are some, `config.mirror_pairs`."""
    palette = masks.read_classes(config.classes)
    return palette.with_pairs(config.mirror_pairs, "config.mirror_pairs")
