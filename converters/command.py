"""What the converters' commands share."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np

from repgan_jax.errors import UserError
from repgan_jax.generator import Generator

MEAN_LATENT_SAMPLES = 10_000


def mean_latent(architecture: Mapping, variables: Mapping, *, seed: int = 0) -> np.ndarray:
    """Returns [D]: the mean of w over 10,000 seeded z, for checkpoints that do not store it."""
    zeros = np.zeros(architecture["w_dim"], np.float32)
    generator = Generator.build(architecture, {**variables, "mean_latent": zeros})
    z = jax.random.normal(jax.random.key(seed), (MEAN_LATENT_SAMPLES, generator.z_dim))
    return np.asarray(generator.mapping(z).mean(0))


def describe(folder: Path, architecture: Mapping, variables: Mapping) -> str:
    """Returns a short summary of the generator that was written to `folder`."""
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["synthesis"]["params"]))
    widths = " ".join(f"{size}:{width}" for size, width in architecture["widths"].items())
    return (
        f"{folder}: {architecture['name']}, {architecture['resolution']} px, "
        f"{architecture['mapping_layers']}-layer mapping, widths {widths}, "
        f"{count / 1e6:.1f} M parameters in the synthesis network"
    )


def run(main: Callable[[], None]) -> None:
    """Runs a command; a UserError ends it with one line and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
