"""What several tests share."""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

# Eight virtual devices cost an ordinary test nothing: whoever wants one or two says so (below).
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

import jax
import jax.numpy as jnp
import pytest

from converters import mobilestylegan
from repgan_jax import parallel
from repgan_jax.errors import UserError
from repgan_jax.generator import Generator, load_generator
from repgan_jax.io import checkpoint

ROOT = Path(__file__).parents[1]


@pytest.fixture
def shared() -> Callable[[str], Path]:
    """Finds data that lie beside the repository, or skips the test."""

    def find(path: str) -> Path:
        found = ROOT.parent / "shared" / path
        if not found.exists():
            pytest.skip(f"needs {found}")
        return found

    return find


@pytest.fixture
def use_devices(monkeypatch) -> Callable[[int], None]:
    """Lets `parallel` see only the first so many devices."""
    return lambda count: monkeypatch.setattr(
        parallel, "devices", lambda: jax.local_devices()[:count]
    )


@pytest.fixture(scope="session")
def tiny_generator() -> Generator:
    """A StyleGAN2 of 16 px with normal numbers in every tensor, noise and biases included."""
    widths = {"4": 10, "8": 8, "16": 6}
    sizes = {"z_dim": 12, "w_dim": 12, "mapping_layers": 2}
    empty = Generator.build({"name": "stylegan2", "widths": widths, **sizes}, {})
    key = jax.random.key(0)
    w = jnp.zeros((1, empty.num_layers, 12))
    variables = {
        "mapping": jax.eval_shape(empty.mapping_module.init, key, jnp.zeros((1, 12))),
        "synthesis": jax.eval_shape(empty.synthesis_module.init, key, w),
        "mean_latent": jax.ShapeDtypeStruct((12,), jnp.float32),
    }
    leaves, structure = jax.tree.flatten(variables)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return dataclasses.replace(empty, variables=structure.unflatten(drawn))


@pytest.fixture(scope="session")
def face_generator(request) -> Generator:
    """The real face generator: of $REPGAN_WEIGHTS, weights/face, or converted once and cached."""
    folder = Path(os.environ.get("REPGAN_WEIGHTS", ROOT / "weights" / "face"))
    if not folder.exists():
        folder = request.config.cache.mkdir("weights") / "face"
    if not folder.exists():
        with tempfile.TemporaryDirectory() as downloads:
            try:
                wheel = mobilestylegan.fetch_wheel(Path(downloads))
            except UserError as error:
                pytest.skip(f"needs weights/face: {error}")
            converted = mobilestylegan.convert(mobilestylegan.read_wheel(wheel))
        checkpoint.write_generator(folder, *converted)
    return load_generator(folder)
