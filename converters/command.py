"""What the converters' commands share."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from repgan_jax import synthesize
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator, load_generator
from repgan_jax.io import images
from repgan_jax.ops import resampling

MEAN_LATENT_SAMPLES = 10_000
SAMPLE_SIZE = 256  # pixels a side of a picture on the sheet, at most


def mean_latent(architecture: Mapping, variables: Mapping, *, seed: int = 0) -> np.ndarray:
    """Returns [D]: the mean of w over 10,000 seeded z, for checkpoints that do not store it."""
    zeros = np.zeros(architecture["w_dim"], np.float32)
    generator = Generator.build(architecture, {**variables, "mean_latent": zeros})
    z = jax.random.normal(jax.random.key(seed), (MEAN_LATENT_SAMPLES, generator.z_dim))
    return np.asarray(generator.mapping(z, labels(generator, len(z))).mean(0))


def labels(generator: Generator, count: int) -> jax.Array | None:
    """Returns class ids [count], each class as often as any other; None where there are none."""
    return jnp.arange(count) % generator.num_classes if generator.num_classes else None


def describe(folder: Path, architecture: Mapping, variables: Mapping) -> str:
    """Returns a short summary of the generator that was written to `folder`."""
    networks = (variables["mapping"], variables["synthesis"]["params"])
    counts = [sum(np.size(leaf) for leaf in jax.tree.leaves(tree)) / 1e6 for tree in networks]
    widths = " ".join(f"{size}:{width}" for size, width in architecture["widths"].items())
    classes = architecture.get("num_classes", 0)
    return (
        f"{folder}: {architecture['name']}, {architecture['resolution']} px, "
        f"{architecture['mapping_layers']}-layer mapping, widths {widths}, "
        f"{classes or 'no'} classes, "
        f"{counts[1]:.1f} M parameters in the synthesis network, {counts[0]:.1f} M in the mapping"
    )


def add_samples_option(parser: argparse.ArgumentParser) -> None:
    """Adds --samples, the number that `write_samples` takes."""
    parser.add_argument(
        "--samples", type=int, default=16, help="number of images in OUT/samples.png; 0 = none"
    )


def write_samples(folder: Path, count: int) -> None:
    """Writes `folder/samples.png`, `count` pictures: does the conversion look right?

    Truncation is 0.7; classes, where there are any, take turns.
    """
    if count < 1:
        return
    generator = load_generator(folder)
    size = min(generator.resolution, SAMPLE_SIZE)

    @jax.jit
    def draw(generator: Generator, w: jax.Array) -> jax.Array:
        image, _ = generator.synthesis(w)
        return synthesize.to_uint8(resampling.area_reduce(image, generator.resolution // size))

    z = jax.random.normal(jax.random.key(0), (count, generator.z_dim))
    w = generator.mapping(z, labels(generator, count), truncation=0.7)
    rows = tqdm(w[:, None], desc="samples", unit="image")
    pictures = [np.asarray(draw(generator, row)[0]) for row in rows]
    images.write_png(folder / "samples.png", images.contact_sheet(pictures, columns=4))
    print(f"look at {folder / 'samples.png'}")


def run(main: Callable[[], None]) -> None:
    """Runs a command; a UserError ends it with one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
